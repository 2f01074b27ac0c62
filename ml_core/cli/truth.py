"""The label that a person types, checked against what the model answers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ml_core.cli.options import json_or_text
from ml_core.domain.signature import Label, Output, OutputKind, Signature
from ml_core.exceptions import InvalidRequestError, ModelNotFoundError, did_you_mean, listed

if TYPE_CHECKING:
    from ml_core.api.schemas.predictions import Prediction
    from ml_core.client import MLClient


def output_of(client: MLClient, model_id: str, answers: Sequence[Prediction]) -> Output:
    """What the version answers that answered a request; if it is not known, what the model's newest answers.

    Args:
        client: Of the platform.
        model_id: The model.
        answers: What is kept of the request.

    Raises:
        ModelNotFoundError: There is no such model.
    """
    if answers:
        try:
            return _output(client, model_id, answers[-1].version)
        except ModelNotFoundError:
            pass  # the version was deleted since
    return _output(client, model_id, None)


def _output(client: MLClient, model_id: str, version: str | None) -> Output:
    return Signature.from_json(client.versions.get(model_id, version).signature).output


def read_label(text: str, output: Output, *, is_new_class: bool) -> Label:
    """A label as the model would answer it: ``7`` is a text where the classes are texts.

    Args:
        text: As it was typed.
        output: What the model answers.
        is_new_class: Whether the label is a class that the model does not know.

    Raises:
        InvalidRequestError: The model has no such class, or its answers are numbers and the text is not a number.
    """
    parsed = json_or_text(text)
    value: Label = parsed if isinstance(parsed, str | int | float) else text
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
    classes = [str(known) for known in output.classes]
    raise InvalidRequestError(
        f"The model has no class {text!r}.",
        remedy=f"{did_you_mean(text, classes)}Its classes are: {listed(classes)}. If the label is a new class, "
        "add --new-class.",
        field="label",
    )


def check_row(row: int, answers: Sequence[Prediction]) -> None:
    """Refuse a row that a request in the log does not have.

    Raises:
        InvalidRequestError: Says how many it has.
    """
    last = max((answer.row for answer in answers), default=row)
    if row > last:
        rows = "1 row, which is row 0" if last == 0 else f"{last + 1} rows, which are rows 0 to {last}"
        raise InvalidRequestError(f"The request has {rows}.", remedy="Name one of them with --row.", field="row")
