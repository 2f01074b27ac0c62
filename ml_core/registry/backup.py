"""Backup and restore of a whole registry: the database and every artifact, in one folder.

::

    <folder>/registry.dump     the database, as PostgreSQL's pg_dump writes it
    <folder>/artifacts/        the artifacts, in the store's own layout
    <folder>/backup.json       what is in it; written last, so a folder without it is not a backup

The artifacts are copied before the dump and again after it, for those that arrive meanwhile; no byte is removed while a
backup runs. So every version of the dump has its bytes. Each is proved as it is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import orjson

from ml_core.database.connection import DatabaseConnection
from ml_core.database.dump import admin_session, dump, holding, restore
from ml_core.database.tables import SCHEMA_REVISION
from ml_core.exceptions import ArtifactIntegrityError, PlatformError
from ml_core.models.store import ArtifactStore, LocalStore
from ml_core.registry.audit import renew_positions
from ml_core.registry.blobs import BYTES_LOCK
from ml_core.registry.feed import renew_epoch
from ml_core.registry.tenants import tenant_ids

_DUMP, _ARTIFACTS, _MANIFEST = "registry.dump", "artifacts", "backup.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds.

    Attributes:
        created_at: When it was finished, UTC.
        revision: Of the schema.
        tenants: How many there are, those without an artifact too.
        artifacts: How many there are.
        artifact_bytes: Of all of them.
        damaged: Artifacts that could not be proved and so are not in it, as ``tenant/digest``.
        format: Of the backup's folder.
    """

    created_at: str
    revision: str
    tenants: int
    artifacts: int
    artifact_bytes: int
    damaged: tuple[str, ...] = ()
    format: int = _FORMAT


OnProgress = Callable[[float, float], object]


def _unseen(_done: float, _total: float) -> None:
    """Nobody looks at the progress."""


def back_up(
    db: DatabaseConnection, admin_url: str, store: ArtifactStore, folder: Path, on_progress: OnProgress = _unseen
) -> Backup:
    """Write a backup into a folder that is empty or does not exist. The platform may go on working meanwhile.

    Args:
        db: The registry.
        admin_url: Of a login that sees all rows.
        store: Where the artifacts are.
        folder: Where to.
        on_progress: Called with the tenants whose artifacts are copied, parts included, and how many there are.

    Raises:
        PlatformError: The folder is not empty or can't be written, or ``pg_dump`` failed.
        ConfigurationError: The login would not see all rows.
    """
    db.check_schema()
    _make_empty(folder)
    copies = LocalStore(folder / _ARTIFACTS)
    with holding(admin_url, BYTES_LOCK):
        _copy_new(store, copies, on_progress)
        dump(admin_url, folder / _DUMP)
        damaged = _copy_new(store, copies)
    blobs = [blob for tenant in copies.tenants() for blob in copies.list(tenant)]
    backup = Backup(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        revision=SCHEMA_REVISION,
        tenants=sum(1 for _ in tenant_ids(db)),
        artifacts=len(blobs),
        artifact_bytes=sum(blob.size_bytes for blob in blobs),
        damaged=tuple(damaged),
    )
    (folder / _MANIFEST).write_bytes(orjson.dumps(asdict(backup), option=orjson.OPT_INDENT_2))
    return backup


def read_manifest(folder: Path) -> Backup:
    """What a backup says of itself.

    Raises:
        PlatformError: The folder holds no complete backup, or one of another format.
    """
    try:
        stated = orjson.loads((folder / _MANIFEST).read_bytes())
        backup = Backup(**{**stated, "damaged": tuple(stated["damaged"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _refused(
            f"{folder} holds no complete backup.", "Name a folder in which a backup was completed."
        ) from error
    if backup.format != _FORMAT:
        raise _refused(f"The backup is of format {backup.format}.", "Use the release that wrote it.")
    return backup


def artifacts_in(folder: Path) -> LocalStore:
    """The artifacts in a backup, or in a folder of the store's own layout such as a ``storage_path``.

    Raises:
        PlatformError: The folder does not exist, or holds no artifact; a damaged backup's manifest is not needed.
    """
    if not folder.is_dir():
        raise _refused(f"There is no folder {folder}.", "Name a backup, or a folder with copies of artifacts.")
    is_backup = (folder / _MANIFEST).is_file() or (folder / _DUMP).is_file()
    copies = LocalStore(folder / _ARTIFACTS if is_backup else folder)
    if not any(True for tenant in copies.tenants() for _ in copies.list(tenant)):
        raise _refused(
            f"The folder {folder} holds no artifacts.",
            "Name a backup, or a storage_path: a folder with one folder per tenant.",
        )
    return copies


def bring_back(admin_url: str, store: ArtifactStore, folder: Path, on_progress: OnProgress = _unseen) -> Backup:
    """Restore a backup into an empty database and a store: artifacts first, so that no version is without its bytes.

    Args:
        admin_url: Of a login that may create roles: a superuser's.
        store: Where the artifacts go; what is there already is proved, not replaced.
        folder: The backup.
        on_progress: As for ``back_up``.

    Returns:
        What was restored: as the backup says of itself, with what was damaged since in ``damaged`` as well.

    Raises:
        PlatformError: It is not a backup, or ``pg_restore`` failed; the database is unchanged then.
        ConfigurationError: The database holds a registry already.
    """
    backup = read_manifest(folder)
    damaged = _copy_new(LocalStore(folder / _ARTIFACTS), store, on_progress)
    restore(admin_url, folder / _DUMP)
    with admin_session(admin_url) as connection:
        renew_epoch(connection)
        renew_positions(connection)
    return replace(backup, artifacts=backup.artifacts - len(damaged), damaged=(*backup.damaged, *damaged))


def _copy_new(source: ArtifactStore, target: ArtifactStore, on_progress: OnProgress = _unseen) -> list[str]:
    """Copy what the target lacks, proved on the way; returns what can't be proved, each once."""
    damaged, tenants = [], list(source.tenants())
    for number, tenant in enumerate(tenants):
        blobs = list(source.list(tenant))
        for done, blob in enumerate(blobs):
            on_progress(number + done / len(blobs), len(tenants))
            if target.exists(tenant, blob.digest):
                continue
            try:
                target.put_file(tenant, source.fetch(tenant, blob.digest, blob.size_bytes), "backup")
            except ArtifactIntegrityError:
                damaged.append(f"{tenant}/{blob.digest}")
        on_progress(number + 1, len(tenants))
    return damaged


def _make_empty(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # it was there: what comes into it is every tenant's
        is_empty = not any(folder.iterdir())
    except OSError as error:
        raise _refused(f"The folder {folder} can't be used: {error.strerror or error}.", "Name another.") from error
    if not is_empty:
        raise _refused(f"The folder {folder} is not empty.", "Name a new folder: a backup is never mixed with another.")


def _refused(message: str, remedy: str) -> PlatformError:
    return PlatformError(message, remedy=remedy, component="backup")
