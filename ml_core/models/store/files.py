"""Atomic files: written under a temporary name, flushed to the disk and renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from ml_core.ids import Digest
from ml_core.models.store.base import CHANGED, MISSING, TEMPORARY_PREFIX, Removed, wrong_size

ABANDONED_AFTER_S = 3600.0
"""Age above which a temporary file is abandoned: writing an artifact takes seconds."""

CLOSED = "can't be read (Permission denied)"
"""The fault of an artifact that this process has no permission to read; it does not mean damage."""

# Attempts to empty a folder into which another process writes.
_SWEEPS = 100


def fault_in(path: Path, digest: Digest, size_bytes: int) -> str | None:
    """Verify a file without loading it into memory. Returns its fault, or None if it is intact."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            # Compared first, so that a file of the wrong size is not read.
            if found != size_bytes:
                return wrong_size(found, size_bytes)
            return None if hashlib.file_digest(file, "sha256").hexdigest() == digest else CHANGED
    except OSError as error:
        return unreadable(error)


def read_verified(path: Path, digest: Digest, size_bytes: int) -> tuple[bytes, str | None]:
    """Read and verify a file. Returns the bytes, and the fault as ``fault_in``."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size_bytes:
                return b"", wrong_size(found, size_bytes)
            data = file.read()
    except OSError as error:
        return b"", unreadable(error)
    return (data, None) if hashlib.sha256(data).hexdigest() == digest else (b"", CHANGED)


def unreadable(error: OSError) -> str:
    """The fault of a file that can't be read."""
    if isinstance(error, PermissionError):
        return CLOSED
    return MISSING if isinstance(error, FileNotFoundError) else f"can't be read ({error.strerror})"


def make_folder(folder: Path, top: Path) -> None:
    """Create a folder and its parents durably.

    ``top`` and the folders in it are closed to other users; its parents get the default permissions.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700 if each.is_relative_to(top) else 0o777, exist_ok=True)
        sync_folder(each.parent)


def remove_tree(folder: Path) -> Removed:
    """Remove a folder recursively, without following links.

    Raises:
        OSError: The disk refuses, another process keeps writing into the folder, or the folder is a link.
    """
    if folder.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link", str(folder))
    count = size_bytes = 0
    for _ in range(_SWEEPS):
        try:
            for file_bytes in _empty(folder):
                count, size_bytes = count + 1, size_bytes + file_bytes
            folder.rmdir()
        except FileNotFoundError:
            break
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
        else:
            break
    else:
        raise OSError(errno.ENOTEMPTY, "another process keeps writing into it", str(folder))
    return Removed(count, size_bytes)


def _empty(folder: Path) -> Iterator[int]:
    """Remove the contents of a folder; yields the sizes of the removed files."""
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        try:
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _empty(path)
                path.rmdir()
            else:
                size_bytes = entry.stat(follow_symlinks=False).st_size
                path.unlink()
                yield size_bytes
        except FileNotFoundError:  # another process removed it
            continue


def remove_abandoned(folder: Path) -> None:
    """Remove the partial writes of killed processes from a folder."""
    for file in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(OSError):  # removed since, or of another user: neither prevents storing an artifact
            if time.time() - file.stat().st_mtime > ABANDONED_AFTER_S:
                file.unlink()


def write_whole(path: Path, chunks: Iterable[bytes], *, durable: bool = True) -> None:
    """Write or replace a file atomically; a ``durable`` one survives a power failure after this returns.

    Its folder must exist. If the iterator raises, nothing is written.

    Raises:
        OSError: The disk refuses the write; nothing is written.
    """
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        # After fsync: otherwise a power failure could leave the name without the bytes.
        temporary.replace(path)
    except BaseException:  # including KeyboardInterrupt
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder, so that a rename survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
