"""Answered requests as rows in the text form of ``COPY``.

A row's input is written as one JSON object of what the version read, each column of the signature. A number is a float,
a boolean true or false, a datetime ISO 8601 in UTC, what is missing null. An input that was kept can be sent again.

Its digest is the sha256 of the canonical values, columns sorted by name: first those of numbers, booleans and datetimes
as little-endian float64 (NaN where missing), then a JSON list of those of categories and texts, if there are such
columns. So equal inputs have equal digests however they were sent. JSON of the whole row would take three times as
long, which the serving rate feels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import repeat
from math import isnan
from typing import Any

import numpy as np
from orjson import OPT_SERIALIZE_NUMPY, dumps

from ml_core.domain.columns import ColumnKind
from ml_core.domain.prediction_record import AnsweredRequest, RowPacker
from ml_core.domain.signature import Signature
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.domain.values import category_text

COLUMNS = (
    "tenant_id",
    "at",
    "request_id",
    "model_id",
    "version",
    "environment",
    "rollout",
    "latency_ms",
    "row_number",
    "input_digest",
    "inputs",
    "prediction",
    "probabilities",
)
"""The order of the columns in a rendered row; ``at`` is in seconds since 1970-01-01 UTC."""

_NULL = "\\N"
_INPUTS = COLUMNS.index("inputs")
_DAY_S = 86_400
_RENDERED_BYTES = 250  # of one beside its text
_REMEMBERED_SIGNATURES = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


@dataclass(slots=True, eq=False)
class RenderedRequests:
    """Answered requests of a model and a day as they are written: their lines, and the policy of the moment.

    Attributes:
        parts: The lines of each request.
        row_counts: The number of its rows.
    """

    tenant_id: str
    model_id: str
    at: float
    policy: PredictionPolicy
    parts: list[str]
    row_counts: list[int]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return sum(self.row_counts)

    @property
    def memory_bytes(self) -> int:
        """Bytes that holding it takes, roughly."""
        return _RENDERED_BYTES * len(self.parts) + sum(map(len, self.parts))

    def parts_without_inputs(self) -> list[str]:
        """The lines of each request, without the inputs that they hold."""
        if self.policy is not PredictionPolicy.INPUTS:
            return self.parts
        return [_without_inputs(lines) for lines in self.parts]

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

    def render(self, requests: Iterable[AnsweredRequest]) -> tuple[Collection[RenderedRequests], list[AnsweredRequest]]:
        """Render requests, those of a model and a day together, in their order.

        Args:
            requests: Answered requests whose policy is not ``NOTHING``.

        Returns:
            What was rendered, and the requests that have a value without a JSON form.
        """
        rendered: dict[tuple[str, str, PredictionPolicy, float], RenderedRequests] = {}
        refused = []
        for request in requests:
            try:
                lines = self._renderer(request).render(request)
            except (TypeError, ValueError):
                refused.append(request)
                continue
            key = (request.tenant_id, request.model_id, request.policy, request.at // _DAY_S)
            together = rendered.get(key)
            if together is None:
                together = rendered[key] = RenderedRequests(*key[:2], request.at, request.policy, [], [])
            together.parts.append(lines)
            together.row_counts.append(request.rows)
        return rendered.values(), refused

    def _renderer(self, request: AnsweredRequest) -> Renderer:
        renderer = self._renderers.get(id(request.signature))
        if renderer is None:
            if len(self._renderers) >= _REMEMBERED_SIGNATURES:
                self._renderers.clear()
            renderer = self._renderers[id(request.signature)] = Renderer(request.signature)
        return renderer


class Renderer:
    """Renders requests of one signature; what follows from the signature alone is worked out once.

    Args:
        signature: Of the version that answered.
    """

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        packer, kinds = RowPacker(signature), {column.name: column.kind for column in signature.inputs}
        self._names = [*packer.numeric, *packer.strings]
        self._width = len(packer.numeric)
        self._converted = [
            (i, _CONVERSIONS[kinds[name]]) for i, name in enumerate(packer.numeric) if kinds[name] in _CONVERSIONS
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
        # Parsed names hold nothing that ``COPY`` reads as more than itself.
        head = (
            f"{request.tenant_id}\t{request.at!r}\t{request.request_id.translate(_ESCAPES)}\t{request.model_id}\t"
            f"{request.version}\t{request.environment or _NULL}\t{request.rollout}\t{request.latency_ms:.3f}"
        )
        inputs = [_kept(row) for row in self._rows(request)] if request.policy is PredictionPolicy.INPUTS else ()
        probabilities = self._probabilities(request)
        lines = []
        labels = request.predictions.tolist()
        for number, (content, label) in enumerate(zip(self._contents(request), labels, strict=True)):
            digest = sha256(content).hexdigest()
            kept = inputs[number] if inputs else _NULL
            answer = self._answers.get(label) or _json(dumps(label, option=OPT_SERIALIZE_NUMPY))
            given = probabilities[number] if probabilities else _NULL
            lines.append(f"{head}\t{number}\t\\\\x{digest}\t{kept}\t{answer}\t{given}\n")
        return "".join(lines)

    def _contents(self, request: AnsweredRequest) -> list[bytes]:
        """What each row's digest is of, see the module."""
        numbers, texts, width = request.numbers, request.texts, 8 * self._width
        contents = [numbers]
        if request.rows > 1:
            contents = [numbers[row * width : (row + 1) * width] for row in range(request.rows)]
        return [content + dumps(row) for content, row in zip(contents, texts, strict=True)] if texts else contents

    def _rows(self, request: AnsweredRequest) -> Iterator[dict[str, Any]]:
        """Each row as the version read it, see the module."""
        numbers = np.frombuffer(request.numbers, "<f8").reshape(request.rows, self._width).tolist()
        for row, texts in zip(numbers, request.texts or repeat(()), strict=False):
            for index, convert in self._converted:
                row[index] = convert(row[index])
            yield dict(zip(self._names, (*row, *texts), strict=True))

    def _probabilities(self, request: AnsweredRequest) -> list[str]:
        if request.probabilities is None:
            return []
        return [_json(dumps(dict(zip(self._classes, row, strict=True)))) for row in request.probabilities.tolist()]


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
