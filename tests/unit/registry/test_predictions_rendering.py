"""The rendered rows: digests that know equal inputs again, however many were sent together."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import orjson
import pytest

from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.registry.predictions.rendering import COLUMNS
from support.predictions import answered, rendered

NUMBERS = {"b": ColumnKind.NUMBER, "a": ColumnKind.BOOLEAN, "c": ColumnKind.DATETIME}
STRINGS = {"t": ColumnKind.TEXT, "k": ColumnKind.CATEGORY}
ROWS = [
    {"a": True, "b": 1.5, "c": "2026-02-01", "k": "x", "t": "one\ttwo\n"},
    {"a": None, "b": -2.0, "c": None, "k": None, "t": "\\"},
    {"a": False, "b": 3.25, "c": "2026-02-01T10:00:00.25", "k": "z", "t": "\u2028"},
]


def fields(kinds, rows, policy=PredictionPolicy.INPUTS):
    """The rendered fields of each row of one request."""
    signature = Signature(
        tuple(InputColumn(name, kind, nullable=True) for name, kind in kinds.items()),
        Output(OutputKind.CLASSES, ("a", "b")),
    )
    columns = signature.columns_from_rows(rows)
    request = answered("acme", rows, signature=signature, columns=columns, policy=policy)
    (found,) = rendered(request)
    lines = b"".join(found.parts).decode().split("\n")[:-1]
    return [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in lines]


@pytest.mark.parametrize("kinds", [NUMBERS, STRINGS, NUMBERS | STRINGS, {}], ids=["numbers", "strings", "both", "none"])
def test_a_row_has_the_digest_that_it_has_alone(kinds):
    """And the same input, of the columns that the version reads."""
    together = fields(kinds, ROWS)
    alone = [fields(kinds, [row])[0] for row in ROWS]
    for name in ("input_digest", "inputs"):
        assert [row[name] for row in together] == [row[name] for row in alone]
    assert len({row["input_digest"] for row in together}) == (3 if kinds else 1)
    assert set(orjson.loads(alone[0]["inputs"].replace("\\\\", "\\"))) == set(kinds)


def test_a_digest_is_of_the_documented_bytes():
    """So anybody can compute it."""
    (row,) = fields(NUMBERS | STRINGS, ROWS[:1])
    numbers = np.array([1.0, 1.5, 1769904000.0], "<f8").tobytes()
    assert row["input_digest"] == "\\\\x" + sha256(numbers + b'["x","one\\ttwo\\n"]').hexdigest()


def test_without_permission_there_is_only_the_digest():
    """The text of the input is nowhere in the line."""
    (row,) = fields(STRINGS, ROWS[:1], PredictionPolicy.DIGEST)
    assert row["inputs"] == "\\N"
