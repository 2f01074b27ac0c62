"""A model as one ONNX graph, from raw columns to the answer, in float64.

Inputs are the columns of the signature, each ``(n_rows, 1)``: numbers and booleans as doubles, NaN where one is
missing; categories as strings, empty where one is missing. The encoder is written here, trees by ``tree_graph`` and
other estimators by skl2onnx.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.compose import add_prefix
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.base import OutlierMixin

from ml_core.data.encoding.category import CategoryEncoder
from ml_core.data.encoding.number import NumberEncoder
from ml_core.data.encoding.table import TableEncoder
from ml_core.models.ensembles import family_of, path_length
from ml_core.models.tree_graph import IR_VERSION, ML, OPSETS, nodes_of

_FEATURES, _PREFIX = "features", "mlcore/estimate/"
_SUMS = "mlcore/sums"
_CONVERTED_OPSETS = {"": 17, ML: 3}  # of skl2onnx; 3 is the first whose trees have thresholds in float64
_CONVERTED_IR = 8  # of the release of ONNX that has these opsets
_ROUNDING = ("sklearn.ensemble._gb",)  # rounds features to float32 before it compares
_Answer = tuple[str, int]  # a name, and the type of its elements


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
    family = family_of(estimator)
    if family is None:
        answers = _converted(graph, estimator, features, encoder.n_features_out)
        return _model(graph, encoder, answers, _CONVERTED_OPSETS, _CONVERTED_IR)
    ensemble = family.ensemble(estimator)
    nodes, constants = nodes_of(ensemble, features, _SUMS)
    graph.nodes += nodes
    graph.constants += constants
    return _model(graph, encoder, _ended(graph, estimator, is_mean=ensemble.divisor is not None), OPSETS, IR_VERSION)


def _converted(graph: _Graph, estimator: Any, features: str, width: int) -> Sequence[_Answer]:
    """The estimator as skl2onnx converts it."""
    is_classifier = hasattr(estimator, "classes_")
    if type(estimator).__module__.startswith(_ROUNDING):
        features = graph.double(graph.node("Cast", features, to=TensorProto.FLOAT))
    graph.node("Identity", features, output=f"{_PREFIX}{_FEATURES}")
    converted = convert_sklearn(
        estimator,
        initial_types=[(_FEATURES, DoubleTensorType([None, width]))],
        options={id(estimator): {"zipmap": False}} if is_classifier else None,
        target_opset=_CONVERTED_OPSETS,
    )
    found = add_prefix(converted, _PREFIX).graph  # its names may be those of columns, or of the outputs
    graph.nodes += found.node
    graph.constants += found.initializer
    wanted = found.output[: 2 if is_classifier and hasattr(estimator, "predict_proba") else 1]
    return [(each.name, each.type.tensor_type.elem_type) for each in wanted]


def _ended(graph: _Graph, estimator: Any, *, is_mean: bool) -> Sequence[_Answer]:
    """What follows the sums of trees: the link of a loss and the label, or the side of the threshold of anomalies.

    A mean is of probabilities already.
    """
    loss = getattr(estimator, "loss", None)
    if isinstance(estimator, OutlierMixin):
        return [(_side(graph, estimator), TensorProto.INT64)]
    if not hasattr(estimator, "classes_"):
        if loss not in (None, "squared_error"):
            raise ValueError(f"the loss {loss} has no graph")
        return [(_SUMS, TensorProto.DOUBLE)]
    probabilities = _SUMS
    if not is_mean and len(estimator.classes_) == 2:
        second = graph.node("Sigmoid", _SUMS)
        first = graph.node("Sub", graph.constant(np.float64(1.0)), second)
        probabilities = graph.node("Concat", first, second, axis=1)
    elif not is_mean:
        probabilities = graph.node("Softmax", _SUMS, axis=1)
    best = graph.node("ArgMax", probabilities, axis=1, keepdims=0)
    is_text = estimator.classes_.dtype.kind in "OU"
    classes = graph.constant(estimator.classes_.astype(object if is_text else np.int64))
    label = graph.node("Gather", classes, best, axis=0)
    return [(label, TensorProto.STRING if is_text else TensorProto.INT64), (probabilities, TensorProto.DOUBLE)]


def _side(graph: _Graph, estimator: Any) -> str:
    """1 for a normal row and -1 for an anomaly, by the mean depth of the trees of an isolation forest."""
    shrunk = graph.node("Div", _SUMS, graph.constant(np.float64(-path_length(estimator))))
    scores = graph.node("Pow", graph.constant(np.float64(2.0)), shrunk)
    decision = graph.node("Sub", graph.node("Neg", scores), graph.constant(np.float64(estimator.offset_)))
    is_anomaly = graph.node("Less", decision, graph.constant(np.float64(0.0)))
    return graph.node("Where", is_anomaly, graph.constant(np.int64(-1)), graph.constant(np.int64(1)))


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
            domain=ML,
            keys_strings=[*categories, ""],
            values_int64s=[*range(other), missing],
            default_int64=other,
        )
        features.append(graph.double(graph.node("Equal", code, graph.constant(np.arange(missing + 1, dtype=np.int64)))))
    return features


def _model(
    graph: _Graph, encoder: TableEncoder, answers: Sequence[_Answer], opsets: Mapping[str, int], ir_version: int
) -> bytes:
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
        opset_imports=[helper.make_opsetid(*each) for each in opsets.items()],
        ir_version=ir_version,
        producer_name="ml-core-platform",
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


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
