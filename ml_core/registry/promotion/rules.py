"""The rules of an environment: that it exists, who may move its pointers, where back to, and which gates apply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection, acting
from ml_core.database.tables import environment_history, environment_policies, environments, gates
from ml_core.domain.api_key import Scope
from ml_core.domain.gates import Gate, parse_gate
from ml_core.domain.principal import Principal
from ml_core.domain.rollout import RolloutState, Trigger
from ml_core.exceptions import (
    Action,
    ConfigurationError,
    InvalidNameError,
    InvalidRequestError,
    ModelNotFoundError,
    PermissionDeniedError,
    did_you_mean,
)
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry.promotion.pointers import Move, Pointer, PointerKey, pointer_from, state_before
from ml_core.settings import Settings

PRODUCTION = EnvironmentName("production")

_TO_STABLE = (Trigger.PROMOTE, Trigger.FINISH)
"""The moves that pass the gates and make a version the stable one."""


def environments_of(settings: Settings) -> tuple[EnvironmentName, ...]:
    """The environments of an installation, in the order of its setting.

    Raises:
        ConfigurationError: A name is not valid, or the list is empty.
    """
    names = [name.strip() for name in settings.registry.environments.split(",") if name.strip()]
    try:
        found = tuple(EnvironmentName(name) for name in names)
    except InvalidNameError as error:
        raise ConfigurationError(
            f"MLCORE_ENVIRONMENTS={settings.registry.environments!r}: {error.message}",
            remedy=error.remedy,
            setting="MLCORE_ENVIRONMENTS",
        ) from error
    if not found:
        raise ConfigurationError(
            "MLCORE_ENVIRONMENTS names no environment.",
            remedy="Name at least one, or unset it.",
            setting="MLCORE_ENVIRONMENTS",
        )
    return found


def check_environment(db: DatabaseConnection, tenant_id: TenantId | None, environment: EnvironmentName) -> None:
    """Refuse an environment that the settings do not name, so that a typo does not create one.

    Raises:
        InvalidRequestError: Names the environments that exist, and the nearest.
    """
    known = environments_of(db.settings)
    if environment not in known:
        raise InvalidRequestError(
            f"There is no environment {environment!s}.",
            remedy=f"{did_you_mean(environment, known)}Environments are: {', '.join(known)}.",
            tenant_id=tenant_id,
            field="environment",
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a model's environment, and its pointer, as one statement read them.

    ``documents`` are its gates as they are stored, by name. It has no pointer if nothing was ever promoted to it.
    """

    tenant_id: TenantId
    model_id: ModelId
    environment: EnvironmentName
    is_protected: bool
    documents: tuple[Mapping[str, Any], ...]
    pointer: Pointer | None

    @property
    def key(self) -> PointerKey:
        """What selects the pointer, as columns of its tables and attributes of errors about it."""
        return {"tenant_id": self.tenant_id, "model_id": self.model_id, "environment": self.environment}

    def action(self, operation: str, **more: str) -> Action:
        """The action of an operation on the pointer."""
        names = {"tenant": self.tenant_id, "model": self.model_id, "environment": self.environment}
        return Action(operation, {**names, **more})

    @property
    def version(self) -> VersionId | None:
        """The stable version, or None."""
        return None if self.pointer is None else self.pointer.version

    @property
    def generation(self) -> int:
        """The pointer's generation; 0 before its first move."""
        return 0 if self.pointer is None else self.pointer.generation

    @property
    def state(self) -> RolloutState:
        """What the environment serves, as the state machine of rollouts sees it."""
        return RolloutState() if self.pointer is None else self.pointer.state

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The gates. They are parsed only for an evaluation, so that an unreadable one does not prevent a rollback.

        Raises:
            InvalidRequestError: A gate has a kind or a setting that this release does not know.
        """
        return tuple(parse_gate(gate["name"], gate["kind"], gate["settings"]) for gate in self.documents)

    def check_permission(self, principal: Principal) -> None:
        """Refuse a principal that may not move the pointer.

        Raises:
            PermissionDeniedError: Names the scope that is needed.
        """
        if not principal.may_move(self.environment, is_protected=self.is_protected):
            raise _may_not_move(principal, self.tenant_id, self.environment, is_protected=self.is_protected)


def read_rules(connection: Connection, tenant_id: TenantId, model_id: ModelId, environment: EnvironmentName) -> Rules:
    """The present rules of a model's environment: one statement, each part by its primary key."""
    row = connection.execute(_RULES, {"tenant": tenant_id, "model": model_id, "environment": environment}).one()
    return Rules(
        tenant_id,
        model_id,
        environment,
        bool(row.is_protected),
        tuple(sorted(row.gates or (), key=itemgetter("name"))),
        None if row.generation is None else pointer_from(row),
    )


