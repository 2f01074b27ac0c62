"""Registering a version: what it may hold, the steps of one transaction, and the tombstones of deleted versions.

The transaction locks the model's row first. So numbers are assigned one after the other, and of two registrations of
the same name the second sees the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.connection import sign
from ml_core.database.strict_json import dumps, is_storable
from ml_core.database.tables import deleted_versions, models, version_tags, versions
from ml_core.database.tables.sizes import MAX_SERVED_BYTES
from ml_core.domain.version import ModelVersion, StoredArtifact, VersionDraft
from ml_core.exceptions import (
    Action,
    InvalidRequestError,
    ModelSaveError,
    ModelVersionConflictError,
    RequestTooLargeError,
    VersionInUseError,
    shown,
)
from ml_core.ids import Digest, ModelId, TenantId, VersionId
from ml_core.registry import journal
from ml_core.registry.blobs import lock_digest
from ml_core.registry.journal import erase
from ml_core.registry.limits import MAX_METRICS, MAX_WORD, check_document
from ml_core.registry.runs.lifecycle import refuse_given_up
from ml_core.registry.search import write_tags
from ml_core.registry.versions.rows import SELECT_NAMED, SELECT_VERSIONS, draft_values, finite_metrics, version_from

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

MAX_DESCRIPTION_BYTES = MAX_SERVED_BYTES // 2
"""Of a version's signature, and of its self-test, as JSON: Postgres prints it with blanks."""
_MAX_COUNTED_DIGITS = 9
"""A number of more digits that a caller chooses is a name like any other; the counter never gets there."""

# Made once: making them takes longer than executing them. The update changes nothing, but locks and returns the row.
_LOCKED_MODEL = (
    insert(models)
    .on_conflict_do_update(constraint=models.primary_key, set_={"model_type": models.c.model_type})
    .returning(models)
)
_ADD_VERSION = versions.insert()
_ADD_METRICS = sa.text(
    "INSERT INTO mlcore.version_metrics (tenant_id, model_id, version, split, metric, value)"
    " SELECT :tenant_id, :model_id, :version, * FROM"
    " unnest(CAST(:splits AS text[]), CAST(:metrics AS text[]), CAST(:values AS double precision[]))"
)


def register(
    connection: Connection, tenant_id: TenantId, draft: VersionDraft, artifact: StoredArtifact, actor: str
) -> ModelVersion:
    """Register a version in a transaction of ``journal.writing``; the same name and bytes again return what is there.

    The caller has checked the draft, and holds the lock of the artifact's digest.

    Raises:
        ModelVersionConflictError: The version exists, or did before it was deleted, with other bytes.
        ModelSaveError: The model is of another type, or is archived.
        InvalidRequestError: The parent version does not exist.
        RunStateError: The run that made it has failed or was cancelled.
    """
    refuse_given_up(connection, tenant_id, draft.lineage.run_id)
    if draft.lineage.dataset_digest is not None:  # it is not collected before this version is seen
        lock_digest(connection, tenant_id, draft.lineage.dataset_digest, shared=True)
    model = _lock_model(connection, tenant_id, draft)
    if draft.version is not None:
        existing = find(connection, tenant_id, draft.model_id, draft.version)
        if existing is not None and existing.digest == artifact.digest:
            return existing
        if existing is not None:
            raise _conflict(tenant_id, draft.model_id, draft.version, "exists with other bytes; versions never change")
        if _buried(connection, tenant_id, draft.model_id, draft.version) not in (None, artifact.digest):
            what = "was deleted and had other bytes; a name is never reused for others"
            raise _conflict(tenant_id, draft.model_id, draft.version, what)
    _check_parent(connection, tenant_id, draft)
    number = max(int(model.next_number), _own_number(draft))
    version = draft.version or VersionId(str(number))
    row = {
        **draft_values(draft),
        "tenant_id": tenant_id,
        "model_id": draft.model_id,
        "version": version,
        "number": number,
        "digest": artifact.digest,
        "size_bytes": artifact.size_bytes,
        "format": artifact.format,
        "metadata": {**model.metadata, **draft.metadata},
        "created_by": sign(connection, actor),
    }
    connection.execute(_ADD_VERSION, row)
    _make_findable(connection, tenant_id, draft, version)
    subject = {"model_id": draft.model_id, "version": version}
    journal.record(connection, tenant_id, "version.registered", subject, {"digest": artifact.digest})
    named = {"tenant": tenant_id, "model": draft.model_id, "version": version}
    return version_from(connection.execute(SELECT_NAMED, named).one())


