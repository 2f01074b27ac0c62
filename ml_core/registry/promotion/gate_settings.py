"""The check of a gate's settings when it is set: a typo would fail every promotion later."""

from __future__ import annotations

import dataclasses
import difflib

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import dataset_versions, version_metrics
from ml_core.domain.dataset import DatasetVersion
from ml_core.domain.gates import TRAINING_SPLITS, Gate, MinMetric, NotWorse
from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.exceptions import Action, InvalidRequestError, did_you_mean, listed
from ml_core.ids import DatasetId, ModelId, TenantId
from ml_core.registry.blobs import lock_digest

_COMPARED = 1_000
"""Number of names that a typo is compared with."""


def checked(connection: Connection, tenant_id: TenantId, model_id: ModelId, gate: Gate) -> Gate:
    """The gate to store: a ``not_worse`` gate gets the number of its dataset's version.

    Args:
        connection: In the tenant's transaction that writes the gate.
        tenant_id: The tenant.
        model_id: The model.
        gate: The gate that a caller wants.

    Raises:
        InvalidRequestError: There is no such dataset or column of it, or no version of the model has such a metric or
            split; names the nearest.
        RequestTooLargeError: The dataset has too many rows to compare on.
    """
    match gate.rule:
        case NotWorse() as rule:
            from ml_core.evaluation.held_out import check_size  # loads scikit-learn: only for this gate

            dataset = _dataset(connection, tenant_id, rule)
            _check_target(tenant_id, rule, dataset)
            check_size(dataset)
            return dataclasses.replace(gate, rule=dataclasses.replace(rule, number=dataset.number))
        case MinMetric() as rule:
            _check_split(connection, tenant_id, model_id, rule)
            _check_metric(connection, tenant_id, model_id, rule)
    return gate


def _dataset(connection: Connection, tenant_id: TenantId, rule: NotWorse) -> DatasetVersion:
    """The dataset version to compare on, locked by its digest so that it is not deleted before the gate is stored."""
    from ml_core.registry.datasets.rows import find  # loads pandas and pyarrow: only for this gate

    name = DatasetId(rule.dataset)
    found = find(connection, tenant_id, name, rule.number)
    if found is not None:
        lock_digest(connection, tenant_id, found.digest, shared=True)
        found = find(connection, tenant_id, name, found.number)
    if found is None:
        raise _no_dataset(connection, tenant_id, rule)
    if found.archived_at is not None:
        restore = Action.of("datasets.restore", tenant=tenant_id, dataset=rule.dataset, number=found.number)
        raise _unusable(tenant_id, "number", f"The dataset {found.reference} is archived.", "Restore it.", restore)
    return found


def _no_dataset(connection: Connection, tenant_id: TenantId, rule: NotWorse) -> InvalidRequestError:
    of = dataset_versions.c
    shown = sa.select(of.dataset_id).where(of.tenant_id == tenant_id, of.archived_at.is_(None)).distinct()
    known = connection.scalars(shown.order_by(of.dataset_id).limit(_COMPARED)).all()
    if rule.dataset in known:
        message = f"The dataset {rule.dataset} has no version {rule.number}."
        versions = Action.of("datasets.versions", tenant=tenant_id, dataset=rule.dataset)
        return _unusable(tenant_id, "number", message, "List its versions.", versions)
    message = f"There is no dataset {rule.dataset}, or all of its versions are archived."
    remedy = f"{did_you_mean(rule.dataset, known)}List the datasets."
    return _unusable(tenant_id, "dataset", message, remedy, Action.of("datasets.list", tenant=tenant_id))


def _check_target(tenant_id: TenantId, rule: NotWorse, dataset: DatasetVersion) -> None:
    there = [name for name, _ in dataset.columns]
    if rule.target not in there:
        message = f"The target {rule.target!r} is not a column of the dataset {dataset.reference}."
        remedy = f"{did_you_mean(rule.target, there)}Its columns are: {listed(there)}."
        raise _unusable(tenant_id, "target", message, remedy)


def _check_split(connection: Connection, tenant_id: TenantId, model_id: ModelId, rule: MinMetric) -> None:
    in_split = sa.select(version_metrics.c.split).filter_by(tenant_id=tenant_id, model_id=model_id, split=rule.split)
    if rule.split in TRAINING_SPLITS or connection.scalar(in_split.limit(1)):
        return
    known = sorted({*TRAINING_SPLITS, *_recorded(connection, tenant_id, model_id, version_metrics.c.split)})
    raise _unusable(
        tenant_id,
        "split",
        f"No version of {model_id!s} has metrics of the split {rule.split!r}.",
        f"{did_you_mean(rule.split, known)}Splits are: {', '.join(known)}. For a split of your own, first register a "
        "version that has metrics of it.",
    )


def _check_metric(connection: Connection, tenant_id: TenantId, model_id: ModelId, rule: MinMetric) -> None:
    """Refuse a name that no version has and that is close to a known metric. Other new names may be recorded later."""
    if rule.metric in HIGHER_IS_BETTER:
        return
    recorded = _recorded(connection, tenant_id, model_id, version_metrics.c.metric)
    near = difflib.get_close_matches(rule.metric, sorted({*HIGHER_IS_BETTER, *recorded}), n=1, cutoff=0.8)
    if rule.metric not in recorded and near:
        message = f"No version of {model_id!s} has a metric {rule.metric!r}."
        remedy = f"Did you mean {near[0]}? If it is another, first register a version that has it."
        raise _unusable(tenant_id, "metric", message, remedy)


def _recorded(connection: Connection, tenant_id: TenantId, model_id: ModelId, column: sa.Column[str]) -> list[str]:
    names = sa.select(column).filter_by(tenant_id=tenant_id, model_id=model_id).distinct()
    return list(connection.scalars(names.limit(_COMPARED)))


def _unusable(
    tenant_id: TenantId, setting: str, message: str, remedy: str, action: Action | None = None
) -> InvalidRequestError:
    return InvalidRequestError(message, remedy=remedy, action=action, tenant_id=tenant_id, field=f"settings.{setting}")
