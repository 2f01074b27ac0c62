"""Notes on the columns of a table that a user should look at before trusting a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn, OutputKind
from ml_core.exceptions import listed
from ml_core.training.table import Part, TrainingTable

_MIN_ROWS = 30
"""Of the held-out rows: of fewer a score says nothing."""
_SAMPLE_ROWS = 2_000
_FEW_ROWS = 3
_MISSING_CATEGORY = "\0"  # no category, since PostgreSQL stores no such text
_MAX_COLUMNS = 500
_TELLS = {OutputKind.CLASSES: ("accuracy", 0.99), OutputKind.NUMBER: ("R²", 0.99)}
_LEAST_GAIN = 0.05
_MISSING = 0.95
_DRIFT = 0.25
"""Of the population stability index; above it a change is called large (Siddiqi, Credit Risk Scorecards, 2006)."""
_BINS = 10
_SHARE_OF_NONE = 1e-3
"""For a bin without rows, whose logarithm would be infinite."""


def column_notes(table: TrainingTable, output: OutputKind, *, is_split: bool) -> list[str]:
    """Sentences on columns that tell the target alone, are nearly empty, or differ in the validation rows.

    No value of a cell is in them.

    Args:
        table: The rows.
        output: Of the model type.
        is_split: Whether the validation rows were drawn from the training data, and so can't differ.
    """
    inputs = table.inputs[:_MAX_COLUMNS]
    notes = []
    if telling := list(_telling(table, inputs, output)):
        notes.append(
            f"One column alone tells the target of the held-out rows: {listed(telling)}. If it is known only "
            "afterwards, leave it out (ignore)."
        )
    if empty := [
        f"{column.name!r} ({share:.0%})"
        for column in inputs
        if (share := _missing(table.train.columns[column.name])) > _MISSING
    ]:
        notes.append(f"Columns are missing in nearly all training rows: {listed(empty)}. Leave them out, or fill them.")
    if not is_split and (drifted := _drifted(table, inputs)):
        notes.append(
            f"The validation rows differ from the training rows in {listed(drifted)}; 0.1 is a small change, "
            f"{_DRIFT} a large one. Their metrics are of rows unlike those that were trained on."
        )
    return notes


def _missing(values: NDArray[Any]) -> float:
    return float((np.isnan(values) if values.dtype.kind == "f" else pd.isna(values)).mean())


def _telling(table: TrainingTable, inputs: tuple[InputColumn, ...], output: OutputKind) -> Iterator[str]:
    """The columns of which one alone gives the target, with their scores."""
    (of_train, target), (of_held_out, truth) = _sampled(table.train), _sampled(table.validation)
    if output not in _TELLS or target is None or truth is None or len(truth) < _MIN_ROWS:
        return
    metric, least = _TELLS[output]
    if output is OutputKind.CLASSES:
        classes, codes = np.unique(target, return_inverse=True)
        usual = classes[np.bincount(codes).argmax()]
        if np.mean(truth == usual) > least - _LEAST_GAIN:
            return
    for column in inputs:
        if column.kind is ColumnKind.TEXT:
            continue
        # Copies, of one column at a time: a view would keep all rows of each in memory.
        values = table.train.columns[column.name][of_train].copy()
        of_row, place = _nearest(values, table.validation.columns[column.name][of_held_out].copy(), column.kind)
        rows = np.bincount(of_row)
        if output is OutputKind.CLASSES:
            counts = np.zeros((len(rows), len(classes)))
            np.add.at(counts, (of_row, codes), 1)
            counts = _with_neighbours(counts, rows, column.kind)
            answers = np.where(
                (place < 0) | (counts.sum(axis=1) == 0)[place], usual, classes[counts.argmax(axis=1)][place]
            )
            score = float(np.mean(answers == truth))
        else:
            sums = np.column_stack([np.bincount(of_row, target), rows])
            total, count = _with_neighbours(sums, rows, column.kind).T
            means = np.where(count > 0, total / np.maximum(count, 1), target.mean())
            score = _r2(truth, np.where(place < 0, target.mean(), means[place]))
        if score >= least:
            yield f"{column.name!r} ({metric} {score:.3f})"


def _sampled(part: Part) -> tuple[slice, NDArray[Any] | None]:
    """At most so many rows, evenly spaced, and their targets."""
    rows = slice(None, None, max(1, -(-part.n_rows // _SAMPLE_ROWS)))
    return rows, None if part.target is None else part.target[rows]


def _nearest(
    train: NDArray[Any], held_out: NDArray[Any], kind: ColumnKind
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The number of each training row's value, and that of the value nearest to each held-out one.

    Missing values are one value. An unknown category has no nearest value, which is -1.
    """
    if not kind.is_numeric:
        known, other = (pd.Series(each, dtype=object).fillna(_MISSING_CATEGORY) for each in (train, held_out))
        of_row, categories = pd.factorize(known)
        return of_row, categories.get_indexer(pd.Index(other))
    numbers, of_row = np.unique(train, return_inverse=True)
    present = numbers[~np.isnan(numbers)]
    if not len(present):
        return of_row, np.zeros(len(held_out), dtype=np.intp)
    missing = len(present) + 1  # beside no number
    of_row = np.where(np.isnan(train), missing, of_row)
    above = np.clip(np.searchsorted(present, held_out), 1, max(1, len(present) - 1))
    middle = (present[above - 1] + present[np.minimum(above, len(present) - 1)]) / 2
    place = np.minimum(np.where(held_out > middle, above, above - 1), len(present) - 1)
    return of_row, np.where(np.isnan(held_out), missing if np.isnan(train).any() else -1, place)


