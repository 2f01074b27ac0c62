"""The platform's own routes, ``predict``, ``explain``, ``feedback`` and the health of a replica, and their JSON.

Errors name the path of the invalid field. Labels keep their type; numbers that are not finite are null.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ml_core.domain.columns import Columns
from ml_core.domain.explanation import MAX_EXPLAINED_ROWS
from ml_core.domain.intervals import check_coverage
from ml_core.domain.signature import Output, Row, Signature
from ml_core.domain.values import category_text
from ml_core.exceptions import InvalidNameError, InvalidRequestError, RegistryUnavailableError, RequestTooLargeError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.inference.edge.http import HttpRequest, HttpResponse, invalid, json_response
from ml_core.inference.routing import DEFAULT_ENVIRONMENT, Target, key_text, no_such_name
from ml_core.inference.service import Prediction, PredictionService
from ml_core.models.loading import check_scores, labels_to_json
from ml_core.registry.predictions.labels import check_label

PARSE_ON_LOOP_BYTES = 256 * 1024
"""A larger body is parsed on a thread, so that several in a row do not block the event loop. orjson holds the
interpreter lock while it parses, about 3 ms per megabyte."""
RENDER_ON_LOOP_VALUES = 2_000
"""An answer of more predictions and probabilities is rendered on a thread: a value takes up to half a microsecond."""
_MAX_STICKY_KEY = 256
_LABEL_FIELDS = ("label", "request_id", "row")


class PlatformRoutes:
    """The routes in the platform's own format."""

    def __init__(self, service: PredictionService) -> None:
        self._service = service
        self._max_rows = service.limits.max_rows

    async def predict(self, request: HttpRequest) -> HttpResponse:
        """``POST /t/{tenant}/models/{model}/predict``."""
        if len(request.body) <= PARSE_ON_LOOP_BYTES:
            body, target = await self._parse(request, parse_predict, self._max_rows)
        else:
            async with self._service.room_for(request.tenant, request.model, len(request.body)):
                body, target = await self._parse(request, parse_predict, self._max_rows)
        wants_more = body.proba or body.scores
        prediction = await self._service.predict(target, body, proba=wants_more, deadline=request.deadline)
        if is_short_answer(prediction):
            response = predict_response(body, prediction, request.request_id)
        else:
            arguments = body, prediction, request.request_id
            response = await self._service.on_thread(request.tenant, predict_response, *arguments)
        if self._service.recorder is not None:
            await self._service.recorder.record(target, prediction, request.arrived, body.size, self._service.threads)
        return response

    async def explain(self, request: HttpRequest) -> HttpResponse:
        """``POST /t/{tenant}/models/{model}/explain``: the body of ``predict`` without what else it may answer."""
        body, target = await self._parse(request, parse_explain, min(self._max_rows, MAX_EXPLAINED_ROWS))
        version, side, explanation = await self._service.explain(target, body, request.deadline)
        data: dict[str, Any] = {
            "method": explanation.method,
            "unit": explanation.unit,
            "model": version.ref.model_id,
            "version": version.ref.version,
            "rollout": side,
            "request_id": request.request_id,
        }
        if body.unknown_values:
            data["unknown_values"] = body.unknown_values
        # On the thread: an answer may have some megabytes.
        return await self._service.explanations.on_thread(
            request.tenant, lambda: json_response({"explanations": explanation.to_json(), **data})
        )

    async def _parse(
        self, request: HttpRequest, parse: Callable[[bytes, int], PredictBody], max_rows: int
    ) -> tuple[PredictBody, Target]:
        if len(request.body) <= PARSE_ON_LOOP_BYTES:
            body = parse(request.body, max_rows)
        else:
            body = await self._service.on_thread(request.tenant, parse, request.body, max_rows)
        names = request.tenant, request.model, body.environment, body.version
        target = Target(*names, body.key, request.request_id, request.is_only)
        return body, target

    async def feedback(self, request: HttpRequest) -> HttpResponse:
        """``POST /t/{tenant}/models/{model}/feedback``: ``{"request_id": …, "row": 0, "label": …}``, scope ``label``.

        200 once the label is stored. A later label for the same row replaces it. The prediction need not exist: it
        may not be written to the prediction log yet.
        """
        body = _parse_label(request.body)
        try:
            tenant_id, model_id = TenantId(request.tenant), ModelId(request.model)
        except InvalidNameError as error:
            raise no_such_name(error) from None
        if self._service.recorder is None:
            raise RegistryUnavailableError(
                "This cell does not record predictions.", remedy="Send the label to a cell that does."
            )
        await self._service.recorder.add_label(tenant_id, model_id, body["request_id"], body["row"], body["label"])
        return json_response({"model": model_id, **body})

    # Health needs no authentication, and therefore names no tenant and no model.

    async def healthz(self, _: HttpRequest) -> HttpResponse:
        """``GET /healthz``: 200 while the process runs; shows the generation and the failed loads."""
        return json_response(self._service.describe())

    async def readyz(self, _: HttpRequest) -> HttpResponse:
        """``GET /readyz``: 200 after the assignment was read, 503 before."""
        response = json_response(self._service.describe(), 200 if self._service.is_ready else 503)
        if not self._service.is_ready:
            response.headers = {b"retry-after": b"1"}
        return response


