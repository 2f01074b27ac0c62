"""The profile of a table, with which later data is compared.

A column is profiled in the canonical form that models see (``ml_core.domain.columns``): the same values are missing,
and dates that a CSV holds as strings have quantiles like others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ml_core.data.canonical import read_series
from ml_core.data.cells import has_decimal_comma
from ml_core.data.evidence import Evidence
from ml_core.data.kinds import infer_kind
from ml_core.data.table_file import read_rows
from ml_core.data.tables import frame_of
from ml_core.domain.columns import ColumnKind, Columns, n_rows
from ml_core.domain.dataset import ColumnProfile, TableProfile
from ml_core.domain.signature import PREDICTION, InputColumn
from ml_core.domain.values import category_text
from ml_core.exceptions import DataProcessingError, SignatureMismatchError

MAX_ROWS = 100_000
"""Rows that a profile looks at. A share that it states is then off by 0.0016 (its standard error) at most: a hundredth
of what a population stability index calls a small change."""
MAX_CELLS = 10_000_000
"""Cells that a profile holds in memory: wide tables are profiled on fewer rows."""
MIN_ROWS = 1_000
"""Rows that a profile looks at however wide the table is."""
QUANTILES = 20
"""Bins between the quantile edges, where all edges differ."""
MAX_VALUES = 100
"""Values of a category that are counted one by one."""
MAX_TEXT_LENGTH = 200
"""Characters of a category that the profile keeps; longer ones are cut off."""

"""The column of a profile of predictions."""

_SEED = 0  # any: the same sample each time
# Strings that are not inputs of a model, such as identifiers, are profiled as text when most of them differ.
_MAX_CATEGORY_SHARE = 0.5
_MAX_CATEGORIES = 1_000


def profile_file(path: Path) -> TableProfile:
    """The profile of a dataset's file: of all rows, or of a sample where there are many.

    One row group is in memory at a time, and the sample.
    """
    with pq.ParquetFile(path) as file:
        count, n_columns = file.metadata.num_rows, file.metadata.num_columns
    return profile_table(read_rows(path, sampled_rows(count, n_columns)), count)


def sampled_rows(count: int, n_columns: int) -> NDArray[np.int64]:
    """The rows of ``count`` that a profile looks at: a simple random sample without replacement, rising."""
    size = min(count, max(MIN_ROWS, min(MAX_ROWS, MAX_CELLS // max(1, n_columns))))
    if size == count:
        return np.arange(count, dtype=np.int64)
    chosen = np.random.default_rng(_SEED).choice(count, size=size, replace=False, shuffle=False)
    return np.sort(chosen).astype(np.int64)


def profile_table(table: pa.Table, row_count: int | None = None) -> TableProfile:
    """The profile of the rows of a stored table, drawn from one of ``row_count`` rows; None: these are all."""
    has_commas = has_decimal_comma(frame_of(table))
    columns = tuple(profile_column(name, table.select([name]), has_commas=has_commas) for name in table.column_names)
    return TableProfile(table.num_rows if row_count is None else row_count, table.num_rows, columns)


def profile_column(name: str, table: pa.Table, *, has_commas: bool = False) -> ColumnProfile:
    """The profile of a column of a stored table; ``has_commas``: another column of strings has decimal commas."""
    column = table.column(name)
    series = frame_of(table.select([name])).iloc[:, 0]
    infinite = 0
    if pa.types.is_floating(column.type):
        # Counted apart: the reader refuses infinities, and a mean with one says nothing.
        is_infinite = np.isinf(series.to_numpy(dtype=np.float64))
        infinite = int(is_infinite.sum())
        series = series.mask(is_infinite)
    kind, values = _canonical(name, series, column.type, has_commas)
    profile = profile_values(name, str(column.type), kind, values)
    return replace(profile, count=profile.count + infinite, missing=profile.missing - infinite, infinite=infinite)


def profile_columns(columns: Columns, inputs: Sequence[InputColumn]) -> TableProfile:
    """The profile of canonical columns: of all rows, or of a sample as large as that of a file."""
    total = n_rows(columns)
    rows = sampled_rows(total, len(inputs))
    profiles = (profile_values(each.name, each.kind, each.kind, columns[each.name][rows]) for each in inputs)
    return TableProfile(total, len(rows), tuple(profiles))


def profile_predictions(predicted: NDArray[Any], *, are_numbers: bool) -> ColumnProfile:
    """The profile of the predictions of a model: numbers, or the texts of classes and clusters."""
    kind = ColumnKind.NUMBER if are_numbers else ColumnKind.CATEGORY
    labels = [category_text(label) for label in ([] if are_numbers else predicted.tolist())]
    values = predicted.astype(np.float64) if are_numbers else np.array(labels, dtype=object)
    return profile_values(PREDICTION, kind, kind, values)


def profile_values(name: str, type_name: str, kind: ColumnKind | None, values: NDArray[Any]) -> ColumnProfile:
    """The profile of a ``(n,)`` canonical array, of which no number is infinite."""
    present = values[~pd.isna(values)]
    profile = ColumnProfile(
        name=name,
        type=type_name,
        kind=kind,
        count=len(present),
        missing=len(values) - len(present),
        distinct=int(pd.Series(present).nunique()),
    )
    if kind is None or not len(present):
        return profile
    if kind in (ColumnKind.CATEGORY, ColumnKind.BOOLEAN):
        return replace(profile, **_counts(texts(present, kind)))
    if kind is ColumnKind.TEXT:
        return replace(profile, **_quantiles(np.array([len(text) for text in present], dtype=np.float64)))
    few = kind is ColumnKind.NUMBER and profile.distinct <= QUANTILES
    return replace(profile, **_quantiles(present), **(_counts(texts(present, kind)) if few else {}))


def _canonical(
    name: str, series: pd.Series[Any], kind: pa.DataType, has_commas: bool
) -> tuple[ColumnKind | None, NDArray[Any]]:
    """The column's kind and its canonical array."""
    for column in _candidates(name, series, kind, has_commas):
        try:
            return column.kind, read_series(series, column)
        except SignatureMismatchError:
            continue
    return None, np.full(len(series), None, dtype=object)


