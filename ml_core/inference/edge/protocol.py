"""The routes of the Open Inference Protocol v2, under the prefix of a tenant."""

from __future__ import annotations

from importlib import metadata

from ml_core.inference.edge.http import HttpRequest, HttpResponse
from ml_core.inference.edge.oip import parse_infer
from ml_core.inference.edge.oip_answers import describe_config, describe_model, infer_response
from ml_core.inference.edge.render import json_response, record
from ml_core.inference.edge.requests import PARSE_ON_LOOP_BYTES
from ml_core.inference.service import PredictionService
from ml_core.inference.target import Target

_DISTRIBUTION = "ml-core-platform"


class ProtocolRoutes:
    """The routes of the protocol."""

    def __init__(self, service: PredictionService) -> None:
        self._service = service
        self._max_rows = service.limits.max_rows
        self._release = metadata.version(_DISTRIBUTION)

    async def server(self, _: HttpRequest) -> HttpResponse:
        """``GET /t/{tenant}/v2``."""
        extensions = ["binary_tensor_data", "model_configuration"]
        return json_response({"name": "mlcore", "version": self._release, "extensions": extensions})

    async def live(self, _: HttpRequest) -> HttpResponse:
        """``GET /t/{tenant}/v2/health/live``."""
        # A replica that authenticates the caller is alive.
        return json_response({"live": True})

    async def ready(self, _: HttpRequest) -> HttpResponse:
        """``GET /t/{tenant}/v2/health/ready``."""
        return json_response({"ready": self._service.is_ready})

    async def model(self, request: HttpRequest) -> HttpResponse:
        """``GET /t/{tenant}/v2/models/{model}[/versions/{version}]``."""
        version = await self._service.describe_version(_target(request))
        return json_response(describe_model(request.model, version.ref.version, version.signature))

    async def config(self, request: HttpRequest) -> HttpResponse:
        """``GET …/config``: the model configuration extension, which Triton's clients use."""
        version = await self._service.describe_version(_target(request))
        ref, signature = version.ref, version.signature
        return json_response(describe_config(request.model, ref.version, signature, self._max_rows))

    async def model_ready(self, request: HttpRequest) -> HttpResponse:
        """``GET …/ready``: whether the model can answer; loads the version if needed.

        Raises:
            ModelNotReadyError: The version is not loaded.
        """
        version = await self._service.ensure_ready(_target(request), request.deadline)
        return json_response({"name": request.model, "version": version.ref.version, "ready": True})

    async def infer(self, request: HttpRequest) -> HttpResponse:
        """``POST …/infer``."""
        header_length = request.header_length()
        if len(request.body) <= PARSE_ON_LOOP_BYTES:
            body = parse_infer(request.body, header_length, self._max_rows)
        else:
            body = await self._service.on_thread(parse_infer, request.body, header_length, self._max_rows)
        target = _target(request, body.key)
        prediction = await self._service.predict(
            target, body, proba=body.wants_probabilities, deadline=request.deadline
        )
        response = infer_response(request.model, prediction, body)
        record(self._service, request, target, prediction, body.size)
        return response


def _target(request: HttpRequest, key: str | None = None) -> Target:
    return Target(request.tenant, request.model, version=request.version, key=key, request_id=request.request_id)
