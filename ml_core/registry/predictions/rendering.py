"""Answered requests as rows in the text form of ``COPY``.

A row's input is written as one JSON object of what the version read, each column of the signature. A number is a float,
a boolean true or false, a datetime ISO 8601 in UTC, what is missing null. An input that was kept can be sent again.

Its digest is the sha256 of the canonical values, columns sorted by name: first those of numbers, booleans and datetimes
as little-endian float64 (NaN where missing), then a JSON list of those of categories and texts, if there are such
columns. So equal inputs have equal digests however they were sent. JSON of the whole row would take three times as
long, which the serving rate feels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import repeat
from math import isnan
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from orjson import OPT_SERIALIZE_NUMPY, dumps

from ml_core.domain.columns import ColumnKind, Columns
from ml_core.domain.prediction_record import AnsweredRequest
from ml_core.domain.signature import Signature
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.domain.values import category_text

COLUMNS = (
    "tenant_id",
    "model_id",
    "version",
    "environment",
    "rollout",
    "at",
    "request_id",
    "latency_ms",
    "row_number",
    "input_digest",
    "inputs",
    "prediction",
    "probabilities",
)
"""The order of the columns in a rendered row; ``at`` is in microseconds since 1970-01-01 UTC, ``latency_ms`` too."""

_NULL = "\\N"
_INPUTS = COLUMNS.index("inputs")
_REMEMBERED_SIGNATURES = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class RenderedRequest(NamedTuple):
    """An answered request as it is written.

    Attributes:
        day: When it was answered, whole days since 1970-01-01 UTC.
        policy: The tenant's policy at that moment.
        rows: The number of its rows.
        lines: One for each row, in UTF-8.
    """

    tenant_id: str
    model_id: str
    day: int
    policy: PredictionPolicy
    rows: int
    lines: bytes


@dataclass(slots=True, eq=False)
class RenderedRequests:
    """Rendered requests of a model, a day and a policy, which are written together.

    Attributes:
        day: When they were answered, whole days since 1970-01-01 UTC.
        parts: The lines of each request.
        row_counts: The number of its rows.
    """

    tenant_id: str
    model_id: str
    day: int
    policy: PredictionPolicy
    parts: list[bytes]
    row_counts: list[int]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(self.row_counts)

    def parts_without_inputs(self) -> list[bytes]:
        """The lines of each request, without the inputs that they hold."""
        if self.policy is not PredictionPolicy.INPUTS:
            return self.parts
        return [_without_inputs(lines.decode()).encode() for lines in self.parts]

    def split(self) -> tuple[RenderedRequests, RenderedRequests]:
        """Its two halves; there is more than one request."""
        middle = len(self.parts) // 2
        first, second = slice(middle), slice(middle, None)
        return (
            replace(self, parts=self.parts[first], row_counts=self.row_counts[first]),
            replace(self, parts=self.parts[second], row_counts=self.row_counts[second]),
        )


def _without_inputs(lines: str) -> str:
    """Rendered lines, without the inputs that they hold."""
    # Not splitlines: JSON may hold other ends of lines than this one.
    found = [line.split("\t") for line in lines.split("\n")[:-1]]
    return "".join("\t".join([*line[:_INPUTS], _NULL, *line[_INPUTS + 1 :]]) + "\n" for line in found)


class RequestRenderer:
    """Renders requests of any versions."""

    def __init__(self) -> None:
        self._renderers: dict[int, Renderer] = {}  # by the id of the signature, which each keeps alive

    def render(self, request: AnsweredRequest) -> RenderedRequest:
        """Render a request: about 4 microseconds for each row, 8 with its input.

        Raises:
            TypeError, ValueError: A value has no JSON form.
        """
        renderer = self._renderers.get(id(request.signature))
        if renderer is None:
            if len(self._renderers) >= _REMEMBERED_SIGNATURES:
                self._renderers.clear()  # bounds the memory; renderers are cheap to make again
            renderer = self._renderers[id(request.signature)] = Renderer(request.signature)
        lines = renderer.render(request).encode()
        return RenderedRequest(request.tenant_id, request.model_id, request.day, request.policy, request.rows, lines)


class Renderer:
    """Renders requests of one signature; what follows from the signature alone is worked out once.

    Args:
        signature: Of the version that answered.
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        kinds = {column.name: column.kind for column in signature.inputs}
        self._numeric = sorted(name for name, kind in kinds.items() if kind.is_numeric)
        self._strings = sorted(name for name, kind in kinds.items() if not kind.is_numeric)
        self._names = [*self._numeric, *self._strings]
        self._arrays = _getter(self._numeric)
        self._converted = [
            (i, _CONVERSIONS[kinds[name]]) for i, name in enumerate(self._numeric) if kinds[name] in _CONVERSIONS
        ]
        self._classes = [category_text(label) for label in signature.output.classes]
        self._answers = {label: _json(dumps(label)) for label in signature.output.classes if isinstance(label, str)}

    def render(self, request: AnsweredRequest) -> str:
        """The lines of a request, one a row.

        Args:
            request: What was answered.

        Raises:
            TypeError, ValueError: A value has no JSON form.
        """
        request_id = request.request_id
        if not request_id.isalnum():
            request_id = request_id.translate(_ESCAPES)
        # Parsed names hold nothing that ``COPY`` reads as more than itself.
        head = (
            f"{request.tenant_id}\t{request.model_id}\t{request.version}\t{request.environment or _NULL}\t"
            f"{request.rollout}\t{int(request.at * 1e6)}\t{request_id}\t{int(request.latency_ms * 1e3)}\t"
        )
        numbers, texts = self._packed(request.columns, request.rows)
        probabilities = self._probabilities(request)
        inputs = self._inputs(numbers, texts, request.rows) if request.policy is PredictionPolicy.INPUTS else None
        lines = []
        for row, label in enumerate(request.predictions.tolist()):
            digest = sha256(numbers[row] + dumps(texts[row]) if texts else numbers[row]).hexdigest()
            kept = _NULL if inputs is None else inputs[row]
            answer = self._answers.get(label) or _json(dumps(label, option=OPT_SERIALIZE_NUMPY))
            given = probabilities[row] if probabilities else _NULL
            lines.append(f"{head}{row}\t\\\\x{digest}\t{kept}\t{answer}\t{given}\n")
        return "".join(lines)

    def _packed(self, columns: Columns, rows: int) -> tuple[list[bytes], list[tuple[str | None, ...]]]:
        """The numbers and the strings of each row as they are digested; no strings without such columns."""
        arrays = self._arrays(columns)
        if rows == 1:
            numbers = [b"".join(arrays)]  # joins bytes, in a third of the time of arrays
        else:
            width, packed = 8 * len(arrays), np.array(arrays, "<f8").T.tobytes()
            numbers = [packed[row * width : (row + 1) * width] for row in range(rows)]
        texts = [columns[name].tolist() for name in self._strings]
        return numbers, list(zip(*texts, strict=True)) if texts else []

    def _inputs(self, numbers: Sequence[bytes], texts: Sequence[tuple[str | None, ...]], rows: int) -> list[str]:
        """JSON of each row as the version read it, see the module."""
        values = np.frombuffer(b"".join(numbers), "<f8").reshape(rows, len(self._numeric)).tolist()
        return [_kept(row) for row in self._rows(values, texts)]

    def _rows(self, values: Sequence[list[Any]], texts: Sequence[tuple[str | None, ...]]) -> Iterator[dict[str, Any]]:
        for row, strings in zip(values, texts or repeat(()), strict=False):
            for index, convert in self._converted:
                row[index] = convert(row[index])
            yield dict(zip(self._names, (*row, *strings), strict=True))

    def _probabilities(self, request: AnsweredRequest) -> list[str]:
        if request.probabilities is None:
            return []
        return [_json(dumps(dict(zip(self._classes, row, strict=True)))) for row in request.probabilities.tolist()]


