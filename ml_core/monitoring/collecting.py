"""Labelled rows of the prediction log as a version of a dataset, to train on what the world is like now."""

from __future__ import annotations

import pandas as pd

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.dataset import DatasetVersion
from ml_core.domain.signature import OutputKind
from ml_core.domain.values import category_text
from ml_core.exceptions import DataProcessingError
from ml_core.ids import TenantId
from ml_core.monitoring.measuring import Measuring
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.predictions.live import Window

MAX_COLLECTED = 50_000
"""Rows of a window of labels that become a dataset; of more, as many are drawn at random of each version and day. The
control loop holds them, so ``LiveRows.sample`` bounds their bytes."""


def collect_labels(
    db: DatabaseConnection, tenant_id: TenantId, window: Window, dataset_id: str, target: str, output: OutputKind
) -> DatasetVersion:
    """Register the rows of a window that have a label as the next version of a dataset.

    Args:
        db: The registry.
        tenant_id: The tenant.
        window: Whose rows.
        dataset_id: The dataset, without a number.
        target: The column that gets the labels.
        output: What the model answers.

    Raises:
        DataProcessingError: No row has a label and its inputs; the policy may not keep inputs.
        MLFrameworkError: As ``DatasetRepository.create``.
    """
    rows = Measuring(db, tenant_id)
    counted = [(day, version, n) for day in window.days() for version, n in rows.labelled(day).items()]
    total = sum(n for *_, n in counted)
    found = []
    for day, version, n in counted:
        limit = -(-MAX_COLLECTED * n // max(total, MAX_COLLECTED))
        drawn = rows.sample(day, version, n, limit, with_labels=True)
        found += [{**inputs, target: label} for inputs, _, label in drawn if inputs is not None]
    if not found:
        raise DataProcessingError(
            f"No answer of {window.model_id} since {window.since:%Y-%m-%d} has a label and its inputs.",
            remedy="Send labels, and keep inputs: mlcore predictions policy inputs.",
            stage="collect",
        )
    frame = pd.DataFrame(found)
    if output is not OutputKind.NUMBER and frame[target].map(type).nunique() > 1:
        frame[target] = frame[target].map(category_text)  # a client sent the class 1 as "1"
    source = {
        "kind": "labels",
        "model_id": str(window.model_id),
        "environment": str(window.environment),
        "since": window.since.isoformat(),
        "until": window.until.isoformat(),
        "labels": total,
    }
    return DatasetRepository(db, tenant_id).create(dataset_id, frame, source=source)
