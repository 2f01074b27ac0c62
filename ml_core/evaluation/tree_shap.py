"""Exact Shapley values of ensembles of trees, with the path-dependent expectation of TreeSHAP.

Lundberg, Erion and Lee, Consistent Individualized Feature Attribution for Tree Ensembles (2018), define the game: a
split on an unknown feature goes both ways, weighted by the training rows of its children. A leaf of value v, whose path
splits on the distinct features j, is then worth ``v · ∏ o_j · ∏ z_k`` to a set of known features: over its members,
``o_j`` is 1 where the row follows the path and else 0; over the others, ``z_k`` is the share of rows that follow it.
The Shapley value of such a product is an integral (Owen, Multilinear extensions of games, 1972):

    v · (o_i - z_i) · ∫ from 0 to 1 of ∏ over j ≠ i of (o_j · t + z_j · (1 - t)) dt

The integrand is a polynomial of a degree below the number of features, so that Gauss and Legendre's quadrature with
half as many points is exact. All factors are positive, so nothing cancels. Products of a path are computed from the
root down and sums of leaves from the bottom up, for all trees at once, one level of depth after another: the cost of a
row is nodes times points, where the algorithm of the paper takes leaves times depth².
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import roots_legendre

# A child that no weighted row reached has the share 0; the quotients below need a positive one.
_SMALLEST_SHARE = 1e-12
# Trees are computed in groups of about so many nodes: their arrays stay in the cache of a core (measured).
_GROUP_NODES = 2**13
# Numbers in one array of the computation: 1 MiB.
_CHUNK = 2**17
_MAX_LEVELS = 1_000
# What a level costs besides its nodes, in elementary operations.
_LEVEL_WORK = 5_000


class Tree(NamedTuple):
    """A tree as arrays over its nodes, of which the first is the root.

    Attributes:
        left: ``(n_nodes,)`` the child where ``feature <= threshold``, -1 for a leaf.
        right: ``(n_nodes,)`` the other child.
        feature: ``(n_nodes,)``.
        threshold: ``(n_nodes,)`` float64.
        cover: ``(n_nodes,)`` weight of the training rows that reached the node.
        value: ``(n_nodes, n_scores)`` float64, of leaves.
    """

    left: NDArray[np.intp]
    right: NDArray[np.intp]
    feature: NDArray[np.intp]
    threshold: NDArray[np.float64]
    cover: NDArray[np.float64]
    value: NDArray[np.float64]


class TreeShap:
    """The Shapley values of a sum of trees.

    Args:
        trees: The trees.
        n_features: Of the matrix.
        rows_as: The dtype in which the trees compare the features of a row.

    Attributes:
        base: ``(n_scores,)`` the sum when no feature is known.
        work_per_row: Elementary operations for a row, about.

    Raises:
        ValueError: The nodes are not trees, as a file from outside may have it, or are more than 1,000 levels deep.
    """

    def __init__(self, trees: Sequence[Tree], n_features: int, rows_as: type = np.float64) -> None:
        group = np.cumsum([len(tree.left) for tree in trees]) // _GROUP_NODES
        groups = itertools.groupby(range(len(trees)), key=lambda number: int(group[number]))
        self._parts = [_Levels([trees[n] for n in numbers], n_features, rows_as) for _, numbers in groups]
        self.base: NDArray[np.float64] = np.sum([part.base for part in self._parts], axis=0)
        self.work_per_row = sum(part.work_per_row for part in self._parts)

    def contributions(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """The value of each feature, ``(n_features, n_rows, n_scores)``, of dense rows ``(n_rows, n_features)``."""
        result = self._parts[0].contributions(X)
        for part in self._parts[1:]:
            result += part.contributions(X)
        return result


class _Levels:
    """Trees, renumbered so that nodes of equal depth follow each other and siblings are neighbours."""

    def __init__(self, separate: Sequence[Tree], n_features: int, rows_as: type) -> None:
        trees, roots = _joined(separate)
        order, parent, bounds = _by_depth(trees, roots)
        self._bounds, self._parent, self._rows_as = bounds, parent, rows_as
        below = np.arange(bounds[1], len(order))  # every node but the roots
        split = order[parent[below]]
        self._edge_feature = np.full(len(order), -1, dtype=np.intp)
        self._edge_feature[below] = trees.feature[split]
        self._threshold = np.zeros(len(order))
        self._threshold[below] = trees.threshold[split]
        self._is_left = np.zeros(len(order), dtype=bool)
        self._is_left[below] = trees.left[split] == order[below]
        ratio = np.ones(len(order))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio[below] = np.maximum(trees.cover[order[below]] / trees.cover[split], _SMALLEST_SHARE)
        self._same = _same_feature_above(self._edge_feature, parent, bounds)
        reach, zero, distinct = ratio.copy(), ratio.copy(), np.zeros(len(order), dtype=np.intp)
        for start, end in self._levels():
            above, same = parent[start:end], self._same[start:end]
            reach[start:end] *= reach[above]
            zero[start:end] *= np.where(same >= 0, zero[same], 1.0)
            distinct[start:end] = distinct[above] + (same < 0)
        self._zero = zero
        self._leaves = np.flatnonzero(trees.left[order] < 0)
        self._value = trees.value[order[self._leaves]]
        self.base: NDArray[np.float64] = reach[self._leaves] @ self._value
        self._t, self._weights = _quadrature(max(1, (int(distinct.max()) + 1) // 2))
        self.work_per_row = len(order) * len(self._t) * (3 + self._value.shape[1]) + _LEVEL_WORK * len(bounds)
        self._to_features = sparse.csr_matrix(
            (np.ones(len(below)), (self._edge_feature[below], below)), shape=(n_features, len(order))
        )

    def _levels(self) -> list[tuple[int, int]]:
        """The first node of each level below the roots, and the first after it."""
        return list(zip(self._bounds[1:-1].tolist(), self._bounds[2:].tolist(), strict=True))

    def contributions(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        points = max(1, min(len(self._t), _CHUNK // len(self._parent)))
        at_once = max(1, _CHUNK // (len(self._parent) * points))
        found = []
        for start in range(0, len(X), at_once):
            follows = self._follows(X[start : start + at_once])[:, None, :]
            # The integral is a sum over points, which are taken a few at a time: their arrays have as many nodes each.
            parts = (self._explain(follows, slice(i, i + points)) for i in range(0, len(self._t), points))
            found.append(functools.reduce(np.add, parts))
        return np.concatenate(found, axis=1)

    def _explain(self, follows: NDArray[np.bool_], points: slice) -> NDArray[np.float64]:
        # Axes: rows, points, nodes. The last is the longest, since NumPy's loops are over it.
        has_same = self._same >= 0
        above = np.where(has_same, follows[:, :, self._same], True)
        zero_above = np.where(has_same, self._zero[self._same], 1.0)
        t = self._t[points, None]
        factor = self._zero * (1.0 - t) + follows * t
        factor_above = zero_above * (1.0 - t) + above * t
        # Of an edge, and minus that of the nearest edge above with the same feature, which counted the same leaves.
        gain = (follows - self._zero) / factor
        gain -= (above - zero_above) / factor_above
        gain *= self._weights[points, None]
        product = np.divide(factor, factor_above, out=factor)
        for start, end in self._levels():
            product[:, :, start:end] *= product[:, :, self._parent[start:end]]
        found = [self._to_features @ self._integrals(product, value, gain).T for value in self._value.T]
        return np.stack(found, axis=2)

    def _follows(self, X: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether a row goes where the edges of the same feature down to a node lead, ``(n_rows, n_nodes)``."""
        rows: NDArray[np.floating[Any]] = X.astype(self._rows_as)
        follows: NDArray[np.bool_] = (rows[:, self._edge_feature] <= self._threshold) == self._is_left
        follows[:, : self._bounds[1]] = True
        for start, end in self._levels():
            same = self._same[start:end]
            follows[:, start:end] &= (same < 0) | follows[:, same]
        return follows

    def _integrals(
        self, product: NDArray[np.float64], value: NDArray[np.float64], gain: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The integral of each edge over the leaves below it, ``(n_rows, n_nodes)``."""
        sums = np.zeros_like(product)
        sums[:, :, self._leaves] = product[:, :, self._leaves] * value
        for start, end in reversed(self._levels()):
            siblings = sums[:, :, start:end]
            sums[:, :, self._parent[start:end:2]] = siblings[:, :, 0::2] + siblings[:, :, 1::2]
        of_edges: NDArray[np.float64] = np.einsum("rqn,rqn->rn", sums, gain)
        return of_edges


@lru_cache
def _quadrature(n_points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points from 0 to 1 and their weights; 500 take about 10 ms."""
    points, weights = roots_legendre(n_points)
    return (points + 1.0) / 2.0, weights / 2.0


def _joined(trees: Sequence[Tree]) -> tuple[Tree, NDArray[np.intp]]:
    """Trees one after another as one, and the number of the root of each."""
    sizes = [len(tree.left) for tree in trees]
    roots = np.cumsum([0, *sizes[:-1]])
    shift = np.repeat(roots, sizes)
    left, right, *others = (np.concatenate(parts) for parts in zip(*trees, strict=True))
    inner = left >= 0
    return Tree(np.where(inner, left + shift, -1), np.where(inner, right + shift, -1), *others), roots


def _by_depth(trees: Tree, roots: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """The nodes by depth, the place of each one's parent, and where each level begins, with the end."""
    levels: list[NDArray[np.intp]] = [roots]
    parents = [np.arange(len(roots))]
    starts = [0, len(roots)]
    while True:
        level = levels[-1]
        inner = np.flatnonzero(trees.left[level] >= 0)
        if not len(inner):
            break
        children = np.stack([trees.left[level[inner]], trees.right[level[inner]]], axis=1).ravel()
        levels.append(children)
        parents.append(np.repeat(inner + starts[-2], 2))
        starts.append(starts[-1] + len(children))
        # A node with two parents would be counted twice, and their number double from level to level.
        if starts[-1] > len(trees.left) or len(levels) > _MAX_LEVELS:
            raise ValueError("the nodes of an ensemble are not trees, or too deep")
    return np.concatenate(levels), np.concatenate(parents), np.array(starts)


def _same_feature_above(
    feature: NDArray[np.intp], parent: NDArray[np.intp], bounds: Sequence[int] | NDArray[np.intp]
) -> NDArray[np.intp]:
    """For each node the nearest one above whose edge has the same feature, or -1."""
    n_roots = int(bounds[1])
    same = np.full(len(feature), -1, dtype=np.intp)
    waiting = np.arange(n_roots, len(feature))
    above = parent[waiting]
    while len(waiting):
        is_inner = above >= n_roots
        waiting, above = waiting[is_inner], above[is_inner]
        is_found = feature[waiting] == feature[above]
        same[waiting[is_found]] = above[is_found]
        waiting, above = waiting[~is_found], parent[above[~is_found]]
    return same
