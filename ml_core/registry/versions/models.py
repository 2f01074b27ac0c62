"""Models of a tenant: listed, archived, restored and deleted as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import models, tenants, versions
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.registry import journal
from ml_core.registry.blobs import KeepsBytes, remove_unneeded
from ml_core.registry.missing import model_not_found
from ml_core.registry.pages import Page, read_page
from ml_core.registry.records import value_of
from ml_core.registry.references import SERVED, refuse_if_referenced
from ml_core.registry.versions.registration import remove


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A model as listed. ``versions`` counts those that are not archived; the newest of them is ``newest_version``."""

    tenant_id: TenantId
    model_id: ModelId
    model_type: str
    versions: int
    newest_version: VersionId | None
    created_at: datetime
    archived_at: datetime | None


class ModelRepository(KeepsBytes):
    """The models of one tenant."""

    def list(
        self,
        *,
        model_type: str | None = None,
        name: str | None = None,
        include_archived: bool = False,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[ModelSummary]:
        """A page of the models by name: of one type or of all, and only those whose name contains a text, or all."""
        shown = sa.and_(
            versions.c.tenant_id == models.c.tenant_id,
            versions.c.model_id == models.c.model_id,
            versions.c.archived_at.is_(None),
        )
        newest = sa.select(versions.c.version).where(shown).order_by(versions.c.number.desc()).limit(1)
        statement = sa.select(
            models,
            sa.select(sa.func.count()).select_from(versions).where(shown).scalar_subquery().label("versions"),
            newest.scalar_subquery().label("newest_version"),
        ).where(models.c.tenant_id == self._tenant_id, models.c.deleted_at.is_(None))
        if model_type is not None:
            statement = statement.where(models.c.model_type == model_type)
        if name is not None:
            statement = statement.where(models.c.model_id.icontains(name, autoescape=True))
        if not include_archived:
            statement = statement.where(models.c.archived_at.is_(None))
        with self._db.tenant(self._tenant_id) as connection:
            page = read_page(connection, statement, [models.c.model_id], limit=limit, cursor=cursor)
        return page.map(lambda row: value_of(ModelSummary, row))

    def model_type(self, model_id: str) -> str | None:
        """The type of a model, or None if there is no such model yet."""
        one = {"tenant_id": self._tenant_id, "model_id": ModelId(model_id), "deleted_at": None}
        statement = sa.select(models.c.model_type).filter_by(**one)
        with self._db.tenant(self._tenant_id) as connection:
            return connection.scalar(statement)

    def archive(self, model_id: str) -> None:
        """Hide a model with all its versions; archiving it again changes nothing.

        Raises:
            VersionInUseError: An environment serves one of its versions.
        """
        name = ModelId(model_id)
        with journal.writing(self._db, self._tenant_id) as connection:
            lock_model(connection, self._tenant_id, name)
            refuse_if_referenced(connection, self._tenant_id, name, roles=SERVED)
            kept = sa.func.coalesce(models.c.archived_at, sa.func.now())
            self._change(connection, name, "model.archived", archived_at=kept)

    def restore(self, model_id: str) -> None:
        """Show an archived model again; restoring one that is not archived changes nothing."""
        name = ModelId(model_id)
        with journal.writing(self._db, self._tenant_id) as connection:
            lock_model(connection, self._tenant_id, name)
            self._change(connection, name, "model.restored", archived_at=None)

    def delete(self, model_id: str) -> None:
        """Delete a model with all its versions, and the bytes that nothing else needs.

        Its moves stay in the history; no number or name is reused for other bytes.

        Raises:
            VersionInUseError: An environment serves one of its versions, or a hold forbids it.
            ModelSaveError: The store refuses to remove bytes; the rows are deleted, and the collection tries again.
        """
        name = ModelId(model_id)
        with journal.writing(self._db, self._tenant_id) as connection:
            lock_model(connection, self._tenant_id, name)
            refuse_if_referenced(connection, self._tenant_id, name, roles=(*SERVED, "hold"))
            digests = sorted(set(remove(connection, self._tenant_id, name)))
            self._change(connection, name, "model.deleted", {"digests": digests}, deleted_at=sa.func.now())
        for digest in digests:
            remove_unneeded(self._db, self._tenant_id, self.store, digest)

    def _change(
        self,
        connection: Connection,
        model_id: ModelId,
        action: str,
        details: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> None:
        """Change a model's row, and record it."""
        connection.execute(models.update().filter_by(tenant_id=self._tenant_id, model_id=model_id).values(**values))
        journal.record(connection, self._tenant_id, action, {"model_id": model_id}, details)


_LIVING = sa.select(models.c.model_id).where(
    models.c.tenant_id == sa.bindparam("tenant"),
    models.c.model_id == sa.bindparam("model"),
    models.c.deleted_at.is_(None),
)
_LOCK = _LIVING.with_for_update()
_LOCK_SHARED = (
    _LIVING.select_from(tenants.join(models, models.c.tenant_id == tenants.c.tenant_id))
    .where(tenants.c.deleted_at.is_(None))
    .with_for_update(read=True, key_share=True)
)


def lock_model(connection: Connection, tenant_id: TenantId, model_id: ModelId, *, shared: bool = False) -> None:
    """Keep others from registering, deleting or archiving versions of a model until the transaction ends.

    Statements that follow see what others committed before; the one that takes the lock may not.

    Transactions with a shared lock do not wait for each other. It covers the tenant, as ``journal.writing`` does: a
    promotion saves that statement.

    Raises:
        ModelNotFoundError: There is no such model.
    """
    found = connection.scalar(_LOCK_SHARED if shared else _LOCK, {"tenant": tenant_id, "model": model_id})
    if found is None:
        journal.lock_tenant(connection, tenant_id)
        raise model_not_found(tenant_id, model_id, connection=connection)
