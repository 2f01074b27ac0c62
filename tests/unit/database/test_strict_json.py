"""JSON for the database: understood, or refused by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from ml_core.database.strict_json import dumps
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import TenantId


def test_numpy_paths_tuples_and_ids_are_understood() -> None:
    """Values as training code has them come out as plain JSON."""
    value = {
        "i": np.int64(3),
        "f": np.float32(0.5),
        "b": np.bool_(True),
        "a": np.array([[1, 2], [3, 4]]),
        "t": (1, "x"),
        "p": Path("/tmp/x"),
        "n": TenantId("acme"),
        1: None,
    }
    assert orjson.loads(dumps(value)) == {
        "i": 3,
        "f": 0.5,
        "b": True,
        "a": [[1, 2], [3, 4]],
        "t": [1, "x"],
        "p": "/tmp/x",
        "n": "acme",
        "1": None,
    }


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, np.float64("nan"), {1}, b"x", object(), 2**63, np.array([math.nan]), "a\0", "\ud800"]
)
def test_what_has_no_json_form_is_refused_with_its_place(value: Any) -> None:
    """The error says where in the value it is."""
    with pytest.raises(InvalidRequestError) as caught:
        dumps({"outer": [0, {"inner": value}]})
    assert str(caught.value.attributes()["field"]).startswith("outer[1].inner")
