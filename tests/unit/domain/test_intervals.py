"""Intervals of predictions: the finite-sample rule, and coverage on rows that were not seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.domain.intervals import Residuals
from ml_core.domain.signature import Output, OutputKind
from ml_core.exceptions import InvalidRequestError

sizes = st.lists(st.floats(0, 1e12), min_size=1, max_size=400)


@given(sizes, st.floats(0.01, 0.999))
def test_an_interval_is_the_order_statistic_that_the_theory_asks_for(found: list[float], coverage: float) -> None:
    """The ⌈(n + 1) · coverage⌉-th smallest or, of many rows, at most that of the next coverage, rounded up."""
    truth = np.asarray(found)
    residuals = Residuals.of(truth, np.zeros(len(found)), 3)
    assert residuals is not None
    ranked, rank = sorted(found), math.ceil((len(found) + 1) * coverage - 1e-9)
    if rank > len(found):
        with pytest.raises(InvalidRequestError, match=f"the version has {len(found)}"):
            residuals.half_width(coverage)
        return
    next_level = min(len(found), math.ceil((len(found) + 1) * (coverage + 0.05)) + 1)
    half = residuals.half_width(coverage)
    assert ranked[rank - 1] <= half <= ranked[next_level - 1] * 1.011
    assert Residuals.from_json(residuals.to_json()) == residuals


@pytest.mark.parametrize("coverage", [0, 1, -0.1, 90, math.nan, True, "0.9", None])
def test_a_coverage_is_between_0_and_1(coverage: object) -> None:
    """Ninety is not ninety percent."""
    residuals = Residuals.of(np.ones(100), np.zeros(100), 3)
    assert residuals is not None
    with pytest.raises(InvalidRequestError, match="between 0 and 1"):
        residuals.half_width(coverage)  # type: ignore[arg-type]


def test_a_refusal_says_how_many_rows_it_takes() -> None:
    """Ten held-out rows allow ten elevenths and no more."""
    residuals = Residuals.of(np.arange(10.0), np.zeros(10), 3)
    assert residuals is not None
    with pytest.raises(InvalidRequestError, match=r"needs 19 held-out rows.*version has 10.*at most 0\.909"):
        residuals.half_width(0.95)
    assert residuals.half_width(0.909) == 9.0


def test_without_residuals_there_is_no_interval() -> None:
    """A version that was brought as a file, or whose predictions overflow."""
    assert Residuals.of(np.array([np.inf, 1.0]), np.zeros(2), 3) is None
    with pytest.raises(InvalidRequestError, match="has no intervals"):
        Output(OutputKind.NUMBER).intervals(np.zeros(1), 0.9)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("rows", [25, 100, 1000])
def test_coverage_holds_on_average_over_splits(coverage: float, rows: int) -> None:
    """Of heavy-tailed residuals, on average over 2,000 splits, within four standard errors of the exact rate."""
    random = np.random.default_rng(rows)
    held = []
    for _ in range(2_000):
        draws = random.standard_t(3, size=rows + 20)
        residuals = Residuals.of(draws[:rows], np.zeros(rows), 3)
        assert residuals is not None
        held.append(np.mean(np.abs(draws[rows:]) <= residuals.half_width(coverage)))
    error = 4 * float(np.std(held)) / math.sqrt(len(held))
    exact = math.ceil((rows + 1) * coverage - 1e-9) / (rows + 1)
    assert exact - error <= np.mean(held) <= exact + error + 0.005  # rounding up to three digits widens
