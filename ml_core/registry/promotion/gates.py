"""``GateRepository``: what a promotion has to pass. Gates are set by admins only, since they bind everybody else."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.tables import approvals, gates, version_metrics, versions
from ml_core.domain.api_key import Scope
from ml_core.domain.dataset import DatasetVersion
from ml_core.domain.gates import TRAINING_SPLITS, Gate, GateKind, MinMetric, NotWorse, parse_gate
from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.exceptions import Action, InvalidRequestError, PermissionDeniedError, did_you_mean, listed
from ml_core.ids import DatasetId, EnvironmentName, GateName, ModelId, TenantId, VersionId
from ml_core.registry import journal
from ml_core.registry.blobs import lock_digest
from ml_core.registry.journal import erase
from ml_core.registry.missing import not_shown, require_model_in
from ml_core.registry.promotion.rules import PRODUCTION, check_environment
from ml_core.registry.records import OfTenant, value_of
from ml_core.registry.versions.rows import IS_ARCHIVED, VERSIONS_WITH_MODEL, is_version

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

_COMPARED = 1_000
"""Number of names that a typo is compared with."""


@dataclass(frozen=True, slots=True)
class GateRecord:
    """A gate of a model's environment, and who set it when (UTC)."""

    model_id: ModelId
    environment: EnvironmentName
    name: GateName
    kind: GateKind
    settings: Mapping[str, Any]
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class ApprovalRecord:
    """Who approved a version for an environment, why and when (UTC)."""

    model_id: ModelId
    version: VersionId
    environment: EnvironmentName
    approver: str
    reason: str
    at: datetime


