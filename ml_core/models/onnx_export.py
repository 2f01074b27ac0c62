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
    features, module = graph.node("Concat", *parts, axis=1), type(estimator).__module__
    if module.startswith(_ROUNDING):
        features = graph.node("Cast", features, to=TensorProto.FLOAT)
    if not module.startswith(_FLOAT32_ONLY):
        features = graph.double(features)
    graph.node("Identity", features, output=f"{_PREFIX}{_FEATURES}")
    kind = FloatTensorType if module.startswith(_FLOAT32_ONLY) else DoubleTensorType
    has_probabilities = hasattr(estimator, "classes_") and hasattr(estimator, "predict_proba")
    converted = convert_sklearn(
        estimator,
        initial_types=[(_FEATURES, kind([None, encoder.n_features_out]))],
        options={id(estimator): {"zipmap": False}} if hasattr(estimator, "classes_") else None,
        target_opset=_OPSETS,
    )
    return bytes(_joined(graph, encoder, converted, has_probabilities).SerializeToString())


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


def _joined(graph: _Graph, encoder: TableEncoder, converted: Any, has_probabilities: bool) -> Any:
    """One model of the encoder's nodes and the converted estimator's."""
    found = add_prefix(converted, _PREFIX).graph  # its names may be those of columns, or of the outputs
    kinds: dict[str, Any] = {}
    for part in encoder.dense_:
        kind = TensorProto.DOUBLE if isinstance(part, NumberEncoder) else TensorProto.STRING
        kinds |= dict.fromkeys(part.names, kind)
    inputs = [helper.make_tensor_value_info(name, kinds[name], [None, 1]) for name, _ in encoder.columns_]
    answer = _Graph()
    answer.node("Reshape", found.output[0].name, "mlcore/flat", output="predictions")
    graph.constants.append(numpy_helper.from_array(np.array([-1], dtype=np.int64), "mlcore/flat"))
    label = found.output[0].type.tensor_type.elem_type
    outputs = [helper.make_tensor_value_info("predictions", label, [None])]
    if has_probabilities:
        answer.node("Identity", found.output[1].name, output="probabilities")
        kind = found.output[1].type.tensor_type.elem_type
        outputs.append(helper.make_tensor_value_info("probabilities", kind, [None, None]))
    nodes, constants = [*graph.nodes, *found.node, *answer.nodes], [*graph.constants, *found.initializer]
    imports = [each for each in converted.opset_import if each.domain != _ML]
    imports.append(helper.make_opsetid(_ML, _OPSETS[_ML]))
    model = helper.make_model(
        helper.make_graph(nodes, "mlcore", inputs, outputs, constants),
        opset_imports=imports,
        ir_version=converted.ir_version,
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
