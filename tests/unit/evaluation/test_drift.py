"""Drift: identical distributions raise no alert more often than stated, and changed ones do."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from scipy import stats

from ml_core.data.profile import profile_values
from ml_core.domain.columns import ColumnKind
from ml_core.domain.dataset import TableProfile
from ml_core.domain.quality import ColumnDrift, Verdict
from ml_core.evaluation.drift import FALSE_DISCOVERY_RATE, MIN_ROWS, benjamini_hochberg, drift, drift_between

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


def profiles(columns):
    """Those before and those now, of columns that are (name, kind, values before, values now)."""
    return [[profile_values(name, kind, kind, both[index]) for name, kind, *both in columns] for index in (0, 1)]


def between(columns, beside=((), ())):
    """The drift of tables that have these columns beside profiles."""
    first, second = (TableProfile(1, 1, (*others, *own)) for others, own in zip(beside, profiles(columns), strict=True))
    return drift_between(first, second)


@cache
def unchanged(rows):
    """The profiles of 200 columns."""
    random = np.random.default_rng(rows)
    return profiles([(f"same{i}", NUMBER, random.normal(size=500), random.normal(size=rows)) for i in range(200)])


@pytest.mark.parametrize(("before", "now"), [(MIN_ROWS, MIN_ROWS), (200, 5_000), (5_000, 200), (5_000, 5_000)])
def test_profiles_of_the_same_distribution_are_no_alert(before, now) -> None:
    """Of 450 columns, small and large samples, none."""
    random, columns = np.random.default_rng(before + now), []
    for index in range(50):
        columns += [(f"{name}{index}", kind, make(random, before), make(random, now)) for name, kind, make in MAKERS]
    assert [each for each in between(columns) if each.verdict is not Verdict.OK] == []


@pytest.mark.parametrize("seed", range(20))
def test_the_statistic_of_profiles_is_never_larger_than_that_of_all_values(seed) -> None:
    """Of any two samples of numbers, with and without heaps: a difference that is not there is not seen."""
    random = np.random.default_rng(seed)
    makers = [make for _, kind, make in MAKERS[:4] if kind is NUMBER]
    for first, second in itertools.product(makers, makers):
        before, now = first(random, 300) * random.choice([1.0, 0.5]), second(random, 700) + random.choice([0.0, 0.4])
        (found,) = between([("x", NUMBER, before, now)])
        if found.test == "ks":
            assert found.statistic <= stats.ks_2samp(before, now).statistic + 1e-9


@pytest.mark.parametrize(
    ("kind", "before", "now"),
    [
        (NUMBER, lambda r, n: r.normal(size=n), lambda r, n: r.normal(0.9, size=n)),
        (NUMBER, lambda r, n: r.normal(0.9, size=n), lambda r, n: r.normal(size=n)),
        (NUMBER, lambda r, n: r.normal(size=n), lambda r, n: r.normal(0, 3.0, size=n)),
        (NUMBER, lambda r, n: r.normal(size=n), lambda r, n: np.full(n, 50.0)),
        (NUMBER, lambda r, n: np.full(n, 50.0), lambda r, n: r.normal(size=n)),
        (NUMBER, lambda r, n: r.normal(size=n), lambda r, n: with_missing(r, r.normal(size=n), 0.4)),
        (NUMBER, lambda r, n: r.normal(size=n), lambda r, n: np.full(n, np.nan)),
        (NUMBER, lambda r, n: np.full(n, np.nan), lambda r, n: r.normal(size=n)),
        (NUMBER, lambda r, n: np.full(n, 7.5), lambda r, n: np.full(n, 8.5)),
        (NUMBER, lambda r, n: r.integers(0, 3, n).astype(float), lambda r, n: r.integers(1, 4, n).astype(float)),
        (NUMBER, lambda r, n: r.integers(0, 3, n).astype(float), lambda r, n: r.normal(2, size=n)),
        (CATEGORY, lambda r, n: words(r, n, [0.8, 0.2]), lambda r, n: words(r, n, [0.3, 0.7])),
        (CATEGORY, lambda r, n: words(r, n, [0.8, 0.2]), lambda r, n: words(r, n, [0.4, 0.1, 0.5])),
        (CATEGORY, lambda r, n: words(r, n, [0.5, 0.5]), lambda r, n: words(r, n, np.full(300, 1 / 300))),
        (TEXT, lambda r, n: np.array(["a" * k for k in r.poisson(40, n)], dtype=object),
         lambda r, n: np.array(["a" * k for k in r.poisson(60, n)], dtype=object)),
        (BOOLEAN, lambda r, n: (r.random(n) < 0.2).astype(float), lambda r, n: (r.random(n) < 0.6).astype(float)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rows", [300, 10_000])
def test_a_change_is_found_by_profiles_among_many_columns(kind, before, now, rows) -> None:
    """The same changes as with the rows at hand, in either direction."""
    random = np.random.default_rng(rows + 1)
    found = between([("changed", kind, before(random, 500), now(random, rows))], unchanged(rows))
    assert [each.name for each in found if each.verdict is Verdict.ALERT] == ["changed"]


def test_a_table_did_not_drift_from_itself() -> None:
    """Whatever is in it; infinite numbers and values beyond those that a profile lists, too."""
    random = np.random.default_rng(3)
    columns = [(name, kind, values, values) for name, kind, make in MAKERS for values in [make(random, 3_000)]]
    assert {(each.verdict, each.psi, each.p_value) for each in between(columns)} == {(Verdict.OK, 0.0, 1.0)}
    finite = profile_values("x", NUMBER, NUMBER, random.normal(size=500))
    infinite = type(finite).from_json({**finite.to_json(), "count": 1_000, "infinite": 500})
    only = type(finite)("x", "double", NUMBER, 1_000, 0, 1, infinite=1_000)
    for first, second, verdict in (
        (infinite, infinite, Verdict.OK),
        (only, only, Verdict.OK),
        (finite, infinite, Verdict.ALERT),
    ):
        (found,) = drift_between(*(TableProfile(1, 1, (each,)) for each in (first, second)))
        assert found.verdict is verdict


def test_what_profiles_can_not_tell_is_said() -> None:
    """Too few rows, another kind; a column that only one table has is not among them."""
    texts = np.array(["a", "b"] * 100, dtype=object)
    first = TableProfile(1, 1, (profile_values("x", CATEGORY, CATEGORY, texts), profile_values("y", TEXT, TEXT, texts)))
    second = TableProfile(1, 1, (profile_values("x", NUMBER, NUMBER, np.arange(200.0)),))
    (found,) = drift_between(first, second)
    assert (found.verdict, found.note) == (Verdict.UNKNOWN, "It was a category and is a number now.")
    few = TableProfile(1, 1, (profile_values("x", CATEGORY, CATEGORY, texts[: MIN_ROWS - 1]),))
    (found,) = drift_between(first, few)
    assert (found.verdict, found.note) == (Verdict.UNKNOWN, "There are 99 rows; 100 are needed.")
