"""Health of a replica. Needs no authentication, and therefore names no tenant and no model."""

from __future__ import annotations

from ml_core.inference.edge.http import HttpRequest, HttpResponse
from ml_core.inference.edge.render import json_response
from ml_core.inference.service import PredictionService


class HealthRoutes:
    """The routes for probes and operators."""

    def __init__(self, service: PredictionService) -> None:
        self._service = service

    async def healthz(self, _: HttpRequest) -> HttpResponse:
        """``GET /healthz``: 200 while the process runs; shows the generation and the failed loads."""
        return json_response(self._service.describe())

    async def readyz(self, _: HttpRequest) -> HttpResponse:
        """``GET /readyz``: 200 after the assignment was read, 503 before."""
        response = json_response(self._service.describe(), 200 if self._service.is_ready else 503)
        if not self._service.is_ready:
            response.headers = {b"retry-after": b"1"}
        return response
