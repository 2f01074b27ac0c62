"""Answers as JSON: labels keep their type, and a number that is not finite is null."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ml_core.domain.signature import Output
from ml_core.domain.values import category_text
from ml_core.inference.edge.http import HttpResponse
from ml_core.models.loading import labels_to_json


def json_response(data: Any, status: int = 200) -> HttpResponse:
    """A JSON response. NumPy arrays may be part of the data; orjson writes what is not finite as null."""
    return HttpResponse(status, orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY))


def json_labels(predictions: NDArray[Any]) -> Any:
    """Predictions ``(n_rows,)`` as something that ``json_response`` writes."""
    if predictions.dtype == np.float64 and predictions.flags.c_contiguous:
        return predictions  # orjson writes the array itself, several times faster than a list
    return labels_to_json(predictions)


def json_probabilities(probabilities: NDArray[np.float64], output: Output) -> list[dict[str, float]]:
    """Probabilities ``(n_rows, n_classes)`` as one object a row, from the class's text to its probability."""
    names = [category_text(label) for label in output.classes]
    return [dict(zip(names, row, strict=True)) for row in probabilities.tolist()]