def _candidates(name: str, series: pd.Series[Any], kind: pa.DataType, has_commas: bool) -> Sequence[InputColumn]:
    """What to read the column as, the likeliest first: a category takes every value."""
    if pa.types.is_null(kind):
        return ()
    if pa.types.is_boolean(kind):
        return (InputColumn(name, ColumnKind.BOOLEAN, nullable=True),)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return (InputColumn(name, ColumnKind.DATETIME, nullable=True),)
    if not pa.types.is_string(kind):
        return (InputColumn(name, ColumnKind.NUMBER, nullable=True),)
    category = InputColumn(name, ColumnKind.CATEGORY, nullable=True)
    evidence = Evidence.of(name, series, has_commas=has_commas)
    if not len(evidence.values):
        whole = Evidence.of(name, series, words_are_missing=False)
        return (category,) if len(whole.values) else ()
    try:
        found = infer_kind(evidence)
    except DataProcessingError:
        found = None
    if found is not None and found.kind is not None:
        likely = InputColumn(name, found.kind, True, (), found.date_order, found.decimal_comma)
        return (likely, category)
    distinct = evidence.n_distinct
    is_text = distinct > _MAX_CATEGORIES or (distinct > MAX_VALUES and distinct > _MAX_CATEGORY_SHARE * len(series))
    return (InputColumn(name, ColumnKind.TEXT, nullable=True),) if is_text else (category,)


def texts(values: NDArray[Any], kind: ColumnKind) -> pd.Series[Any]:
    """The values of a category, boolean or number that are not missing, as ``ColumnProfile.values`` has them."""
    if kind is ColumnKind.BOOLEAN:
        return pd.Series(np.where(values == 1.0, "true", "false"))
    if kind is ColumnKind.NUMBER:
        return pd.Series([str(int(v)) if float(v).is_integer() else repr(float(v)) for v in values])
    # PostgreSQL's jsonb can't hold a NUL.
    return pd.Series([text[:MAX_TEXT_LENGTH].replace("\0", "\ufffd") for text in values])


def _counts(found: pd.Series[Any]) -> dict[str, Any]:
    """The most frequent values with their counts, equal counts in the order of the text; and how many rows are left."""
    tally = sorted(found.value_counts().items(), key=lambda item: (-item[1], str(item[0])))
    kept = tuple((str(text), int(count)) for text, count in tally[:MAX_VALUES])
    return {"values": kept, "other": len(found) - sum(count for _, count in kept)}


def _quantiles(numbers: NDArray[np.float64]) -> dict[str, Any]:
    """Range, moments and quantile edges of ``(n,)`` finite numbers.

    Quantiles are of type 7 of Hyndman and Fan (Sample Quantiles in Statistical Packages, The American Statistician 50,
    1996): linear between the two nearest values, what numpy, R and pandas do by default. Equal edges are one, so that
    no bin of a population stability index (Siddiqi, Credit Risk Scorecards, 2006) is empty by construction.
    """
    numbers = np.asarray(numbers, dtype=np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    # Halved where the largest difference, by which the quantiles are interpolated, exceeds the range of float64.
    half = 2.0 if high / 2 - low / 2 > np.finfo(np.float64).max / 2 else 1.0
    edges = np.quantile(numbers / half, np.arange(QUANTILES + 1) / QUANTILES, method="linear") * half
    edges = np.unique(np.clip(edges, low, high))
    counts = np.histogram(numbers, bins=edges)[0] if len(edges) > 1 else np.array([], dtype=np.int64)
    # Scaled, so that the squares of numbers near the end of the range don't overflow; by a power of two, exactly.
    scale = float(np.ldexp(1.0, int(np.frexp(np.abs(numbers).max())[1]) - 1))
    scaled = numbers / scale
    return {
        "minimum": low,
        "maximum": high,
        "mean": float(np.clip(scaled.mean(), scaled.min(), scaled.max())) * scale,
        "std": min(float(scaled.std()), float(scaled.max() / 2 - scaled.min() / 2)) * scale,
        "edges": tuple(map(float, edges)),
        "bin_counts": tuple(map(int, counts)),
    }