def _with_neighbours(sums: NDArray[Any], rows: NDArray[np.intp], kind: ColumnKind) -> NDArray[Any]:
    """``(n_values, any)`` sums over rows: of a number of few rows with the numbers beside it, of such a category none.

    Otherwise a column whose values are all different would tell the target of rows that it has learned by heart.
    """
    few = (rows < _FEW_ROWS)[:, None]
    if not kind.is_numeric:
        return np.where(few, 0, sums)
    padded = np.pad(sums, ((1, 1), (0, 0)))
    return np.where(few, padded[:-2] + padded[1:-1] + padded[2:], sums)


def _r2(truth: NDArray[Any], answers: NDArray[Any]) -> float:
    spread = float(np.square(truth - truth.mean()).sum())
    return 1.0 - float(np.square(truth - answers).sum()) / spread if spread > 0 else 0.0


def _drifted(table: TrainingTable, inputs: tuple[InputColumn, ...]) -> list[str]:
    """The columns whose index is above the bound, the greatest first."""
    if min(table.train.n_rows, table.validation.n_rows) < _MIN_ROWS:
        return []
    found = {
        column.name: stability_index(
            *(_codes(table.train.columns[column.name], table.validation.columns[column.name], column.kind))
        )
        for column in inputs
        if column.kind is not ColumnKind.TEXT
    }
    # Twice what chance gives, whose expectation is (bins - 1) (1 / n + 1 / m) (Yurdakul, 2018).
    chance = 2 * (_BINS - 1) * (1 / table.train.n_rows + 1 / table.validation.n_rows)
    large = sorted((name for name in found if found[name] > max(_DRIFT, chance)), key=lambda name: -found[name])
    return [f"{name!r} (population stability index {found[name]:.2f})" for name in large]


def stability_index(expected: NDArray[np.intp], actual: NDArray[np.intp]) -> float:
    """The population stability index of ``(n,)`` bin numbers: ``Σ (a - e) · ln(a / e)`` over the shares of each bin."""
    size = int(max(expected.max(initial=0), actual.max(initial=0))) + 1
    shares = [np.bincount(each, minlength=size) / max(1, len(each)) for each in (expected, actual)]
    e, a = (np.maximum(share, _SHARE_OF_NONE) for share in shares)
    return float(((a - e) * np.log(a / e))[(shares[0] > 0) | (shares[1] > 0)].sum())


def _codes(train: NDArray[Any], other: NDArray[Any], kind: ColumnKind) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The bin of each value: deciles of the training rows, or frequent categories; missing values have their own."""
    if kind.is_numeric:
        present = train[~np.isnan(train)]
        edges = np.unique(np.quantile(present, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(present) else np.array([])
        first, second = (np.searchsorted(edges, each, side="left") for each in (train, other))
        return tuple(  # type: ignore[return-value]
            np.where(np.isnan(each), len(edges) + 1, code) for each, code in ((train, first), (other, second))
        )
    frequent = pd.Series(train, dtype=object).value_counts().index[:_BINS].tolist()
    number = {value: code for code, value in enumerate(frequent)}
    return tuple(  # type: ignore[return-value]
        np.array([_BINS + 1 if value is None else number.get(value, _BINS) for value in each])
        for each in (train, other)
    )