def _make_findable(connection: Connection, tenant_id: TenantId, draft: VersionDraft, version: VersionId) -> None:
    """The rows by which a search finds the version: its metrics and tags."""
    key = {"tenant_id": tenant_id, "model_id": draft.model_id, "version": version}
    metrics = [(split, *item) for split, values in finite_metrics(draft.metrics).items() for item in values.items()]
    if metrics:
        splits, names, numbers = map(list, zip(*metrics, strict=True))
        connection.execute(_ADD_METRICS, {**key, "splits": splits, "metrics": names, "values": numbers})
    write_tags(connection, version_tags, tenant_id, {"model_id": draft.model_id, "version": version}, draft.tags)


def find(
    connection: Connection,
    tenant_id: TenantId,
    model_id: ModelId | None,
    version: str | None = None,
    *conditions: sa.ColumnElement[bool],
) -> ModelVersion | None:
    """The newest version that meets the conditions; a name that is None does not restrict."""
    named = {"tenant_id": tenant_id, "model_id": model_id, "version": version}
    wanted = (versions.c[name] == value for name, value in named.items() if value is not None)
    statement = SELECT_VERSIONS.where(*wanted, *conditions).order_by(versions.c.number.desc()).limit(1)
    row = connection.execute(statement).one_or_none()
    return None if row is None else version_from(row)


def _lock_model(connection: Connection, tenant_id: TenantId, draft: VersionDraft) -> AnyRow:
    """The model's row, made on first use and locked to the end of the transaction."""
    mine = {"tenant_id": tenant_id, "model_id": draft.model_id}
    model = connection.execute(_LOCKED_MODEL, {**mine, "model_type": draft.model_type}).one()
    if model.deleted_at is not None:  # its name begins a new life; its numbers go on
        fresh: dict[str, Any] = {
            "deleted_at": None,
            "archived_at": None,
            "model_type": draft.model_type,
            "metadata": {},
        }
        revived = models.update().filter_by(**mine).values(**fresh)
        model = connection.execute(revived.returning(models)).one()
    else:
        _refuse_other(model, draft.model_type, draft.version)
    return model


def refuse_in_vain(
    connection: Connection, tenant_id: TenantId, model_id: ModelId, model_type: str | None, version: VersionId | None
) -> str | None:
    """Refuse what ``register`` would refuse of a version that is still to be trained.

    The type is None where it is not known yet, and the version where it gets the next number.

    Returns:
        The type of the model; None: there is no such model.

    Raises:
        ModelVersionConflictError: There is, or was, a version of this name.
        ModelSaveError: The model is of another type, or is archived.
    """
    living = sa.select(models).filter_by(tenant_id=tenant_id, model_id=model_id, deleted_at=None)
    model = connection.execute(living).one_or_none()
    if model is not None:
        _refuse_other(model, model_type, version)
    was_deleted = version is not None and is_buried(connection, tenant_id, model_id, version)
    if version is not None and (was_deleted or find(connection, tenant_id, model_id, version)):
        what = f"{'was deleted' if was_deleted else 'exists'}; versions never change"
        remedy = "Give --version (version= in Python) another name, or leave it out for the next number."
        raise _conflict(tenant_id, model_id, version, what, remedy)
    return None if model is None else str(model.model_type)


def _refuse_other(model: AnyRow, model_type: str | None, version: VersionId | None) -> None:
    """Refuse a version for a model that is archived, or of another type."""
    if model.archived_at is not None:
        what, remedy = "is archived", "Restore it, or register under another name."
    elif model_type not in (None, model.model_type):
        what, remedy = f"is of type {model.model_type!r}, not {model_type!r}", "Register it under another name."
    else:
        return
    raise ModelSaveError(
        f"The model {model.model_id!s} {what}.",
        remedy=remedy,
        tenant_id=TenantId(model.tenant_id),
        model_id=ModelId(model.model_id),
        version=version,
    )


def _conflict(
    tenant_id: TenantId, model_id: ModelId, version: VersionId, what: str, remedy: str | None = None
) -> ModelVersionConflictError:
    remedy = remedy or "Register under another version, or leave the version out for the next number."
    message = f"Version {version!s} of {model_id!s} {what}."
    return ModelVersionConflictError(message, remedy=remedy, tenant_id=tenant_id, model_id=model_id, version=version)


def _check_parent(connection: Connection, tenant_id: TenantId, draft: VersionDraft) -> None:
    parent = draft.lineage.parent_version
    if parent is None:
        return
    if find(connection, tenant_id, draft.model_id, parent) is None:
        raise InvalidRequestError(
            f"The parent version {parent!r} of {draft.model_id!s} does not exist.",
            remedy="Name a version of the same model.",
            tenant_id=tenant_id,
            field="parent_version",
        )


