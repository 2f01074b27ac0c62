"""What is over a limit of size is one kind of error, 413 over HTTP, wherever the limit is."""

from __future__ import annotations

import orjson
import pytest

from ml_core.exceptions import RequestTooLargeError
from ml_core.inference.edge.oip import parse_infer
from ml_core.inference.edge.routes import parse_predict
from ml_core.registry.limits import check_document
from ml_core.registry.predictions.labels import check_label
from ml_core.registry.versions.registration import check_metrics

# A JSON text of 65,536 bytes, the quotes and braces included.
AT_LIMIT = {"a": "x" * (64 * 1024 - len('{"a":""}'))}
BEYOND = {"a": AT_LIMIT["a"] + "x"}


@pytest.mark.parametrize(
    ("accepted", "refused", "limit"),
    [
        (lambda: check_document(AT_LIMIT, "parameters"), lambda: check_document(BEYOND, "parameters"), 65_536),
        (lambda: check_metrics(series(1_000)), lambda: check_metrics(series(1_001)), 1_000),
        (lambda: check_label("r", 0, "x" * 1_000), lambda: check_label("r", 0, "x" * 1_001), 1_000),
        (lambda: parse_predict(rows(3), 3), lambda: parse_predict(rows(4), 3), 3),
        (lambda: parse_infer(tensors(3), None, 3), lambda: parse_infer(tensors(4), None, 3), 3),
    ],
)
def test_a_limit_of_size(accepted, refused, limit):
    """What is at the limit passes; one more is refused with limit and actual size."""
    accepted()
    with pytest.raises(RequestTooLargeError) as caught:
        refused()
    assert (caught.value.limit, caught.value.actual) == (limit, limit + 1)


def series(count):
    return {"test": {f"m{i}": 0.0 for i in range(count)}}


def rows(count):
    return orjson.dumps({"rows": [{}] * count})


def tensors(count):
    return orjson.dumps({"inputs": [{"name": "a", "shape": [count], "datatype": "FP64", "data": [0] * count}]})
