"""JSON for the database: understood, or refused by name."""

from __future__ import annotations

import enum
import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from ml_core.database.strict_json import MAX_DEPTH, dumps
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import TenantId


def test_numpy_paths_tuples_and_ids_are_understood() -> None:
    """Values as training code has them come out as plain JSON."""
    value = {
        "i": np.int64(3),
        "f": np.float32(0.5),
        "b": np.bool_(True),
        "a": np.array([[1, 2], [3, 4]]),
        "t": (1, "x"),
        "p": Path("/tmp/x"),
        "n": TenantId("acme"),
        1: None,
    }
    assert orjson.loads(dumps(value)) == {
        "i": 3,
        "f": 0.5,
        "b": True,
        "a": [[1, 2], [3, 4]],
        "t": [1, "x"],
        "p": "/tmp/x",
        "n": "acme",
        "1": None,
    }


class Level(str, enum.Enum):  # noqa: UP042 - as people write it, whose str() is Level.HIGH
    HIGH = "high"


class Count(enum.IntEnum):
    TWO = 2


class Kind(enum.Enum):
    PAIR = (1, "x")


def test_an_enum_is_its_value() -> None:
    """Also where it is a text or a number besides, and as a key."""
    value = {"level": Level.HIGH, "count": Count.TWO, "kind": Kind.PAIR, Level.HIGH: 1}
    assert orjson.loads(dumps(value)) == {"level": "high", "count": 2, "kind": [1, "x"], "high": 1}


@pytest.mark.parametrize("value", [{1: "int", "1": "str"}, {True: 1, "True": 2}, {Count.TWO: 1, "2": 2}])
def test_keys_of_the_same_text_are_refused(value: Any) -> None:
    """Neither of two values is lost without a word."""
    with pytest.raises(InvalidRequestError, match="two of its keys are"):
        dumps({"outer": value})


def test_what_is_nested_too_deep_is_refused() -> None:
    """As deep as is allowed is stored; deeper is the caller's error, not the interpreter's limit."""
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = {"a": value}
    assert orjson.loads(dumps(value)) == value
    for deeper in ({"a": value}, [value]):
        with pytest.raises(InvalidRequestError, match="deeper than 100 levels"):
            dumps(deeper)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, np.float64("nan"), {1}, b"x", object(), 2**63, np.array([math.nan]), "a\0", "\ud800"]
)
def test_what_has_no_json_form_is_refused_with_its_place(value: Any) -> None:
    """The error says where in the value it is."""
    with pytest.raises(InvalidRequestError) as caught:
        dumps({"outer": [0, {"inner": value}]})
    assert str(caught.value.attributes()["field"]).startswith("outer[1].inner")