def _own_number(draft: VersionDraft) -> int:
    """A caller's own whole number, which the database then does not give out again; 0 for any other name."""
    wanted = draft.version or ""
    return int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) <= _MAX_COUNTED_DIGITS else 0


def remove(
    connection: Connection, tenant_id: TenantId, model_id: ModelId, version: VersionId | None = None
) -> list[Digest]:
    """Delete a version, or all of a model. A trigger keeps names and digests. The caller checks the references first.

    Returns:
        The digests of the deleted versions, each followed by that of its compiled form if it has one.

    Raises:
        VersionInUseError: It was promoted or held since then.
    """
    key = {"model_id": model_id} | ({} if version is None else {"version": version})
    wanted = sa.select(versions.c.digest, versions.c.compiled_digest).filter_by(tenant_id=tenant_id, **key)
    digests = [digest for row in connection.execute(wanted) for digest in row if digest is not None]
    try:
        erase(connection, versions, **key)
    except sa.exc.IntegrityError as error:
        what = f"The model {model_id!s}" if version is None else f"Version {version!s} of {model_id!s}"
        raise VersionInUseError(
            f"{what} was promoted or held meanwhile.",
            remedy="Look at the model's environments and holds.",
            action=Action.of("environments.list", tenant=tenant_id, model=model_id),
            tenant_id=tenant_id,
            model_id=model_id,
            version=version,
        ) from error
    return [Digest(digest) for digest in digests]


def is_buried(connection: Connection, tenant_id: TenantId, model_id: ModelId, version: VersionId) -> bool:
    """Whether there was a version of this name that was deleted or collected."""
    return _buried(connection, tenant_id, model_id, version) is not None


def _buried(connection: Connection, tenant_id: TenantId, model_id: ModelId, version: VersionId) -> str | None:
    named = {"tenant_id": tenant_id, "model_id": model_id, "version": version}
    return connection.scalar(sa.select(deleted_versions.c.digest).filter_by(**named))


def check_draft(draft: VersionDraft) -> None:
    """Refuse a draft whose documents or metrics can't be stored.

    Raises:
        InvalidRequestError: A document has no JSON form, a metric's name is too long, or its value is not a number. A
            number that is not finite is accepted.
        RequestTooLargeError: A document is over its limit, or there are more than ``MAX_METRICS`` metrics.
    """
    check_metrics(draft.metrics)
    for field, document in (("signature", draft.signature.to_json()), ("self-test", draft.self_test.to_json())):
        size_bytes = len(dumps(document).encode())
        if size_bytes > MAX_DESCRIPTION_BYTES:
            raise RequestTooLargeError(
                f"The version's {field} would take {size_bytes:,} bytes; {MAX_DESCRIPTION_BYTES:,} are allowed.",
                remedy="Train on fewer columns or shorter texts: every replica keeps the signature in memory.",
                limit=MAX_DESCRIPTION_BYTES,
                actual=size_bytes,
            )
    check_document(draft.metadata, "metadata")
    check_document(draft.hyperparameters, "hyperparameters")


def check_metrics(metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse metrics by split that can't be stored. Errors as for ``check_draft``."""
    for split, values in metrics.items():
        _check_name(split)
        if not isinstance(values, Mapping):
            raise _no_metric(f"The metrics of the split {split!r} are not a mapping", "Give name → number by split.")
        for name, value in values.items():
            _check_name(name)
            if not _is_number(value):
                raise _no_metric(
                    f"The metric {name!r} is a {type(value).__name__}, not a number", "Give a number or leave it out."
                )
    count = sum(map(len, metrics.values()))
    if count > MAX_METRICS:
        raise RequestTooLargeError(
            f"The version has {count:,} metrics; {MAX_METRICS:,} are allowed.",
            remedy="Keep the metrics that versions are compared by, and log the others to the run.",
            limit=MAX_METRICS,
            actual=count,
        )


def _check_name(name: object) -> None:
    if not (isinstance(name, str) and 1 <= len(name) <= MAX_WORD and is_storable(name)):
        raise _no_metric(
            f"{shown(name)} can't be the name of a metric or a split", f"Use a text of 1 to {MAX_WORD} characters."
        )


def _is_number(value: object) -> bool:
    """Whether it is a number or holds one, as a tensor may; a text does not count, whatever it says."""
    if isinstance(value, str | bytes):
        return False
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _no_metric(what: str, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(f"{what}.", remedy=remedy, field="metrics")
