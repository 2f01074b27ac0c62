"""Recording an answer in the prediction log, once it is complete and before it is sent."""

from __future__ import annotations

import asyncio

from ml_core.inference.edge.http import HttpRequest
from ml_core.inference.service import Prediction, PredictionService
from ml_core.inference.target import Target


def note(service: PredictionService, request: HttpRequest, target: Target, prediction: Prediction, size: int) -> None:
    """Record an answer, if the cell records predictions.

    Args:
        service: Whose recorder.
        request: Was answered.
        target: What it asked.
        prediction: The answer.
        size: Bytes in which its rows were sent.
    """
    if service.recorder is not None:
        latency_ms = (asyncio.get_running_loop().time() - request.arrived) * 1000
        service.recorder.record(target, prediction, request_id=request.request_id, size=size, latency_ms=latency_ms)
