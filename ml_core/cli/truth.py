"""The label that a person types, checked against what the model answers."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from ml_core.domain.signature import Label, Output, OutputKind
from ml_core.exceptions import InvalidRequestError, ModelNotFoundError, listed
from ml_core.ids import ModelId, TenantId, VersionId

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection
    from ml_core.domain.prediction_record import PredictionRecord


def find_answer(
    database: DatabaseConnection, tenant_id: TenantId, model_id: ModelId, request_id: str
) -> PredictionRecord | None:
    """The last row that is kept of a request; None if nothing is."""
    from ml_core.registry.predictions import PredictionRepository

    found = PredictionRepository(database, tenant_id).list(model_id, request_id=request_id, limit=1).items
    return found[0] if found else None


def output_of(
    database: DatabaseConnection, tenant_id: TenantId, model_id: ModelId, answer: PredictionRecord | None
) -> Output:
    """What the version answers that answered the request; if it is not known, what the model's newest answers.

    Raises:
        ModelNotFoundError: There is no such model.
    """
    from ml_core.registry.versions.repository import VersionRepository

    versions = VersionRepository(database, tenant_id)
    if answer is not None:
        try:
            return versions.get(model_id, VersionId(answer.version)).servable.signature.output
        except ModelNotFoundError:
            pass  # deleted since
    return versions.get(model_id).servable.signature.output


def read_label(text: str, output: Output, *, is_new_class: bool) -> Label:
    """A label as the model would answer it: ``7`` is a text where the classes are texts.

    Args:
        text: As it was typed.
        output: What the model answers.
        is_new_class: Whether the label is a class that the model does not know.

    Raises:
        InvalidRequestError: The model has no such class, or its answers are numbers and the text is not a number.
    """
    value = _as_json(text)
    if output.kind is OutputKind.NUMBER:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidRequestError(
                f"The model answers numbers, and {text!r} is not a number.", remedy="Write it like 12.5.", field="label"
            )
        return value
    if output.kind is not OutputKind.CLASSES or is_new_class:
        return value
    for known in output.classes:
        if text in (known, json.dumps(known)) or (
            known == value and isinstance(known, bool) == isinstance(value, bool)
        ):
            return known
    from ml_core.registry.missing import did_you_mean

    classes = [str(known) for known in output.classes]
    raise InvalidRequestError(
        f"The model has no class {text!r}.",
        remedy=f"{did_you_mean(text, classes)}Its classes are: {listed(classes)}. If the label is a new class, "
        "add --new-class.",
        field="label",
    )


def check_row(row: int, answer: PredictionRecord | None) -> None:
    """Refuse a row that a request in the log does not have.

    Raises:
        InvalidRequestError: Says how many it has.
    """
    if answer is not None and row > answer.row:
        rows = (
            "1 row, which is row 0" if answer.row == 0 else f"{answer.row + 1} rows, which are rows 0 to {answer.row}"
        )
        raise InvalidRequestError(f"The request has {rows}.", remedy="Name one of them with --row.", field="row")


def _as_json(text: str) -> Label:
    """A number or truth value as JSON writes it; anything else is a text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str | int | float) else text