def _getter(names: Sequence[str]) -> Callable[[Columns], tuple[Any, ...]]:
    """Gets the arrays of columns, in a third of the time of a loop."""
    # Of one name it would be the array, and of none nothing.
    return itemgetter(*names) if len(names) > 1 else lambda columns: tuple(columns[name] for name in names)


def _truth(value: float) -> bool | None:
    return None if isnan(value) else value == 1.0


def _moment(seconds: float) -> str | float | None:
    if isnan(seconds):
        return None
    try:
        return (_EPOCH + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        return seconds  # outside the years 1 to 9999, which a data frame can hold


_CONVERSIONS: dict[ColumnKind, Callable[[float], Any]] = {ColumnKind.BOOLEAN: _truth, ColumnKind.DATETIME: _moment}


def _kept(row: Mapping[str, Any]) -> str:
    content = dumps(row)
    return _json(_without_nul(row) if b"\\u0000" in content else content)


def _json(content: bytes) -> str:
    text = content.decode()
    return text.replace("\\", "\\\\") if "\\" in text else text  # JSON holds no tab and no line's end


def _without_nul(row: Mapping[str, Any]) -> bytes:
    """JSON that Postgres can store: it has no NUL; the character for "unknown" replaces it."""
    replaced = {name: value.replace("\0", "\ufffd") if isinstance(value, str) else value for name, value in row.items()}
    return dumps({name.replace("\0", "\ufffd"): value for name, value in replaced.items()})
