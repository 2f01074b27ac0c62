"""Drift: identical distributions raise no alert more often than stated, and changed ones do."""

from __future__ import annotations

import numpy as np
import pytest

from ml_core.data.profile import profile_values
from ml_core.domain.columns import ColumnKind
from ml_core.domain.quality import ColumnDrift, Verdict
from ml_core.evaluation.drift import FALSE_DISCOVERY_RATE, MIN_ROWS, benjamini_hochberg, drift

NUMBER, CATEGORY, TEXT, BOOLEAN = ColumnKind.NUMBER, ColumnKind.CATEGORY, ColumnKind.TEXT, ColumnKind.BOOLEAN


def pair(kind, before, now, name="x"):
    """A column whose values in training and in the live window are these."""
    return profile_values(name, kind, kind, before), ColumnDrift(name, kind), now


def compared(kind, before, now):
    (found,) = drift([pair(kind, before, now)])
    return found


def words(random, size, shares):
    return random.choice(np.array([f"c{i}" for i in range(len(shares))], dtype=object), size, p=shares)


def with_missing(random, values, share):
    values = values.copy()
    values[random.random(len(values)) < share] = np.nan if values.dtype == np.float64 else None
    return values


# A kind, and a maker of ``size`` values of it.
MAKERS = (
    ("normal", NUMBER, lambda random, size: random.normal(size=size)),
    ("cauchy", NUMBER, lambda random, size: random.standard_cauchy(size)),
    ("poisson", NUMBER, lambda random, size: random.poisson(3, size).astype(float)),
    ("zeros", NUMBER, lambda random, size: np.where(random.random(size) < 0.7, 0.0, random.exponential(size=size))),
    ("missing", NUMBER, lambda random, size: with_missing(random, random.normal(size=size), 0.2)),
    ("skewed", CATEGORY, lambda random, size: words(random, size, [0.5, 0.3, 0.15, 0.04, 0.01])),
    ("rare", CATEGORY, lambda random, size: words(random, size, np.full(300, 1 / 300))),
    ("text", TEXT, lambda random, size: np.array(["a" * n for n in random.poisson(40, size)], dtype=object)),
    ("boolean", BOOLEAN, lambda random, size: with_missing(random, (random.random(size) < 0.1).astype(float), 0.02)),
)


@pytest.mark.parametrize(("before", "now"), [(MIN_ROWS, MIN_ROWS), (200, 5_000), (20_000, 150), (5_000, 5_000)])
def test_the_same_distribution_is_no_alert(before, now) -> None:
    """Of 450 columns, small and large samples: none drifted, and few are significant, corrected or not."""
    random, pairs = np.random.default_rng(before + now), []
    for _ in range(50):
        pairs += [pair(kind, make(random, before), make(random, now), name) for name, kind, make in MAKERS]
    found = drift(pairs)
    assert [each for each in found if each.verdict is not Verdict.OK] == []
    found = [each for each in found if each.name != "rare"]  # which of many rare categories a sample has is chance
    # Binomial: 400 columns at 5 % have 20 on average, and more than 35 once in a thousand times.
    assert sum(each.p_value <= 0.05 for each in found) <= 35
    assert sum(each.adjusted_p_value <= FALSE_DISCOVERY_RATE for each in found) <= 1


def test_the_index_of_the_same_distribution_has_the_stated_expectation() -> None:
    """The bias of few rows, which would be an alert by itself, is what is subtracted."""
    random = np.random.default_rng(1)
    found = drift([pair(NUMBER, random.normal(size=200), random.normal(size=150)) for _ in range(400)])
    by_chance = found[0].psi_by_chance
    assert by_chance == pytest.approx(19 * (1 / 200 + 1 / 150))
    assert np.mean([each.psi for each in found]) == pytest.approx(by_chance, rel=0.15)


