"""Artifacts in an S3-compatible object store, through ``pyarrow.fs``, with a local cache.

An artifact appears under its digest atomically: it is uploaded under a temporary name, and the server copies it.
Concurrent writers of one digest write equal bytes, so either may win. A killed process leaves a stray object, or parts
of a multipart upload that only a lifecycle rule of the bucket removes (abort incomplete multipart uploads).
"""

from __future__ import annotations

import functools
import hashlib
import secrets
from collections.abc import Iterable, Iterator
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
    place,
    verified_chunks,
    wrong_size,
)
from ml_core.models.store.cache import ArtifactCache
from ml_core.settings import ArtifactSettings

LARGEST_COPY_BYTES = 5 * 2**30
"""The limit of CopyObject, by Amazon's documentation."""

# Names of errors of Amazon's library, which pyarrow includes in the text of an OSError.
_REFUSED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "MISSING_AUTHENTICATION", "EXPIRED")
_UNREACHABLE = ("NETWORK_CONNECTION", "REQUEST_TIMEOUT", "SERVICE_UNAVAILABLE", "SLOW_DOWN", "INTERNAL_FAILURE")


class ObjectStore(ArtifactStore):
    """A prefix of a bucket.

    Credentials come from the ``AWS_*`` variables, the shared configuration files, or the role of the machine or pod.
    In a bucket with versioning, deletion keeps the old versions of objects. The settings must have a ``url``.
    """

    def __init__(self, settings: ArtifactSettings, cache: ArtifactCache) -> None:
        self._settings = settings
        self._cache = cache
        self._root = settings.root

    def __repr__(self) -> str:
        return f"ObjectStore({self._settings.url!r})"

    @functools.cached_property
    def _objects(self) -> Any:
        """The client."""
        # Created on first use: the import and the start of Amazon's library are slow, and few processes need them.
        from pyarrow import fs

        settings = self._settings
        return fs.S3FileSystem(
            endpoint_override=(settings.endpoint or "").rstrip("/") or None,
            region=settings.region,
            connect_timeout=settings.timeout_s,
            request_timeout=settings.timeout_s,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=3),
            allow_delayed_open=True,  # writes a small object in one request
            background_writes=False,  # otherwise a file that is read faster than it is sent fills the memory
        )

    @contextmanager
    def _raising(
        self, kind: type[ModelLoadError | ModelSaveError], tenant_id: TenantId | None, **attributes: Any
    ) -> Iterator[None]:
        """Convert an OSError of the client to an error of the platform."""
        try:
            yield
        except OSError as error:
            raise kind(**_explain(error, self._settings), tenant_id=tenant_id, **attributes) from error

    def _require_bucket(self) -> None:
        """Raise an OSError if the bucket does not exist; call it for a missing object, since both look alike."""
        from pyarrow import fs

        if self._objects.get_file_info(self._settings.bucket).type == fs.FileType.NotFound:
            raise OSError("NO_SUCH_BUCKET")

    def location(self, tenant_id: TenantId, digest: Digest) -> str:
        """See ``ArtifactStore``."""
        return f"s3://{self._key(tenant_id, digest)}"

    def _key(self, tenant_id: TenantId, digest: Digest) -> str:
        return f"{self._root}/{place(tenant_id, digest)}"

    def _store(self, tenant_id: TenantId, artifact: StoredArtifact, source: BinaryIO) -> None:
        key = self._key(tenant_id, artifact.digest)
        with self._raising(ModelSaveError, tenant_id):
            if not self._holds(key, tenant_id, artifact):
                self._write(key, artifact.size_bytes, verified_chunks(source, tenant_id, artifact))

    def _holds(self, key: str, tenant_id: TenantId, artifact: StoredArtifact) -> bool:
        """Whether the store has an intact copy."""
        # pyarrow 26 can't send If-None-Match. Reading costs as much as writing, but only a repeated put reads.
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
        # Not under the digest: pyarrow can't abort an upload. Closing a stream completes it, also after an exception.
        target = temporary if size_bytes <= LARGEST_COPY_BYTES else key
        try:
            # Closed explicitly: a stream that the garbage collector closes blocks all threads.
            with closing(self._objects.open_output_stream(target)) as stream:
                for chunk in chunks:
                    stream.write(chunk)
            if target != key:
                self._objects.move(target, key)
        except BaseException as error:  # including KeyboardInterrupt: removes what the closed stream completed
            if not _is_unreachable(error):  # otherwise nothing was completed, and a further request would only time out
                with suppress(OSError):
                    self._objects.delete_file(target)
            raise

    def read(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> bytes:
        """See ``ArtifactStore``; reads the cache first."""
        data = self._cache.read(tenant_id, digest, size_bytes)
        if data is None:
            data = b"".join(self._download(tenant_id, digest, size_bytes))
            self._cache.keep(tenant_id, digest, data)
        return data

    def fetch(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> Path:
        """See ``ArtifactStore``; the file is a copy in the cache."""
        path = self._cache.find(tenant_id, digest, size_bytes)
        if path is not None:
            return path
        try:
            return self._cache.write(tenant_id, digest, size_bytes, self._download(tenant_id, digest, size_bytes))
        except OSError as error:
            raise ModelLoadError(
                "This machine can't keep a copy of the artifact.",
                internal=f"{self._cache.folder}: {error.strerror or error}",
                remedy="Free disk space, or set MLCORE_HOME to a writable folder with room.",
                tenant_id=tenant_id,
                digest=str(digest),
            ) from error

    def verify(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> None:
        """See ``ArtifactStore``."""
        for _ in self._download(tenant_id, digest, size_bytes):
            pass

    def _download(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> Iterator[bytes]:
        with self._raising(ModelLoadError, tenant_id, digest=str(digest)):
            yield from self._chunks(tenant_id, digest, size_bytes)

    def _chunks(self, tenant_id: TenantId, digest: Digest, size_bytes: int) -> Iterator[bytes]:
        """Read an object in chunks; raises ``ArtifactIntegrityError`` at the end if it is not intact."""
        key, found, size = self._key(tenant_id, digest), hashlib.sha256(), 0
        try:
            with self._objects.open_input_stream(key) as stream:
                # Reads at most one byte more than the recorded size.
                while chunk := stream.read(min(CHUNK_BYTES, size_bytes - size + 1)):
                    size += len(chunk)
                    if size > size_bytes:
                        break
                    found.update(chunk)
                    yield chunk
        except FileNotFoundError as error:
            self._require_bucket()
            raise self._integrity_error(tenant_id, digest, MISSING) from error
        if size != size_bytes:
            raise self._integrity_error(tenant_id, digest, wrong_size(self._size(key) or size, size_bytes))
        if found.hexdigest() != digest:
            raise self._integrity_error(tenant_id, digest, CHANGED)

    def _size(self, key: str) -> int | None:
        info = self._objects.get_file_info(key)
        return info.size if info.is_file else None

    def exists(self, tenant_id: TenantId, digest: Digest) -> bool:
        """See ``ArtifactStore``."""
        with self._raising(ModelLoadError, tenant_id, digest=str(digest)):
            if self._size(self._key(tenant_id, digest)) is not None:
                return True
            self._require_bucket()
            return False

    def delete(self, tenant_id: TenantId, digest: Digest) -> None:
        """See ``ArtifactStore``; also removes the copy in the cache of this machine."""
        self._remove(tenant_id, place(tenant_id, digest).partition("/")[2])
        self._cache.forget(tenant_id, digest)

    def _remove(self, tenant_id: TenantId, name: str) -> None:
        with self._raising(ModelSaveError, tenant_id):
            try:
                self._objects.delete_file(f"{self._root}/{tenant_id}/{name}")
            except FileNotFoundError:
                self._require_bucket()

    def _files(self, tenant_id: TenantId) -> Iterator[Stray]:
        folder = f"{self._root}/{tenant_id}"
        with self._raising(ModelLoadError, tenant_id):
            infos = self._list(folder, recursive=True)
        for info in infos:
            if info.is_file:
                yield Stray(info.path.removeprefix(f"{folder}/"), info.size, info.mtime)

    def _list(self, folder: str, *, recursive: bool) -> Any:
        from pyarrow import fs

        infos = self._objects.get_file_info(fs.FileSelector(folder, recursive=recursive, allow_not_found=True))
        if not infos:
            self._require_bucket()
        return infos

    def tenants(self) -> Iterator[TenantId]:
        """See ``ArtifactStore``."""
        with self._raising(ModelLoadError, None):
            infos = self._list(self._root, recursive=False)
        for info in infos:
            with suppress(InvalidNameError):  # not a folder of the platform
                if not info.is_file:
                    yield TenantId(info.base_name)

    def delete_tenant(self, tenant_id: TenantId) -> Removed:
        """See ``ArtifactStore``; also removes the copies in the cache of this machine. Others evict theirs later."""
        folder = f"{self._root}/{TenantId(tenant_id)}"
        with self._raising(ModelSaveError, tenant_id):
            sizes = [info.size for info in self._list(folder, recursive=True) if info.is_file]
            with suppress(FileNotFoundError):
                self._objects.delete_dir(folder)
        self._cache.forget_tenant(tenant_id)
        return Removed(len(sizes), sum(sizes))


def _is_unreachable(error: BaseException) -> bool:
    """Whether an error of ``pyarrow.fs`` means that the server can't be reached."""
    return isinstance(error, OSError) and any(word in str(error) for word in _UNREACHABLE)


def _explain(error: OSError, settings: ArtifactSettings) -> dict[str, Any]:
    """Message, internal part and remedy for an error of ``pyarrow.fs``."""
    # The text before it repeats the key and the bucket.
    text = str(error).partition("AWS Error ")[2] or str(error)
    what, internal = "failed", f"{settings.url}: {text}"
    remedy = "Try again. If it fails again, see the log of the store."
    if "NO_SUCH_BUCKET" in text:
        what, internal = "can't be used", f"There is no bucket {settings.bucket!r}"
        remedy = "Create it, or correct MLCORE_ARTIFACTS_URL."
    elif any(word in text for word in _REFUSED):
        what = "refuses the credentials of this process"
        remedy = (
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role, with permission to read, write, list and "
            "delete."
        )
    elif _is_unreachable(error):
        where = settings.endpoint or f"Amazon S3, region {settings.region or 'as the AWS variables say'}"
        what, internal = "can't be reached", f"{settings.url} at {where}: {text}"
        remedy = "Check the server, MLCORE_ARTIFACTS_ENDPOINT and MLCORE_ARTIFACTS_REGION, then try again."
    return {"message": f"The artifact store {what}.", "internal": internal, "remedy": remedy}
