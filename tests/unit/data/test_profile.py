"""Profiles: counts and quantile edges of known tables, the kinds that a model sees, and samples of large ones."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ml_core.data import profile as profiles
from ml_core.data.kinds import infer_columns
from ml_core.data.profile import profile_file, profile_table, sampled_rows
from ml_core.data.table_file import TableWriter
from ml_core.data.tables import table_from_frame
from ml_core.domain.columns import ColumnKind
from support.tables import tickets


def profile_of(values, **options):
    """The profile of one column."""
    series = values if isinstance(values, pd.Series) else pd.Series(values, **options)
    return profile_table(table_from_frame(series.to_frame("x"))).columns[0]


def test_numbers_have_moments_and_quantiles():
    """By hand: 0 to 100, of which each twentieth is an edge."""
    found = profile_of([float(n) for n in range(101)] + [None])
    assert (found.kind, found.count, found.missing, found.distinct) == (ColumnKind.NUMBER, 101, 1, 101)
    assert (found.minimum, found.maximum, found.mean) == (0.0, 100.0, 50.0)
    assert found.std == pytest.approx(np.arange(101).std())
    assert found.edges == pytest.approx(tuple(range(0, 101, 5)))
    assert sum(found.bin_counts) == 101
    assert set(found.bin_counts) <= {4, 5, 6}
    assert found.values == ()


def test_quantiles_are_of_type_seven():
    """As numpy and R compute them by default: linear between the two nearest values."""
    found = profile_of([1.0, 2.0, 4.0, 8.0])
    assert found.edges[1] == pytest.approx(1.0 + 0.15 * 1.0)
    assert found.edges[-2] == pytest.approx(4.0 + 0.85 * 4.0)


def test_equal_edges_are_one():
    """So that no bin is empty; every value is in a bin."""
    found = profile_of([0.0] * 90 + [float(n) for n in range(1, 11)])
    assert len(set(found.edges)) == len(found.edges) == len(found.bin_counts) + 1
    assert min(found.bin_counts) > 0
    assert sum(found.bin_counts) == 100


def test_a_constant_has_one_edge_and_no_bin():
    """And is counted as a value."""
    found = profile_of([7, 7, 7])
    assert (found.edges, found.bin_counts, found.std, found.values) == ((7.0,), (), 0.0, (("7", 3),))


def test_few_different_numbers_are_counted_too():
    """Quantile bins can't tell 1 from 2 where the last bin holds both."""
    assert profile_of([0, 1, 1, 2]).values == (("1", 2), ("0", 1), ("2", 1))
    assert profile_of([0.5, 1.5]).values == (("0.5", 1), ("1.5", 1))


def test_infinities_are_counted_apart():
    """They have no place in a mean, an edge or JSON."""
    found = profile_of([1.0, np.inf, -np.inf, np.nan])
    assert (found.count, found.missing, found.infinite, found.mean) == (3, 1, 2, 1.0)
    json.dumps(found.to_json(), allow_nan=False)


def test_huge_numbers_have_moments():
    """No square overflows."""
    found = profile_of([1e308, 1.5e308])
    assert found.mean == pytest.approx(1.25e308)
    assert found.std == pytest.approx(0.25e308)


