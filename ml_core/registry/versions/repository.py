"""Versions of a tenant's models: registered once, read, annotated, archived and deleted, never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection

from ml_core.database.tables import models, version_tags, versions
from ml_core.domain.api_key import Scope
from ml_core.domain.metric import Metric, parse_bound
from ml_core.domain.version import (
    Compilation,
    ModelVersion,
    ServableVersion,
    StoredArtifact,
    VersionDraft,
    VersionSummary,
)
from ml_core.ids import Digest, ModelId, VersionId
from ml_core.models import own_types
from ml_core.registry import journal
from ml_core.registry.blobs import KeepsBytes, lock_digest, remove_unneeded, store_and_register
from ml_core.registry.limits import MAX_DOCUMENT_BYTES, check_document
from ml_core.registry.missing import model_not_found, not_shown
from ml_core.registry.pages import Page, read_page
from ml_core.registry.references import SERVED, refuse_if_referenced
from ml_core.registry.search import write_tags
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions import registration
from ml_core.registry.versions.intake import Submission, draft_of
from ml_core.registry.versions.lineage import compare, lineage_of
from ml_core.registry.versions.models import ModelRepository, lock_model
from ml_core.registry.versions.rows import (
    SELECT_NAMED,
    SELECT_NEWEST,
    SELECT_SERVABLE,
    SELECT_SERVED_DIGEST,
    SELECT_VERSIONS,
    is_version,
    servable_from,
    version_from,
)
from ml_core.registry.versions.search import VersionQuery, metrics_of, search

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

MAX_MODEL_NOTES_BYTES = 16 * 2**10
"""Of a model's own metadata, as JSON: each of its versions has it beside notes of its own."""

COMPILED_FORMAT = "onnx"
"""The format of the artifact of a compiled form."""
_ABSENT = object()


