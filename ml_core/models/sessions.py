"""Compiled forms in a cell: from bytes whose digest was verified to a function of a matrix.

onnxruntime follows the indices of a graph in C++ and loads files that a graph names. So only graphs of the very form
that ``tree_graph`` writes reach it: these operators in this order, these versions of them, and every index in its
array, without a cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.version import CompiledForm
from ml_core.exceptions import shown

MAX_BYTES: Final = 16 * 2**20
"""Of a compiled form: the parser takes up to a hundred times as much for the worst of bytes, about what an artifact may
unpack to (``archive.MAX_UNPACKED_BYTES``). The session keeps it, and what it makes of it: ``memory_of``."""
_MAX_DEPTH = 1_000  # onnxruntime builds trees by recursion
_MAX_TREES = 100_000
_BYTES_PER_BYTE = 5
_SESSION_BYTES = 100_000
_MAX_CELLS = 8 * 2**20  # numbers between the operators, of 8 bytes; more rows are asked in parts
_INDICES = ("nodes_truenodeids", "nodes_falsenodeids")
_LEAVES = ("nodes_trueleafs", "nodes_falseleafs")


class UnusableFormError(Exception):
    """A compiled form can't be used here; the message is a sentence. The original answers."""


def memory_of(size_bytes: int) -> int:
    """What a session of so many bytes takes in memory, about (``benchmarks/compiled.py`` measures it)."""
    return _SESSION_BYTES + _BYTES_PER_BYTE * size_bytes


def runtime_version() -> str:
    """The version of onnxruntime.

    Raises:
        UnusableFormError: It, or onnx, is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise UnusableFormError(f"{error.name} is not installed.") from error
    return str(onnxruntime.__version__)


def session_of(data: bytes, form: CompiledForm, width: int) -> Callable[[Any], NDArray[np.float64]]:
    """A function from ``(n_rows, width) float64`` to the sums of the trees, ``(n_rows, n_values) float64``.

    Raises:
        UnusableFormError: The runtime is missing or another one, or the bytes are not a graph of ours.
    """
    if (version := runtime_version()) != form.runtime:
        raise UnusableFormError(
            f"onnxruntime is {version} here, and the form was proved with {shown(form.runtime, 60)}."
        )
    try:
        return in_parts(check_graph(data, width), data)
    except UnusableFormError:
        raise
    except Exception as error:  # the parser and the runtime raise errors of many classes
        raise UnusableFormError(f"The graph can't be opened: {type(error).__name__}: {error}"[:300]) from error


def open_session(data: bytes) -> Callable[[Any], NDArray[np.float64]]:
    """The same of bytes that this process made itself."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Memory is given back after each request. The graph has five nodes, so a plan of it saves nothing.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    run = session.run

    def answer(features: Any) -> NDArray[np.float64]:
        found: NDArray[np.float64] = run(["answer"], {"features": features})[0]
        return found

    return answer


def in_parts(cells: int, data: bytes) -> Callable[[Any], NDArray[np.float64]]:
    """``open_session`` in bounded memory: ``cells`` are the numbers between the operators for each row."""
    most, run = _MAX_CELLS // cells, open_session(data)
    _require(most, "a row takes too much memory")

    def answer(features: Any) -> NDArray[np.float64]:
        if len(features) <= most:
            return run(features)
        return np.concatenate([run(features[start : start + most]) for start in range(0, len(features), most)])

    return answer


def check_graph(data: bytes, width: int) -> int:
    """Refuse what ``tree_graph`` does not write.

    Returns:
        How many numbers there are between the operators for each row.

    Raises:
        UnusableFormError: Says what is wrong.
        Exception: It is no model of ONNX; the parser raises errors of many classes.
    """
    import onnx

    from ml_core.models.tree_graph import ATTRIBUTES, IR_VERSION, OPSETS

    _require(len(data) <= MAX_BYTES, "it is too large")
    model = onnx.load_from_string(data)
    graph = model.graph
    _require(model.ir_version == IR_VERSION, "its version of ONNX is another")
    _require({each.domain: each.version for each in model.opset_import} == OPSETS, "its operator sets are others")
    _require(len(model.opset_import) == len(OPSETS), "its operator sets are others")
    extra = (
        model.functions,
        model.training_info,
        graph.sparse_initializer,
        graph.quantization_annotation,
        graph.value_info,
    )
    _require(not any(map(len, extra)), "it holds more than a graph")
    _require(_shape_of(graph.input) == (onnx.TensorProto.DOUBLE, width), "its input is another")
    _require(_shape_of(graph.output) == (onnx.TensorProto.DOUBLE, 0), "its output is another")
    table = _check_nodes(graph)
    trees = next(node for node in graph.node if node.op_type == "TreeEnsemble").attribute
    _require(len(trees) == len(ATTRIBUTES), "the attributes of its trees")
    of = {each.name: _value_of(each) for each in trees}
    _check_trees(of, width, table)
    return int(width + of["n_targets"] * (1 if table is None else 3 + table.shape[1]))


def _require(condition: object, what: str) -> None:
    if not condition:
        raise UnusableFormError(f"The graph is not one of this release: {what}.")


def _shape_of(values: Any) -> tuple[int, int] | None:
    """The type of the elements and the width of the only input or output; 0 where it is not fixed."""
    if len(values) != 1:
        return None
    of = values[0].type.tensor_type
    return None if len(of.shape.dim) != 2 else (of.elem_type, of.shape.dim[1].dim_value)


