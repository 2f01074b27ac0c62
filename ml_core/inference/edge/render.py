"""Rendering of answers as JSON, and their record in the prediction log.

Labels keep their type; numbers that are not finite are null.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ml_core.domain.signature import Output
from ml_core.domain.values import category_text
from ml_core.inference.edge.http import HttpRequest, HttpResponse
from ml_core.inference.service import Prediction, PredictionService
from ml_core.inference.target import Target
from ml_core.models.loading import labels_to_json


def json_response(data: Any, status: int = 200) -> HttpResponse:
    """A JSON response. The data may contain NumPy arrays; orjson writes values that are not finite as null."""
    return HttpResponse(status, orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY))


def json_labels(predictions: NDArray[Any]) -> Any:
    """Convert predictions ``(n_rows,)`` for ``json_response``."""
    if predictions.dtype == np.float64 and predictions.flags.c_contiguous:
        return predictions  # orjson writes the array itself, several times faster than a list
    return labels_to_json(predictions)


def json_probabilities(probabilities: NDArray[np.float64], output: Output) -> list[dict[str, float]]:
    """Convert probabilities ``(n_rows, n_classes)`` to one object per row: text of the class → probability."""
    names = [category_text(label) for label in output.classes]
    return [dict(zip(names, row, strict=True)) for row in probabilities.tolist()]


def record(service: PredictionService, request: HttpRequest, target: Target, prediction: Prediction, size: int) -> None:
    """Record a rendered answer in the prediction log, if the cell has one.

    Args:
        service: The service, which has the recorder.
        request: The request.
        target: Its target.
        prediction: The answer.
        size: Bytes of the request body.
    """
    if service.recorder is not None:
        latency_ms = (asyncio.get_running_loop().time() - request.arrived) * 1000
        service.recorder.record(target, prediction, request_id=request.request_id, size=size, latency_ms=latency_ms)
