"""Noting an answer in the history, once it is whole and before it is sent."""

from __future__ import annotations

import asyncio

from ml_core.inference.edge.http import HttpRequest
from ml_core.inference.service import Prediction, PredictionService
from ml_core.inference.target import Target


def note(service: PredictionService, request: HttpRequest, target: Target, prediction: Prediction, size: int) -> None:
    """Note an answer, if the cell keeps a history.

    Args:
        service: Whose history.
        request: Was answered.
        target: What it asked.
        prediction: The answer.
        size: Bytes in which its rows were sent.
    """
    if service.history is not None:
        latency_ms = (asyncio.get_running_loop().time() - request.arrived) * 1000
        service.history.note(target, prediction, request_id=request.request_id, size=size, latency_ms=latency_ms)
