"""A registered dataset as training data."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ml_core.data.cells import Cells
from ml_core.data.table_file import holds_cells, read_frame
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.dataset import DatasetVersion, parse_reference
from ml_core.exceptions import DatasetNotFoundError, InvalidRequestError
from ml_core.ids import TenantId
from ml_core.registry.datasets import DatasetRepository
from ml_core.training.targets import invalid


def choose_data(
    db: DatabaseConnection, tenant_id: TenantId, given: Any, dataset: str | None, target: str | None
) -> tuple[Any, DatasetVersion | None]:
    """What to train on, and the version of the dataset that it is from.

    Args:
        db: The registry.
        tenant_id: The tenant.
        given: The pair ``(X, y)`` that the caller has; None: the dataset.
        dataset: Such as ``tickets_2026@3``; None: the data is of no dataset.
        target: The dataset's column to predict; None without one.

    Raises:
        InvalidRequestError: There is no such dataset, or the arguments contradict each other.
        TrainingError: The dataset has no such column.
        ArtifactIntegrityError: The dataset's file is missing or was changed.
    """
    if target is not None and (given is not None or dataset is None):
        raise InvalidRequestError(
            "A target names a column of a dataset that is trained on.",
            remedy="Give the dataset and no training_data, or the target's values as the second of the pair (X, y).",
            tenant_id=tenant_id,
            field="target",
        )
    source = None if dataset is None else find_dataset(db, tenant_id, dataset)
    if given is None and source is not None:
        given = read_dataset(db, tenant_id, source, target)
    return given, source


def find_dataset(db: DatabaseConnection, tenant_id: TenantId, reference: str) -> DatasetVersion:
    """The version that a reference such as ``tickets_2026@3`` names; without a number the newest.

    Raises:
        InvalidRequestError: There is no such dataset.
    """
    dataset_id, number = parse_reference(reference)
    try:
        return DatasetRepository(db, tenant_id).get(dataset_id, number)
    except DatasetNotFoundError as error:
        raise InvalidRequestError(error.message, remedy=error.remedy, tenant_id=tenant_id, field="dataset") from error


def read_dataset(
    db: DatabaseConnection, tenant_id: TenantId, version: DatasetVersion, target: str | None
) -> tuple[Any, Any]:
    """The pair ``(X, y)`` of a dataset's version.

    Args:
        db: The registry.
        tenant_id: The tenant.
        version: Of the tenant's dataset.
        target: The column to predict; None: ``y`` is None.

    Raises:
        TrainingError: The dataset has no such column.
        ArtifactIntegrityError: Its file is missing or was changed.
    """
    names = [name for name, _ in version.columns]
    target = None if target is None else str(target)  # as the names of columns are when they are stored
    if target is not None and target not in names:
        raise invalid(
            f"The dataset {version.reference} has no column {target!r}.",
            f"Its columns are: {', '.join(names[:20])}{', …' if len(names) > 20 else ''}.",
            target,
        )
    frame, is_cells = read_table_of(db, tenant_id, version)
    if target is None:
        return frame, None
    return frame.drop(columns=[target]), Cells.of(frame, frame[target]) if is_cells else frame[target]


def read_table_of(db: DatabaseConnection, tenant_id: TenantId, version: DatasetVersion) -> tuple[pd.DataFrame, bool]:
    """The table of a dataset's version as it is stored, and whether its strings are the cells of a text file.

    Raises:
        ArtifactIntegrityError: Its file is missing or was changed.
    """
    path = DatasetRepository(db, tenant_id).open(version.dataset_id, version.number)
    return read_frame(path), holds_cells(path)
