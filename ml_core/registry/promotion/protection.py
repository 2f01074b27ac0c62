"""Protected environments: of all the tenant's models, only the environment's own scope may change what they serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import environment_policies
from ml_core.domain.api_key import Scope
from ml_core.ids import EnvironmentName, TenantId
from ml_core.registry import journal
from ml_core.registry.promotion.environment_names import check_environment, environments_of


@dataclass(frozen=True, slots=True)
class EnvironmentPolicy:
    """What holds for an environment of all the tenant's models; when that was decided (UTC) and by whom, if it was."""

    environment: EnvironmentName
    is_protected: bool
    updated_at: datetime | None = None
    updated_by: str | None = None


class PolicyRepository:
    """The environments of one tenant, and which of them are protected."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._db = db
        self._tenant_id = tenant_id

    def protect(self, environment: EnvironmentName) -> EnvironmentPolicy:
        """From now on only ``admin`` or the scope ``promote:<environment>`` moves the environment's pointers.

        Raises:
            PermissionDeniedError: The principal is no admin.
            InvalidRequestError: There is no such environment.
        """
        return self._set(environment, is_protected=True, action="environment.protected")

    def unprotect(self, environment: EnvironmentName) -> EnvironmentPolicy:
        """From now on the scope ``promote`` moves the environment's pointers again.

        Raises:
            PermissionDeniedError: The principal is no admin.
            InvalidRequestError: There is no such environment.
        """
        return self._set(environment, is_protected=False, action="environment.unprotected")

    def list(self) -> Sequence[EnvironmentPolicy]:
        """The environments that exist, in the order of the setting; then others that have a policy still."""
        statement = sa.select(environment_policies).where(environment_policies.c.tenant_id == self._tenant_id)
        with self._db.tenant(self._tenant_id) as connection:
            rows = connection.execute(statement.order_by(environment_policies.c.environment)).all()
        found = {
            row.environment: EnvironmentPolicy(
                EnvironmentName(row.environment), row.is_protected, row.updated_at, row.updated_by
            )
            for row in rows
        }
        existing = environments_of(self._db.settings)
        others = [policy for name, policy in found.items() if name not in existing]
        return [*(found.get(name, EnvironmentPolicy(name, is_protected=False)) for name in existing), *others]

    def _set(self, environment: EnvironmentName, *, is_protected: bool, action: str) -> EnvironmentPolicy:
        principal = self._db.principal
        principal.require(Scope.ADMIN)
        check_environment(self._db, self._tenant_id, environment)
        values = {"is_protected": is_protected, "updated_at": sa.func.now(), "updated_by": principal.name}
        statement = (
            insert(environment_policies)
            .values(tenant_id=self._tenant_id, environment=environment, **values)
            .on_conflict_do_update(constraint=environment_policies.primary_key, set_=values)
            .returning(environment_policies.c.updated_at)
        )
        with journal.writing(self._db, self._tenant_id) as connection:
            updated_at = connection.execute(statement).scalar_one()
            journal.record(connection, self._tenant_id, action, {"environment": environment})
        return EnvironmentPolicy(environment, is_protected, updated_at, principal.name)
