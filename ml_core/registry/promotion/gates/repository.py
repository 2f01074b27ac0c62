"""Gates of a tenant's models: set, listed and removed. Only an admin changes them: they bind everybody else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import gates
from ml_core.domain.api_key import Scope
from ml_core.domain.gates import Gate, parse_gate
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import EnvironmentName, GateName, ModelId, TenantId
from ml_core.registry import journal
from ml_core.registry.erasure import erase
from ml_core.registry.missing import model_not_found, require_model
from ml_core.registry.promotion.environment_names import check_environment
from ml_core.registry.promotion.gates.checks import checked

if TYPE_CHECKING:
    from ml_core.registry.versions.rows import AnyRow


@dataclass(frozen=True, slots=True)
class GateRecord:
    """A gate as listed: of which model's environment it is, and who set it when (UTC)."""

    model_id: ModelId
    environment: EnvironmentName
    gate: Gate
    created_at: datetime
    created_by: str


class GateRepository:
    """The gates of one tenant."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._db = db
        self._tenant_id = tenant_id

    def set(
        self,
        model_id: ModelId,
        environment: EnvironmentName,
        name: str,
        kind: str,
        settings: Mapping[str, Any] | None = None,
    ) -> GateRecord:
        """Make a gate, or replace the one of this name. It binds promotions that begin from now on.

        A ``not_worse`` gate without a ``number`` takes the newest version of its dataset that is not archived, once:
        the returned settings have its number. Later versions change no gate; set it again to compare on newer rows.

        Args:
            model_id: A model that has a version.
            environment: The environment.
            name: The gate's own, such as ``quality``.
            kind: One of ``ml_core.domain.gates.GateKind``.
            settings: Those of the kind, see its class in ``ml_core.domain.gates``.

        Raises:
            PermissionDeniedError: The principal is no admin.
            InvalidRequestError: The kind, a setting or the environment can't be used, there is no such dataset or
                target, or no version of the model has such a split; names it and the nearest.
            ModelNotFoundError: There is no such model.
        """
        self._db.principal.require(Scope.ADMIN)
        check_environment(self._db, self._tenant_id, environment)
        wanted = parse_gate(name, kind, settings or {})
        require_model(self._db, self._tenant_id, model_id)
        with journal.writing(self._db, self._tenant_id) as connection:
            gate = checked(connection, self._tenant_id, model_id, wanted)
            return _record_from(self._write(connection, model_id, environment, gate))

    def _write(self, connection: Connection, model_id: ModelId, environment: EnvironmentName, gate: Gate) -> AnyRow:
        values = {
            "kind": gate.kind.value,
            "settings": gate.settings,
            "created_at": sa.func.now(),
            "created_by": self._db.principal.name,
        }
        keys = {"tenant_id": self._tenant_id, "model_id": model_id, "environment": environment, "name": gate.name}
        upsert = insert(gates).values(**keys, **values)
        upsert = upsert.on_conflict_do_update(constraint=gates.primary_key, set_=values)
        try:
            row = connection.execute(upsert.returning(gates)).one()
        except sa.exc.IntegrityError as error:  # deleted meanwhile
            raise model_not_found(self._tenant_id, model_id, remedy="Register a version of it first.") from error
        subject = {"model_id": model_id, "environment": environment, "gate": gate.name}
        details = {"kind": gate.kind.value, "settings": gate.settings}
        journal.record(connection, self._tenant_id, "gate.set", subject, details)
        return row

    def list(self, model_id: ModelId, environment: EnvironmentName | None = None) -> Sequence[GateRecord]:
        """The gates of a model, of one environment or all, by environment and name."""
        statement = sa.select(gates).where(gates.c.tenant_id == self._tenant_id, gates.c.model_id == model_id)
        if environment is not None:
            statement = statement.where(gates.c.environment == environment)
        with self._db.tenant(self._tenant_id) as connection:
            rows = connection.execute(statement.order_by(gates.c.environment, gates.c.name))
            return [_record_from(row) for row in rows]

    def remove(self, model_id: ModelId, environment: EnvironmentName, name: str) -> None:
        """Remove a gate.

        Raises:
            PermissionDeniedError: The principal is no admin.
            InvalidRequestError: There is no such gate.
        """
        self._db.principal.require(Scope.ADMIN)
        wanted = GateName(name)
        with journal.writing(self._db, self._tenant_id) as connection:
            if not erase(connection, gates, model_id=model_id, environment=environment, name=wanted):
                raise InvalidRequestError(
                    f"{environment!s} of {model_id!s} has no gate {wanted!r}.",
                    remedy="List the model's gates.",
                    tenant_id=self._tenant_id,
                    field="name",
                )
            subject = {"model_id": model_id, "environment": environment, "gate": wanted}
            journal.record(connection, self._tenant_id, "gate.removed", subject)


def _record_from(row: AnyRow) -> GateRecord:
    return GateRecord(
        ModelId(row.model_id),
        EnvironmentName(row.environment),
        parse_gate(row.name, row.kind, row.settings),
        row.created_at,
        row.created_by,
    )