def is_short_answer(prediction: Prediction) -> bool:
    """Whether an answer is rendered soon."""
    predictions, probabilities, _ = prediction.answer
    values = predictions.size if probabilities is None else predictions.size + probabilities.size
    return values <= RENDER_ON_LOOP_VALUES


@dataclass(slots=True)
class PredictBody:
    """The body of ``predict``; implements ``Table``.

    Attributes:
        raw: One JSON object per row.
        size: Bytes of the body.
        proba: Whether to predict probabilities.
        scores: Whether to predict anomaly scores.
        interval: The coverage of the intervals to predict.
        environment: The environment whose rollout answers.
        version: The version that answers instead of the environment's.
        key: The key for the choice of a canary.
        strict: Whether unknown columns are refused.
        unknown_values: The number of values in unknown columns; set by ``columns``.
    """

    raw: list[Row]
    size: int
    proba: bool = False
    scores: bool = False
    interval: float | None = None
    environment: str = DEFAULT_ENVIRONMENT
    version: str | None = None
    key: str | None = None
    strict: bool = False
    unknown_values: int = 0

    @property
    def rows(self) -> int:
        """See ``Table``."""
        return len(self.raw)

    def columns(self, signature: Signature) -> Columns:
        """See ``Table``."""
        columns, self.unknown_values = signature.read_rows(self.raw, strict=self.strict)
        return columns

    def first_value(self, column: str, signature: Signature) -> str | None:  # noqa: ARG002 - rows have names
        """See ``Table``."""
        return key_text(self.raw[0].get(column))


def parse_predict(body: bytes, max_rows: int) -> PredictBody:
    """Parse the body of ``predict``.

    Raises:
        InvalidRequestError: The body is malformed; names the field.
        InvalidNameError: A name in the body is invalid.
        RequestTooLargeError: The body has more than ``max_rows`` rows.
    """
    return _parse_rows(body, max_rows, _OPTIONS)


def parse_explain(body: bytes, max_rows: int) -> PredictBody:
    """Parse the body of ``explain``, that of ``predict`` without ``proba``, ``scores`` and ``interval``.

    Raises as ``parse_predict``.
    """
    return _parse_rows(body, max_rows, _EXPLAIN_OPTIONS)


def _parse_rows(body: bytes, max_rows: int, options: Mapping[str, Callable[[str, Any], Any]]) -> PredictBody:
    data = parse_object(body)
    rows = data.get("rows")
    if type(rows) is not list or not rows:
        raise invalid("rows", "must be a list of at least one object", 'Send {"rows": [{column: value}]}.')
    check_rows(len(rows), max_rows)
    for index, row in enumerate(rows):
        if type(row) is not dict:
            raise invalid(f"rows[{index}]", "must be an object", "Send one object per row: column → value.")
    parsed = PredictBody(rows, len(body))
    if len(data) > 1:
        for name, value in data.items():
            if name != "rows":
                _set_option(parsed, name, value, options)
    return parsed


def parse_object(body: bytes | memoryview) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        InvalidRequestError: The body is not JSON or not an object.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(
            f"The body is not valid JSON: {error}.", remedy="Send JSON in UTF-8; write NaN as null.", field="body"
        ) from None
    if type(data) is not dict:
        raise invalid("body", "must be a JSON object", 'Send an object, such as {"rows": […]}.')
    return data


def check_rows(rows: int, max_rows: int) -> None:
    """Check the number of rows.

    Raises:
        RequestTooLargeError: There are more than ``max_rows``.
    """
    if rows > max_rows:
        raise RequestTooLargeError(
            f"The request has {rows:,} rows; the limit is {max_rows:,}.",
            remedy="Send fewer rows per request.",
            limit=max_rows,
            actual=rows,
        )


