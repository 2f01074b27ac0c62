"""Artifacts in an S3-compatible object store, through ``pyarrow.fs``, with a local cache.

An artifact appears under its digest whole or not at all: it is uploaded under a temporary name and then copied to its
place by the server, in one step. ``pyarrow`` (26) can't send ``If-None-Match``, so a write can't be refused by the
server because the object is there. It need not be: an object's name is the digest of its bytes. A write first looks
whether the very same bytes are there and then does nothing; two writers that both find nothing write equal bytes, and
either copy leaves a whole object.

``pyarrow`` can't give up an upload either: closing a stream completes it, also when an exception closes it. So no
upload is written straight to a digest, except one that is too large for the server to copy. A killed process leaves
a stray object, or parts that only the bucket's own rule removes (lifecycle: abort incomplete multipart uploads).
"""

from __future__ import annotations

import functools
import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ml_core.domain.version import StoredArtifact
from ml_core.exceptions import ArtifactIntegrityError, InvalidNameError, ModelLoadError, ModelSaveError
from ml_core.ids import Digest, TenantId
from ml_core.models.store.base import (
    CHANGED,
    CHUNK_BYTES,
    MISSING,
    TEMPORARY_PREFIX,
    ArtifactStore,
    Removed,
    Stray,
    integrity_error,
    place,
    verified_chunks,
    wrong_size,
)
from ml_core.models.store.cache import ArtifactCache
from ml_core.settings import ArtifactSettings

LARGEST_COPY_BYTES = 5 * 2**30
"""The most that S3 copies in one request (Amazon's documentation of CopyObject)."""

# What Amazon's library calls the error, as pyarrow writes it into the text of an OSError.
_REFUSED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "MISSING_AUTHENTICATION", "EXPIRED")
_UNREACHABLE = ("NETWORK_CONNECTION", "REQUEST_TIMEOUT", "SERVICE_UNAVAILABLE", "SLOW_DOWN", "INTERNAL_FAILURE")


