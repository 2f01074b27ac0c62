"""The interface of artifact stores and their common layout."""

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
"""Size of reads and writes. Of 1, 8 and 50 MiB it was the fastest with an S3 server, where each is one request."""
TEMPORARY_PREFIX = ".writing-"
"""Prefix of the name of a file that is being written."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """An entry of the store, whose bytes were not verified. ``modified_at`` is UTC."""

    digest: Digest
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class Stray:
    """A file in the folder of a tenant that is not an artifact, such as a partial write of a killed process.

    ``name`` is its path in the folder, such as ``ab/.writing-0123``; ``modified_at`` is UTC.
    """

    name: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class Removed:
    """The number of removed files, and their bytes."""

    count: int
    bytes: int


class ArtifactStore(ABC):
    """The artifacts of all tenants. Processes may share a store. The constructor does no I/O.

    If the store is unavailable, denies access or has no bucket, ``check``, ``read``, ``fetch``, ``verify``, ``exists``,
    ``list``, ``strays`` and ``tenants`` raise ``ModelLoadError``, and the others raise ``ModelSaveError``.
    """

    def put(self, tenant_id: TenantId, data: bytes, format: str) -> StoredArtifact:  # noqa: A002 - the field's name
        """Store an artifact, unless the store has an intact copy. A damaged copy is replaced.

        Returns:
            The digest, computed here, the size and the given format, such as ``skops/2``.

        Raises:
            ModelSaveError: The disk or the object store is unavailable, full or refuses the write. Nothing is stored
                under the digest.
        """
        artifact = StoredArtifact(Digest(hashlib.sha256(data).hexdigest()), len(data), format)
        self._store(tenant_id, artifact, io.BytesIO(data))
        return artifact

    def put_file(self, tenant_id: TenantId, path: Path, format: str) -> StoredArtifact:  # noqa: A002
        """``put`` for a file, which is read in chunks: once for its digest and once to store it.

        Raises:
            ModelSaveError: As for ``put``; or the file can't be read, or changed between the two reads.
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
        """Store the bytes of a source, unless an intact copy exists. Raises no OSError except that of the source."""

    @abstractmethod
    def read(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> bytes:
        """Read an artifact, and verify that it has the size and sha256 of the registry.

        Raises:
            ArtifactIntegrityError: The artifact is missing, unreadable, or has another size or digest.
            ModelLoadError: The store can't be reached.
        """

    @abstractmethod
    def fetch(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> Path:
        """A local file with the verified artifact.

        Open it immediately, and only for reading: it may be a copy in the cache, which can be evicted. An open file
        stays readable.

        Raises:
            ArtifactIntegrityError: As for ``read``.
            ModelLoadError: The store can't be reached, or the disk has no room for a copy.
        """

    @abstractmethod
    def verify(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> None:
        """Verify the artifact in the store itself, bypassing the cache.

        Raises:
            ArtifactIntegrityError: As for ``read``.
            ModelLoadError: The store can't be reached.
        """

    @abstractmethod
    def exists(self, tenant_id: TenantId, digest: Digest) -> bool:
        """Whether the artifact exists; does not verify it."""

    @abstractmethod
    def delete(self, tenant_id: TenantId, digest: Digest) -> None:
        """Remove an artifact, if it exists.

        Raises:
            ModelSaveError: The store refuses the request or can't be reached.
        """

    def list(self, tenant_id: TenantId) -> Iterator[StoredBlob]:
        """The artifacts of a tenant, in no particular order."""
        for file in self._files(TenantId(tenant_id)):
            digest = digest_at(file.name)
            if digest is not None:
                yield StoredBlob(digest, file.size_bytes, file.modified_at)

    def strays(self, tenant_id: TenantId) -> Iterator[Stray]:
        """The files in the folder of a tenant that are not artifacts. A recent one may be a write in progress."""
        for file in self._files(TenantId(tenant_id)):
            if digest_at(file.name) is None:
                yield file

    def delete_stray(self, tenant_id: TenantId, stray: Stray) -> None:
        """Remove a file that ``strays`` returned, if it exists.

        Raises:
            InvalidRequestError: The file is an artifact or not in the folder of the tenant.
            ModelSaveError: The store refuses the request or can't be reached.
        """
        parts = PurePosixPath(stray.name).parts
        if not parts or parts[0] == "/" or ".." in parts or digest_at(stray.name) is not None:
            raise InvalidRequestError(f"{stray.name!r} is not a stray file of tenant {tenant_id}.", field="name")
        self._remove(TenantId(tenant_id), stray.name)

    @abstractmethod
    def _files(self, tenant_id: TenantId) -> Iterator[Stray]:
        """All files in the folder of a tenant, including artifacts."""

    @abstractmethod
    def _remove(self, tenant_id: TenantId, name: str) -> None:
        """Remove a file in the folder of a tenant, if it exists."""

    @abstractmethod
    def tenants(self) -> Iterator[TenantId]:
        """The tenants with a folder in the store, with or without artifacts."""

    def check(self) -> None:
        """Check that the store can be reached.

        Raises:
            ModelLoadError: The store can't be reached.
        """
        next(self.tenants(), None)

    @abstractmethod
    def delete_tenant(self, tenant_id: TenantId) -> Removed:
        """Remove the folder of a tenant with all artifacts and strays.

        Raises:
            ModelSaveError: The store refuses the request or can't be reached; some files may remain.
        """

    @abstractmethod
    def location(self, tenant_id: TenantId, digest: Digest) -> str:
        """The path or URL of an artifact, for messages."""

    def _integrity_error(self, tenant_id: TenantId, digest: Digest, what: str) -> ArtifactIntegrityError:
        """The error for an artifact that does not match the registry; ``what`` is ``MISSING`` or another clause."""
        return ArtifactIntegrityError(
            f"Artifact {digest[:12]}… of tenant {tenant_id} {what}.",
            internal=self.location(tenant_id, digest),
            remedy="Restore the file from a backup, or train and register the model again.",
            tenant_id=tenant_id,
            digest=str(digest),
        )


def place(tenant_id: TenantId, digest: Digest) -> str:
    """The path of an artifact under the root of a store.

    Raises:
        InvalidNameError: The tenant or the digest is invalid.
    """
    # Parsed again: the types are not enforced at run time, and a path must never contain an unparsed name.
    tenant, name = TenantId(tenant_id), Digest(digest)
    return f"{tenant}/{name[:2]}/{name}"


def digest_at(name: str) -> Digest | None:
    """The digest of an artifact by the name of its file; None for other files."""
    folder, _, file = name.partition("/")
    try:
        digest = Digest(file)
    except InvalidNameError:
        return None
    return digest if folder == digest[:2] else None


def verified_chunks(source: BinaryIO, tenant_id: TenantId, artifact: StoredArtifact) -> Iterator[bytes]:
    """Read a source in chunks and verify it.

    Raises:
        ModelSaveError: The source can't be read, or at its end the digest differs.
    """
    # Although the digest was computed from the same source: a file may have changed since.
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
            remedy="Nothing was stored. Wait until the file is complete, then try again.",
            tenant_id=tenant_id,
        )


# What is wrong with an artifact, as the clause of a sentence.
MISSING = "is missing"
CHANGED = "was changed after it was stored: its sha256 differs"


def wrong_size(found_bytes: int, size_bytes: int) -> str:
    """The clause for an artifact of another size."""
    return f"has {found_bytes:,} bytes instead of {size_bytes:,}"


def _unreadable(tenant_id: TenantId, error: OSError) -> ModelSaveError:
    return ModelSaveError(
        "The file to store can't be read.",
        internal=error.strerror or str(error),
        remedy="Nothing was stored. Check that the file exists and is readable.",
        tenant_id=tenant_id,
    )
