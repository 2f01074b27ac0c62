"""The version that a rollback restores, and who may restore it.

A rollback evaluates no gate, because it must stay possible in an incident. But a version that was promoted by an
override never passed its gates, and the override was for one occasion: as long as the environment has gates, only an
admin restores it. Others promote it again, through the gates.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import acting
from ml_core.database.tables import environment_history
from ml_core.domain.api_key import Scope
from ml_core.domain.rollout import Trigger
from ml_core.exceptions import Action, ModelNotFoundError, PermissionDeniedError
from ml_core.ids import VersionId
from ml_core.registry.promotion.pointers import Move, state_before
from ml_core.registry.promotion.rules import Rules

_TO_STABLE = (Trigger.PROMOTE, Trigger.FINISH)
"""The moves that pass the gates and make a version the stable one."""


def rollback_target(connection: Connection, rules: Rules) -> Move:
    """The move whose state a rollback restores, which the transaction's principal may do.

    Raises:
        ModelNotFoundError: The environment served no other version before.
        PermissionDeniedError: The version was promoted by an override, and the principal is not an admin.
    """
    target = None if rules.pointer is None else state_before(connection, rules.pointer)
    if target is None:
        why = "nothing was promoted to it" if rules.pointer is None else "it serves the first one"
        raise ModelNotFoundError(
            f"{rules.environment!s} of {rules.model_id!s} has no version to go back to: {why}.",
            remedy="Promote the version that it should serve.",
            action=Action.of(
                "environments.promote", tenant=rules.tenant_id, model=rules.model_id, environment=rules.environment
            ),
            tenant_id=rules.tenant_id,
            model_id=rules.model_id,
        )
    principal = acting(connection)
    if not rules.documents or principal.allows(Scope.ADMIN):
        return target
    if (reason := _override_of(connection, rules, target)) is not None:
        raise PermissionDeniedError(
            f"Version {target.version!s} of {rules.model_id!s} did not pass the gates of {rules.environment!s}: an "
            f"admin overrode them ({reason}), so {principal.name}, who lacks the scope {Scope.ADMIN.value!r}, may not "
            "restore it.",
            remedy="Promote it again through its gates, promote another version, or ask an admin to roll back.",
            tenant_id=rules.tenant_id,
            scope=Scope.ADMIN.value,
        )
    return target


def _override_of(connection: Connection, rules: Rules, target: Move) -> str | None:
    """Why gates were overridden when the target's version became the stable one; None if they were not.

    The version's whole stay counts: later moves that kept it (a shadow, a promotion of the same version, a withdrawal
    followed by one) do not end it. One query for each rollback that led to it.
    """
    of, upto = environment_history.c, target.generation
    by_override = sa.and_(of.action.in_(_TO_STABLE), of.override_reason.is_not(None))
    statement = (
        sa.select(environment_history)
        .where(
            of.tenant_id == rules.tenant_id,
            of.model_id == rules.model_id,
            of.environment == rules.environment,
            of.generation <= sa.bindparam("upto"),
            sa.or_(of.version != target.version, by_override, of.restored_generation < of.generation),
        )
        .order_by(of.generation.desc())
        .limit(1)
    )
    while True:
        row = connection.execute(statement, {"upto": upto}).one_or_none()
        if row is None or VersionId(row.version) != target.version:
            return None
        if row.action in _TO_STABLE:
            return str(row.override_reason)
        upto = row.restored_generation
