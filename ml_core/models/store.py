"""The artifact store: bytes addressed by their sha256, in a folder of their tenant.

::

    <root>/<tenant>/<first two digits>/<digest>

A location is derived from a parsed tenant and a parsed digest, never from anything that a caller wrote. A file is
either whole or absent: it is written beside its place, flushed to the disk and renamed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ml_core.domain.version import StoredArtifact
from ml_core.exceptions import ArtifactIntegrityError, ModelSaveError
from ml_core.ids import Digest, TenantId

_TEMPORARY_PREFIX = ".writing-"
# An artifact is written in seconds; what is older belongs to a process that was killed.
_ABANDONED_AFTER_S = 3600.0


class ArtifactStore:
    """A folder of artifacts, one subfolder per tenant.

    Creating the object touches nothing; the folder appears with the first ``put``. Processes may share it.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).expanduser().absolute()

    def __repr__(self) -> str:
        return f"ArtifactStore({str(self.root)!r})"

    def path(self, tenant_id: TenantId, digest: Digest) -> Path:
        """Where an artifact is, or would be."""
        tenant, name = TenantId(tenant_id), Digest(digest)
        return self.root / tenant / name[:2] / name

    def put(self, tenant_id: TenantId, data: bytes, format: str) -> StoredArtifact:  # noqa: A002 - the field's name
        """Store bytes, unless the tenant has the very same already: a file that is there is read and proved first.

        So training or registering a model again mends an artifact that was damaged.

        Args:
            tenant_id: Whose they are.
            data: The artifact.
            format: What it is, such as ``skops/1``; recorded in the registry, not here.

        Returns:
            Its digest, computed here, its size and format.

        Raises:
            ModelSaveError: The disk is full, read-only or otherwise refuses; nothing is left behind.
        """
        artifact = StoredArtifact(Digest(hashlib.sha256(data).hexdigest()), len(data), format)
        path = self.path(tenant_id, artifact.digest)
        with _saving(path, tenant_id):
            _make_folder(path.parent)
            _remove_abandoned(path.parent)
            if not _holds(path, artifact):
                _write_whole(path, data)
        return artifact

    def read(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> bytes:
        """The bytes of an artifact, proved to be those that were stored.

        Args:
            tenant_id: Whose it is.
            digest: As recorded in the registry.
            size_bytes: As recorded in the registry.

        Returns:
            The bytes; their sha256 is ``digest``.

        Raises:
            ArtifactIntegrityError: The file is missing, unreadable, cut short, or at least one byte differs.
        """
        path = self.path(tenant_id, digest)
        try:
            found = path.stat().st_size
            # Compared before reading, so that a file that grew to gigabytes costs nothing.
            data = path.read_bytes() if found == size_bytes else b""
        except OSError as error:
            what = "is missing" if isinstance(error, FileNotFoundError) else f"can't be read ({error.strerror})"
            raise _integrity_error(path, tenant_id, digest, what) from error
        if found != size_bytes:
            raise _integrity_error(path, tenant_id, digest, f"has {found:,} bytes instead of {size_bytes:,}")
        if hashlib.sha256(data).hexdigest() != digest:
            raise _integrity_error(path, tenant_id, digest, "was changed after it was stored: its sha256 differs")
        return data

    def exists(self, tenant_id: TenantId, digest: Digest) -> bool:
        """Whether the tenant has such an artifact (its bytes are not checked)."""
        return self.path(tenant_id, digest).is_file()

    def delete(self, tenant_id: TenantId, digest: Digest) -> None:
        """Remove an artifact; nothing happens if it is not there.

        Raises:
            ModelSaveError: The disk refuses.
        """
        path = self.path(tenant_id, digest)
        with _saving(path, tenant_id):
            path.unlink(missing_ok=True)


@contextmanager
def _saving(path: Path, tenant_id: TenantId) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelSaveError(
            f"The artifact can't be written to {path.parent}: {error.strerror or error}.",
            remedy="Nothing was stored. Free disk space or correct the folder's permissions, then try again.",
            tenant_id=tenant_id,
        ) from error


def _holds(path: Path, artifact: StoredArtifact) -> bool:
    """Whether the file is there with the very bytes; one that can't be read is as good as damaged."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != artifact.size_bytes:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == artifact.digest
    except OSError:
        return False


def _make_folder(folder: Path) -> None:
    """Make a folder with its parents, closed to other users, so that after a power cut the new ones are still there."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in reversed(missing):
        _sync_folder(made.parent)


def _remove_abandoned(folder: Path) -> None:
    for file in folder.glob(f"{_TEMPORARY_PREFIX}*"):
        with suppress(OSError):  # gone meanwhile, or another user's: neither concerns the artifact to be stored
            if time.time() - file.stat().st_mtime > _ABANDONED_AFTER_S:
                file.unlink()


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.parent / f"{_TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # also on Ctrl-C: no half-written file stays
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut: the folder's entry is data too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _integrity_error(path: Path, tenant_id: TenantId, digest: Digest, what: str) -> ArtifactIntegrityError:
    return ArtifactIntegrityError(
        f"Artifact {digest[:12]}… of tenant {tenant_id} {what} ({path}).",
        remedy="Restore the file from a backup, or train and register the model again.",
        tenant_id=tenant_id,
        digest=str(digest),
    )
