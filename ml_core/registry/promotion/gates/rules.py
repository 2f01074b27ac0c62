"""What a promotion has to pass: the environment's gates and its protection, read in one statement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import environment_policies, environments, gates
from ml_core.domain.api_key import Scope
from ml_core.domain.gates import Gate, parse_gate
from ml_core.domain.principal import Principal
from ml_core.exceptions import PermissionDeniedError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry.promotion.pointer_rows import Pointer, pointer_from


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a model's environment, and where its pointer stood when they were read.

    Attributes:
        tenant_id: The tenant.
        model_id: The model.
        environment: The environment.
        is_protected: Whether only its own scope, or ``admin``, may move its pointers.
        documents: The gates as they are stored, by name.
        pointer: Where the environment points; None if nothing was ever promoted to it.
    """

    tenant_id: TenantId
    model_id: ModelId
    environment: EnvironmentName
    is_protected: bool
    documents: tuple[Mapping[str, Any], ...]
    pointer: Pointer | None

    @property
    def version(self) -> VersionId | None:
        """The version that the environment points to, or None."""
        return None if self.pointer is None else self.pointer.version

    @property
    def generation(self) -> int:
        """Of the pointer; 0 before its first move."""
        return 0 if self.pointer is None else self.pointer.generation

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The gates. Parsed only to judge a version: one that can't be understood must keep nobody from going back.

        Raises:
            InvalidRequestError: A gate is of a kind, or has a setting, that this release does not know.
        """
        return tuple(parse_gate(gate["name"], gate["kind"], gate["settings"]) for gate in self.documents)

    def check_permission(self, principal: Principal) -> None:
        """Refuse who may not move the pointer.

        Raises:
            PermissionDeniedError: Names the scope that is needed.
        """
        if principal.may_move(self.environment, is_protected=self.is_protected):
            return
        own = f"promote:{self.environment}"
        needed = own if self.is_protected else Scope.PROMOTE.value
        what = f"the protected environment {self.environment!s}" if self.is_protected else f"{self.environment!s}"
        raise PermissionDeniedError(
            f"{principal.name} may not change what {what} serves: it lacks the scope {needed!r}.",
            remedy=f"Use a key that has it: mlcore keys create --tenant {self.tenant_id} --scope {needed}",
            tenant_id=self.tenant_id,
            scope=needed,
        )


def read_rules(connection: Connection, tenant_id: TenantId, model_id: ModelId, environment: EnvironmentName) -> Rules:
    """The rules of a model's environment as they are now: one statement, each part by its primary key."""
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
