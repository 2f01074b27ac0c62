"""The scope that each change of the registry requires; checked where the change is recorded."""

from __future__ import annotations

from collections.abc import Mapping

from ml_core.domain.api_key import Scope
from ml_core.domain.principal import Principal

MOVES = frozenset(
    {
        "environment.moved",
        "rollout.started",
        "rollout.stepped",
        "rollout.finished",
        "rollout.aborted",
        "shadow.started",
        "shadow.stopped",
    }
)
"""Moves of a pointer; ``Principal.may_move`` decides about them before they are made."""

_BY_SCOPE: Mapping[Scope, tuple[str, ...]] = {
    Scope.TRAIN: (
        "dataset.created",
        "dataset.version_archived",
        "dataset.version_created",
        "dataset.version_restored",
        "experiment.changed",
        "experiment.created",
        "hold.placed",
        "job.cancelled",
        "job.failed",
        "job.retried",
        "job.submitted",
        "job.succeeded",
        "model.annotated",
        "model.archived",
        "model.restored",
        "run.artifact_deleted",
        "run.artifact_logged",
        "run.cancelled",
        "run.document_logged",
        "run.failed",
        "run.finished",
        "run.resumed",
        "run.started",
        "run.tagged",
        "schedule.created",
        "schedule.deleted",
        "schedule.paused",
        "schedule.resumed",
        "version.annotated",
        "version.archived",
        "version.registered",
        "version.restored",
        "version.tagged",
    ),
    Scope.APPROVE: ("version.approved",),
    Scope.ADMIN: (
        "dataset.version_collected",
        "dataset.version_deleted",
        "environment.protected",
        "environment.unprotected",
        "gate.removed",
        "gate.set",
        "hold.released",
        "key.created",
        "key.revoked",
        "model.collected",
        "model.deleted",
        "placement.moved",
        "placement.set",
        "predictions.policy_set",
        "run.deleted",
        "tenant.created",
        "tenant.quota_set",
        "tenant.self_test_rows_set",
        "version.collected",
        "version.deleted",
    ),
}

NEEDED: Mapping[str, Scope] = {action: scope for scope, actions in _BY_SCOPE.items() for action in actions}
"""Action → scope: ``train`` to create and archive, ``admin`` to delete permanently and to set rules."""


def require(principal: Principal, action: str) -> None:
    """Check that a principal may make a change.

    Raises:
        PermissionDeniedError: The principal lacks the scope.
        LookupError: The action is not in the table.
    """
    if action not in MOVES:
        principal.require(NEEDED[action])