def _array_of(tensor: Any) -> NDArray[Any]:
    """The array of a tensor whose bytes are in the graph; a tensor can name a file instead."""
    from onnx import TensorProto, numpy_helper

    _require(tensor.data_location == TensorProto.DEFAULT and not tensor.external_data, "it names a file")
    array: NDArray[Any] = numpy_helper.to_array(tensor)
    return array


def _value_of(attribute: Any) -> Any:
    from onnx import AttributeProto

    kind = attribute.type
    _require(not attribute.ref_attr_name, "an attribute of its trees")
    if kind == AttributeProto.INT:
        return attribute.i
    if kind == AttributeProto.INTS:
        return np.array(attribute.ints, dtype=np.int64)
    _require(kind == AttributeProto.TENSOR, "an attribute of its trees")
    return _array_of(attribute.t)


def _check_nodes(graph: Any) -> NDArray[Any] | None:
    """Refuse other operators and constants than are written around one leaf; returns the table of leaves."""
    from ml_core.models.tree_graph import ANSWER, FEATURES, TABLE, Ensemble, leaf, nodes_of

    kinds = [node.op_type for node in graph.node[:9]]
    one = replace(leaf(0.0, 0), values=np.zeros((1, 2 if "Gather" in kinds else 1)))
    like = Ensemble([one], 1, is_rounded=kinds[:1] == ["Cast"], divisor=1.0 if "Div" in kinds else None)
    nodes, constants = nodes_of(like, FEATURES, ANSWER)
    is_like = len(graph.node) == len(nodes) and all(map(_is_like, graph.node, nodes))
    _require(is_like and (graph.input[0].name, graph.output[0].name) == (FEATURES, ANSWER), "its operators are others")
    _require([each.name for each in graph.initializer] == [each.name for each in constants], "its constants are others")
    found = {each.name: _array_of(each) for each in graph.initializer}
    for name, wanted in ((each.name, _array_of(each)) for each in constants if each.name != TABLE):
        _require((found[name].dtype, found[name].shape) == (wanted.dtype, wanted.shape), "its constants are others")
        _require(wanted.dtype == np.float64 or np.array_equal(found[name], wanted), "its constants are others")
    return found.get(TABLE)


def _is_like(found: Any, wanted: Any) -> bool:
    """Whether two nodes are equal, but for the attributes of trees."""
    left, right = ({of.name: value for of, value in node.ListFields()} for node in (found, wanted))
    if wanted.op_type == "TreeEnsemble":
        left.pop("attribute", None), right.pop("attribute")
    return left == right


def _check_trees(of: Mapping[str, Any], width: int, table: NDArray[Any] | None) -> None:
    from ml_core.models.tree_graph import ATTRIBUTES

    _require(of.keys() == ATTRIBUTES, "the attributes of its trees")
    n_nodes, n_leaves, roots = len(of["nodes_featureids"]), len(of["leaf_weights"]), of["tree_roots"]
    _require(of["aggregate_function"] == 1 and of["post_transform"] == 0, "its trees are not summed")
    _require(0 < len(roots) <= _MAX_TREES and 0 < of["n_targets"] <= _MAX_TREES, "the number of its trees")
    nodes = [name for name in of if name.startswith("nodes_")]
    _require(all(of[name].shape == (n_nodes,) for name in nodes), "its nodes differ in number")
    _require(of["leaf_targetids"].shape == of["leaf_weights"].shape == (n_leaves,), "its leaves differ in number")
    types = {name: of[name].dtype for name in ("nodes_splits", "leaf_weights", "nodes_modes")}
    _require(list(types.values()) == [np.float64, np.float64, np.uint8], "its numbers are not float64")
    _require(not of["nodes_modes"].any(), "a comparison is not <=")
    _require(_is_below(of["nodes_featureids"], width), "a feature does not exist")
    _require(_is_below(of["leaf_targetids"], of["n_targets"]), "a target does not exist")
    for name in (*_LEAVES, "nodes_missing_value_tracks_true"):
        _require(_is_below(of[name], 2), f"{name} is neither 0 nor 1")
    if table is not None:
        _require(table.dtype == np.float64 and table.ndim == 2 and table.shape[1] > 0, "its table of leaves")
        is_whole = len(table) == n_leaves and np.array_equal(of["leaf_weights"], np.arange(n_leaves))
        _require(is_whole and of["n_targets"] == len(roots), "its table of leaves")
    _check_paths(of, n_nodes, n_leaves)


def _check_paths(of: Mapping[str, Any], n_nodes: int, n_leaves: int) -> None:
    """Every node is reached from one parent, or is a root; so there is no cycle, and the depth is that of a walk."""
    children, is_leaf = np.stack([of[name] for name in _INDICES]), np.stack([of[name] for name in _LEAVES]) == 1
    _require(_is_below(children[is_leaf], n_leaves), "a leaf does not exist")
    _require(_is_below(children[~is_leaf], n_nodes), "a node does not exist")
    reached = np.sort(np.concatenate([of["tree_roots"], children[~is_leaf]]))
    _require(np.array_equal(reached, np.arange(n_nodes)), "a node has not one parent")
    level, seen = of["tree_roots"], 0
    for _ in range(_MAX_DEPTH):
        seen += len(level)
        below = children[:, level]
        level = below[~is_leaf[:, level]]
        if not len(level):
            break
    _require(not len(level) and seen == n_nodes, "its trees have a cycle or are too deep")


def _is_below(values: NDArray[Any], end: int) -> bool:
    return bool(((values >= 0) & (values < end)).all())