class ObjectStore(ArtifactStore):
    """A prefix of a bucket. Creating the object connects to nothing.

    Credentials come from where every AWS client looks: the ``AWS_*`` variables, the shared configuration files, the
    role of the machine or pod. In a bucket that keeps old versions of objects, deleting leaves those.

    Args:
        settings: Where it is; ``url`` must be set.
        cache: Where copies are kept on this machine.
    """

    def __init__(self, settings: ArtifactSettings, cache: ArtifactCache) -> None:
        self._settings = settings
        self._cache = cache
        self._bucket, self._root = settings.bucket, settings.root
        self._errors = _Errors(settings, self._has_bucket)

    def __repr__(self) -> str:
        return f"ObjectStore({self._settings.url!r})"

    @functools.cached_property
    def _objects(self) -> Any:
        """The client. Made late: importing it and starting Amazon's library takes a moment that few processes need."""
        from pyarrow import fs

        settings = self._settings
        return fs.S3FileSystem(
            endpoint_override=(settings.endpoint or "").rstrip("/") or None,
            region=settings.region,
            connect_timeout=settings.timeout_s,
            request_timeout=settings.timeout_s,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
            allow_delayed_open=True,  # then a small object is one request
            background_writes=False,  # else a file that is read faster than it is sent would be whole in memory
        )

    def location(self, tenant_id: TenantId, digest: Digest) -> str:
        """The URL of an artifact."""
        return f"s3://{self._key(tenant_id, digest)}"

    def _key(self, tenant_id: TenantId, digest: Digest) -> str:
        return f"{self._root}/{place(tenant_id, digest)}"

    def _store(self, tenant_id: TenantId, artifact: StoredArtifact, source: BinaryIO) -> None:
        key = self._key(tenant_id, artifact.digest)
        with self._errors.writing(tenant_id):
            if not self._holds(key, tenant_id, artifact):
                self._write(key, artifact.size_bytes, verified_chunks(source, tenant_id, artifact))

    def _holds(self, key: str, tenant_id: TenantId, artifact: StoredArtifact) -> bool:
        """Whether the very bytes are there. Reading them costs as much as writing, but only a second put pays it."""
        if self._size(key) != artifact.size_bytes:
            return False
        try:
            for _ in self._chunks(tenant_id, artifact.digest, artifact.size_bytes):
                pass
        except ArtifactIntegrityError:
            return False
        return True

    def _write(self, key: str, size_bytes: int, chunks: Iterable[bytes]) -> None:
        folder = key.rpartition("/")[0]
        temporary = f"{folder}/{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        target = temporary if size_bytes <= LARGEST_COPY_BYTES else key
        try:
            # Closed explicitly: a stream that the garbage collector closes holds up every thread meanwhile.
            with closing(self._objects.open_output_stream(target)) as stream:
                for chunk in chunks:
                    stream.write(chunk)
            if target != key:
                self._objects.move(target, key)
        except BaseException as error:  # also on Ctrl-C: remove what the closed stream completed
            if not _is_unreachable(error):  # else nothing was completed, and another request would only take time
                with suppress(OSError):
                    self._objects.delete_file(target)
            raise

    def read(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> bytes:
        """The bytes of an artifact from the cache or the store, verified, see ``ArtifactStore.read``."""
        data = self._cache.read(tenant_id, digest, size_bytes)
        if data is None:
            with self._errors.reading(tenant_id, digest):
                data = b"".join(self._chunks(tenant_id, digest, size_bytes))
            self._cache.keep(tenant_id, digest, data)
        return data

    def fetch(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> Path:
        """A verified copy in the cache, see ``ArtifactStore.fetch``."""
        path = self._cache.find(tenant_id, digest, size_bytes)
        if path is not None:
            return path
        try:
            return self._cache.write(tenant_id, digest, size_bytes, self._download(tenant_id, digest, size_bytes))
        except OSError as error:
            raise ModelLoadError(
                f"The artifact can't be kept in {self._cache.folder}: {error.strerror or error}.",
                remedy="Free disk space, or set MLCORE_HOME to a folder with room that you may write.",
                tenant_id=tenant_id,
                digest=str(digest),
            ) from error

    def verify(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> None:
        """Read and verify the object itself, see ``ArtifactStore.verify``."""
        for _ in self._download(tenant_id, digest, size_bytes):
            pass

    def _download(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> Iterator[bytes]:
        with self._errors.reading(tenant_id, digest):
            yield from self._chunks(tenant_id, digest, size_bytes)

    def _chunks(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> Iterator[bytes]:
        """The bytes of an object. At their end they are verified, or an ``ArtifactIntegrityError`` is raised."""
        key, found, size = self._key(tenant_id, digest), hashlib.sha256(), 0
        fault = None
        try:
            with self._objects.open_input_stream(key) as stream:
                # One byte more than there should be is asked for, and no more than that is ever read.
                while chunk := stream.read(min(CHUNK_BYTES, size_bytes - size + 1)):
                    size += len(chunk)
                    if size > size_bytes:
                        break
                    found.update(chunk)
                    yield chunk
        except FileNotFoundError as error:
            self._errors.require_bucket()
            raise integrity_error(self.location(tenant_id, digest), tenant_id, digest, MISSING) from error
        if size != size_bytes:
            fault = wrong_size(self._size(key) or size, size_bytes)
        elif found.hexdigest() != digest:
            fault = CHANGED
        if fault is not None:
            raise integrity_error(self.location(tenant_id, digest), tenant_id, digest, fault)

    def _size(self, key: str) -> int | None:
        info = self._objects.get_file_info(key)
        return info.size if info.is_file else None

    def _has_bucket(self) -> bool:
        from pyarrow import fs

        return bool(self._objects.get_file_info(self._bucket).type != fs.FileType.NotFound)

    def exists(self, tenant_id: TenantId, digest: Digest) -> bool:
        """Whether the tenant has such an artifact (its bytes are not checked)."""
        with self._errors.reading(tenant_id, digest):
            if self._size(self._key(tenant_id, digest)) is not None:
                return True
            self._errors.require_bucket()
            return False

    def delete(self, tenant_id: TenantId, digest: Digest) -> None:
        """Remove an artifact here and its copy in this machine's cache; nothing happens if it is not there.

        Raises:
            ModelSaveError: The store refuses or can't be reached.
        """
        self._remove(tenant_id, place(tenant_id, digest).partition("/")[2])
        self._cache.forget(tenant_id, digest)

    def _remove(self, tenant_id: TenantId, name: str) -> None:
        with self._errors.writing(tenant_id):
            try:
                self._objects.delete_file(f"{self._root}/{tenant_id}/{name}")
            except FileNotFoundError:
                self._errors.require_bucket()

    def _files(self, tenant_id: TenantId) -> Iterator[Stray]:
        folder = f"{self._root}/{tenant_id}"
        with self._errors.reading(tenant_id):
            infos = self._list(folder, recursive=True)
        for info in infos:
            if info.is_file:
                yield Stray(info.path.removeprefix(f"{folder}/"), info.size, info.mtime)

    def _list(self, folder: str, *, recursive: bool) -> Any:
        from pyarrow import fs

        infos = self._objects.get_file_info(fs.FileSelector(folder, recursive=recursive, allow_not_found=True))
        if not infos:
            self._errors.require_bucket()
        return infos

    def tenants(self) -> Iterator[TenantId]:
        """The tenants that have objects here."""
        with self._errors.reading(None):
            infos = self._list(self._root, recursive=False)
        for info in infos:
            with suppress(InvalidNameError):  # a folder of another program
                if not info.is_file:
                    yield TenantId(info.base_name)

    def delete_tenant(self, tenant_id: TenantId) -> Removed:
        """Remove every object of the tenant and its copies in this machine's cache.

        See ``ArtifactStore.delete_tenant``. Copies in caches of other machines go as those caches need room.
        """
        folder = f"{self._root}/{TenantId(tenant_id)}"
        with self._errors.writing(tenant_id):
            sizes = [info.size for info in self._list(folder, recursive=True) if info.is_file]
            with suppress(FileNotFoundError):
                self._objects.delete_dir(folder)
        self._cache.forget_tenant(tenant_id)
        return Removed(len(sizes), sum(sizes))


class _NoBucketError(OSError):
    """What was asked for is not there because its bucket is not."""


def _is_unreachable(error: BaseException) -> bool:
    """Whether an error of ``pyarrow.fs`` says that the store can't be reached."""
    return isinstance(error, OSError) and any(word in str(error) for word in _UNREACHABLE)


class _Errors:
    """Turns errors of ``pyarrow.fs`` into the platform's own.

    Args:
        settings: Where the store is.
        has_bucket: Whether its bucket is there; may raise OSError.
    """

    def __init__(self, settings: ArtifactSettings, has_bucket: Callable[[], bool]) -> None:
        self._settings = settings
        self._has_bucket = has_bucket

    def require_bucket(self) -> None:
        """Where an object is missing: raise an OSError if all of them are, since a missing bucket looks the same."""
        if not self._has_bucket():
            raise _NoBucketError("NO_SUCH_BUCKET")

    @contextmanager
    def reading(self, tenant_id: TenantId | None, digest: Digest | None = None) -> Iterator[None]:
        """Raise a ModelLoadError for an error inside."""
        try:
            yield
        except OSError as error:
            message, remedy = self._explain(error)
            shown = None if digest is None else str(digest)
            raise ModelLoadError(message, remedy=remedy, tenant_id=tenant_id, digest=shown) from error

    @contextmanager
    def writing(self, tenant_id: TenantId) -> Iterator[None]:
        """Raise a ModelSaveError for an error inside."""
        try:
            yield
        except OSError as error:
            message, remedy = self._explain(error)
            raise ModelSaveError(message, remedy=remedy, tenant_id=tenant_id) from error

    def _explain(self, error: OSError) -> tuple[str, str]:
        """What happened and what to do."""
        settings = self._settings
        # pyarrow's own words before that name key and bucket once more.
        text = str(error).partition("AWS Error ")[2] or str(error)
        store = f"The artifact store {settings.url}"
        if "NO_SUCH_BUCKET" in text:
            return f"There is no bucket {settings.bucket!r}.", "Create it, or correct MLCORE_ARTIFACTS_URL."
        if any(word in text for word in _REFUSED):
            return (
                f"{store} refuses the credentials of this process: {text}.",
                "Give it AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role, that may read, write, list and "
                "delete there.",
            )
        if _is_unreachable(error):
            where = settings.endpoint or f"Amazon S3, region {settings.region or 'as the AWS variables say'}"
            return (
                f"{store} can't be reached at {where}: {text}.",
                "Check that it runs, and MLCORE_ARTIFACTS_ENDPOINT and MLCORE_ARTIFACTS_REGION; then try again.",
            )
        return f"{store} failed: {text}.", "Try again; if it fails again, look into the store's own log."
