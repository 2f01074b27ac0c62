"""Artifacts in a local folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from ml_core.domain.version import StoredArtifact
from ml_core.exceptions import InvalidNameError, ModelLoadError, ModelSaveError, StorageFullError
from ml_core.ids import Digest, TenantId
from ml_core.models.store.base import (
    ArtifactStore,
    Removed,
    Stray,
    place,
    verified_chunks,
)
from ml_core.models.store.files import (
    CLOSED,
    fault_in,
    make_folder,
    read_verified,
    remove_abandoned,
    remove_tree,
    sync_folder,
    write_whole,
)


class LocalStore(ArtifactStore):
    """A folder of artifacts with one subfolder per tenant, closed to other users of the machine.

    Files are written atomically.

    Args:
        root: The folder; the first ``put`` creates it.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).expanduser().absolute()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r})"

    def path(self, tenant_id: TenantId, digest: Digest) -> Path:
        """The path of an artifact."""
        return self.root / place(tenant_id, digest)

    def location(self, tenant_id: TenantId, digest: Digest) -> str:
        """See ``ArtifactStore``."""
        return str(self.path(tenant_id, digest))

    def _store(self, tenant_id: TenantId, artifact: StoredArtifact, source: BinaryIO) -> None:
        path = self.path(tenant_id, artifact.digest)
        try:
            make_folder(path.parent, self.root)
            remove_abandoned(path.parent)
            if fault_in(path, artifact.digest, artifact.size_bytes) is not None:
                write_whole(path, verified_chunks(source, tenant_id, artifact))
        except OSError as error:
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            state = "is full" if is_full else "can't be written"
            raise (StorageFullError if is_full else ModelSaveError)(
                f"The artifact store {state}; nothing was stored.",
                internal=f"{path.parent}: {error.strerror or error}",
                remedy="Free disk space or correct the folder's permissions, then try again.",
                tenant_id=tenant_id,
            ) from error

    def read(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> bytes:
        """See ``ArtifactStore``."""
        data, fault = read_verified(self.path(tenant_id, digest), digest, size_bytes)
        if fault is not None:
            raise self._unverified(tenant_id, digest, fault)
        return data

    def fetch(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> Path:
        """See ``ArtifactStore``; the file of the store itself."""
        path = self.path(tenant_id, digest)
        fault = fault_in(path, digest, size_bytes)
        if fault is not None:
            raise self._unverified(tenant_id, digest, fault)
        return path

    def _unverified(self, tenant_id: TenantId, digest: Digest, fault: str) -> ModelLoadError:
        """The error for a file that is damaged, or that this process has no permission to read."""
        if fault != CLOSED:
            return self._integrity_error(tenant_id, digest, fault)
        return ModelLoadError(
            f"The artifact {digest[:12]}… of tenant {tenant_id} {fault}.",
            internal=self.location(tenant_id, digest),
            remedy="Correct its permissions and those of its folders, or run as their owner.",
            tenant_id=tenant_id,
        )

    def verify(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> None:
        """See ``ArtifactStore``."""
        self.fetch(tenant_id, digest, size_bytes)

    def exists(self, tenant_id: TenantId, digest: Digest) -> bool:
        """See ``ArtifactStore``."""
        path = self.path(tenant_id, digest)
        try:
            return path.is_file()
        except OSError as error:
            raise _unlisted(path.parent, error) from error

    def delete(self, tenant_id: TenantId, digest: Digest) -> None:
        """See ``ArtifactStore``."""
        self._remove(tenant_id, place(tenant_id, digest).partition("/")[2])

    def _files(self, tenant_id: TenantId) -> Iterator[Stray]:
        folder = self.root / tenant_id
        try:
            yield from _walk(folder, "")
        except OSError as error:
            raise _unlisted(folder, error) from error

    def _remove(self, tenant_id: TenantId, name: str) -> None:
        path = self.root / tenant_id / name
        with _removing(path, tenant_id):
            path.unlink(missing_ok=True)

    def tenants(self) -> Iterator[TenantId]:
        """See ``ArtifactStore``."""
        try:
            folders = [each.name for each in self.root.iterdir() if each.is_dir()] if self.root.exists() else []
        except OSError as error:
            raise _unlisted(self.root, error) from error
        for name in folders:
            with suppress(InvalidNameError):  # not a folder of the platform
                yield TenantId(name)

    def check(self) -> None:
        """See ``ArtifactStore``."""
        try:
            os.scandir(self.root).close()
        except OSError as error:
            raise _unlisted(self.root, error) from error

    def delete_tenant(self, tenant_id: TenantId) -> Removed:
        """See ``ArtifactStore``."""
        folder = self.root / TenantId(tenant_id)
        with _removing(folder, tenant_id):
            removed = remove_tree(folder)
            if self.root.exists():
                sync_folder(self.root)
        return removed


class MirroredStore(ArtifactStore):
    """A folder of the caller that gets a copy of each artifact, in addition to the store of the platform.

    Replicas read the store of the platform only, so that one decides which artifacts, strays and tenants exist. Reads
    take the folder's copy if there is one.

    Attributes:
        folder: The folder as a store.
    """

    def __init__(self, root: Path, platform: ArtifactStore) -> None:
        self.folder, self._platform = LocalStore(root), platform

    def __repr__(self) -> str:
        return f"MirroredStore({str(self.folder.root)!r}, {self._platform!r})"

    def location(self, tenant_id: TenantId, digest: Digest) -> str:
        """See ``ArtifactStore``; in the folder."""
        return self.folder.location(tenant_id, digest)

    def check(self) -> None:
        """See ``ArtifactStore``; of the folder."""
        self.folder.check()

    def _store(self, tenant_id: TenantId, artifact: StoredArtifact, source: BinaryIO) -> None:
        # The platform's first: an artifact in the folder alone can't be served.
        self._platform._store(tenant_id, artifact, source)
        source.seek(0)
        self.folder._store(tenant_id, artifact, source)

    def _holder(self, tenant_id: TenantId, digest: Digest) -> ArtifactStore:
        return self.folder if self.folder.exists(tenant_id, digest) else self._platform

    def read(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> bytes:
        """See ``ArtifactStore``."""
        return self._holder(tenant_id, digest).read(tenant_id, digest, size_bytes)

    def fetch(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> Path:
        """See ``ArtifactStore``."""
        return self._holder(tenant_id, digest).fetch(tenant_id, digest, size_bytes)

    def verify(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> None:
        """See ``ArtifactStore``."""
        self._platform.verify(tenant_id, digest, size_bytes)

    def exists(self, tenant_id: TenantId, digest: Digest) -> bool:
        """See ``ArtifactStore``."""
        return self._platform.exists(tenant_id, digest)

    def delete(self, tenant_id: TenantId, digest: Digest) -> None:
        """Remove an artifact from both."""
        self.folder.delete(tenant_id, digest)
        self._platform.delete(tenant_id, digest)

    def _files(self, tenant_id: TenantId) -> Iterator[Stray]:
        return self._platform._files(tenant_id)

    def _remove(self, tenant_id: TenantId, name: str) -> None:
        self._platform._remove(tenant_id, name)

    def tenants(self) -> Iterator[TenantId]:
        """See ``ArtifactStore``."""
        return self._platform.tenants()

    def delete_tenant(self, tenant_id: TenantId) -> Removed:
        """Remove the folder of a tenant from both; the result is the sum."""
        own, shared = self.folder.delete_tenant(tenant_id), self._platform.delete_tenant(tenant_id)
        return Removed(own.count + shared.count, own.bytes + shared.bytes)


def _walk(folder: Path, prefix: str) -> Iterator[Stray]:
    """The files under a folder, without following links. Files that are removed during the walk are skipped."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):  # a link could lead into the folder of another tenant
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/")
            continue
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        modified_at = datetime.fromtimestamp(found.st_mtime, UTC)
        yield Stray(f"{prefix}{entry.name}", found.st_size, modified_at)


@contextmanager
def _removing(path: Path, tenant_id: TenantId) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelSaveError(
            "A file of the artifact store can't be removed.",
            internal=f"{path}: {error.strerror or error}",
            remedy="Correct the permissions of the folder, then try again.",
            tenant_id=tenant_id,
        ) from error


def _unlisted(folder: Path, error: OSError) -> ModelLoadError:
    return ModelLoadError(
        "The artifact store can't be listed.",
        internal=f"{folder}: {error.strerror or error}",
        remedy="Correct its permissions, then try again.",
    )
