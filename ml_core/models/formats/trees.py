"""Trees as a few arrays: the compact form of ensembles, and the bounds of the numbers that compiled code follows.

A forest's trees differ in their nodes and seeds only, so they are stored as one record of what they share and as the
nodes of all of them one after another. Checking and rebuilding 100 trees then takes 3 ms instead of 80.

scikit-learn's C code trusts a tree: ``Tree``'s constructor copies as many class counts as its argument says,
``Tree.__setstate__`` does not compare the node count with the nodes (scikit-learn 1.9, ``tree/_tree.pyx``),
and predicting follows the children's and features' numbers unchecked (scikit-learn pull request 34558). So a tree is
checked here, before its constructor gets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.recfunctions import repack_fields
from numpy.typing import NDArray
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor
from sklearn.tree._tree import NODE_DTYPE, Tree

from ml_core.exceptions import UnsafeArtifactError

_TREES = (DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor)
PACKED_NODE = repack_fields(NODE_DTYPE)  # without the padding between fields, whose bytes are arbitrary
_STATE = frozenset({"max_depth", "node_count", "nodes", "values"})
_LEAF = -1
# More classes than any table has; bounds the memory that a crafted tree could allocate.
_MAX_CLASSES = 1_000_000


def pack_trees(items: Sequence[Any]) -> tuple[dict[str, Any], list[Any], dict[str, Any]] | None:
    """The common state of fitted trees, their seeds, and their arrays one after another; None if they differ more."""
    if len(items) < 2 or type(items[0]) not in _TREES or not all(type(item) is type(items[0]) for item in items):
        return None
    states = [item.__getstate__() for item in items]
    trees = [state.pop("tree_", None) for state in states]
    seeds = [state.pop("random_state", None) for state in states]
    first = trees[0]
    if any(tree is None or tree.n_outputs != 1 or tree.n_features != first.n_features for tree in trees):
        return None
    if not all(_alike(states[0], state) for state in states[1:]):
        return None
    inner = [tree.__getstate__() for tree in trees]
    arrays = {
        "n_features": first.n_features,
        "n_classes": first.n_classes,
        "node_counts": np.array([state["node_count"] for state in inner]),
        "max_depths": np.array([state["max_depth"] for state in inner]),
        "nodes": np.concatenate([state["nodes"].astype(PACKED_NODE) for state in inner]),
        "values": np.concatenate([state["values"] for state in inner]),
    }
    return states[0], seeds, arrays


def unpack_trees(kind: Any, shared: dict[str, Any], seeds: Sequence[Any], arrays: dict[str, Any]) -> list[Any]:
    """The trees that ``pack_trees`` packed.

    Raises:
        UnsafeArtifactError: A number lies outside of the array that it points into.
    """
    counts, depths, nodes, values = (arrays[key] for key in ("node_counts", "max_depths", "nodes", "values"))
    n_features, n_classes = arrays["n_features"], arrays["n_classes"]
    require(kind in _TREES and counts.ndim == 1 and counts.dtype.kind == "i" and len(counts) == len(seeds) > 0, "Tree")
    # The largest is checked first, since a sum of large numbers wraps around.
    require(depths.shape == counts.shape and 0 < int(counts.min()) <= int(counts.max()) <= len(nodes), "Tree")
    require(int(counts.sum()) == len(nodes), "Tree")
    _check_arguments(n_features, n_classes, 1)
    require(nodes.dtype == PACKED_NODE, "Tree")
    nodes = nodes.astype(NODE_DTYPE)
    _check_nodes(nodes, counts, n_features)
    items, start = [], 0
    # Cheap views: Tree.__setstate__ copies the nodes and values.
    for count, depth, seed in zip(counts.tolist(), depths.tolist(), seeds, strict=True):
        tree = _tree(n_features, n_classes, depth, nodes[start : start + count], values[start : start + count])
        item = kind.__new__(kind)
        item.__setstate__({**shared, "random_state": seed, "tree_": tree})
        items.append(item)
        start += count
    return items


def build_tree(arguments: Sequence[Any], state: dict[str, Any]) -> Tree:
    """A single tree of the arguments and the state that ``Tree.__reduce__`` gives.

    Raises:
        UnsafeArtifactError: A number lies outside of the array that it points into.
    """
    n_features, n_classes, n_outputs = arguments
    _check_arguments(n_features, n_classes, n_outputs)
    require(state.keys() == _STATE and type(state["node_count"]) is int, "Tree")
    nodes = state["nodes"]
    require(isinstance(nodes, np.ndarray) and nodes.ndim == 1 and state["node_count"] == len(nodes), "Tree")
    # Packed as this module's own, or with the bytes between fields as skops writes it.
    require(nodes.dtype in (PACKED_NODE, NODE_DTYPE), "Tree")
    nodes = nodes.astype(NODE_DTYPE)
    _check_nodes(nodes, np.array([len(nodes)]), n_features)
    return _tree(n_features, n_classes, state["max_depth"], nodes, state["values"])


def are_predictors(items: Sequence[Any]) -> bool:
    """Whether a list holds the lists of trees of histogram gradient boosting, one list an iteration."""
    return bool(items) and all(
        type(item) is list and item and all(type(tree) is TreePredictor for tree in item) for item in items
    )


def pack_predictors(items: Sequence[Sequence[TreePredictor]]) -> dict[str, Any]:
    """Their arrays one after another."""
    trees = [tree for item in items for tree in item]
    return {
        "trees_per_iteration": np.array([len(item) for item in items]),
        "node_counts": np.array([len(tree.nodes) for tree in trees]),
        "set_counts": np.array([len(tree.raw_left_cat_bitsets) for tree in trees]),
        "nodes": np.concatenate([tree.nodes for tree in trees]),
        "binned": np.concatenate([tree.binned_left_cat_bitsets for tree in trees]),
        "raw": np.concatenate([tree.raw_left_cat_bitsets for tree in trees]),
    }


def unpack_predictors(arrays: dict[str, Any]) -> list[list[TreePredictor]]:
    """What ``pack_predictors`` packed; ``native`` checks the numbers, which depend on the estimator.

    Raises:
        UnsafeArtifactError: The counts do not fit the arrays.
    """
    kind = "TreePredictor"
    nodes, raw, binned = (arrays[key] for key in ("nodes", "raw", "binned"))
    per_iteration, node_counts, set_counts = (arrays[k] for k in ("trees_per_iteration", "node_counts", "set_counts"))
    for counts, total in ((per_iteration, node_counts), (node_counts, nodes), (set_counts, raw)):
        require(counts.ndim == 1 and counts.dtype.kind == "i", kind)
        require(bool(((counts >= 0) & (counts <= len(total))).all()), kind)  # or their sum could wrap around
    require(len(node_counts) == len(set_counts) == int(per_iteration.sum()), kind)
    require(int(node_counts.sum()) == len(nodes) and int(set_counts.sum()) == len(raw) == len(binned), kind)
    trees, start, first_set = [], 0, 0
    for n_nodes, n_sets in zip(node_counts.tolist(), set_counts.tolist(), strict=True):
        sets = slice(first_set, first_set + n_sets)
        # Copies: a view would keep the arrays of all trees alive, and count as their size.
        trees.append(TreePredictor(nodes[start : start + n_nodes].copy(), binned[sets].copy(), raw[sets].copy()))
        start, first_set = start + n_nodes, first_set + n_sets
    ends = np.cumsum(per_iteration).tolist()
    return [trees[end - count : end] for count, end in zip(per_iteration.tolist(), ends, strict=True)]


def check_children(
    left: NDArray[Any], right: NDArray[Any], inner: NDArray[Any], counts: NDArray[Any], kind: str
) -> None:
    """Children are nodes of their own tree and come after their parent, as every grower writes them: a walk ends.

    ``left`` and ``right`` are ``(n_inner,)`` numbers within the tree; ``inner`` is ``(n_nodes,) bool``, which nodes are
    no leaf, of all trees one after another; ``counts`` is ``(n_trees,)`` nodes of each tree.

    Raises:
        UnsafeArtifactError: They are not.
    """
    starts = np.cumsum(counts) - counts
    parents = np.flatnonzero(inner) - np.repeat(starts, counts)[inner]
    bounds = np.repeat(counts, counts)[inner]
    for child in (left, right):
        require(bool(((child > parents) & (child < bounds)).all()), kind)


def _tree(n_features: int, n_classes: NDArray[Any], max_depth: Any, nodes: NDArray[Any], values: NDArray[Any]) -> Tree:
    require(type(max_depth) is int and 0 <= max_depth < 2**31, "Tree")
    tree = Tree(n_features, n_classes, 1)
    tree.__setstate__({"max_depth": max_depth, "node_count": len(nodes), "nodes": nodes, "values": values})
    return tree


def _check_arguments(n_features: Any, n_classes: Any, n_outputs: Any) -> None:
    require(type(n_features) is int and 0 <= n_features < 2**31 and type(n_outputs) is int and n_outputs > 0, "Tree")
    require_one_target(n_outputs == 1, "Tree")
    require(isinstance(n_classes, np.ndarray) and n_classes.shape == (1,) and n_classes.dtype == np.intp, "Tree")
    require(1 <= int(n_classes[0]) <= _MAX_CLASSES, "Tree")


def _check_nodes(nodes: NDArray[Any], counts: NDArray[Any], n_features: int) -> None:
    require(nodes.dtype == NODE_DTYPE and nodes.ndim == 1 and len(nodes) > 0, "Tree")
    inner = nodes["left_child"] != _LEAF
    split = nodes[inner]
    check_children(split["left_child"], split["right_child"], inner, counts, "Tree")
    require(bool(((split["feature"] >= 0) & (split["feature"] < n_features)).all()), "Tree")


def _alike(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype != object and a.shape == b.shape and a.tobytes() == b.tobytes())
    return bool(a is b or a == b)


def require(holds: bool, kind: str) -> None:
    """Refuse an artifact that violates what compiled code relies on.

    Raises:
        UnsafeArtifactError: The condition is false.
    """
    if not holds:
        raise UnsafeArtifactError(
            f"The artifact's {kind} points outside of its own arrays; using it could crash the process.",
            remedy="Restore it from a backup, or train and register the model again.",
            types=[kind],
        )


def require_one_target(holds: bool, kind: str) -> None:
    """Refuse an artifact that predicts several targets: a prediction is one label or number.

    Raises:
        UnsafeArtifactError: The condition is false.
    """
    if not holds:
        raise UnsafeArtifactError(
            f"The artifact's {kind} predicts several targets at once; a model of the platform predicts one.",
            remedy="Fit and register a model for each target.",
            types=[kind],
        )