LIMIT = np.finfo(np.float64).max
ENDS = [0.0, -0.0, 5e-324, -5e-324, 1e-310, 1.0, 1e154, 9e307, -9e307, 1e308, -1e308, LIMIT, -LIMIT]
ENDS += [np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("seed", range(300))
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # a NaN of float32 that signals
def test_any_floats_have_finite_statistics(seed):
    """Every pattern of bits, the ends of the range, and many equal numbers there: nothing overflows."""
    random = np.random.default_rng(seed)
    n_rows = int(random.integers(1, 60))
    values = [
        random.integers(0, 2**64, n_rows, dtype=np.uint64).view(np.float64),
        random.choice(ENDS, n_rows),
        np.repeat(random.choice([LIMIT, -LIMIT, 1.7e308]), n_rows),
        random.integers(0, 2**32, n_rows, dtype=np.uint32).view(np.float32),
    ][seed % 4]
    found = profile_table(pa.table({"x": values})).columns[0]
    json.dumps(found.to_json(), allow_nan=False)
    finite = values[np.isfinite(values)].astype(np.float64)
    if len(finite):
        assert (found.minimum, found.maximum) == (finite.min(), finite.max())
        assert found.minimum <= found.mean <= found.maximum
        assert list(found.edges) == sorted(set(found.edges))
        assert sum(found.bin_counts) == (len(finite) if len(found.edges) > 1 else 0)


def test_categories_are_counted():
    """The most frequent first, equal ones by their text; the rest in one number."""
    found = profile_of(["b"] * 3 + ["a"] * 3 + ["c"] * 2 + [None, " "], dtype="str")
    assert (found.kind, found.count, found.missing) == (ColumnKind.CATEGORY, 8, 2)
    assert (found.values, found.other, found.edges) == ((("a", 3), ("b", 3), ("c", 2)), 0, ())


def test_only_the_most_frequent_categories_are_listed():
    """A hundred of them; all rows are accounted for."""
    values = [f"code{n:03}" for n in range(300) for _ in range(1 + (n < 100))]
    found = profile_of(values, dtype="str")
    assert found.kind is ColumnKind.CATEGORY
    assert len(found.values) == 100
    assert {count for _, count in found.values} == {2}
    assert found.other == 200
    assert found.distinct == 300


def test_na_is_a_category_and_no_number():
    """Namibia's code is a value among codes, and missing among numbers, as in training."""
    assert profile_of(["NA", "DE", "NA", "FR"] * 5, dtype="str").missing == 0
    numbers = profile_of(["NA", "1.5", "2"] * 5, dtype="str")
    assert (numbers.kind, numbers.missing, numbers.minimum) == (ColumnKind.NUMBER, 5, 1.5)


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(pd.to_datetime(["2026-01-01", "2026-01-03", None])),
        pd.Series(["2026-01-01", "2026-01-03", None]),
        pd.Series(pd.to_datetime(["2026-01-01", "2026-01-03", None])).dt.date,
        pd.Series(pd.to_datetime(["2026-01-01 01:00", "2026-01-03 01:00", None]).tz_localize("Europe/Berlin")),
    ],
    ids=["datetime64", "strings", "dates", "with a zone"],
)
def test_datetimes_have_quantiles_in_seconds(values):
    """Whatever they were written as."""
    found = profile_of(values)
    assert (found.kind, found.count, found.missing) == (ColumnKind.DATETIME, 2, 1)
    assert (found.minimum, found.maximum) == (1767225600.0, 1767225600.0 + 2 * 86_400)
    assert len(found.edges) == 21


def test_the_order_of_day_and_month_is_the_columns_own():
    """As in training: 25/12 tells that the day comes first."""
    found = profile_of(["25/12/2025", "01/02/2026"], dtype="str")
    assert found.maximum == pd.Timestamp("2026-02-01").timestamp()


def test_texts_have_quantiles_of_their_length():
    """In characters."""
    found = profile_of([f"the printer number {n} is on fire{'!' * n}" for n in range(20)], dtype="str")
    assert found.kind is ColumnKind.TEXT
    assert (found.minimum, found.maximum) == (
        len("the printer number 0 is on fire"),
        len("the printer number 19 is on fire") + 19,
    )


def test_booleans_are_counted_as_true_and_false():
    """With missing values too."""
    found = profile_of(pd.Series([True, None, True, False], dtype=object))
    assert (found.kind, found.missing, found.values) == (ColumnKind.BOOLEAN, 1, (("true", 2), ("false", 1)))


@pytest.mark.parametrize("values", [[None, None], ["", " "]])
def test_a_column_without_a_value_has_no_kind(values):
    """It is counted, not refused: other columns may be fine."""
    found = profile_of(values, dtype=object)
    assert (found.kind, found.count, found.missing) == (None, 0, 2)


def test_a_text_that_postgres_can_not_hold_is_replaced():
    """A NUL in a category does not keep a table from being registered."""
    assert profile_of(["a\0", "a\0", "b"], dtype=object).values == (("a\ufffd", 2), ("b", 1))


def test_kinds_are_those_of_training():
    """For every column that training uses."""
    frame = tickets()
    found = {column.name: column.kind for column in profile_table(table_from_frame(frame)).columns}
    assert found == {column.name: column.kind for column in infer_columns(frame) if column.input}


def test_a_large_file_is_profiled_on_a_sample(tmp_path, monkeypatch):
    """Of rows from everywhere in it, the same each time; the profile says how many."""
    monkeypatch.setattr(profiles, "MAX_ROWS", 5_000)
    table = table_from_frame(pd.DataFrame({"x": np.arange(200_000.0)}))
    with TableWriter(tmp_path / "a", table.schema) as writer:
        writer.write(table)
    found = profile_file(tmp_path / "a")
    assert (found.row_count, found.sampled_rows, found.is_sample) == (200_000, 5_000, True)
    np.testing.assert_allclose(found.columns[0].edges, np.linspace(0, 200_000, 21), atol=6_000)
    assert profile_file(tmp_path / "a") == found


def test_wide_tables_are_profiled_on_fewer_rows():
    """The sample is bounded in cells; and never below a thousand rows."""
    assert len(sampled_rows(10**6, 1)) == 100_000
    assert len(sampled_rows(10**6, 1_000)) == 10_000
    assert len(sampled_rows(10**6, 10_000)) == 1_000
    assert sampled_rows(3, 1).tolist() == [0, 1, 2]
    rows = sampled_rows(10**9, 1)
    assert len(np.unique(rows)) == 100_000
    assert (np.diff(rows) > 0).all()
