"""Models of a tenant: listed, hidden, brought back and deleted as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import environments, models, tenants, versions
from ml_core.exceptions import VersionInUseError
from ml_core.ids import Digest, ModelId, TenantId, VersionId
from ml_core.registry import journal
from ml_core.registry.collection.holds import refuse_if_held
from ml_core.registry.missing import model_not_found
from ml_core.registry.versions.tombstones import remove

if TYPE_CHECKING:
    from ml_core.registry.versions.rows import AnyRow


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A model as listed. ``versions`` counts those that are not archived; the newest of them is ``newest_version``."""

    model_id: ModelId
    model_type: str
    versions: int
    newest_version: VersionId | None
    created_at: datetime
    archived_at: datetime | None


class ModelRepository:
    """The models of one tenant."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._db = db
        self._tenant_id = tenant_id

    def list(
        self,
        *,
        model_type: str | None = None,
        include_archived: bool = False,
        limit: int | None = None,
        after: ModelId | None = None,
    ) -> Sequence[ModelSummary]:
        """Models by name, in one query.

        Args:
            model_type: Only models of this type.
            include_archived: Archived ones too.
            limit: At most so many.
            after: Only names after this one: the last of the page before.
        """
        shown = sa.and_(
            versions.c.tenant_id == models.c.tenant_id,
            versions.c.model_id == models.c.model_id,
            versions.c.archived_at.is_(None),
        )
        count = sa.select(sa.func.count()).select_from(versions).where(shown).scalar_subquery()
        newest = (
            sa.select(versions.c.version).where(shown).order_by(versions.c.number.desc()).limit(1).scalar_subquery()
        )
        statement = (
            sa.select(models, count.label("versions"), newest.label("newest_version"))
            .where(models.c.tenant_id == self._tenant_id, models.c.deleted_at.is_(None))
            .order_by(models.c.model_id)
            .limit(limit)
        )
        if model_type is not None:
            statement = statement.where(models.c.model_type == model_type)
        if not include_archived:
            statement = statement.where(models.c.archived_at.is_(None))
        if after is not None:
            statement = statement.where(models.c.model_id > after)
        with self._db.tenant(self._tenant_id) as connection:
            return [_summary(row) for row in connection.execute(statement)]

    def model_type(self, model_id: ModelId) -> str | None:
        """The type of a model, or None if there is no such model yet."""
        with self._db.tenant(self._tenant_id) as connection:
            return connection.scalar(
                sa.select(models.c.model_type).where(self._is(model_id), models.c.deleted_at.is_(None))
            )

    def archive(self, model_id: ModelId) -> None:
        """Hide a model with all its versions; archiving it again changes nothing.

        Raises:
            ModelNotFoundError: There is no such model.
            VersionInUseError: An environment points to one of its versions.
        """
        with journal.writing(self._db, self._tenant_id) as connection:
            self._lock(connection, model_id)
            refuse_if_served(connection, self._tenant_id, model_id)
            kept = sa.func.coalesce(models.c.archived_at, sa.func.now())
            connection.execute(models.update().where(self._is(model_id)).values(archived_at=kept))
            self._note(connection, "model.archived", model_id)

    def restore(self, model_id: ModelId) -> None:
        """Show an archived model again; restoring one that is not archived changes nothing.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        with journal.writing(self._db, self._tenant_id) as connection:
            self._lock(connection, model_id)
            connection.execute(models.update().where(self._is(model_id)).values(archived_at=None))
            self._note(connection, "model.restored", model_id)

    def delete(self, model_id: ModelId) -> Sequence[Digest]:
        """Delete a model with all its versions. Its history stays; no number or name is used for other bytes.

        Returns:
            The digests of the deleted versions, for whoever keeps the bytes.

        Raises:
            ModelNotFoundError: There is no such model.
            VersionInUseError: An environment points to one of its versions, or a hold forbids it.
        """
        with journal.writing(self._db, self._tenant_id) as connection:
            self._lock(connection, model_id)
            refuse_if_served(connection, self._tenant_id, model_id)
            refuse_if_held(connection, self._tenant_id, model_id)
            digests = remove(connection, self._tenant_id, model_id)
            connection.execute(models.update().where(self._is(model_id)).values(deleted_at=sa.func.now()))
            self._note(connection, "model.deleted", model_id, {"digests": sorted(set(digests))})
        return sorted(set(digests))

    def _note(
        self, connection: Connection, action: str, model_id: ModelId, details: Mapping[str, Any] | None = None
    ) -> None:
        journal.record(connection, self._tenant_id, action, {"model_id": model_id}, details)

    def _lock(self, connection: Connection, model_id: ModelId) -> None:
        lock_model(connection, self._tenant_id, model_id)

    def _is(self, model_id: ModelId) -> sa.ColumnElement[bool]:
        return sa.and_(models.c.tenant_id == self._tenant_id, models.c.model_id == model_id)


