"""Trees as the operator ``TreeEnsemble`` of ONNX: in float64, summed in the order of their library.

The operator adds one number a leaf to one of its targets, so trees of one target are summed by it. The leaves of a
forest of classifiers hold a number for each class: there the operator gives the number of each tree's leaf, and the
graph looks these up and sums them. It sums along the first axis, tree by tree: along another one onnxruntime multiplies
matrices, and adds many trees up in another order than a few, so that equal votes would not stay equal.

scikit-learn's own trees round features to float32 before they compare, and those of histogram boosting and of
LightGBM do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ML = "ai.onnx.ml"
OPSETS = {"": 21, ML: 5}  # 5 is the first whose trees answer in float64
IR_VERSION = 10  # of the release of ONNX that has these opsets
FEATURES, ANSWER = "features", "answer"
TABLE = "mlcore/leaves"
ATTRIBUTES = {
    *("n_targets", "aggregate_function", "post_transform", "tree_roots", "leaf_targetids", "leaf_weights"),
    *("nodes_featureids", "nodes_splits", "nodes_modes", "nodes_truenodeids", "nodes_trueleafs", "nodes_falsenodeids"),
    *("nodes_falseleafs", "nodes_missing_value_tracks_true"),
}
"""Of the operator, as written here."""
_DIVISOR, _AXIS = "mlcore/divisor", "mlcore/axis"


@dataclass(frozen=True, slots=True)
class Tree:
    """A binary tree: at an inner node a row goes left if its feature is at most the threshold.

    Attributes:
        feature: ``(n_inner,) int64``.
        threshold: ``(n_inner,) float64``.
        left: ``(n_inner,) int64``: the number of an inner node, or of a leaf where ``left_is_leaf``.
        right: The same.
        left_is_leaf: ``(n_inner,) bool``.
        right_is_leaf: The same.
        missing_left: ``(n_inner,) bool``: whether NaN goes left.
        values: ``(n_leaves, n_values) float64``.
        target: To which it adds; 0 if its leaves have several values.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    left_is_leaf: NDArray[np.bool_]
    right_is_leaf: NDArray[np.bool_]
    missing_left: NDArray[np.bool_]
    values: NDArray[np.float64]
    target: int = 0


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Trees whose values are summed by target, and divided where it is a mean.

    Attributes:
        is_rounded: Whether features are rounded to float32 before they are compared.
        divisor: None: the answer is the sum.
    """

    trees: Sequence[Tree]
    n_targets: int
    is_rounded: bool
    divisor: float | None = None

    @property
    def n_splits(self) -> int:
        """The number of inner nodes."""
        return sum(len(tree.feature) for tree in self.trees)


def leaf(value: float, target: int) -> Tree:
    """A tree of one leaf."""
    none: NDArray[Any] = np.zeros(0, dtype=np.int64)
    nowhere = none.astype(np.bool_)
    return Tree(none, none.astype(np.float64), none, none, nowhere, nowhere, nowhere, np.array([[value]]), target)


def tree_of(
    children: tuple[NDArray[Any], NDArray[Any]],
    feature: NDArray[Any],
    threshold: NDArray[Any],
    missing_left: NDArray[Any],
    is_leaf: NDArray[Any],
    values: NDArray[Any],
    target: int = 0,
) -> Tree:
    """A tree of arrays over all nodes, inner ones and leaves in one numbering, as scikit-learn has them.

    ``values`` are ``(n_nodes, n_values)``.
    """
    is_leaf = is_leaf.astype(np.bool_)
    number = np.where(is_leaf, np.cumsum(is_leaf), np.cumsum(~is_leaf)).astype(np.int64) - 1
    left, right = (side[~is_leaf].astype(np.int64) for side in children)
    return Tree(
        feature[~is_leaf].astype(np.int64),
        threshold[~is_leaf].astype(np.float64),
        number[left],
        number[right],
        is_leaf[left],
        is_leaf[right],
        missing_left[~is_leaf].astype(np.bool_),
        np.ascontiguousarray(values[is_leaf], dtype=np.float64),
        target,
    )


def nodes_of(ensemble: Ensemble, features: str, answer: str) -> tuple[list[Any], list[Any]]:
    """The nodes of a graph, and its constants, from ``(n_rows, width) float64`` to ``(n_rows, n_values) float64``."""
    nodes, constants, compared = [], [], features
    if ensemble.is_rounded:
        nodes.append(helper.make_node("Cast", [features], ["mlcore/rounded"], to=TensorProto.FLOAT))
        compared = "mlcore/compared"
        nodes.append(helper.make_node("Cast", ["mlcore/rounded"], [compared], to=TensorProto.DOUBLE))
    has_table = ensemble.trees[0].values.shape[1] > 1
    summed = answer if ensemble.divisor is None else "mlcore/sum"
    found = "mlcore/found" if has_table else summed
    nodes.append(helper.make_node("TreeEnsemble", [compared], [found], domain=ML, **_attributes(ensemble, has_table)))
    if has_table:
        constants.append(numpy_helper.from_array(np.concatenate([tree.values for tree in ensemble.trees]), TABLE))
        constants.append(numpy_helper.from_array(np.array([0], dtype=np.int64), _AXIS))
        nodes.append(helper.make_node("Cast", [found], ["mlcore/numbers"], to=TensorProto.INT64))
        nodes.append(helper.make_node("Transpose", ["mlcore/numbers"], ["mlcore/by tree"], perm=[1, 0]))
        nodes.append(helper.make_node("Gather", [TABLE, "mlcore/by tree"], ["mlcore/values"], axis=0))
        nodes.append(helper.make_node("ReduceSum", ["mlcore/values", _AXIS], [summed], keepdims=0))
    if ensemble.divisor is not None:
        constants.append(numpy_helper.from_array(np.array(ensemble.divisor, dtype=np.float64), _DIVISOR))
        nodes.append(helper.make_node("Div", [summed, _DIVISOR], [answer]))
    return nodes, constants


def graph_of(ensemble: Ensemble, width: int) -> bytes:
    """A whole model: the input ``features``, ``(n_rows, width) float64``, and the output ``answer``."""
    nodes, constants = nodes_of(ensemble, FEATURES, ANSWER)
    given = helper.make_tensor_value_info(FEATURES, TensorProto.DOUBLE, [None, width])
    answer = helper.make_tensor_value_info(ANSWER, TensorProto.DOUBLE, [None, None])
    model = helper.make_model(
        helper.make_graph(nodes, "mlcore", [given], [answer], constants),
        opset_imports=[helper.make_opsetid(*each) for each in OPSETS.items()],
        ir_version=IR_VERSION,
        producer_name="ml-core-platform",
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _attributes(ensemble: Ensemble, has_table: bool) -> dict[str, Any]:
    trees = [_with_root(tree) for tree in ensemble.trees]
    inner = _starts(len(tree.feature) for tree in trees)
    leaves = _starts(len(tree.values) for tree in trees)

    def joined(part: str) -> NDArray[Any]:
        return np.concatenate([getattr(tree, part) for tree in trees])

    def sides(side: str) -> tuple[NDArray[Any], NDArray[Any]]:
        shifted = [
            getattr(tree, side) + np.where(getattr(tree, f"{side}_is_leaf"), leaf_start, start)
            for tree, start, leaf_start in zip(trees, inner, leaves, strict=True)
        ]
        return np.concatenate(shifted), joined(f"{side}_is_leaf").astype(np.int64)

    true, true_is_leaf = sides("left")
    false, false_is_leaf = sides("right")
    n_leaves = [len(tree.values) for tree in trees]
    if has_table:
        targets, weights = np.arange(len(trees)), np.arange(sum(n_leaves), dtype=np.float64)
    else:
        targets, weights = np.array([tree.target for tree in trees]), joined("values")[:, 0]
    return {
        "n_targets": len(trees) if has_table else ensemble.n_targets,
        "aggregate_function": 1,  # the sum
        "post_transform": 0,
        "tree_roots": inner,
        "nodes_featureids": joined("feature"),
        "nodes_splits": numpy_helper.from_array(joined("threshold")),
        "nodes_modes": numpy_helper.from_array(np.zeros(sum(len(tree.feature) for tree in trees), dtype=np.uint8)),
        "nodes_truenodeids": true,
        "nodes_trueleafs": true_is_leaf,
        "nodes_falsenodeids": false,
        "nodes_falseleafs": false_is_leaf,
        "nodes_missing_value_tracks_true": joined("missing_left").astype(np.int64),
        "leaf_targetids": np.repeat(targets, n_leaves),
        "leaf_weights": numpy_helper.from_array(np.ascontiguousarray(weights)),
    }


def _with_root(tree: Tree) -> Tree:
    """The operator knows no tree that is a leaf: a node that leads to it either way stands for one."""
    if len(tree.feature):
        return tree
    zero, yes = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.bool_)
    return Tree(zero, np.zeros(1), zero, zero, yes, yes, yes, tree.values, tree.target)


def _starts(sizes: Iterable[int]) -> list[int]:
    return [0, *accumulate(sizes)][:-1]
