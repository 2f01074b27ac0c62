"""Holding rows out, so that what is reported was measured on rows that were not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

HELD_OUT_SHARE = 0.2
_SEED = 42


def hold_out(n_rows: int, labels: NDArray[Any] | None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows to train on and rows to hold out, both ascending; the same every time.

    Args:
        n_rows: Rows in all, at least 2.
        labels: ``(n_rows,)`` classes, of which a fifth of each, and at least one row of each that has two, is held out;
            None: a fifth of all.

    Returns:
        Row numbers: training, held out.
    """
    random = np.random.default_rng(_SEED)
    groups = [np.arange(n_rows)] if labels is None else [np.flatnonzero(labels == label) for label in np.unique(labels)]
    held_out = np.zeros(n_rows, dtype=bool)
    for rows in groups:
        if len(rows) > 1:
            count = max(1, round(HELD_OUT_SHARE * len(rows)))
            held_out[random.permutation(rows)[:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
