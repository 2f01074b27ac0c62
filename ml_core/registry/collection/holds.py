"""Holds: reasons why a version may not be deleted or collected, whatever its age; placed and released by name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from ml_core.database.tables import holds
from ml_core.domain.api_key import Scope
from ml_core.exceptions import Action, InvalidRequestError
from ml_core.ids import HoldName, ModelId, TenantId, VersionId
from ml_core.registry import journal
from ml_core.registry.journal import erase
from ml_core.registry.missing import model_not_found, require_model_in
from ml_core.registry.pages import Page, read_page
from ml_core.registry.records import OfTenant, value_of

_ORDER = (holds.c.model_id, holds.c.version, holds.c.name)


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a version is kept, who placed the hold and when (UTC)."""

    tenant_id: TenantId
    model_id: ModelId
    version: VersionId
    name: HoldName
    reason: str
    created_at: datetime
    created_by: str


class HoldRepository(OfTenant):
    """The holds of one tenant. A version with a hold is neither deleted nor collected, whatever its age."""

    def place(self, model_id: str, version: str, name: str, reason: str) -> Hold:
        """Keep a version until the hold is released. An existing hold of this name stays as it is.

        The version may be archived. A name is such as ``legal``: 1 to 40 of a-z, 0-9, ``-`` and ``_``.

        Raises:
            InvalidRequestError: The reason is blank.
            PermissionDeniedError: The principal may not place holds.
        """
        key = _key(model_id, version, name)
        if not reason.strip():
            raise InvalidRequestError("A hold needs a reason.", remedy="Say why the version is kept.", field="reason")
        own = {"tenant_id": self._tenant_id, **key}
        placed = insert(holds).values(**own, reason=reason, created_by=self._db.principal.name)
        try:
            with journal.writing(self._db, self._tenant_id) as connection:
                if connection.execute(placed.on_conflict_do_nothing()).rowcount:
                    journal.record(connection, self._tenant_id, "hold.placed", _subject(key), {"reason": reason})
                return value_of(Hold, connection.execute(sa.select(holds).filter_by(**own)).one())
        except sa.exc.IntegrityError as error:
            with self._db.tenant(self._tenant_id) as connection:  # to suggest the nearest name
                missing = model_not_found(self._tenant_id, ModelId(model_id), VersionId(version), connection=connection)
            raise missing from error

    def release(self, model_id: str, version: str, name: str) -> None:
        """End a hold; requires the scope ``admin``.

        Raises:
            InvalidRequestError: There is no such hold.
            PermissionDeniedError: The principal lacks the scope.
        """
        key = _key(model_id, version, name)
        self._db.principal.require(Scope.ADMIN)
        with journal.writing(self._db, self._tenant_id) as connection:
            reason = connection.scalar(sa.select(holds.c.reason).filter_by(tenant_id=self._tenant_id, **key))
            if not erase(connection, holds, **key):
                raise InvalidRequestError(
                    f"Version {version!s} of {model_id!s} has no hold {name!r}.",
                    remedy="List the tenant's holds.",
                    action=Action.of("holds.list", tenant=self._tenant_id, model=model_id),
                    tenant_id=self._tenant_id,
                    field="name",
                )
            journal.record(connection, self._tenant_id, "hold.released", _subject(key), {"reason": str(reason)})

    def list(self, model_id: str | None = None, *, limit: int = 100, cursor: str | None = None) -> Page[Hold]:
        """A page of the holds of a model, or of all, by model, version and name."""
        model = None if model_id is None else ModelId(model_id)
        statement = sa.select(holds).filter_by(tenant_id=self._tenant_id)
        if model is not None:
            statement = statement.filter_by(model_id=model)
        with self._db.tenant(self._tenant_id) as connection:
            page = read_page(connection, statement, _ORDER, limit=limit, cursor=cursor)
            if not page.items and model is not None:  # an empty page would hide a typo
                require_model_in(connection, self._tenant_id, model)
        return page.map(lambda row: value_of(Hold, row))


def _key(model_id: str, version: str, name: str) -> dict[str, str]:
    return {"model_id": ModelId(model_id), "version": VersionId(version), "name": HoldName(name)}


def _subject(key: dict[str, str]) -> dict[str, str]:
    return {"model_id": key["model_id"], "version": key["version"], "hold": key["name"]}
