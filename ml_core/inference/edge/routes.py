"""The platform's own routes: ``predict``, ``feedback`` and the health of a replica."""

from __future__ import annotations

import difflib
from typing import Any

from ml_core.exceptions import InvalidNameError, RegistryUnavailableError
from ml_core.ids import ModelId, TenantId
from ml_core.inference.edge.http import HttpRequest, HttpResponse
from ml_core.inference.edge.render import json_labels, json_probabilities, json_response, record
from ml_core.inference.edge.requests import PARSE_ON_LOOP_BYTES, invalid, parse_object, parse_predict
from ml_core.inference.service import PredictionService
from ml_core.inference.target import Target, no_such_name
from ml_core.registry.predictions.labels import check_label

_LABEL_FIELDS = ("label", "request_id", "row")


class PlatformRoutes:
    """The routes in the platform's own format."""

    def __init__(self, service: PredictionService) -> None:
        self._service = service
        self._max_rows = service.limits.max_rows

    async def predict(self, request: HttpRequest) -> HttpResponse:
        """``POST /t/{tenant}/models/{model}/predict``."""
        if len(request.body) <= PARSE_ON_LOOP_BYTES:
            body = parse_predict(request.body, self._max_rows)
        else:
            body = await self._service.on_thread(parse_predict, request.body, self._max_rows)
        target = Target(request.tenant, request.model, body.environment, body.version, body.key, request.request_id)
        prediction = await self._service.predict(target, body, proba=body.proba, deadline=request.deadline)
        version, answer = prediction.version, prediction.answer
        data: dict[str, Any] = {
            "predictions": json_labels(answer.predictions),
            "model": version.ref.model_id,
            "version": version.ref.version,
            "rollout": prediction.rollout,
            "request_id": request.request_id,
        }
        if body.proba:
            output = version.signature.output
            data["probabilities"] = (
                None if answer.probabilities is None else json_probabilities(answer.probabilities, output)
            )
        if body.unknown_values:
            data["unknown_values"] = body.unknown_values
        response = json_response(data)
        record(self._service, request, target, prediction, body.size)
        return response

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


def _parse_label(content: bytes) -> dict[str, Any]:
    """Parse the body of ``feedback``.

    Raises:
        InvalidRequestError: The body is malformed; names the field.
    """
    data = parse_object(content)
    for name in data:
        if name not in _LABEL_FIELDS:
            near = difflib.get_close_matches(name[:40], _LABEL_FIELDS, n=1)
            known = f"Did you mean {near[0]!r}?" if near else f"Known fields: {', '.join(_LABEL_FIELDS)}."
            raise invalid(name[:100], "is not known", known)
    for name in ("request_id", "label"):
        if name not in data:
            raise invalid(name, "is missing", 'Send {"request_id": …, "row": 0, "label": …}.')
    label = {"request_id": data["request_id"], "row": data.get("row", 0), "label": data["label"]}
    check_label(label["request_id"], label["row"], label["label"])
    return label
