"""Going back to what an admin let pass: an override is the admin's word, which others can't give again.

A rollback asks no gate, because the way back must stay open in an incident. But a version that is there by an override
never passed its gates, and the override was for one occasion.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import environment_history
from ml_core.domain.api_key import Scope
from ml_core.domain.principal import Principal
from ml_core.domain.rollout import Trigger
from ml_core.exceptions import PermissionDeniedError
from ml_core.ids import VersionId
from ml_core.registry.promotion.gates.rules import Rules
from ml_core.registry.promotion.pointer_rows import HistoryEntry

_EXPOSING = (Trigger.PROMOTE, Trigger.FINISH)
"""The moves that pass the gates and make a version the stable one."""


def check_restorable(connection: Connection, principal: Principal, rules: Rules, target: HistoryEntry) -> None:
    """Refuse to roll back to a version that a gate refused, unless an admin does it.

    Where no gate is set any more there is nothing to refuse: anybody may promote the version, too.

    Args:
        connection: In the tenant's transaction.
        principal: Who rolls back.
        rules: Of the environment.
        target: The entry whose state is to come back, see ``pointer_rows.state_before``.

    Raises:
        PermissionDeniedError: An admin overrode a gate for it, and the principal is not an admin.
    """
    if not rules.documents or principal.allows(Scope.ADMIN):
        return
    reason = overridden_for(connection, rules, target)
    if reason is None:
        return
    raise PermissionDeniedError(
        f"Version {target.version!s} of {rules.model_id!s} did not pass the gates of {rules.environment!s}: an admin "
        f"overrode them ({reason}), so {principal.name}, who lacks the scope {Scope.ADMIN.value!r}, may not bring it "
        "back.",
        remedy="Promote it anew, so that its gates judge it, promote another version, or ask an admin to roll back.",
        tenant_id=rules.tenant_id,
        scope=Scope.ADMIN.value,
    )


def overridden_for(connection: Connection, rules: Rules, target: HistoryEntry) -> str | None:
    """Why gates were overridden when a version became what an environment served; None if they were not.

    It looks at the version's whole stay, which its later moves (a shadow, a promotion of what is served already, a
    withdrawal and the promotion of the same version after it) continue. One query for each rollback that led to it.
    """
    of, upto = environment_history.c, target.generation
    by_override = sa.and_(of.action.in_(_EXPOSING), of.override_reason.is_not(None))
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
        if row.action in _EXPOSING:
            return str(row.override_reason)
        upto = row.restored_generation
