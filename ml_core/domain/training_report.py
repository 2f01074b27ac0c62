"""The report of a training, as clients show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ml_core.domain.columns import ColumnKind
from ml_core.domain.document import Document
from ml_core.domain.version import ModelVersion
from ml_core.ids import ModelId, TenantId, VersionId

# Bound on the columns in the record of a training, which is part of the version's metadata: about 40 columns.
_COLUMNS_BYTES = 4 * 2**10
_MAX_REASON = 300


@dataclass(frozen=True, slots=True)
class ReportedColumn(Document):
    """A column of the training data.

    Attributes:
        kind: None if the column is unusable.
        used: Whether it is an input of the model.
        reason: The reason, such as ``text: 8.2 words on average, 412 distinct values``; empty if not recorded.
    """

    name: str
    kind: ColumnKind | None
    used: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport(Document):
    """The result of a training.

    ``Trainer.train_spec`` returns a complete report. ``of_version`` rebuilds it from the stored version; the reasons of
    some columns of a wide table are then absent.

    Attributes:
        dataset: The version of the dataset, such as ``tickets_2026@3``; None: data that the caller passed.
        algorithm: The algorithm, such as ``random_forest``; the class name of any other estimator.
        hyperparameters: The hyperparameters that the caller gave.
        effective_hyperparameters: All parameters of the estimator, including defaults.
        metrics: ``train`` and ``validation`` → metric → value.
        baseline: Metric → value of a constant prediction on the validation rows.
        n_rows: ``train`` and ``validation`` → number of rows.
        columns: The columns of the training data; in the order of the data if the report is complete.
        columns_omitted: The number of unused columns for which the record had no room.
        selection: How the algorithm was selected: ``metric``, ``folds``, ``rows`` and ``candidates``, the best score
            first, each with ``hyperparameters``, ``score``, ``std`` and ``selected``, or ``error``; empty where the
            caller named it.
        cross_validation: ``folds``, and ``metrics``: metric → ``mean`` and ``std``; empty where there were none.
        notes: Remarks for the user, such as dropped rows, a metric below the baseline, or a fit that did not converge.
        example: A row that the version accepts.
        duration_s: Seconds of reading, fitting and evaluation; None if not recorded.
    """

    tenant_id: TenantId
    model_id: ModelId
    version: VersionId
    run_id: str | None
    model_type: str
    dataset: str | None
    algorithm: str | None
    hyperparameters: Mapping[str, Any]
    effective_hyperparameters: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, float]]
    baseline: Mapping[str, float]
    n_rows: Mapping[str, int]
    columns: tuple[ReportedColumn, ...]
    columns_omitted: int = 0
    selection: Mapping[str, Any] = field(default_factory=dict)
    cross_validation: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    example: Mapping[str, Any] = field(default_factory=dict)
    duration_s: float | None = None

    @classmethod
    def of_version(cls, version: ModelVersion, columns: Iterable[ReportedColumn] | None = None) -> Self:
        """Rebuild the report of a registered version, with the stored columns unless all are given.

        A version without a training record gives a partial report.
        """
        record, omitted = version.training, 0
        if columns is None:
            stored = {column["name"]: ReportedColumn.from_json(column) for column in record.get("columns", ())}
            inputs = (ReportedColumn(c.name, c.kind, True, "") for c in version.servable.signature.inputs)
            # Every input is in the signature, with a reason only where the record had room for the column.
            columns = {**{column.name: column for column in inputs}, **stored}.values()
            omitted = record.get("columns_omitted", 0)
        rows = version.servable.self_test.rows
        return cls(
            tenant_id=version.tenant_id,
            model_id=version.model_id,
            version=version.version,
            run_id=version.lineage.run_id,
            model_type=version.servable.model_type,
            dataset=record.get("dataset"),
            algorithm=record.get("algorithm"),
            selection=record.get("selection", {}),
            cross_validation=record.get("cross_validation", {}),
            hyperparameters=version.hyperparameters,
            effective_hyperparameters=record.get("effective_hyperparameters", {}),
            metrics=version.metrics,
            baseline=record.get("baseline", {}),
            n_rows=record.get("n_rows", {}),
            columns=tuple(columns),
            columns_omitted=omitted,
            notes=tuple(record.get("notes", ())),
            example=rows[0] if rows else {},
            duration_s=record.get("duration_s"),
        )


def recorded_columns(columns: Iterable[ReportedColumn]) -> dict[str, Any]:
    """``columns`` and ``columns_omitted`` of the record of a training, within the bound ``_COLUMNS_BYTES``."""
    kept: list[dict[str, Any]] = []
    omitted, left = 0, _COLUMNS_BYTES
    # Unused columns first: only the record stores them, while the signature lists the used ones.
    for column in sorted(columns, key=lambda column: column.used):
        document = column.to_json() | {"reason": column.reason[:_MAX_REASON]}
        left -= len(str(document).encode())
        if left >= 0:
            kept.append(document)
        elif not column.used:
            omitted += 1
    return {"columns": kept, "columns_omitted": omitted}