def require_move(db: DatabaseConnection, tenant_id: TenantId, environment: str) -> None:
    """Refuse a principal that may move no pointer of an environment. The name may be invalid. Moves check it once more.

    Raises:
        PermissionDeniedError: Names the scope that is needed.
    """
    if db.principal.may_move(environment, is_protected=True):
        return
    is_protected = False
    if environment in environments_of(db.settings):
        with db.tenant(tenant_id) as connection:
            is_protected = bool(connection.scalar(_IS_PROTECTED, {"tenant": tenant_id, "environment": environment}))
    if not db.principal.may_move(environment, is_protected=is_protected):
        raise _may_not_move(db.principal, tenant_id, environment, is_protected=is_protected)


def _may_not_move(
    principal: Principal, tenant_id: TenantId, environment: str, *, is_protected: bool
) -> PermissionDeniedError:
    needed = f"promote:{environment}" if is_protected else Scope.PROMOTE.value
    what = f"{'the protected environment ' if is_protected else ''}{environment[:40]}"
    return PermissionDeniedError(
        f"{principal.name} may not change what {what} serves: it lacks the scope {needed!r}.",
        remedy="Use a key that has it, or create one.",
        action=Action.of("keys.create", tenant=tenant_id, scope=needed),
        tenant_id=tenant_id,
        scope=needed,
    )


def check_move(db: DatabaseConnection, tenant_id: TenantId, model_id: ModelId, environment: EnvironmentName) -> None:
    """Refuse what will move an environment later, if its principal may not do that now.

    Raises:
        InvalidRequestError: There is no such environment.
        PermissionDeniedError: Names the scope that is needed.
    """
    check_environment(db, tenant_id, environment)
    with db.tenant(tenant_id) as connection:
        read_rules(connection, tenant_id, model_id, environment).check_permission(db.principal)


def rollback_target(connection: Connection, rules: Rules) -> Move:
    """The move whose state a rollback restores, which the transaction's principal may do.

    A rollback evaluates no gate, because it must stay possible in an incident. But a version that was promoted by an
    override never passed its gates, and the override was for one occasion: as long as the environment has gates, only
    an admin restores it. Others promote it again, through the gates.

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
            action=rules.action("environments.promote"),
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
        .filter_by(**rules.key)
        .where(
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


def _of_model(table: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
    return (*_of_environment(table), table.c.model_id == sa.bindparam("model"))


def _of_environment(table: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.tenant_id == sa.bindparam("tenant"), table.c.environment == sa.bindparam("environment")


_GATE = sa.func.jsonb_build_object("name", gates.c.name, "kind", gates.c.kind, "settings", gates.c.settings)
_POINTER = sa.select(environments).where(*_of_model(environments)).subquery()
_IS_PROTECTED = sa.select(environment_policies.c.is_protected).where(*_of_environment(environment_policies))
_RULES = sa.select(
    _IS_PROTECTED.scalar_subquery().label("is_protected"),
    sa.select(sa.func.jsonb_agg(sa.type_coerce(_GATE, sa.JSON)))
    .where(*_of_model(gates))
    .scalar_subquery()
    .label("gates"),
    *_POINTER.c,
).select_from(sa.select(sa.literal(1)).subquery().outerjoin(_POINTER, sa.true()))