def predict_response(body: PredictBody, prediction: Prediction, request_id: str) -> HttpResponse:
    """The response to ``predict``."""
    version, answer = prediction.version, prediction.answer
    data: dict[str, Any] = {
        "predictions": json_labels(answer.predictions),
        "model": version.ref.model_id,
        "version": version.ref.version,
        "rollout": prediction.rollout,
        "request_id": request_id,
    }
    output = version.signature.output
    if body.proba:
        data["probabilities"] = (
            None if answer.probabilities is None else json_probabilities(answer.probabilities, output)
        )
    if body.scores:
        check_scores(version)
        data |= {"scores": answer.scores, "threshold": output.threshold}
    if body.interval is not None:
        data["intervals"] = output.intervals(answer.predictions, body.interval)
    if body.unknown_values:
        data["unknown_values"] = body.unknown_values
    return json_response(data)


def json_labels(predictions: NDArray[Any]) -> Any:
    """Convert predictions ``(n_rows,)`` for ``json_response``."""
    if predictions.dtype == np.float64 and predictions.flags.c_contiguous:
        return predictions  # orjson writes the array itself, several times faster than a list
    return labels_to_json(predictions)


def json_probabilities(probabilities: NDArray[np.float64], output: Output) -> list[dict[str, float]]:
    """Convert probabilities ``(n_rows, n_classes)`` to one object per row: text of the class → probability."""
    names = [category_text(label) for label in output.classes]
    return [dict(zip(names, row, strict=True)) for row in probabilities.tolist()]


def _parse_label(content: bytes) -> dict[str, Any]:
    """Parse the body of ``feedback``.

    Raises:
        InvalidRequestError: The body is malformed; names the field.
    """
    data = parse_object(content)
    for name in data:
        if name not in _LABEL_FIELDS:
            raise _unknown(name, _LABEL_FIELDS)
    for name in ("request_id", "label"):
        if name not in data:
            raise invalid(name, "is missing", 'Send {"request_id": …, "row": 0, "label": …}.')
    label = {"request_id": data["request_id"], "row": data.get("row", 0), "label": data["label"]}
    check_label(label["request_id"], label["row"], label["label"])
    return label


def _set_option(parsed: PredictBody, name: str, value: Any, options: Mapping[str, Callable[[str, Any], Any]]) -> None:
    check = options.get(name)
    if check is None:
        raise _unknown(name, ("rows", *sorted(options)))
    setattr(parsed, name, check(name, value))


def _unknown(name: str, fields: Sequence[str]) -> InvalidRequestError:
    near = difflib.get_close_matches(name[:40], fields, n=1)
    remedy = f"Did you mean {near[0]!r}?" if near else f"Known fields: {', '.join(fields)}."
    return invalid(name[:100], "is not known", remedy)


def _boolean(name: str, value: Any) -> bool:
    if type(value) is not bool:
        raise invalid(name, "must be true or false", "Correct or omit it.")
    return value


def _coverage(_: str, value: Any) -> float | None:
    return None if value is None else check_coverage(value)


def _environment(name: str, value: Any) -> str:
    return DEFAULT_ENVIRONMENT if value is None else _name(name, value, EnvironmentName)


def _version(name: str, value: Any) -> str | None:
    return None if value is None else _name(name, value, VersionId)


def _name(name: str, value: Any, parse: Callable[[str], str]) -> str:
    try:
        return parse(value)
    except InvalidNameError as error:
        error.details["field"] = name
        raise


def sticky_key(name: str, value: Any) -> str | None:
    """Check the key of a request.

    Raises:
        InvalidRequestError: The key is not a string of 1 to 256 characters.
    """
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= _MAX_STICKY_KEY):
        raise invalid(name, f"must be a string of 1 to {_MAX_STICKY_KEY} characters", "Correct or omit it.")
    return value


_OPTIONS: Mapping[str, Callable[[str, Any], Any]] = {
    "proba": _boolean,
    "scores": _boolean,
    "interval": _coverage,
    "environment": _environment,
    "version": _version,
    "key": sticky_key,
    "strict": _boolean,
}
_NOT_EXPLAINED = frozenset({"proba", "scores", "interval"})
_EXPLAIN_OPTIONS = {name: check for name, check in _OPTIONS.items() if name not in _NOT_EXPLAINED}
