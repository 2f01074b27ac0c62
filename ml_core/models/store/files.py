"""Files that are either whole or absent: written beside their place, flushed to the disk and renamed."""

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
"""An artifact is written in seconds; what is older belongs to a process that was killed."""

CLOSED = "can't be read (Permission denied)"
"""What is wrong with an artifact that this process may not read; its bytes may be sound."""

_SWEEPS = 100
"""How often a folder is emptied before an error is raised: another process keeps writing to it."""


def fault_in(path: Path, digest: Digest, size_bytes: int) -> str | None:
    """What is wrong with a file that should be an artifact; None: it was read and verified, in pieces."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            # Compared before reading, so that a file that grew to gigabytes costs nothing.
            if found != size_bytes:
                return wrong_size(found, size_bytes)
            return None if hashlib.file_digest(file, "sha256").hexdigest() == digest else CHANGED
    except OSError as error:
        return unreadable(error)


def read_verified(path: Path, digest: Digest, size_bytes: int) -> tuple[bytes, str | None]:
    """The bytes of a file that should be an artifact, and what is wrong with it, see ``fault_in``."""
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
    """What is wrong with a file that can't be read."""
    if isinstance(error, PermissionError):
        return CLOSED
    return MISSING if isinstance(error, FileNotFoundError) else f"can't be read ({error.strerror})"


def make_folder(folder: Path, top: Path) -> None:
    """Make a folder with its parents, so that after a power cut the new ones are still there.

    Args:
        folder: The folder.
        top: It, and what is made inside it, is closed to other users; what is made above it is as the system makes it.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700 if each.is_relative_to(top) else 0o777, exist_ok=True)
        sync_folder(each.parent)


def remove_tree(folder: Path) -> Removed:
    """Remove a folder with everything in it, links and not what they lead to. What vanishes meanwhile is not counted.

    Raises:
        OSError: The disk refuses, another process keeps writing into the folder, or it is itself a link.
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
    """Remove what is in a folder now; the sizes of the files that went."""
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
    """Remove what killed processes left half-written in a folder."""
    for file in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(OSError):  # removed meanwhile, or of another user: neither prevents the store
            if time.time() - file.stat().st_mtime > ABANDONED_AFTER_S:
                file.unlink()


def write_whole(path: Path, chunks: Iterable[bytes], *, durable: bool = True) -> None:
    """Write a file, replacing one that is there in one step.

    Args:
        path: The file; its folder must exist.
        chunks: Its bytes. If they raise, nothing is left behind.
        durable: Whether it must survive a power cut once this returns.

    Raises:
        OSError: The disk refuses; nothing is left behind.
    """
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # also on Ctrl-C: no half-written file stays
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut: the folder's entry is data too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
