"""Rows as dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pytest
import sqlalchemy as sa

from ml_core.exceptions import InvalidNameError
from ml_core.ids import ModelId, VersionId
from ml_core.registry.records import value_of


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Thing:
    model_id: ModelId
    version: VersionId | None
    colour: Colour
    note: str
    count: int = 7


def row(**columns: Any) -> Any:
    with sa.create_engine("sqlite://").connect() as connection:
        return connection.execute(sa.select(*(sa.literal(v).label(k) for k, v in columns.items()))).one()


def test_names_and_enumerations_are_parsed() -> None:
    """Whatever the order of the columns; columns that are no field are left out, and a field may have its default."""
    found = value_of(Thing, row(note="x", other=1, colour="red", model_id="tickets", version=None))
    assert found == Thing(ModelId("tickets"), None, Colour.RED, "x")
    assert isinstance(found.model_id, ModelId)
    assert isinstance(found.colour, Colour)


def test_a_field_that_is_given_comes_from_no_column() -> None:
    """Even if there is one of its name."""
    found = value_of(Thing, row(note="x", colour="red", model_id="tickets", version="1", count=2), note="y", count=3)
    assert found == Thing(ModelId("tickets"), VersionId("1"), Colour.RED, "y", 3)


def test_what_a_field_can_not_be_is_refused() -> None:
    """A name that is not valid, and a field without a column."""
    with pytest.raises(InvalidNameError):
        value_of(Thing, row(note="x", colour="red", model_id="No Name", version="1"))
    with pytest.raises(TypeError, match="note"):
        value_of(Thing, row(colour="red", model_id="tickets", version="1"))