def lock_model(connection: Connection, tenant_id: TenantId, model_id: ModelId, *, shared: bool = False) -> None:
    """Keep others from registering, deleting or hiding versions of a model until the transaction ends.

    Statements that follow see what others committed before; the one that takes the lock may not.

    Args:
        connection: In the tenant's transaction.
        tenant_id: The tenant.
        model_id: The model.
        shared: Holders of a shared lock do not keep each other waiting. It covers the tenant, as ``journal.writing``
            does: a promotion saves that statement.

    Raises:
        ModelNotFoundError: There is no such model.
        TenantNotFoundError: There is no such tenant, or it was deleted.
    """
    row = sa.select(models.c.model_id).where(
        models.c.tenant_id == tenant_id, models.c.model_id == model_id, models.c.deleted_at.is_(None)
    )
    if shared:
        with_tenant = tenants.join(models, models.c.tenant_id == tenants.c.tenant_id)
        row = row.select_from(with_tenant).where(tenants.c.deleted_at.is_(None))
    found = connection.scalar(row.with_for_update(read=shared, key_share=shared))
    if found is None:
        journal.lock_tenant(connection, tenant_id)
        raise model_not_found(tenant_id, model_id, connection=connection)


# The parts of a rollout that need a version, and how a message names each.
_PARTS = {"version": "{}", "canary_version": "{} (canary)", "shadow_version": "{} (shadow)"}


def refuse_if_served(
    connection: Connection, tenant_id: TenantId, model_id: ModelId, version: VersionId | None = None
) -> None:
    """Refuse what would take away a version that an environment serves, as canary and shadow too.

    Raises:
        VersionInUseError: Names the environments.
    """
    parts = [environments.c[part] for part in _PARTS]
    of_model = sa.and_(environments.c.tenant_id == tenant_id, environments.c.model_id == model_id)
    is_needed = parts[0].is_not(None) if version is None else sa.or_(*(part == version for part in parts))
    used_by = sorted(
        text.format(row.environment)
        for row in connection.execute(sa.select(environments.c.environment, *parts).where(of_model, is_needed))
        for part, text in _PARTS.items()
        if (named := getattr(row, part)) is not None and version in (None, named)
    )
    if used_by:
        what = f"The model {model_id!s}" if version is None else f"Version {version!s} of {model_id!s}"
        raise VersionInUseError(
            f"{what} is what {', '.join(used_by)} serves.",
            remedy="Promote another version there first, or let it serve nothing: "
            f"mlcore withdraw --tenant {tenant_id!s} --model {model_id!s} --environment {used_by[0].split()[0]}. "
            "A canary is aborted, a shadow is stopped: mlcore rollouts.",
            tenant_id=tenant_id,
            model_id=model_id,
            version=version,
            used_by=used_by,
        )


def _summary(row: AnyRow) -> ModelSummary:
    newest = None if row.newest_version is None else VersionId(row.newest_version)
    return ModelSummary(ModelId(row.model_id), row.model_type, row.versions, newest, row.created_at, row.archived_at)
