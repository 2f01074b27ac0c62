"""A value that is nested too deeply to be shown whole is refused like any other that does not fit."""

from __future__ import annotations

import pytest

from ml_core.domain.columns import ColumnKind
from ml_core.domain.gates import parse_gate
from ml_core.domain.signature import InputColumn
from ml_core.exceptions import MLFrameworkError
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.registry.limits import check_document, check_tags, check_word
from ml_core.registry.predictions.labels import check_label
from ml_core.registry.runs.artifacts import check_name
from ml_core.registry.versions.registration import check_metrics

DEEP: list = []
for _ in range(5_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "refused",
    [
        *(lambda v, kind=kind: InputColumn("a", kind, True).read([v]) for kind in ColumnKind),
        *(lambda v, name=name: name(v) for name in (TenantId, ModelId, VersionId)),
        lambda v: parse_gate("g", "min_metric", {"metric": "accuracy", "value": v}),
        lambda v: check_tags({"k": v}),
        lambda v: check_word(v, "metric"),
        lambda v: check_name(v),
        lambda v: check_document({"p": v}, "parameters"),
        lambda v: check_metrics({"test": {"m": v}}),
        lambda v: check_label("r", 0, v),
        lambda v: check_label(v, v, v),
    ],
)
@pytest.mark.parametrize("value", [DEEP, {"a": DEEP}])
def test_a_deep_value_is_refused_with_a_short_message(refused, value):
    """With the platform's own error and not with Python's."""
    with pytest.raises(MLFrameworkError) as caught:
        refused(value)
    assert len(str(caught.value)) < 500
