"""What every artifact store can do, and the layout that all of them share."""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ml_core.domain.version import StoredArtifact
from ml_core.exceptions import ArtifactIntegrityError, InvalidNameError, InvalidRequestError, ModelSaveError
from ml_core.ids import Digest, TenantId

CHUNK_BYTES = 8 * 2**20
"""Read and written at once: of 1, 8 and 50 MiB the fastest against an S3 server, where each is a request of its own."""
TEMPORARY_PREFIX = ".writing-"
"""Begins the name of a file that is being written, beside its place."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """An artifact in the store; its bytes are not verified. ``modified_at`` is UTC."""

    digest: Digest
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class Stray:
    """A file in a tenant's folder that is no artifact, such as one that a killed process left half-written.

    Attributes:
        name: Where it is inside the tenant's folder, such as ``ab/.writing-0123``.
        size_bytes: Its size.
        modified_at: When it was last written, UTC.
    """

    name: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed: how many files, and their bytes."""

    count: int
    bytes: int


class ArtifactStore(ABC):
    """Artifacts of all tenants. Creating the object touches nothing; processes may share a store.

    ``check``, ``read``, ``fetch``, ``verify``, ``exists``, ``list``, ``strays`` and ``tenants`` raise
    ``ModelLoadError`` when the store can't be reached, is closed to this process, or its bucket is missing; the others
    raise ``ModelSaveError``.
    """

    def put(self, tenant_id: TenantId, data: bytes, format: str) -> StoredArtifact:  # noqa: A002 - the field's name
        """Store bytes, unless the tenant has the same already: stored bytes are read and verified first.

        So training or registering a model again repairs a damaged artifact.

        Args:
            tenant_id: Whose they are.
            data: The artifact.
            format: What it is, such as ``skops/2``; recorded in the registry, not here.

        Returns:
            Its digest, computed here, its size and format.

        Raises:
            ModelSaveError: The disk is full, read-only or otherwise refuses, or the object store does or can't be
                reached; no part of the artifact is left behind under its digest.
        """
        artifact = StoredArtifact(Digest(hashlib.sha256(data).hexdigest()), len(data), format)
        self._store(tenant_id, artifact, io.BytesIO(data))
        return artifact

    def put_file(self, tenant_id: TenantId, path: Path, format: str) -> StoredArtifact:  # noqa: A002
        """As ``put``, from a file that is never whole in memory: read once for its digest and once to store it.

        Args:
            tenant_id: Whose it is.
            path: The file.
            format: What it is.

        Raises:
            ModelSaveError: As ``put``, or the file can't be read, or it changed meanwhile.
        """
        try:
            with path.open("rb") as source:
                digest = Digest(hashlib.file_digest(source, "sha256").hexdigest())
                artifact = StoredArtifact(digest, source.tell(), format)
                source.seek(0)
                self._store(tenant_id, artifact, source)
        except OSError as error:
            raise _unreadable(tenant_id, error) from error
        return artifact

    @abstractmethod
    def _store(self, tenant_id: TenantId, artifact: StoredArtifact, source: BinaryIO) -> None:
        """Store the bytes of a source, unless the very same are there. Raises no OSError but the source's own."""

    @abstractmethod
    def read(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> bytes:
        """The bytes of an artifact, verified to be those that were stored.

        Args:
            tenant_id: Whose it is.
            digest: As recorded in the registry.
            size_bytes: As recorded in the registry.

        Returns:
            The bytes; their sha256 is ``digest``.

        Raises:
            ArtifactIntegrityError: The artifact is missing, unreadable, cut short, or at least one byte differs.
            ModelLoadError: The store can't be reached.
        """

    @abstractmethod
    def fetch(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> Path:
        """A local file that holds an artifact, verified now, never whole in memory.

        Open it at once and only read it: of an object store it is a copy in the cache, which may be evicted. An open
        file stays readable.

        Raises:
            ArtifactIntegrityError: As ``read``.
            ModelLoadError: The store can't be reached, or there is no room for a local copy.
        """

    @abstractmethod
    def verify(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> None:
        """Verify the bytes in the store itself, past any cache.

        Raises:
            ArtifactIntegrityError: As ``read``.
            ModelLoadError: The store can't be reached.
        """

    @abstractmethod
    def exists(self, tenant_id: TenantId, digest: Digest) -> bool:
        """Whether the tenant has such an artifact (its bytes are not checked)."""

    @abstractmethod
    def delete(self, tenant_id: TenantId, digest: Digest) -> None:
        """Remove an artifact; nothing happens if it is not there.

        Raises:
            ModelSaveError: The store refuses or can't be reached.
        """

    def list(self, tenant_id: TenantId) -> Iterator[StoredBlob]:
        """The tenant's artifacts, in no order; what is no artifact is left out, see ``strays``."""
        for file in self._files(TenantId(tenant_id)):
            digest = digest_at(file.name)
            if digest is not None:
                yield StoredBlob(digest, file.size_bytes, file.modified_at)

    def strays(self, tenant_id: TenantId) -> Iterator[Stray]:
        """The files in the tenant's folder that are no artifacts. A young one may be in use: look at its age."""
        for file in self._files(TenantId(tenant_id)):
            if digest_at(file.name) is None:
                yield file

    def delete_stray(self, tenant_id: TenantId, stray: Stray) -> None:
        """Remove a file that ``strays`` gave; nothing happens if it is not there.

        Raises:
            InvalidRequestError: It is an artifact or not inside the tenant's folder.
            ModelSaveError: The store refuses or can't be reached.
        """
        parts = PurePosixPath(stray.name).parts
        if not parts or parts[0] == "/" or ".." in parts or digest_at(stray.name) is not None:
            raise InvalidRequestError(f"{stray.name!r} is no stray file of tenant {tenant_id}.", field="name")
        self._remove(TenantId(tenant_id), stray.name)

    @abstractmethod
    def _files(self, tenant_id: TenantId) -> Iterator[Stray]:
        """Every file in the tenant's folder, artifacts included; none if there is no such folder."""

    @abstractmethod
    def _remove(self, tenant_id: TenantId, name: str) -> None:
        """Remove a file of the tenant's folder if it is there."""

    @abstractmethod
    def tenants(self) -> Iterator[TenantId]:
        """The tenants that have a folder here, with or without artifacts."""

    def check(self) -> None:
        """Look whether the store can be reached.

        Raises:
            ModelLoadError: It can't.
        """
        next(self.tenants(), None)

    @abstractmethod
    def delete_tenant(self, tenant_id: TenantId) -> Removed:
        """Remove the tenant's folder with every byte in it.

        Returns:
            The files that were there, artifacts and strays.

        Raises:
            ModelSaveError: The store refuses or can't be reached; what was not removed is still there.
        """

    @abstractmethod
    def location(self, tenant_id: TenantId, digest: Digest) -> str:
        """Where an artifact is, or would be, for people to read: a path or a URL."""


def place(tenant_id: TenantId, digest: Digest) -> str:
    """Where an artifact is under the root of every store, with slashes.

    Raises:
        InvalidNameError: One of the two is not what its type says.
    """
    tenant, name = TenantId(tenant_id), Digest(digest)
    return f"{tenant}/{name[:2]}/{name}"


def digest_at(name: str) -> Digest | None:
    """The artifact that a file of a tenant's folder is by its name; None for another file."""
    folder, _, file = name.partition("/")
    try:
        digest = Digest(file)
    except InvalidNameError:
        return None
    return digest if folder == digest[:2] else None


def verified_chunks(source: BinaryIO, tenant_id: TenantId, artifact: StoredArtifact) -> Iterator[bytes]:
    """The bytes of a source in pieces.

    Raises:
        ModelSaveError: The source can't be read, or by its end it was not the artifact.
    """
    found, size = hashlib.sha256(), 0
    try:
        while chunk := source.read(CHUNK_BYTES):
            found.update(chunk)
            size += len(chunk)
            yield chunk
    except OSError as error:
        raise _unreadable(tenant_id, error) from error
    if size != artifact.size_bytes or found.hexdigest() != artifact.digest:
        raise ModelSaveError(
            "The file changed while it was being stored.",
            remedy="Nothing was stored. Wait until whatever writes it is done, then try again.",
            tenant_id=tenant_id,
        )


def integrity_error(location: str, tenant_id: TenantId, digest: Digest, what: str) -> ArtifactIntegrityError:
    """An artifact is not what the registry says."""
    return ArtifactIntegrityError(
        f"Artifact {digest[:12]}… of tenant {tenant_id} {what} ({location}).",
        remedy="Restore the file from a backup, or train and register the model again.",
        tenant_id=tenant_id,
        digest=str(digest),
    )


def wrong_size(found_bytes: int, size_bytes: int) -> str:
    """What is wrong with an artifact of another size, for ``integrity_error``."""
    return f"has {found_bytes:,} bytes instead of {size_bytes:,}"


MISSING = "is missing"
"""What is wrong with an artifact that is not there, for ``integrity_error``."""

CHANGED = "was changed after it was stored: its sha256 differs"
"""What is wrong with an artifact of other bytes, for ``integrity_error``."""


def _unreadable(tenant_id: TenantId, error: OSError) -> ModelSaveError:
    return ModelSaveError(
        f"The file to store can't be read: {error.strerror or error}.",
        remedy="Nothing was stored. Check that it is there and that you may read it.",
        tenant_id=tenant_id,
    )
