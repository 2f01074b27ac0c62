"""``MLSystem.gates`` and ``ModelRegistry.gates``: what a promotion has to pass, in plain names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry.promotion.gates.approvals import ApprovalRecord, ApprovalRepository
from ml_core.registry.promotion.gates.repository import GateRecord, GateRepository
from ml_core.registry.promotion.protection import EnvironmentPolicy, PolicyRepository

_PRODUCTION = "production"


class Gates:
    """Gates, approvals and protected environments of one tenant.

    A gate is a rule of a model's environment. A promotion, and the start and the finish of a canary, pass when every
    gate of the environment lets the version pass; ``override=`` with a reason lets an admin go on all the same.

    Args:
        db: The registry; its principal is who acts.
        tenant_id: The tenant.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._gates = GateRepository(db, tenant_id)
        self._approvals = ApprovalRepository(db, tenant_id)
        self._policies = PolicyRepository(db, tenant_id)

    def set(
        self, model_id: str, environment: str, name: str, kind: str, settings: Mapping[str, Any] | None = None
    ) -> GateRecord:
        """Make a gate, or replace the one of this name. It binds promotions that begin from now on.

        There are five kinds.

        ``min_metric``: a recorded metric reaches a value (at least; at most where lower is better). Settings:
        ``metric``, ``value``, ``split`` (default ``validation``), and ``higher_is_better`` for a metric that the
        platform does not know::

            gates.set("tickets", "production", "quality", "min_metric", {"metric": "accuracy", "value": 0.8})

        ``not_worse``: on the same held-out rows the version is not worse than the present one by more than a margin,
        by a paired bootstrap interval. Settings: ``dataset``, ``target`` (its column with the truth), ``metric``
        (accuracy, balanced_accuracy, brier_score, f1_macro, log_loss, mae, mse, r2 or rmse), ``margin`` (in the
        metric's unit), ``number`` (the dataset's version; default its newest now), ``confidence`` (0.95), ``resamples``
        (2000), ``seed`` (0), ``max_rows`` (10000)::

            settings = {"dataset": "held_out", "target": "category", "metric": "accuracy", "margin": 0.01}
            gates.set("tickets", "production", "no-regression", "not_worse", settings)

        ``signature_compatible``: rows that clients can send to the present version fit the new one. No settings::

            gates.set("tickets", "production", "same-input", "signature_compatible")

        ``digest_verified``: the artifact store has the very bytes that were registered. No settings::

            gates.set("tickets", "production", "intact", "digest_verified")

        ``approval``: people other than whoever registered the version approved it. Setting: ``count`` (1)::

            gates.set("tickets", "production", "second-look", "approval", {"count": 2})

        Args:
            model_id: A model that has a version.
            environment: Such as ``production``.
            name: The gate's own: 1 to 40 of a-z, 0-9, ``-`` and ``_``.
            kind: One of the five.
            settings: Those of the kind.

        Raises:
            InvalidRequestError: The kind, a setting or the environment can't be used; names it, and the nearest.
            PermissionDeniedError: The connection's principal is no admin.
            ModelNotFoundError: There is no such model.
        """
        return self._gates.set(ModelId(model_id), EnvironmentName(environment), name, kind, settings)

    def list(self, model_id: str, environment: str | None = None) -> Sequence[GateRecord]:
        """The gates of a model, of one environment or of all, by environment and name."""
        return self._gates.list(ModelId(model_id), None if environment is None else EnvironmentName(environment))

    def remove(self, model_id: str, environment: str, name: str) -> None:
        """Remove a gate.

        Raises:
            InvalidRequestError: There is no such gate.
            PermissionDeniedError: The connection's principal is no admin.
        """
        self._gates.remove(ModelId(model_id), EnvironmentName(environment), name)

    def approve(self, model_id: str, version: str, environment: str = _PRODUCTION, reason: str = "") -> ApprovalRecord:
        """Approve a version for an environment, as the connection's principal; doing so again changes nothing.

        An approval is never withdrawn: promote another version instead.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``approve``, or registered the version itself.
            ModelNotFoundError: There is no such version, or it is archived.
            InvalidRequestError: There is no such environment.
        """
        return self._approvals.approve(ModelId(model_id), VersionId(version), EnvironmentName(environment), reason)

    def approvals(self, model_id: str, version: str, environment: str = _PRODUCTION) -> Sequence[ApprovalRecord]:
        """Who approved a version for an environment, first to last."""
        return self._approvals.list(ModelId(model_id), VersionId(version), EnvironmentName(environment))

    def protect(self, environment: str) -> EnvironmentPolicy:
        """Let only ``admin`` and the scope ``promote:<environment>`` change what the environment serves.

        Raises:
            PermissionDeniedError: The connection's principal is no admin.
            InvalidRequestError: There is no such environment.
        """
        return self._policies.protect(EnvironmentName(environment))

    def unprotect(self, environment: str) -> EnvironmentPolicy:
        """Let the scope ``promote`` change what the environment serves again. Errors as for ``protect``."""
        return self._policies.unprotect(EnvironmentName(environment))

    def environments(self) -> Sequence[EnvironmentPolicy]:
        """The environments that there are, and which of them are protected."""
        return self._policies.list()