class VersionRepository(KeepsBytes):
    """The versions of one tenant."""

    def submit(self, submission: Submission, data: bytes, *, actor: str | None = None) -> ModelVersion:
        """Audit and describe a skops archive that a caller brings, store its bytes and register it as a version.

        On the embedded server the first version creates the tenant.

        Args:
            submission: What the caller says of it.
            data: The archive.
            actor: For whom an operator registers it; None: the connection's principal.

        Raises:
            MLFrameworkError: As for ``intake.draft_of`` and ``publish``.
        """
        from ml_core.models.formats import skops_format

        TenantRepository(self._db).ensure(self._tenant_id)
        model_type = submission.model_type or ModelRepository(self._db, self._tenant_id).model_type(submission.model_id)
        digest = Digest(hashlib.sha256(data).hexdigest())
        twin, trust = self.find_by_digest(digest), own_types.known(self._db.settings)
        draft, data = draft_of(submission, data, digest, model_type, twin, trust)
        return self.publish(draft, data, skops_format.FORMAT, actor=actor)

    def publish(
        self,
        draft: VersionDraft,
        data: bytes,
        format: str,  # noqa: A002
        *,
        compiled: bytes | None = None,
        actor: str | None = None,
    ) -> ModelVersion:
        """Store the bytes of an artifact and register them as a version: both, or neither.

        Args:
            draft: What the version is.
            data: The artifact.
            format: Of the artifact, such as ``skops/2``.
            compiled: The bytes of the compiled form that the draft names, if they are not in the store.
            actor: For whom an operator registers it; None: the connection's principal.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``train``.
            ModelSaveError: The store or the registry refuses; nothing is left behind.
            MLFrameworkError: As for ``register``.
        """
        self._db.principal.require(Scope.TRAIN)  # before anything is stored
        TenantRepository(self._db).get(self._tenant_id)
        registration.check_draft(draft)
        signed = actor or self._db.principal.name
        form = draft.compilation.form
        if form is not None and compiled is None and not self.store.exists(self._tenant_id, form.digest):
            # That of another version with these bytes. Registering the file again must not need what it derives.
            form, draft = None, replace(draft, compilation=Compilation("Its compiled form is lost."))

        def put() -> StoredArtifact:
            if compiled is not None:
                self.store.put(self._tenant_id, compiled, COMPILED_FORMAT)
            return self.store.put(self._tenant_id, data, format)

        return store_and_register(
            self._db,
            self._tenant_id,
            self.store,
            put,
            lambda connection, artifact: registration.register(connection, self._tenant_id, draft, artifact, signed),
            () if form is None else (form.digest,),
        )

    def register(self, draft: VersionDraft, artifact: StoredArtifact, actor: str) -> ModelVersion:
        """Register a version of bytes that are in the artifact store already.

        Registering the same version with the same bytes again returns the existing one.

        Args:
            draft: What the caller brings. Without a version it gets the model's next number. Metrics that are not
                finite numbers are left out.
            artifact: What the store computed of the bytes.
            actor: Who registers it.

        Raises:
            MLFrameworkError: As for ``registration.register``.
        """
        registration.check_draft(draft)
        with journal.writing(self._db, self._tenant_id) as connection:
            form = draft.compilation.form
            for digest in (artifact.digest, *(() if form is None else (form.digest,))):
                lock_digest(connection, self._tenant_id, digest, shared=True)
            return registration.register(connection, self._tenant_id, draft, artifact, actor)

    def refuse_in_vain(self, model_id: str, model_type: str | None, version: str | None) -> str | None:
        """Refuse a training whose version could not be registered, before a core is spent on it.

        Returns:
            The type of the model; None: there is no such model.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``train``.
            MLFrameworkError: As for ``registration.refuse_in_vain``.
        """
        name, wanted = ModelId(model_id), None if version is None else VersionId(version)
        self._db.principal.require(Scope.TRAIN)
        with self._db.tenant(self._tenant_id) as connection:
            return registration.refuse_in_vain(connection, self._tenant_id, name, model_type, wanted)

    def get(self, model_id: str, version: str | None = None) -> ModelVersion:
        """A version by name, archived ones too; without a name the newest that is not archived."""
        with self._db.tenant(self._tenant_id) as connection:
            return self._get(connection, ModelId(model_id), None if version is None else VersionId(version))

    def artifact(self, model_id: str, version: str | None = None) -> Path:
        """A local file with the verified bytes of a version. Errors as for ``get`` and ``ArtifactStore.fetch``."""
        found = self.get(model_id, version)
        return self.store.fetch(self._tenant_id, found.digest, found.size_bytes)

    def servable(self, model_id: str, version: str) -> ServableVersion:
        """What serving needs of a version that may be served, by the same rule as ``FeedReader.servable``.

        Raises:
            ModelNotFoundError: There is no such version, or it or its model is archived.
        """
        return servable_from(self._served(SELECT_SERVABLE, model_id, version))

    def served_digest(self, model_id: str, version: str) -> Digest:
        """The digest of a version that may be served. It costs less than ``servable``, whose errors it raises."""
        return Digest(self._served(SELECT_SERVED_DIGEST, model_id, version).digest)

    def _served(self, select: sa.Select[Any], model_id: str, version: str) -> AnyRow:
        name, wanted = ModelId(model_id), VersionId(version)
        with self._db.tenant(self._tenant_id) as connection:
            row = connection.execute(select.where(self._is(name, wanted))).one_or_none()
            if row is None or row.is_archived:
                raise not_shown(row, self._tenant_id, name, wanted, connection=connection)
        return row

    def list(
        self, model_id: str, *, include_archived: bool = False, limit: int = 100, cursor: str | None = None
    ) -> Page[ModelVersion]:
        """A page of a model's versions, newest first; an empty one if there is no such model."""
        of = versions.c
        statement = SELECT_VERSIONS.add_columns(of.number)
        statement = statement.where(of.tenant_id == self._tenant_id, of.model_id == ModelId(model_id))
        if not include_archived:
            statement = statement.where(of.archived_at.is_(None), models.c.archived_at.is_(None))
        with self._db.tenant(self._tenant_id) as connection:
            page = read_page(connection, statement, [of.number], limit=limit, cursor=cursor, descending=True)
        return page.map(version_from)

    def search(
        self,
        model_id: str | None = None,
        *,
        model_type: str | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Iterable[str] | str = (),
        text: str | None = None,
        name: str | None = None,
        include_archived: bool = False,
        sort: str = "created",
        descending: bool | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[VersionSummary]:
        """Find versions of one model or of all. A criterion that is left out does not restrict.

        Example::

            versions.search("tickets", tags={"team": "support"}, metrics=["accuracy>=0.8"])

        Args:
            model_id: Of this model.
            model_type: Of models of this type.
            tags: With all of these tags (key → value).
            metrics: With each of these bounds, such as ``"accuracy>=0.8"`` (of the validation rows) or
                ``"train/mae<=3"``.
            text: With this text in the model's or the version's name, a note or a tag; case does not matter.
            name: With this text in the version's name; case does not matter.
            include_archived: Archived ones too.
            sort: ``created``, or a metric such as ``validation/accuracy``: then only versions that have it.
            descending: True for the newest or highest first, False for the oldest or lowest; None: the newest first, or
                the best of the metric.
            limit: At most so many, 1 to 1000.
            cursor: ``next_cursor`` of the page before, with the same search.

        Raises:
            InvalidRequestError: A bound, the sorting, the limit, the text or the cursor can't be used; or no version
                has such a metric or type.
            RequestTooLargeError: There are more than 30 filters; each tag and bound of a metric counts.
        """
        query = VersionQuery(
            model_id=None if model_id is None else ModelId(model_id),
            model_type=model_type,
            tags=tags or {},
            metrics=[parse_bound(each) for each in ([metrics] if isinstance(metrics, str) else metrics)],
            text=text,
            name=name,
            include_archived=include_archived,
            sort=sort,
            descending=descending,
        )
        with self._db.tenant(self._tenant_id) as connection:
            return search(connection, self._tenant_id, query, limit, cursor)

    def metrics(self) -> Sequence[Metric]:
        """The metrics that versions have, by split and name, with the direction of each; at most 1,000."""
        with self._db.tenant(self._tenant_id) as connection:
            return metrics_of(connection, self._tenant_id)

    def find_by_digest(self, digest: str, model_id: str | None = None) -> ModelVersion | None:
        """The newest version with these bytes, of one model or of any of the tenant's."""
        name, same = None if model_id is None else ModelId(model_id), versions.c.digest == Digest(digest)
        with self._db.tenant(self._tenant_id) as connection:
            return registration.find(connection, self._tenant_id, name, None, same)

    def compare(self, model_id: str, version1: str, version2: str) -> dict[str, Any]:
        """Two versions side by side, as ``ModelRegistry.compare_versions``."""
        return compare(self.get(model_id, version1), self.get(model_id, version2))

    def lineage(self, model_id: str, version: str) -> dict[str, Any]:
        """Where a version came from and what was made from it, as ``ModelRegistry.get_lineage``."""
        with self._db.tenant(self._tenant_id) as connection:
            return lineage_of(connection, self._get(connection, ModelId(model_id), VersionId(version)))

    def update_metadata(self, model_id: str, metadata: Mapping[str, Any], version: str | None = None) -> ModelVersion:
        """Merge notes into metadata; a key that is there is replaced. The journal names the changed keys.

        Args:
            model_id: The model.
            metadata: The notes.
            version: The version that they are about. None: the model, so that each of its versions has them, archived
                ones and later ones too.

        Returns:
            The version; without one, the newest that is not archived.

        Raises:
            ModelNotFoundError: There is no such version, or no version that is not archived.
            InvalidRequestError: A value has no JSON form.
            RequestTooLargeError: All of a version's metadata would be over 64 KiB, or all of the model's over 16 KiB.
        """
        found, given = self.get(model_id, version), check_document(metadata, "metadata")
        name = found.model_id
        subject: dict[str, str] = {"model_id": name}
        of_model = sa.and_(models.c.tenant_id == self._tenant_id, models.c.model_id == name)
        of = sa.and_(versions.c.tenant_id == self._tenant_id, versions.c.model_id == name)
        if version is not None:
            of, subject["version"] = self._is(name, found.version), found.version
        with journal.writing(self._db, self._tenant_id) as connection:
            lock_model(connection, self._tenant_id, name)
            present = connection.scalars(sa.select(versions.c.metadata).where(of)).all()
            notes = connection.execute(sa.select(models.c.metadata).where(of_model)).scalar_one()
            before = [*present, notes] if version is None else present
            changed = sorted(key for key in given if any(one.get(key, _ABSENT) != given[key] for one in before))
            if not changed:
                return self._get(connection, name, found.version)
            for one in present:
                check_document({**one, **given}, "metadata")
            merged = versions.c.metadata.concat(sa.bindparam("given", given, type_=JSONB))
            connection.execute(versions.update().where(of).values(metadata=merged))
            if version is None:
                reserved = MAX_DOCUMENT_BYTES - MAX_MODEL_NOTES_BYTES
                notes = check_document({**notes, **given}, "metadata", reserved_bytes=reserved)
                connection.execute(models.update().where(of_model).values(metadata=notes))
            action = "model.annotated" if version is None else "version.annotated"
            journal.record(connection, self._tenant_id, action, subject, {"keys": changed})
            return self._get(connection, name, found.version)

    def set_tags(self, model_id: str, version: str, tags: Mapping[str, str | None]) -> ModelVersion:
        """Set tags by which a search finds the version; None removes one. Others stay.

        Returns:
            The version with all of its tags.

        Raises:
            InvalidRequestError: A key is not a text of 1 to 250 characters, or a value is not one of at most 8,000.
        """
        name, wanted = ModelId(model_id), VersionId(version)
        with journal.writing(self._db, self._tenant_id) as connection:
            lock_model(connection, self._tenant_id, name)
            self._get(connection, name, wanted)
            subject = {"model_id": name, "version": wanted}
            write_tags(connection, version_tags, self._tenant_id, subject, tags)
            journal.record(connection, self._tenant_id, "version.tagged", subject, {"tags": dict(tags)})
            return self._get(connection, name, wanted)

    def archive(self, model_id: str, version: str) -> None:
        """Hide a version; archiving it again changes nothing.

        Raises:
            VersionInUseError: An environment serves it.
        """
        hidden = sa.func.coalesce(versions.c.archived_at, sa.func.now())
        self._set_archived_at(model_id, version, hidden, "version.archived")

    def restore(self, model_id: str, version: str) -> None:
        """Show an archived version again; restoring one that is not archived changes nothing."""
        self._set_archived_at(model_id, version, None, "version.restored")

    def _set_archived_at(self, model_id: str, version: str, moment: Any, action: str) -> None:
        name, wanted = ModelId(model_id), VersionId(version)
        with journal.writing(self._db, self._tenant_id) as connection:
            lock_model(connection, self._tenant_id, name)
            if moment is not None:
                refuse_if_referenced(connection, self._tenant_id, name, wanted, roles=SERVED)
            self._require(connection, name, wanted)
            connection.execute(versions.update().where(self._is(name, wanted)).values(archived_at=moment))
            journal.record(connection, self._tenant_id, action, {"model_id": name, "version": wanted})

    def delete(self, model_id: str, version: str) -> None:
        """Delete a version that nothing needs, and its bytes if nothing else needs them.

        Its name can only be registered again with the same bytes.

        Raises:
            VersionInUseError: An environment serves it, another version was made from it, or a hold forbids it.
            ModelSaveError: The store refuses to remove the bytes; the row is deleted, and the collection tries again.
        """
        name, wanted = ModelId(model_id), VersionId(version)
        with journal.writing(self._db, self._tenant_id) as connection:
            lock_model(connection, self._tenant_id, name)
            self._require(connection, name, wanted)
            refuse_if_referenced(connection, self._tenant_id, name, wanted, roles=(*SERVED, "hold", "version"))
            digests = registration.remove(connection, self._tenant_id, name, wanted)
            subject = {"model_id": name, "version": wanted}
            journal.record(connection, self._tenant_id, "version.deleted", subject, {"digest": digests[0]})
        for digest in digests:
            remove_unneeded(self._db, self._tenant_id, self.store, digest)

    def _get(self, connection: Connection, model_id: ModelId, version: VersionId | None) -> ModelVersion:
        names = {"tenant": self._tenant_id, "model": model_id}
        if version is None:
            row = connection.execute(SELECT_NEWEST, names).one_or_none()
        else:
            row = connection.execute(SELECT_NAMED, {**names, "version": version}).one_or_none()
        if row is None:
            raise model_not_found(self._tenant_id, model_id, version, connection=connection)
        return version_from(row)

    def _require(self, connection: Connection, model_id: ModelId, version: VersionId) -> None:
        """Refuse a version that does not exist any more, or never did.

        Raises:
            ModelNotFoundError: There is none.
        """
        if connection.scalar(sa.select(versions.c.version).where(self._is(model_id, version))) is not None:
            return
        if registration.is_buried(connection, self._tenant_id, model_id, version):
            why, remedy = "was deleted", "Only the same bytes can be registered under its name again."
            raise model_not_found(self._tenant_id, model_id, version, why=why, remedy=remedy)
        raise model_not_found(self._tenant_id, model_id, version, connection=connection)

    def _is(self, model_id: ModelId, version: VersionId) -> sa.ColumnElement[bool]:
        return is_version(self._tenant_id, model_id, version)
