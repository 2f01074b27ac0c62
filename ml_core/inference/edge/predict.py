"""``predict``: predictions for rows in JSON."""

from __future__ import annotations

from typing import Any

from ml_core.inference.edge.http import HttpRequest, HttpResponse
from ml_core.inference.edge.render import json_labels, json_probabilities, json_response, record
from ml_core.inference.edge.requests import PARSE_ON_LOOP_BYTES, parse_predict
from ml_core.inference.service import PredictionService
from ml_core.inference.target import Target


class PredictRoutes:
    """The route of the platform's own predict format."""

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
