"""The rules of an environment: that it exists, who may move its pointers, and which gates apply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import environment_policies, environments, gates
from ml_core.domain.api_key import Scope
from ml_core.domain.gates import Gate, parse_gate
from ml_core.domain.principal import Principal
from ml_core.domain.rollout import RolloutState
from ml_core.exceptions import (
    Action,
    ConfigurationError,
    InvalidNameError,
    InvalidRequestError,
    PermissionDeniedError,
    did_you_mean,
)
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry.promotion.pointers import Pointer, pointer_from
from ml_core.settings import Settings

PRODUCTION = EnvironmentName("production")


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


def check_environment(db: DatabaseConnection, tenant_id: TenantId, environment: EnvironmentName) -> None:
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

    Attributes:
        tenant_id: The tenant.
        model_id: The model.
        environment: The environment.
        is_protected: Whether only its own scope, or ``admin``, may move its pointers.
        documents: The gates as they are stored, by name.
        pointer: The pointer; None if nothing was ever promoted to the environment.
    """

    tenant_id: TenantId
    model_id: ModelId
    environment: EnvironmentName
    is_protected: bool
    documents: tuple[Mapping[str, Any], ...]
    pointer: Pointer | None

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
        if principal.may_move(self.environment, is_protected=self.is_protected):
            return
        needed = f"promote:{self.environment}" if self.is_protected else Scope.PROMOTE.value
        what = f"the protected environment {self.environment!s}" if self.is_protected else f"{self.environment!s}"
        raise PermissionDeniedError(
            f"{principal.name} may not change what {what} serves: it lacks the scope {needed!r}.",
            remedy="Use a key that has it, or create one.",
            action=Action.of("keys.create", tenant=self.tenant_id, scope=needed),
            tenant_id=self.tenant_id,
            scope=needed,
        )


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


def _of_model(table: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
    return (*_of_environment(table), table.c.model_id == sa.bindparam("model"))


def _of_environment(table: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.tenant_id == sa.bindparam("tenant"), table.c.environment == sa.bindparam("environment")


_GATE = sa.func.jsonb_build_object("name", gates.c.name, "kind", gates.c.kind, "settings", gates.c.settings)
_POINTER = sa.select(environments).where(*_of_model(environments)).subquery()
_RULES = sa.select(
    sa.select(environment_policies.c.is_protected)
    .where(*_of_environment(environment_policies))
    .scalar_subquery()
    .label("is_protected"),
    sa.select(sa.func.jsonb_agg(sa.type_coerce(_GATE, sa.JSON)))
    .where(*_of_model(gates))
    .scalar_subquery()
    .label("gates"),
    *_POINTER.c,
).select_from(sa.select(sa.literal(1)).subquery().outerjoin(_POINTER, sa.true()))
