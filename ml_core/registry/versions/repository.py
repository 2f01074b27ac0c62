"""Versions of a tenant's models: registered once, read, annotated, hidden and deleted, never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import models, versions
from ml_core.domain.api_key import Scope
from ml_core.domain.lifecycle import VersionState, VersionTrigger, advance, state_of
from ml_core.domain.version import ModelVersion, ServableVersion, StoredArtifact, VersionDraft
from ml_core.exceptions import VersionInUseError
from ml_core.ids import Digest, ModelId, TenantId, VersionId
from ml_core.registry import journal
from ml_core.registry.collection.holds import refuse_if_held
from ml_core.registry.missing import model_archived, model_not_found
from ml_core.registry.pages import Page
from ml_core.registry.versions import registration
from ml_core.registry.versions.limits import MAX_DOCUMENT_BYTES, MAX_MODEL_NOTES_BYTES, check_document
from ml_core.registry.versions.models import ModelRepository, ModelSummary, lock_model, refuse_if_served
from ml_core.registry.versions.rows import (
    IS_ARCHIVED,
    SELECT_VERSIONS,
    SERVABLE_COLUMNS,
    VERSIONS_WITH_MODEL,
    servable_from,
    version_from,
)
from ml_core.registry.versions.search import VersionQuery, search
from ml_core.registry.versions.tags import check_tags, write_tags
from ml_core.registry.versions.tombstones import is_buried, remove

_ABSENT = object()


class VersionRepository:
    """The versions of one tenant."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._db = db
        self._tenant_id = tenant_id

    def register(self, draft: VersionDraft, artifact: StoredArtifact, actor: str) -> ModelVersion:
        """Register a version of bytes that are in the artifact store.

        Registering the same version with the same bytes again returns what is there.

        Args:
            draft: What the caller brings. Without a version it gets the model's next number. Metrics that are not
                finite numbers are left out.
            artifact: What the store computed of the bytes.
            actor: Who registers it.

        Raises:
            ModelVersionConflictError: The version exists, or did before it was deleted, with other bytes.
            ModelSaveError: The model is of another type, or is archived.
            TenantNotFoundError: There is no such tenant.
            InvalidRequestError: A value can't be stored, or the parent version does not exist.
        """
        with journal.writing(self._db, self._tenant_id) as connection:
            return registration.register(connection, self._tenant_id, draft, artifact, actor)

    def refuse_in_vain(self, model_id: ModelId, model_type: str | None, version: VersionId | None) -> None:
        """Refuse a training whose version could not be registered, before a core is spent on it.

        Args:
            model_id: The model.
            model_type: Of the version; None: not known yet.
            version: Its name; None: the next number.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``train``.
            ModelVersionConflictError: There is, or was, a version of this name.
            ModelSaveError: The model is of another type, or is archived.
        """
        self._db.principal.require(Scope.TRAIN)
        with self._db.tenant(self._tenant_id) as connection:
            registration.refuse_in_vain(connection, self._tenant_id, model_id, model_type, version)

    def get(self, model_id: ModelId, version: VersionId | None = None) -> ModelVersion:
        """A version by name, archived ones too; without a name the newest that is not archived.

        Raises:
            ModelNotFoundError: There is no such version.
        """
        conditions = [versions.c.model_id == model_id]
        if version is None:
            conditions += [versions.c.archived_at.is_(None), models.c.archived_at.is_(None)]
        else:
            conditions.append(versions.c.version == version)
        with self._db.tenant(self._tenant_id) as connection:
            found = registration.find(connection, self._tenant_id, *conditions)
            if found is None:
                raise model_not_found(self._tenant_id, model_id, version, connection=connection)
        return found

    def servable(self, model_id: ModelId, version: VersionId) -> ServableVersion:
        """What serving needs of a version that may be served, by the same rule as ``FeedReader.servable``.

        Raises:
            ModelNotFoundError: There is no such version, or it or its model is archived.
        """
        statement = sa.select(*SERVABLE_COLUMNS, IS_ARCHIVED.label("is_archived")).select_from(VERSIONS_WITH_MODEL)
        with self._db.tenant(self._tenant_id) as connection:
            row = connection.execute(statement.where(self._is(model_id, version))).one_or_none()
            if row is None:
                raise model_not_found(self._tenant_id, model_id, version, connection=connection)
        if row.is_archived:
            raise model_archived(self._tenant_id, model_id, version)
        return servable_from(row)

    def list(
        self,
        model_id: ModelId,
        *,
        include_archived: bool = False,
        limit: int | None = None,
        before: VersionId | None = None,
    ) -> Sequence[ModelVersion]:
        """A model's versions, newest first; none if there is no such model.

        Args:
            model_id: The model.
            include_archived: Archived ones too.
            limit: At most so many.
            before: Only versions registered before this one: the last of the page before.
        """
        mine = sa.and_(versions.c.tenant_id == self._tenant_id, versions.c.model_id == model_id)
        statement = SELECT_VERSIONS.where(mine)
        if not include_archived:
            statement = statement.where(versions.c.archived_at.is_(None), models.c.archived_at.is_(None))
        if before is not None:
            other = versions.alias()
            bound = sa.select(other.c.number).where(
                other.c.tenant_id == self._tenant_id, other.c.model_id == model_id, other.c.version == before
            )
            statement = statement.where(versions.c.number < bound.scalar_subquery())
        statement = statement.order_by(versions.c.number.desc()).limit(limit)
        with self._db.tenant(self._tenant_id) as connection:
            return [version_from(row) for row in connection.execute(statement)]

    def search(
        self, query: VersionQuery | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> Page[ModelVersion]:
        """The versions that a query finds, over all models of the tenant, a page at a time.

        Raises:
            InvalidRequestError: The sorting, the limit, the text or the cursor can't be used.
        """
        with self._db.tenant(self._tenant_id) as connection:
            return search(connection, self._tenant_id, query or VersionQuery(), limit, cursor)

    def list_models(self, *, limit: int | None = None, after: ModelId | None = None) -> Sequence[ModelSummary]:
        """The tenant's models by name, see ``ModelRepository.list``."""
        return ModelRepository(self._db, self._tenant_id).list(limit=limit, after=after)

    def find_by_digest(self, digest: Digest, model_id: ModelId | None = None) -> ModelVersion | None:
        """The newest version with these bytes, of one model or of any of the tenant's."""
        conditions = [versions.c.digest == digest]
        if model_id is not None:
            conditions.append(versions.c.model_id == model_id)
        with self._db.tenant(self._tenant_id) as connection:
            return registration.find(connection, self._tenant_id, *conditions)

    def children(self, model_id: ModelId, version: VersionId) -> Sequence[VersionId]:
        """The versions that name this one as their parent, oldest first."""
        with self._db.tenant(self._tenant_id) as connection:
            return self._children(connection, model_id, version)

    def update_metadata(
        self, model_id: ModelId, metadata: Mapping[str, Any], version: VersionId | None = None
    ) -> ModelVersion:
        """Merge notes into metadata; a key that is there is replaced. The journal names the changed keys.

        Args:
            model_id: The model.
            metadata: The notes.
            version: Whose notes they are. None: the model's, so that each of its versions has them, archived ones and
                those to come too.

        Returns:
            The version; without one, the newest that is not archived.

        Raises:
            ModelNotFoundError: There is no such version, or no version that is not archived.
            InvalidRequestError: A value has no JSON form.
            RequestTooLargeError: All of a version's metadata would be over 64 KiB, or all of the model's over 16 KiB.
        """
        name = self.get(model_id, version).version
        given = check_document(metadata, "metadata")
        if version is None:
            self._annotate_all(model_id, given)
            return self.get(model_id, name)
        mine = self._is(model_id, name)
        with journal.writing(self._db, self._tenant_id) as connection:
            lock_model(connection, self._tenant_id, model_id)
            row = connection.execute(sa.select(versions.c.metadata).where(mine)).one_or_none()
            if row is None:
                raise model_not_found(self._tenant_id, model_id, name)
            changed = sorted(key for key in given if row.metadata.get(key, _ABSENT) != given[key])
            if changed:
                merged = check_document({**row.metadata, **given}, "metadata")
                connection.execute(versions.update().where(mine).values(metadata=merged))
                self._note(connection, "version.annotated", model_id, name, {"keys": changed})
        return self.get(model_id, name)

    def _annotate_all(self, model_id: ModelId, given: Mapping[str, Any]) -> None:
        """Merge notes into those of the model and of each of its versions."""
        of_model = sa.and_(models.c.tenant_id == self._tenant_id, models.c.model_id == model_id)
        of_versions = sa.and_(versions.c.tenant_id == self._tenant_id, versions.c.model_id == model_id)
        with journal.writing(self._db, self._tenant_id) as connection:
            lock_model(connection, self._tenant_id, model_id)
            present = connection.execute(sa.select(models.c.metadata).where(of_model)).scalar_one()
            others = connection.execute(sa.select(versions.c.metadata).where(of_versions)).scalars().all()
            changed = sorted(
                key for key in given if any(one.get(key, _ABSENT) != given[key] for one in (present, *others))
            )
            if not changed:
                return
            for one in others:
                check_document({**one, **given}, "metadata")
            reserved = MAX_DOCUMENT_BYTES - MAX_MODEL_NOTES_BYTES
            merged = check_document({**present, **given}, "metadata", reserved_bytes=reserved)
            connection.execute(models.update().where(of_model).values(metadata=merged))
            with_given = versions.c.metadata.concat(sa.bindparam("given", given, type_=JSONB))
            connection.execute(versions.update().where(of_versions).values(metadata=with_given))
            journal.record(connection, self._tenant_id, "model.annotated", {"model_id": model_id}, {"keys": changed})

    def set_tags(self, model_id: ModelId, version: VersionId, tags: Mapping[str, str | None]) -> ModelVersion:
        """Set tags by which a search finds the version; None removes one. Others stay.

        Raises:
            ModelNotFoundError: There is no such version.
            InvalidRequestError: A key or value is no text of 1 to 200 characters.
        """
        kept, removed = check_tags(tags)
        with journal.writing(self._db, self._tenant_id) as connection:
            lock_model(connection, self._tenant_id, model_id)
            found = registration.find(
                connection, self._tenant_id, versions.c.model_id == model_id, versions.c.version == version
            )
            if found is None:
                raise model_not_found(self._tenant_id, model_id, version, connection=connection)
            write_tags(connection, found.servable.ref, kept, removed)
            self._note(connection, "version.tagged", model_id, version, {"tags": dict(tags)})
        return self.get(model_id, version)

    def archive(self, model_id: ModelId, version: VersionId) -> None:
        """Hide a version; archiving it again changes nothing.

        Raises:
            ModelNotFoundError: There is no such version.
            VersionInUseError: An environment points to it.
        """
        kept = sa.func.coalesce(versions.c.archived_at, sa.func.now())
        with journal.writing(self._db, self._tenant_id) as connection:
            lock_model(connection, self._tenant_id, model_id)
            refuse_if_served(connection, self._tenant_id, model_id, version)
            self._advance(connection, model_id, version, VersionTrigger.ARCHIVE)
            self._set_archived(connection, model_id, version, kept)
            self._note(connection, "version.archived", model_id, version)

    def restore(self, model_id: ModelId, version: VersionId) -> None:
        """Show an archived version again; restoring one that is not archived changes nothing.

        Raises:
            ModelNotFoundError: There is no such version.
        """
        with journal.writing(self._db, self._tenant_id) as connection:
            lock_model(connection, self._tenant_id, model_id)
            self._advance(connection, model_id, version, VersionTrigger.RESTORE)
            self._set_archived(connection, model_id, version, None)
            self._note(connection, "version.restored", model_id, version)

    def delete(self, model_id: ModelId, version: VersionId) -> Digest:
        """Delete a version that nothing needs. Its name may come back with the same bytes only.

        Returns:
            Its digest, for whoever keeps the bytes.

        Raises:
            ModelNotFoundError: There is no such version.
            VersionInUseError: An environment points to it, another version was made from it, or a hold forbids it.
        """
        with journal.writing(self._db, self._tenant_id) as connection:
            lock_model(connection, self._tenant_id, model_id)
            self._advance(connection, model_id, version, VersionTrigger.DELETE)
            refuse_if_served(connection, self._tenant_id, model_id, version)
            refuse_if_held(connection, self._tenant_id, model_id, version)
            if children := self._children(connection, model_id, version):
                raise VersionInUseError(
                    f"Version {version!s} of {model_id!s} is the parent of {', '.join(children)}.",
                    remedy="Delete those first, or archive this one.",
                    tenant_id=self._tenant_id,
                    model_id=model_id,
                    version=version,
                    used_by=[str(child) for child in children],
                )
            (digest,) = remove(connection, self._tenant_id, model_id, version)
            self._note(connection, "version.deleted", model_id, version, {"digest": digest})
            return digest

    def _children(self, connection: Connection, model_id: ModelId, version: VersionId) -> Sequence[VersionId]:
        statement = (
            sa.select(versions.c.version)
            .where(
                versions.c.tenant_id == self._tenant_id,
                versions.c.model_id == model_id,
                versions.c.parent_version == version,
            )
            .order_by(versions.c.number)
        )
        return [VersionId(name) for name in connection.scalars(statement)]

    def _advance(
        self, connection: Connection, model_id: ModelId, version: VersionId, trigger: VersionTrigger
    ) -> VersionState:
        """The state of a version after a trigger, by the table of ``ml_core.domain.lifecycle``.

        Raises:
            ModelNotFoundError: There is no such version any more, or there never was.
            InvalidTransitionError: Its state does not allow the trigger.
        """
        row = connection.execute(sa.select(versions.c.archived_at).where(self._is(model_id, version))).one_or_none()
        if row is not None:
            return advance(state_of(row.archived_at), trigger)
        if is_buried(connection, self._tenant_id, model_id, version):
            gone, remedy = "was deleted", "Only the very same bytes can be registered under its name again."
            raise model_not_found(self._tenant_id, model_id, version, why=gone, remedy=remedy)
        raise model_not_found(self._tenant_id, model_id, version, connection=connection)

    def _set_archived(self, connection: Connection, model_id: ModelId, version: VersionId, at: Any) -> None:
        connection.execute(versions.update().where(self._is(model_id, version)).values(archived_at=at))

    def _note(
        self,
        connection: Connection,
        action: str,
        model_id: ModelId,
        version: VersionId,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        journal.record(connection, self._tenant_id, action, {"model_id": model_id, "version": version}, details)

    def _is(self, model_id: ModelId, version: VersionId) -> sa.ColumnElement[bool]:
        return sa.and_(
            versions.c.tenant_id == self._tenant_id, versions.c.model_id == model_id, versions.c.version == version
        )
