"""Shapley values of any function of a row, by sampling orders of its columns.

Castro, Gómez and Tejada, Polynomial calculation of the Shapley value based on sampling (2009). The columns of a
background row are replaced by those of the row in a random order; what the score changes by belongs to the column. Each
order is followed by its reverse, which makes the result exact for scores in which no three columns interact. The
changes of an order add up to the score minus that of the background, whatever the orders.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import Columns, n_rows, take

PREDICTIONS_PER_ROW = 2_000
"""A row costs at most so many predictions, or two orders against one background row if it has more columns."""
_SEED = 42
# Cells in one call of the score.
_CHUNK_CELLS = 2**20


def sampled_shapley(
    score: Callable[[Columns], NDArray[np.float64]], row: Columns, background: Columns
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The base ``(n_scores,)`` and the contributions ``(n_columns, n_scores)`` of one row.

    Args:
        score: ``(n_rows, n_scores)`` float64 of canonical columns.
        row: A table of one row.
        background: A table of the rows that stand for "unknown".
    """
    names = list(row)
    background = take(background, slice(0, _background_rows(len(names), n_rows(background))))
    orders = _orders(len(names), n_rows(background))
    # The place of each column in each order; before a step, the columns of earlier places are the row's.
    places = np.argsort(orders, axis=1)
    scores = _walk(score, row, background, places)
    # (orders, steps, background, scores) → what each step changed.
    changes = np.diff(scores.mean(axis=2), axis=1)
    contributions = np.take_along_axis(changes, places[:, :, None], axis=1).mean(axis=0)
    return scores[0, 0].mean(axis=0), contributions


def predictions_per_row(n_columns: int, n_background: int) -> int:
    """How many predictions ``sampled_shapley`` makes of a row."""
    used = _background_rows(n_columns, n_background)
    return len(_orders(n_columns, used)) * (n_columns + 1) * used


def _background_rows(n_columns: int, n_background: int) -> int:
    return max(1, min(n_background, PREDICTIONS_PER_ROW // (2 * (n_columns + 1))))


def _orders(n_columns: int, n_background: int) -> NDArray[np.intp]:
    """Orders of the columns, ``(n_orders, n_columns)``: all if there is room, else random ones and their reverses."""
    pairs = max(1, PREDICTIONS_PER_ROW // (2 * (n_columns + 1) * n_background))
    if n_columns < 8 and math.factorial(n_columns) <= 2 * pairs:
        return np.array(list(itertools.permutations(range(n_columns))), dtype=np.intp)
    random = np.random.default_rng(_SEED)
    drawn = np.array([random.permutation(n_columns) for _ in range(pairs)], dtype=np.intp)
    return np.concatenate([drawn, drawn[:, ::-1]])


def _walk(
    score: Callable[[Columns], NDArray[np.float64]], row: Columns, background: Columns, places: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The scores at each step of each order against each background row: ``(orders, steps, background, scores)``."""
    n_orders, n_columns = places.shape
    shape = (n_orders, n_columns + 1, n_rows(background))
    at_once = max(1, _CHUNK_CELLS // n_columns)
    parts: list[NDArray[np.float64]] = []
    for start in range(0, math.prod(shape), at_once):
        order, step, other = np.unravel_index(np.arange(start, min(start + at_once, math.prod(shape))), shape)
        parts.append(
            score(
                {
                    name: np.where(places[order, column] < step, row[name], background[name][other])
                    for column, name in enumerate(row)
                }
            )
        )
    return np.concatenate(parts).reshape(*shape, -1)
