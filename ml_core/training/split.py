"""Holding rows out, so that what is reported was measured on rows that were not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

HELD_OUT_SHARE = 0.2
# Equal rows are kept on one side of the split unless a table has few different rows, each many times: there a row to
# come is one of those too, and a model that was not shown a fifth of them would be worse for it.
MIN_DIFFERENT_ROWS = 50
MAX_MEAN_COPIES = 10
_SEED = 42


def can_be_kept_together(rows: NDArray[Any]) -> bool:
    """Whether a table has enough different rows to hold a fifth of those out.

    Args:
        rows: ``(n_rows,)``, one value for equal rows.
    """
    n_different = len(pd.unique(rows))
    return n_different >= max(MIN_DIFFERENT_ROWS, len(rows) / MAX_MEAN_COPIES)


def hold_out(rows: NDArray[Any], labels: NDArray[Any] | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to train on and rows to hold out, both ascending; the same every time.

    Args:
        rows: ``(n_rows,)`` at least 2, one value for rows that stay on one side.
        labels: ``(n_rows,)`` classes. Of each one about a fifth is held out, if it has two different rows, and every
            one is trained on; None: about a fifth of all.

    Returns:
        Row numbers: training, held out. Nothing is held out where each class has one value of ``rows`` only.
    """
    random = np.random.default_rng(_SEED)
    codes = pd.factorize(rows)[0]
    _, first, sizes = np.unique(codes, return_index=True, return_counts=True)
    strata = np.zeros(len(first)) if labels is None else labels[first]
    is_held_out = np.zeros(len(first), dtype=bool)
    for stratum in np.unique(strata):
        units = random.permutation(np.flatnonzero(strata == stratum))
        if len(units) > 1:
            is_held_out[_about_a_fifth(units, sizes[units])] = True
    if labels is not None:  # equal rows may have several labels
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
