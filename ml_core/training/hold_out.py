"""The rows that are held out of a training: about a fifth, with equal rows, groups or times on one side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_core.domain.columns import ColumnKind, Columns
from ml_core.domain.signature import InputColumn
from ml_core.domain.train_spec import SPLIT_SEED
from ml_core.domain.values import composed
from ml_core.training.targets import GIVE_VALIDATION, invalid

# Of fewer, at most two are held out, too few for a score.
MIN_ROWS = 10
HELD_OUT_SHARE = 0.2
# Equal rows are kept on one side of the split unless a table has few different rows, each many times: future rows are
# among those too, and holding a fifth of them out would make the model worse.
MIN_DIFFERENT_ROWS = 50
MAX_MEAN_COPIES = 10


def divide(
    digests: NDArray[Any], labels: NDArray[Any] | None, notes: list[str], seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The numbers of training and held-out rows of ``(n_rows,)`` row digests and, if the output is classes, labels.

    Equal rows are on one side, since a model may have memorised a row. ``notes`` gets a sentence where there are any.
    """
    n_rows = len(digests)
    n_equal = int(pd.Series(digests).duplicated(keep=False).sum())
    train, held_out = hold_out(digests, labels, seed)
    if not n_equal:
        return train, held_out
    if can_be_kept_together(digests) and len(held_out):
        notes.append(
            f"{n_equal:,} of {n_rows:,} rows equal another one in every column used; equal rows are on one side "
            f"of the split: {len(train):,} rows to train on, {len(held_out):,} held out."
        )
        if labels is not None and (unmeasured := len(np.setdiff1d(labels, labels[held_out]))):
            notes.append(
                f"{unmeasured} class(es) have equal rows only, or nearly so: they are trained on, but the held-out "
                "metrics don't cover them."
            )
    else:
        train, held_out = hold_out(np.arange(n_rows), labels, seed)
        n_different = len(pd.unique(digests))
        notes.append(
            f"{n_equal:,} of {n_rows:,} rows equal another one in every column used, and there are "
            f"{n_different:,} different rows only, so equal rows are on both sides of the split: the held-out metrics "
            f"don't apply to rows unlike these. To measure those, {GIVE_VALIDATION}."
        )
    return train, held_out


def divide_by(
    groups: NDArray[np.intp] | None,
    times: NDArray[np.float64] | None,
    name: str,
    labels: NDArray[Any] | None,
    notes: list[str],
    seed: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The numbers of training and held-out rows by ``(n_rows,)`` groups, or else times, of a column.

    Raises:
        TrainingError: Too few rows, or of classes rows of one class, would be left to train on.
    """
    n_rows = len(groups if groups is not None else times)  # type: ignore[arg-type]
    if groups is not None:
        rows, held_out = hold_out(groups, None, seed)
        of = f"{len(np.unique(groups[held_out])):,} of {len(np.unique(groups)):,} groups by {name!r}"
    else:
        assert times is not None  # noqa: S101 - one of both is given
        values, counts = np.unique(times, return_counts=True)
        # Rows of one time stay together: the first ones of those values that make four fifths as nearly as possible.
        n_early = np.cumsum(counts)[:-1]
        last = values[np.abs(n_early - (1 - HELD_OUT_SHARE) * n_rows).argmin()]
        rows, held_out = np.flatnonzero(times <= last), np.flatnonzero(times > last)
        of = f"the latest rows by {name!r}"
    if len(rows) < MIN_ROWS - 1:
        raise invalid(f"{len(rows)} rows would be left to train on.", "Divide by another column, or by none.")
    if labels is not None and len(np.unique(labels[rows])) < 2:
        raise invalid("The rows that are not held out have one class only.", "Divide by another column, or by none.")
    notes.append(f"Held out were {of}: {len(held_out):,} of {n_rows:,} rows.")
    return rows, held_out


def times_of(columns: Columns, inputs: tuple[InputColumn, ...], name: str) -> NDArray[np.float64]:
    """The times by which rows are held out, from an input of the model: ``(n_rows,)`` float64.

    Raises:
        TrainingError: The column is not of dates or numbers, has missing values, or one value only.
    """
    kind = next((column.kind for column in inputs if column.name == composed(name)), None)
    if kind not in (ColumnKind.DATETIME, ColumnKind.NUMBER):
        what = "is not used" if kind is None else f"is a {kind}"
        raise invalid(
            f"The column {name!r} {what}, and rows are held out by dates or numbers.", "Name another column.", name
        )
    times: NDArray[np.float64] = columns[composed(name)]
    if np.isnan(times).any():
        raise invalid(f"Some rows have no {name!r}, by which they are held out.", "Fill it, or leave them out.", name)
    if times.min() == times.max():
        raise invalid(f"The column {name!r} has one value only.", "Hold out by another column, or by none.", name)
    return times


def can_be_kept_together(rows: NDArray[Any]) -> bool:
    """Whether a table, ``(n_rows,)`` with one value for equal rows, has enough different ones to hold a fifth out."""
    n_different = len(pd.unique(rows))
    return n_different >= max(MIN_DIFFERENT_ROWS, len(rows) / MAX_MEAN_COPIES)


def hold_out(
    rows: NDArray[Any], labels: NDArray[Any] | None, seed: int = SPLIT_SEED
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to train on and rows to hold out, both ascending; the same every time for a seed.

    Args:
        rows: ``(n_rows,)`` at least 2, one value for rows that stay on one side.
        labels: ``(n_rows,)`` classes. Of each one about a fifth is held out, if it has two different rows, and every
            one is trained on; None: about a fifth of all.
        seed: Of the rows that are held out.

    Returns:
        Row numbers: training, held out. Nothing is held out where each class has one value of ``rows`` only.
    """
    random = np.random.default_rng(seed)
    codes = pd.factorize(rows)[0]  # in the order of the rows, not of their values, which may be any digests
    _, first, sizes = np.unique(codes, return_index=True, return_counts=True)
    strata = np.zeros(len(first)) if labels is None else labels[first]  # the first of equal rows decides
    is_held_out = np.zeros(len(first), dtype=bool)
    for stratum in np.unique(strata):
        units = random.permutation(np.flatnonzero(strata == stratum))
        if len(units) > 1:
            is_held_out[_about_a_fifth(units, sizes[units])] = True
    if labels is not None:  # equal rows may have several labels, so a class can be left without a row to train on
        for label in np.setdiff1d(labels, labels[~is_held_out[codes]]):
            is_held_out[codes[labels == label][0]] = False
    return np.flatnonzero(~is_held_out[codes]), np.flatnonzero(is_held_out[codes])


def _about_a_fifth(units: NDArray[np.intp], sizes: NDArray[np.intp]) -> NDArray[np.intp]:
    """The first units that together have at most a fifth of the rows; the smallest one if each has more."""
    wanted = max(1, round(HELD_OUT_SHARE * sizes.sum()))
    small = sizes <= wanted
    if not small.any():
        return units[[sizes.argmin()]]
    chosen: NDArray[np.intp] = units[small][np.cumsum(sizes[small]) <= wanted]
    return chosen