@pytest.mark.parametrize(
    ("kind", "before", "now"),
    [
        (NUMBER, lambda r, n: r.normal(size=n), lambda r, n: r.normal(0.8, size=n)),
        (NUMBER, lambda r, n: r.normal(size=n), lambda r, n: r.normal(0, 2.0, size=n)),
        (NUMBER, lambda r, n: r.normal(size=n), lambda r, n: np.full(n, 50.0)),
        (NUMBER, lambda r, n: r.normal(size=n), lambda r, n: with_missing(r, r.normal(size=n), 0.4)),
        (NUMBER, lambda r, n: r.normal(size=n), lambda r, n: np.full(n, np.nan)),
        (NUMBER, lambda r, n: np.full(n, 7.5), lambda r, n: np.full(n, 8.5)),
        (NUMBER, lambda r, n: r.integers(0, 3, n).astype(float), lambda r, n: r.integers(1, 4, n).astype(float)),
        (CATEGORY, lambda r, n: words(r, n, [0.8, 0.2]), lambda r, n: words(r, n, [0.3, 0.7])),
        (CATEGORY, lambda r, n: words(r, n, [0.8, 0.2]), lambda r, n: words(r, n, [0.4, 0.1, 0.5])),
        (TEXT, lambda r, n: np.array(["a" * k for k in r.poisson(40, n)], dtype=object),
         lambda r, n: np.array(["a" * k for k in r.poisson(60, n)], dtype=object)),
        (BOOLEAN, lambda r, n: (r.random(n) < 0.2).astype(float), lambda r, n: (r.random(n) < 0.6).astype(float)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rows", [300, 10_000])
def test_a_change_is_found_among_many_columns(kind, before, now, rows) -> None:
    """A changed column among 200 that did not change, also with few rows."""
    random = np.random.default_rng(rows)
    same = [pair(NUMBER, random.normal(size=500), random.normal(size=rows), f"same{i}") for i in range(200)]
    found = drift([*same, pair(kind, before(random, 500), now(random, rows), "changed")])
    assert [each.name for each in found if each.verdict is Verdict.ALERT] == ["changed"]


def test_a_significant_but_small_change_is_no_alert() -> None:
    """With many rows every change is significant; a tenth of a standard deviation is none to act on."""
    random = np.random.default_rng(0)
    found = compared(NUMBER, random.normal(size=100_000), random.normal(0.1, size=10_000))
    assert found.adjusted_p_value < 1e-9
    assert found.verdict is Verdict.OK


def test_time_goes_on() -> None:
    """Dates after those of the training are no alert; dates that are missing are."""
    before, later = np.arange(500.0), np.arange(1000.0, 1500.0)
    assert compared(ColumnKind.DATETIME, before, later).verdict is Verdict.OK
    gone = np.where(np.arange(500) % 2, later, np.nan)
    assert compared(ColumnKind.DATETIME, before, gone).verdict is Verdict.ALERT


def test_a_column_that_was_empty_in_training_and_is_not_now_drifted() -> None:
    """And one that is empty in both did not."""
    empty = profile_values("x", "null", None, np.full(500, None, dtype=object))
    for now, verdict in ((np.arange(500.0), Verdict.ALERT), (np.full(500, np.nan), Verdict.OK)):
        (found,) = drift([(empty, ColumnDrift("x", NUMBER), now)])
        assert found.verdict is verdict


def test_unseen_categories_and_missing_values_are_told_apart() -> None:
    """Shares of the live rows."""
    before = np.array(["a", "b"] * 100, dtype=object)
    now = np.array(["a"] * 100 + ["new"] * 60 + [None] * 40, dtype=object)
    found = compared(CATEGORY, before, now)
    assert (found.unseen, found.missing_before, found.missing_now) == (0.3, 0.0, 0.2)


@pytest.mark.parametrize(("before", "now"), [(MIN_ROWS - 1, 10_000), (10_000, MIN_ROWS - 1), (500, 0)])
def test_few_rows_are_never_an_alert(before, now) -> None:
    """Whatever they look like."""
    found = compared(NUMBER, np.zeros(before), np.full(now, 9.0))
    assert (found.verdict, found.psi) == (Verdict.UNKNOWN, None)
    assert f"There are {min(before, now)} rows" in found.note


def test_a_column_without_a_sound_profile_is_not_compared() -> None:
    """None, of another kind, or counts that do not belong together."""
    good, result, values = pair(NUMBER, np.arange(500.0), np.arange(500.0))
    broken = type(good).from_json({**good.to_json(), "bin_counts": [1]})
    other = profile_values("x", CATEGORY, CATEGORY, np.array(["a"] * 500, dtype=object))
    for profile in (None, broken, other):
        (found,) = drift([(profile, result, values)])
        assert (found.verdict, found.note) == (Verdict.UNKNOWN, "Training has no profile of it.")


def test_adjusted_p_values_are_those_of_the_procedure() -> None:
    """By hand, and monotone: 0.04 of four becomes 0.04 · 4 / 3, and an equal rank never less than a smaller p."""
    assert benjamini_hochberg([0.04, 0.01, 0.9, 0.03]) == pytest.approx([0.04 * 4 / 3, 0.04, 0.9, 0.04 * 4 / 3])
