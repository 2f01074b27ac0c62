"""Synthetic self-test rows: rows that the signature takes, of nobody."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.domain.version import SELF_TEST_ROWS
from ml_core.training.self_test import FEWEST_ROWS, common_categories, synthetic_rows
from ml_core.training.table import Part

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
SECONDS = st.floats(-62_135_596_800, 253_402_300_799)  # the years 1 to 9999
VALUES = {
    ColumnKind.NUMBER: NUMBERS,
    ColumnKind.DATETIME: SECONDS,
    ColumnKind.BOOLEAN: st.sampled_from([0.0, 1.0]),
    ColumnKind.CATEGORY: st.sampled_from(["a", "b", "c"]),
    ColumnKind.TEXT: st.text(min_size=1),
}


@pytest.mark.parametrize("kind", ColumnKind)
@given(data=st.data(), nullable=st.booleans())
def test_a_signature_takes_its_synthetic_rows(kind, data, nullable):
    """Whatever the column holds, to the ends of its range, few values or none among them."""
    values = data.draw(st.lists(VALUES[kind] | (st.none() if nullable else st.nothing()), min_size=1, max_size=30))
    array = np.array(values, dtype=np.float64 if kind.is_numeric else object)
    column = InputColumn("x", kind, nullable, ("a", "b", "c") if kind is ColumnKind.CATEGORY else ())
    part = Part({"x": array}, None, len(values))
    inputs = common_categories(part, [column])
    rows = synthetic_rows(part, inputs)
    read = Signature(inputs, Output(OutputKind.NUMBER)).columns_from_rows(rows)
    assert len(read["x"]) == SELF_TEST_ROWS
    if kind is ColumnKind.CATEGORY:
        assert set(inputs[0].categories) == {value for value in values if value and values.count(value) >= FEWEST_ROWS}
        assert {row["x"] for row in rows} <= {*inputs[0].categories, "another value", None}


def test_numbers_and_dates_are_rounded():
    """To two digits and to the month; of fewer than ten values nothing is told."""
    numbers = InputColumn("x", ColumnKind.NUMBER, nullable=False)
    dates = InputColumn("x", ColumnKind.DATETIME, nullable=False)
    values = np.arange(48_213.77, 48_313.77)
    assert {row["x"] for row in synthetic_rows(Part({"x": values}, None, 100), [numbers])} == {48_000.0}
    [month] = {row["x"] for row in synthetic_rows(Part({"x": values + 1.7e9}, None, 100), [dates])}
    assert month == "2023-11-01T00:00:00+00:00"
    few = synthetic_rows(Part({"x": values[:9]}, None, 9), [numbers])
    assert [row["x"] for row in few] == [0.0, 1.0, 2.0, 3.0, 4.0]