class GateRepository(OfTenant):
    """Gates and approvals of one tenant.

    A gate is a rule of a model's environment. A promotion, and the start and the finish of a canary, pass when every
    gate of the environment passes the version; ``override=`` with a reason lets an admin go on although one failed.
    """

    def set(
        self, model_id: str, environment: str, name: str, kind: str, settings: Mapping[str, Any] | None = None
    ) -> GateRecord:
        """Create a gate, or replace the one of this name. It applies to promotions that begin from now on.

        There are five kinds.

        ``min_metric``: a recorded metric reaches a value (at least; at most where lower is better). Settings:
        ``metric``, ``value``, ``split`` (default ``validation``), and ``higher_is_better`` for a metric that the
        platform does not know::

            gates.set("tickets", "production", "quality", "min_metric", {"metric": "accuracy", "value": 0.8})

        ``not_worse``: on the same held-out rows the version is not worse than the present one by more than a margin,
        by a paired bootstrap interval. Settings: ``dataset``, ``target`` (its column with the truth), ``metric``
        (accuracy, balanced_accuracy, brier_score, f1_macro, log_loss, mae, mse, r2 or rmse), ``margin`` (in the
        metric's unit), ``number`` (the dataset's version; default its newest that is not archived, whose number is
        then stored: set the gate again to compare on newer rows), ``confidence`` (0.95), ``resamples`` (2000),
        ``seed`` (0), ``max_rows`` (10000)::

            settings = {"dataset": "held_out", "target": "category", "metric": "accuracy", "margin": 0.01}
            gates.set("tickets", "production", "no-regression", "not_worse", settings)

        ``signature_compatible``: rows that clients can send to the present version fit the new one. No settings::

            gates.set("tickets", "production", "same-input", "signature_compatible")

        ``digest_verified``: the artifact store has the bytes that were registered. No settings::

            gates.set("tickets", "production", "intact", "digest_verified")

        ``approval``: people other than whoever registered the version approved it. Setting: ``count`` (1)::

            gates.set("tickets", "production", "second-look", "approval", {"count": 2})

        Args:
            model_id: A model that has a version.
            environment: Such as ``production``.
            name: The gate's name: 1 to 40 of a-z, 0-9, ``-`` and ``_``.
            kind: One of the five.
            settings: The settings of the kind.

        Raises:
            InvalidRequestError: The kind, a setting or the environment is not valid, there is no such dataset or
                target, or no version of the model has such a split; names it and the nearest.
            RequestTooLargeError: The dataset has too many rows to compare on.
            PermissionDeniedError: The principal is not an admin.
        """
        model, at = ModelId(model_id), EnvironmentName(environment)
        self._db.principal.require(Scope.ADMIN)
        check_environment(self._db, self._tenant_id, at)
        wanted = parse_gate(name, kind, settings or {})
        with journal.writing(self._db, self._tenant_id) as connection:
            require_model_in(connection, self._tenant_id, model)
            gate = checked_gate(connection, self._tenant_id, model, wanted)
            rule = {"kind": gate.kind.value, "settings": gate.settings}
            values = {**rule, "created_at": sa.func.now(), "created_by": self._db.principal.name}
            upsert = insert(gates).values(
                tenant_id=self._tenant_id, model_id=model, environment=at, name=gate.name, **values
            )
            upsert = upsert.on_conflict_do_update(constraint=gates.primary_key, set_=values)
            row = connection.execute(upsert.returning(gates)).one()
            subject = {"model_id": model, "environment": at, "gate": gate.name}
            journal.record(connection, self._tenant_id, "gate.set", subject, rule)
            return _gate_from(row)

    def list(self, model_id: str, environment: str | None = None) -> Sequence[GateRecord]:
        """The gates of a model, of one environment or of all, by environment and name."""
        model, at = ModelId(model_id), None if environment is None else EnvironmentName(environment)
        statement = sa.select(gates).filter_by(tenant_id=self._tenant_id, model_id=model)
        if at is not None:
            statement = statement.filter_by(environment=at)
        with self._db.tenant(self._tenant_id) as connection:
            rows = connection.execute(statement.order_by(gates.c.environment, gates.c.name)).all()
            if not rows:  # an empty list would hide a typo
                require_model_in(connection, self._tenant_id, model)
        if not rows and at is not None:
            check_environment(self._db, self._tenant_id, at)
        return [_gate_from(row) for row in rows]

    def remove(self, model_id: str, environment: str, name: str) -> None:
        """Remove a gate.

        Raises:
            PermissionDeniedError: The principal is not an admin.
            InvalidRequestError: There is no such gate.
        """
        model, at, wanted = ModelId(model_id), EnvironmentName(environment), GateName(name)
        self._db.principal.require(Scope.ADMIN)
        with journal.writing(self._db, self._tenant_id) as connection:
            if not erase(connection, gates, model_id=model, environment=at, name=wanted):
                raise InvalidRequestError(
                    f"{at!s} of {model!s} has no gate {wanted!r}.",
                    remedy="List the model's gates.",
                    action=Action.of("gates.list", tenant=self._tenant_id, model=model, environment=at),
                    tenant_id=self._tenant_id,
                    field="name",
                )
            subject = {"model_id": model, "environment": at, "gate": wanted}
            journal.record(connection, self._tenant_id, "gate.removed", subject)

    def approve(self, model_id: str, version: str, environment: str = PRODUCTION, reason: str = "") -> ApprovalRecord:
        """Approve a version for an environment, as the connection's principal; doing so again changes nothing.

        An approval is never withdrawn: promote another version instead.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``approve``, or registered the version itself.
            ModelNotFoundError: There is no such version, or it is archived.
        """
        model, name, at = ModelId(model_id), VersionId(version), EnvironmentName(environment)
        principal = self._db.principal
        principal.require(Scope.APPROVE)
        check_environment(self._db, self._tenant_id, at)
        subject = {"model_id": model, "version": name, "environment": at}
        own = insert(approvals).values(tenant_id=self._tenant_id, **subject, approver=principal.name, reason=reason)
        with journal.writing(self._db, self._tenant_id) as connection:
            if self._author(connection, model, name) == principal.name:
                raise PermissionDeniedError(
                    f"{principal.name} registered version {name!s} of {model!s}, so its approval does not count.",
                    remedy="Let somebody else approve it, with a key of their own that has the scope.",
                    action=Action.of("keys.create", tenant=self._tenant_id, scope=Scope.APPROVE.value),
                    tenant_id=self._tenant_id,
                    scope=Scope.APPROVE.value,
                )
            if connection.execute(own.on_conflict_do_nothing().returning(approvals.c.at)).one_or_none() is not None:
                journal.record(connection, self._tenant_id, "version.approved", subject, {"reason": reason})
            found = sa.select(approvals).filter_by(tenant_id=self._tenant_id, **subject, approver=principal.name)
            return value_of(ApprovalRecord, connection.execute(found).one())

    def approvals(self, model_id: str, version: str, environment: str = PRODUCTION) -> Sequence[ApprovalRecord]:
        """Who approved a version for an environment, first to last."""
        subject = {"model_id": ModelId(model_id), "version": VersionId(version)}
        of = sa.select(approvals).filter_by(
            tenant_id=self._tenant_id, **subject, environment=EnvironmentName(environment)
        )
        with self._db.tenant(self._tenant_id) as connection:
            rows = connection.execute(of.order_by(approvals.c.at, approvals.c.approver))
            return [value_of(ApprovalRecord, row) for row in rows]

    def _author(self, connection: Connection, model_id: ModelId, version: VersionId) -> str:
        statement = sa.select(versions.c.created_by, IS_ARCHIVED.label("is_archived")).select_from(VERSIONS_WITH_MODEL)
        which = is_version(self._tenant_id, model_id, version)
        # The lock is shared with other approvals, and keeps the version from being deleted before the approval's row.
        row = connection.execute(statement.where(which).with_for_update(read=True, of=versions)).one_or_none()
        if row is None or row.is_archived:
            raise not_shown(row, self._tenant_id, model_id, version, connection=connection)
        return str(row.created_by)


def _gate_from(row: AnyRow) -> GateRecord:
    gate = parse_gate(row.name, row.kind, row.settings)  # so that settings have the defaults of this release
    return value_of(GateRecord, row, settings=gate.settings)


def checked_gate(connection: Connection, tenant_id: TenantId, model_id: ModelId, gate: Gate) -> Gate:
    """The gate to store, since a typo would fail every promotion later: ``not_worse`` gets the number of its dataset.

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
    from ml_core.registry.datasets.rows import dataset_not_found, find  # loads pandas and pyarrow: only for this gate

    name = DatasetId(rule.dataset)
    found = find(connection, tenant_id, name, rule.number)
    if found is not None:
        lock_digest(connection, tenant_id, found.digest, shared=True)
        found = find(connection, tenant_id, name, found.number)
    if found is None:
        missing = dataset_not_found(connection, tenant_id, name, rule.number)
        is_known = missing.action is not None and missing.action.operation == "datasets.versions"
        setting = "number" if is_known else "dataset"
        raise _unusable(tenant_id, setting, missing.message, missing.remedy or "", missing.action)
    if found.archived_at is not None:
        restore = Action.of("datasets.restore", tenant=tenant_id, dataset=rule.dataset, number=found.number)
        raise _unusable(tenant_id, "number", f"The dataset {found.reference} is archived.", "Restore it.", restore)
    return found


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
