"""Holds: why a version may not be deleted or collected, whatever its age; placed and released by name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import holds
from ml_core.domain.api_key import Scope
from ml_core.exceptions import InvalidRequestError, VersionInUseError
from ml_core.ids import HoldName, ModelId, TenantId, VersionId
from ml_core.registry import journal
from ml_core.registry.erasure import erase
from ml_core.registry.missing import model_not_found, require_model
from ml_core.registry.pages import Page, after, check_limit, decode_cursor, encode_cursor

if TYPE_CHECKING:
    from ml_core.registry.versions.rows import AnyRow

_KEY = (holds.c.model_id, holds.c.version, holds.c.name)


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a version is kept, who said so and when (UTC)."""

    model_id: ModelId
    version: VersionId
    name: HoldName
    reason: str
    created_at: datetime
    created_by: str


class HoldRepository:
    """The holds of one tenant."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._db = db
        self._tenant_id = tenant_id

    def place(self, model_id: ModelId, version: VersionId, name: HoldName, reason: str) -> Hold:
        """Keep a version from being deleted until the hold is released. One of this name that is there stays as it is.

        Args:
            model_id: The model.
            version: The version, archived or not.
            name: Such as ``legal``.
            reason: Why.

        Raises:
            ModelNotFoundError: There is no such version.
            InvalidRequestError: There is no reason.
        """
        if not reason.strip():
            raise InvalidRequestError("A hold needs a reason.", remedy="Say why the version is kept.", field="reason")
        key = {"tenant_id": self._tenant_id, "model_id": model_id, "version": version, "name": name}
        statement = insert(holds).values(**key, reason=reason, created_by=self._db.principal.name)
        try:
            with journal.writing(self._db, self._tenant_id) as connection:
                if connection.execute(statement.on_conflict_do_nothing()).rowcount:
                    self._note(connection, "hold.placed", model_id, version, name, reason)
                return _hold(connection.execute(sa.select(holds).where(self._is(model_id, version, name))).one())
        except sa.exc.IntegrityError as error:
            require_model(self._db, self._tenant_id, model_id)
            raise model_not_found(self._tenant_id, model_id, version) from error

    def release(self, model_id: ModelId, version: VersionId, name: HoldName) -> None:
        """End a hold; takes the scope ``admin``.

        Raises:
            InvalidRequestError: There is no such hold.
            PermissionDeniedError: The principal lacks the scope.
        """
        self._db.principal.require(Scope.ADMIN)
        with journal.writing(self._db, self._tenant_id) as connection:
            reason = connection.scalar(sa.select(holds.c.reason).where(self._is(model_id, version, name)))
            if not erase(connection, holds, model_id=model_id, version=version, name=name):
                raise InvalidRequestError(
                    f"Version {version!s} of {model_id!s} has no hold {str(name)!r}.",
                    remedy="List the tenant's holds.",
                    tenant_id=self._tenant_id,
                    field="name",
                )
            self._note(connection, "hold.released", model_id, version, name, str(reason))

    def list(self, model_id: ModelId | None = None, *, limit: int = 100, cursor: str | None = None) -> Page[Hold]:
        """The holds of a model, or of all, by model, version and name.

        Args:
            model_id: Only those of this model.
            limit: At most so many, 1 to 1000.
            cursor: ``next_cursor`` of the page before.

        Raises:
            InvalidRequestError: The limit or the cursor can't be used.
        """
        statement = sa.select(holds).where(holds.c.tenant_id == self._tenant_id)
        if model_id is not None:
            statement = statement.where(holds.c.model_id == model_id)
        if cursor is not None:
            statement = statement.where(after(_KEY, decode_cursor(cursor, str, str, str), descending=False))
        statement = statement.order_by(*_KEY).limit(check_limit(limit) + 1)
        with self._db.tenant(self._tenant_id) as connection:
            found = [_hold(row) for row in connection.execute(statement)]
        if len(found) <= limit:
            return Page(found)
        last = found[limit - 1]
        return Page(found[:limit], encode_cursor([last.model_id, last.version, last.name]))

    def _note(
        self, connection: Connection, action: str, model_id: ModelId, version: VersionId, name: HoldName, reason: str
    ) -> None:
        subject = {"model_id": model_id, "version": version, "hold": name}
        journal.record(connection, self._tenant_id, action, subject, {"reason": reason})

    def _is(self, model_id: ModelId, version: VersionId, name: HoldName) -> sa.ColumnElement[bool]:
        mine = (holds.c.tenant_id == self._tenant_id, holds.c.model_id == model_id)
        return sa.and_(*mine, holds.c.version == version, holds.c.name == name)


def refuse_if_held(
    connection: Connection, tenant_id: TenantId, model_id: ModelId | None = None, version: VersionId | None = None
) -> None:
    """Refuse what would take away a version that is held.

    Args:
        connection: In the tenant's transaction.
        tenant_id: The tenant.
        model_id: The model; None: any of the tenant's.
        version: The version; None: any of the model's.

    Raises:
        VersionInUseError: Names the holds, each as ``hold:<name>``.
    """
    statement = sa.select(*_KEY).where(holds.c.tenant_id == tenant_id).order_by(*_KEY).limit(10)
    if model_id is not None:
        statement = statement.where(holds.c.model_id == model_id)
    if version is not None:
        statement = statement.where(holds.c.version == version)
    found = connection.execute(statement).all()
    if found:
        names = ", ".join(f"{row.name} on {row.model_id}@{row.version}" for row in found)
        first = found[0]
        raise VersionInUseError(
            f"A hold forbids it: {names}.",
            remedy="Release it first, if it may be: mlcore holds release "
            f"--tenant {tenant_id} --model {first.model_id} --version {first.version} --name {first.name}",
            tenant_id=tenant_id,
            model_id=first.model_id,
            version=first.version,
            used_by=[f"hold:{row.name}" for row in found],
        )


def _hold(row: AnyRow) -> Hold:
    return Hold(
        ModelId(row.model_id), VersionId(row.version), HoldName(row.name), row.reason, row.created_at, row.created_by
    )
