"""A model as one ONNX graph, from raw columns to the answer, in float64.

Inputs are the columns of the signature, each ``(n_rows, 1)``: numbers and booleans as doubles, NaN where one is
missing; categories as strings, empty where one is missing. The encoder is written here, the estimator by skl2onnx.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.compose import add_prefix
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

from ml_core.data.encoding.category import CategoryEncoder
from ml_core.data.encoding.number import NumberEncoder
from ml_core.data.encoding.table import TableEncoder

_FEATURES, _PREFIX = "features", "mlcore/estimate/"
_ML = "ai.onnx.ml"
_OPSETS = {"": 17, _ML: 3}  # 3 is the first whose trees have thresholds in float64
# scikit-learn's trees round features to float32 before they compare; those of histogram boosting do not.
_ROUNDING = ("sklearn.tree.", "sklearn.ensemble._forest", "sklearn.ensemble._iforest", "sklearn.ensemble._gb")
_IR_VERSION = 8  # of the release of ONNX that has these opsets
_BOOSTING = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")
_NODE = ("treeids", "nodeids", "featureids", "modes", "truenodeids", "falsenodeids", "missing_value_tracks_true")
_LEAF = ("treeids", "nodeids", "ids")
_Answer = tuple[str, int]  # a name, and the type of its elements
_FLOAT32_ONLY = ("sklearn.ensemble._iforest",)


class _Graph:
    """Nodes and constants of the encoder, with names that no column is likely to have."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any) -> str:
        name = f"mlcore/constant {len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"mlcore/{kind} {len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def double(self, name: str) -> str:
        return self.node("Cast", name, to=TensorProto.DOUBLE)


def to_onnx(encoder: TableEncoder, estimator: Any) -> bytes:
    """The model of a fitted encoder without dates and texts, and a fitted estimator of scikit-learn.

    The outputs are ``predictions`` ``(n_rows,)`` and, of a classifier that has them, ``probabilities``
    ``(n_rows, n_classes)``.

    Raises:
        Exception: skl2onnx can't convert the estimator; it raises errors of many classes.
    """
    graph = _Graph()
    parts = []
    for part in encoder.dense_:
        if isinstance(part, NumberEncoder):
            parts += _numbers(graph, part)
        elif isinstance(part, CategoryEncoder):
            parts += _categories(graph, part)
    features = graph.node("Concat", *parts, axis=1)
    if type(estimator).__name__ in _BOOSTING:
        answers = _boosting(graph, estimator, features)
    else:
        answers = _converted(graph, estimator, features, encoder.n_features_out)
    return bytes(_model(graph, encoder, answers).SerializeToString())


def _converted(graph: _Graph, estimator: Any, features: str, width: int) -> Sequence[_Answer]:
    """The estimator as skl2onnx converts it."""
    module, is_classifier = type(estimator).__module__, hasattr(estimator, "classes_")
    if module.startswith(_ROUNDING):
        features = graph.node("Cast", features, to=TensorProto.FLOAT)
    if not module.startswith(_FLOAT32_ONLY):
        features = graph.double(features)
    graph.node("Identity", features, output=f"{_PREFIX}{_FEATURES}")
    kind = FloatTensorType if module.startswith(_FLOAT32_ONLY) else DoubleTensorType
    converted = convert_sklearn(
        estimator,
        initial_types=[(_FEATURES, kind([None, width]))],
        options={id(estimator): {"zipmap": False}} if is_classifier else None,
        target_opset=_OPSETS,
    )
    found = add_prefix(converted, _PREFIX).graph  # its names may be those of columns, or of the outputs
    graph.nodes += found.node
    graph.constants += found.initializer
    wanted = found.output[: 2 if is_classifier and hasattr(estimator, "predict_proba") else 1]
    return [(each.name, each.type.tensor_type.elem_type) for each in wanted]


def _boosting(graph: _Graph, estimator: Any, features: str) -> Sequence[_Answer]:
    """Histogram gradient boosting, which skl2onnx 1.20 can't convert: trees, summed, and the link of the loss."""
    loss = estimator.loss
    if loss not in ("squared_error", "log_loss") or estimator.is_categorical_ is not None:
        raise ValueError(f"the loss {loss} or its own treatment of categories has no graph")
    base = np.asarray(estimator._baseline_prediction, dtype=np.float64).ravel()
    summed = graph.node("TreeEnsembleRegressor", features, domain=_ML, **_trees(estimator._predictors, base))
    raw = graph.double(summed)  # the operator answers in float32
    if loss == "squared_error":
        return [(raw, TensorProto.DOUBLE)]
    if len(base) == 1:
        second = graph.node("Sigmoid", raw)
        first = graph.node("Sub", graph.constant(np.float64(1.0)), second)
        probabilities = graph.node("Concat", first, second, axis=1)
    else:
        probabilities = graph.node("Softmax", raw, axis=1)
    best = graph.node("ArgMax", probabilities, axis=1, keepdims=0)
    is_text = estimator.classes_.dtype.kind in "OU"
    classes = graph.constant(estimator.classes_.astype(object if is_text else np.int64))
    label = graph.node("Gather", classes, best, axis=0)
    return [(label, TensorProto.STRING if is_text else TensorProto.INT64), (probabilities, TensorProto.DOUBLE)]


def _trees(rounds: Sequence[Sequence[Any]], base: NDArray[np.float64]) -> dict[str, Any]:
    """The attributes of ``TreeEnsembleRegressor``: nodes by tree, and the values of leaves by target."""
    nodes: dict[str, list[Any]] = {name: [] for name in _NODE}
    leaves: dict[str, list[Any]] = {name: [] for name in _LEAF}
    trees = [(target, tree) for of_round in rounds for target, tree in enumerate(of_round)]
    for number, (target, tree) in enumerate(trees):
        for place, node in enumerate(tree.nodes):
            is_leaf = bool(node["is_leaf"])
            row = (number, place, int(node["feature_idx"]), "LEAF" if is_leaf else "BRANCH_LEQ", int(node["left"]),
                   int(node["right"]), int(node["missing_go_to_left"]))  # fmt: skip
            for name, value in zip(_NODE, row, strict=True):
                nodes[name].append(value)
            if is_leaf:
                for name, value in zip(_LEAF, (number, place, target), strict=True):
                    leaves[name].append(value)
    every = np.concatenate([tree.nodes for _, tree in trees])
    ends = every["is_leaf"].astype(bool)
    return {
        **{f"nodes_{name}": values for name, values in nodes.items()},
        **{f"target_{name}": values for name, values in leaves.items()},
        "nodes_values_as_tensor": numpy_helper.from_array(np.where(ends, 0.0, every["num_threshold"])),
        "target_weights_as_tensor": numpy_helper.from_array(every["value"][ends]),
        "base_values_as_tensor": numpy_helper.from_array(base),
        "n_targets": len(base),
    }


def _numbers(graph: _Graph, encoder: NumberEncoder) -> list[str]:
    values = graph.node("Concat", *encoder.names, axis=1)
    missing = graph.node("IsNaN", values)
    filled = graph.node("Where", missing, graph.constant(encoder.fill_.astype(np.float64)), values)
    centered = graph.node("Sub", filled, graph.constant(encoder.center_.astype(np.float64)))
    scaled = graph.node("Div", centered, graph.constant(encoder.scale_.astype(np.float64)))
    if not len(encoder.flagged_):
        return [scaled]
    flags = graph.node("Gather", missing, graph.constant(encoder.flagged_.astype(np.int64)), axis=1)
    return [scaled, graph.double(flags)]


def _categories(graph: _Graph, encoder: CategoryEncoder) -> list[str]:
    features = []
    for name, categories in zip(encoder.names, encoder.categories_, strict=True):
        other, missing = len(categories), len(categories) + 1
        code = graph.node(
            "LabelEncoder",
            name,
            domain=_ML,
            keys_strings=[*categories, ""],
            values_int64s=[*range(other), missing],
            default_int64=other,
        )
        features.append(graph.double(graph.node("Equal", code, graph.constant(np.arange(missing + 1, dtype=np.int64)))))
    return features


def _model(graph: _Graph, encoder: TableEncoder, answers: Sequence[_Answer]) -> Any:
    """The whole model: a column in, the predictions and perhaps the probabilities out."""
    kinds: dict[str, Any] = {}
    for part in encoder.dense_:
        kind = TensorProto.DOUBLE if isinstance(part, NumberEncoder) else TensorProto.STRING
        kinds |= dict.fromkeys(part.names, kind)
    inputs = [helper.make_tensor_value_info(name, kinds[name], [None, 1]) for name, _ in encoder.columns_]
    (label, label_kind), *others = answers
    graph.node("Reshape", label, graph.constant(np.array([-1], dtype=np.int64)), output="predictions")
    outputs = [helper.make_tensor_value_info("predictions", label_kind, [None])]
    for name, of in others:
        graph.node("Identity", name, output="probabilities")
        outputs.append(helper.make_tensor_value_info("probabilities", of, [None, None]))
    model = helper.make_model(
        helper.make_graph(graph.nodes, "mlcore", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid(*each) for each in _OPSETS.items()],
        ir_version=_IR_VERSION,
        producer_name="ml-core-platform",
    )
    onnx.checker.check_model(model)
    return model


def run(model: bytes, columns: Any) -> Sequence[NDArray[Any]]:
    """What the model answers to canonical columns: the predictions, and the probabilities if it has them."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    given = {of.name: _tensor(columns[of.name]) for of in session.get_inputs()}
    return list(session.run(None, given))


def _tensor(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype == object:
        values = np.array(["" if value is None else value for value in values], dtype=object)
    return values.reshape(-1, 1)
