"""What a model file says of itself: its type, and where possible the signature and a self-test.

For a version whose caller brings no signature. A pipeline of the platform knows its columns and their kinds. Any other
estimator is taken for one over numbers, and believed only if it then answers; else the version has no signature, and
an environment refuses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sklearn import base

from ml_core.domain.columns import ColumnKind, DateOrder
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.domain.version import SelfTest, ServableVersion
from ml_core.exceptions import PredictionError
from ml_core.ids import Digest, ModelId, TenantId, VersionId, VersionRef
from ml_core.models.formats import skops_format
from ml_core.models.loading import LoadedModel, labels_to_json

NO_SIGNATURE = Signature((), Output(OutputKind.NUMBER))
NO_SELF_TEST = SelfTest((), ())

_OUTPUTS = {
    "classification": OutputKind.CLASSES,
    "regression": OutputKind.NUMBER,
    "clustering": OutputKind.CLUSTER,
    "anomaly_detection": OutputKind.ANOMALY,
}


@dataclass(frozen=True, slots=True)
class Description:
    """What was found out; ``NO_SIGNATURE`` where nothing was."""

    model_type: str
    signature: Signature
    self_test: SelfTest


def describe(pipeline: Any, digest: Digest, model_type: str | None = None) -> Description:
    """Look at a fitted pipeline or estimator.

    Args:
        pipeline: The model, which passed the audit.
        digest: Of the bytes that it was read from.
        model_type: As the caller or the registry says; None means what kind of estimator it is.
    """
    kind = model_type or _model_type(pipeline)
    classes = tuple(labels_to_json(pipeline.classes_)) if hasattr(pipeline, "classes_") else ()
    output = Output(_OUTPUTS.get(kind, OutputKind.CLASSES if classes else OutputKind.NUMBER), classes)
    inputs = _inputs(pipeline)
    if not inputs:
        return Description(kind, NO_SIGNATURE, NO_SELF_TEST)
    signature = Signature(inputs, output)
    # One row without any value for a pipeline that knows what to do then; of zeros for one that doesn't.
    row = {column.name: None if column.nullable else 0.0 for column in inputs}
    ref = VersionRef(TenantId("self"), ModelId("self"), VersionId("0"))
    version = ServableVersion(ref, kind, digest, 0, skops_format.FORMAT, signature, NO_SELF_TEST)
    try:
        predictions, probabilities = LoadedModel(version, pipeline).predict_both(signature.columns_from_rows([row]))
    except PredictionError:
        return Description(kind, NO_SIGNATURE, NO_SELF_TEST)
    answers = () if probabilities is None else tuple(tuple(map(float, line)) for line in probabilities)
    return Description(kind, signature, SelfTest((row,), tuple(labels_to_json(predictions)), answers))


def _model_type(pipeline: Any) -> str:
    if base.is_outlier_detector(pipeline):
        return "anomaly_detection"
    if base.is_clusterer(pipeline):
        return "clustering"
    return "regression" if base.is_regressor(pipeline) else "classification"


def _inputs(pipeline: Any) -> tuple[InputColumn, ...]:
    first = pipeline.steps[0][1] if hasattr(pipeline, "steps") else pipeline
    own = getattr(first, "columns_", None)
    if type(first).__module__.startswith("ml_core.data.") and own:
        orders = {name: DateOrder(order) for name, order in (getattr(first, "date_orders_", None) or {}).items()}
        return tuple(InputColumn(n, ColumnKind(kind), nullable=True, date_order=orders.get(n)) for n, kind in own)
    count = int(getattr(first, "n_features_in_", 0))
    names = getattr(first, "feature_names_in_", None)
    listed = [f"x{index}" for index in range(count)] if names is None else [str(name) for name in names]
    return tuple(InputColumn(name, ColumnKind.NUMBER, nullable=False) for name in listed)
