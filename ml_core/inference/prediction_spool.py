"""The spool of the prediction log: rendered rows in memory-mapped files, until the registry has them.

A replica appends a row to a segment before it sends the answer, without a system call. The pages of a file outlive the
process, so what a killed replica had not written is written by the next replica that looks into the folder: another one
of the machine within seconds, or the one that replaces it. A file belongs to the process that holds its lock, which the
kernel releases when the process ends. What a node had not written when it is lost is lost.

A segment is a header and records. Each record begins with a checksum of its content, seeded with the id of the segment,
so reading ends at a record that was torn, and never takes what is left of an earlier use. The id changes with each use
and is that of the batch that writes the segment, so a segment that is written twice counts once.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import re
import secrets
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from zlib import crc32

from ml_core.domain.prediction_record import Loss, LossReason
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.exceptions import InvalidNameError
from ml_core.ids import ModelId, TenantId
from ml_core.registry.predictions.ingest import date_of
from ml_core.registry.predictions.rendering import RenderedRequest, RenderedRequests

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 4 * 2**20
"""Bytes of a segment, about 12,000 rows without inputs, which one transaction writes in 0.1 s."""
_MAGIC = b"mlcore spool 1 \n"
_ID = re.compile(rb"[0-9a-f]{16}")
_START = len(_MAGIC) + 16
# Checksum and rows, which change together if a loss is counted again: one aligned store, which no kill divides. Then
# bytes of the content, day, kind, and the lengths of the names of tenant and model.
_RECORD = struct.Struct("<IIIiBBB")
_CHECKED = struct.Struct("<IIiBBB")
_FIRST = struct.Struct("<II")
_KINDS: tuple[PredictionPolicy | LossReason, ...] = (*PredictionPolicy, *LossReason)
_CODES = {kind: code for code, kind in enumerate(_KINDS)}
_RESERVED = 2**18
"""Bytes of a segment for counts of losses, about 3,000 models."""
_KEPT_FREE = _RESERVED + _RECORD.size
_LAST_DAY = (date.max - date_of(0)).days
_SUFFIX = ".spool"
_ZEROS = bytes(2**16)


@dataclass(slots=True)
class Contents:
    """What a segment holds.

    Attributes:
        batch_id: The id of the segment in this use.
    """

    batch_id: str
    requests: list[RenderedRequests] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """The number of rows of the requests."""
        return sum(request.rows for request in self.requests)


def segment_bytes(lines: int = 0) -> int:
    """Bytes of a segment that has room for a request with so many bytes of lines."""
    return max(SEGMENT_BYTES, _START + lines + _KEPT_FREE)


class Segment:
    """A part of the spool that records are appended to and that is written as one batch.

    Args:
        content: A file or, where there can be none, memory.
        path: The file, which this object has locked; None for memory.

    Attributes:
        survives: Whether another process can read it when this one was killed.
        size: Its size in bytes.
        rows: Rows of the requests in it.
        held_bytes: Tenant → bytes of its requests in it.
        end: Where the next record begins.
    """

    def __init__(self, content: mmap.mmap, path: Path | None) -> None:
        self._content = content
        self._path = path
        self.survives = path is not None
        self.size = len(content)
        self.end = _START
        self.begin()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was appended."""
        return self.end == _START

    def begin(self) -> None:
        """Begin anew: forget all records, and keep no copy of what the registry may delete meanwhile."""
        for begin in range(_START, self.end, len(_ZEROS)):  # in pieces, between which other threads run
            self._content[begin : begin + len(_ZEROS)] = _ZEROS[: self.size - begin]
        self.rows = 0
        self.held_bytes: dict[str, int] = {}
        self.end = _START
        self._losses: dict[tuple[str, str, date, LossReason], tuple[int, int]] = {}
        header = _MAGIC + secrets.token_hex(8).encode()
        self._seed = crc32(header)
        self._content[:_START] = header

    def append(self, request: RenderedRequest) -> bool:
        """Append a request; False if it does not fit."""
        tenant_id, model_id, day, policy, rows, lines = request
        length = len(lines)
        if self.end + length > self.size - _KEPT_FREE:
            return False
        # The lines begin with the names.
        self._append(_CHECKED.pack(rows, length, day, _CODES[policy], len(tenant_id), len(model_id)) + lines)
        self.rows += rows
        self.held_bytes[tenant_id] = self.held_bytes.get(tenant_id, 0) + length
        return True

    def note(self, loss: Loss) -> bool:
        """Add to the count of a loss; False if there are too many different ones."""
        key = (loss.tenant_id, loss.model_id, loss.day, loss.reason)
        begin, rows = self._losses.get(key, (self.end, 0))
        rows += loss.rows
        names = f"{loss.tenant_id}\t{loss.model_id}".encode()
        sizes = (len(loss.tenant_id), len(loss.model_id))
        checked = _CHECKED.pack(rows, len(names), (loss.day - date_of(0)).days, _CODES[loss.reason], *sizes) + names
        if begin < self.end:
            self._content[begin : begin + _FIRST.size] = _FIRST.pack(crc32(checked, self._seed), rows)
        elif begin + 4 + len(checked) > self.size:
            return False
        else:
            self._append(checked)
        self._losses[key] = (begin, rows)
        return True

    def _append(self, checked: bytes) -> None:
        begin = self.end
        end = begin + 4 + len(checked)
        self._content[begin:end] = crc32(checked, self._seed).to_bytes(4, "little") + checked
        self.end = (end + 7) & ~7

    def read(self) -> Contents:
        """All records."""
        return read(self._content)

    def discard(self) -> None:
        """Remove the file."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
        self.leave()

    def leave(self) -> None:
        """Leave the file to another process."""
        self._content.close()  # and with it the descriptor that holds the lock


def read(content: mmap.mmap) -> Contents:
    """Read a segment up to its end or the first record that is damaged. What is read is data: nothing is executed."""
    header = content[:_START]
    batch_id = header[len(_MAGIC) :]
    found = Contents(batch_id.decode("ascii", "replace"))
    if not header.startswith(_MAGIC) or not _ID.fullmatch(batch_id):
        return found
    seed, begin, size = crc32(header), _START, len(content)
    groups: dict[tuple[bytes, int, int], tuple[list[bytes], list[int]]] = {}
    while begin + _RECORD.size <= size:
        checksum, rows, length, day, code, tenant, model = _RECORD.unpack_from(content, begin)
        first = begin + _RECORD.size
        end = first + length
        if end > size or crc32(content[begin + 4 : end], seed) != checksum:
            break
        key = (content[first : min(first + tenant + 1 + model, end)], day, code)
        group = groups.get(key)
        if group is None:
            if code >= len(_KINDS) or not 0 <= day <= _LAST_DAY:
                break
            group = groups[key] = ([], [])
        group[0].append(content[first:end])
        group[1].append(rows)
        begin = (end + 7) & ~7
    for (names, day, code), (parts, counts) in groups.items():
        tenant_id, _, model_id = names.decode("ascii", "replace").partition("\t")
        kind = _KINDS[code]
        if isinstance(kind, PredictionPolicy):
            found.requests.append(RenderedRequests(tenant_id, model_id, day, kind, parts, counts))
        else:
            found.losses.append(Loss(tenant_id, model_id, date_of(day), kind, sum(counts)))
    return found


class Spool:
    """Makes the segments of a process, and finds those of processes that were killed.

    Args:
        folder: For this user's replicas on this machine; None: segments are in memory.

    Attributes:
        fault: Why segments are in memory; None if they are in files.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.fault: str | None = None

    def segment(self, size: int = SEGMENT_BYTES) -> Segment:
        """A new segment, in memory if the disk is full or the folder can't be used."""
        if self._folder is not None:
            try:
                made, self.fault = self._in_file(self._folder, size), None
            except OSError as error:
                self._note(error.strerror or type(error).__name__)
            else:
                return made
        return Segment(mmap.mmap(-1, size), None)

    def _in_file(self, folder: Path, size: int) -> Segment:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():
            raise PermissionError(0, "the folder belongs to another user")
        while True:
            path = folder / f"{secrets.token_hex(8)}{_SUFFIX}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                # Another replica may take the file for an abandoned one before it is locked.
                if not _lock(descriptor) or os.fstat(descriptor).st_nlink == 0:
                    continue
                # Reserved now: a page without a place on the disk would end the process when it is written.
                os.posix_fallocate(descriptor, 0, size)
                return Segment(mmap.mmap(descriptor, size), path)  # holds the lock, by a descriptor of its own
            except OSError:
                with suppress(OSError):
                    path.unlink()
                raise
            finally:
                os.close(descriptor)

    def _note(self, fault: str) -> None:
        if fault != self.fault:
            logger.warning(
                "Answers are not spooled to %s: %s. A replica that is killed loses those of the last moment. "
                "Free or mount space there.",
                self._folder,
                fault,
            )
        self.fault = fault

    def abandoned(self) -> Iterator[tuple[Contents, Abandoned]]:
        """The segments that killed processes left, each locked by this process."""
        if self._folder is None:
            return
        try:
            paths = sorted(self._folder.iterdir())
        except OSError:
            return
        for path in paths:
            if path.suffix == _SUFFIX:
                with suppress(OSError):
                    if (segment := Abandoned.take(path)) is not None:
                        yield segment.read(), segment


class Abandoned:
    """A segment of a process that ended, which this one has locked."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path

    @classmethod
    def take(cls, path: Path) -> Abandoned | None:
        """Lock a file; None if its process lives, or another one was first.

        Raises:
            OSError: It can't be opened.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        state = os.fstat(descriptor)
        is_ours = stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid()
        if is_ours and _lock(descriptor) and os.fstat(descriptor).st_nlink > 0:
            return cls(descriptor, path)
        os.close(descriptor)
        return None

    def read(self) -> Contents:
        """All records that are whole and name a tenant and a model."""
        size = os.fstat(self._descriptor).st_size
        if size < _START:
            return Contents("")
        with mmap.mmap(self._descriptor, size, access=mmap.ACCESS_READ) as content:
            found = read(content)
        found.requests = [group for group in found.requests if _is_sound(group)]
        found.losses = [loss for loss in found.losses if loss.rows > 0 and _are_names(loss.tenant_id, loss.model_id)]
        return found

    def discard(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self._path.unlink()
        self.leave()

    def leave(self) -> None:
        """Leave the file to another process."""
        os.close(self._descriptor)


def _is_sound(group: RenderedRequests) -> bool:
    """Whether the lines are those of one tenant and model, as many as counted."""
    head = f"{group.tenant_id}\t{group.model_id}\t".encode()
    for part, rows in zip(group.parts, group.row_counts, strict=True):
        *lines, rest = part.split(b"\n")
        if rest or len(lines) != rows or not all(line.startswith(head) for line in lines):
            return False
    return _are_names(group.tenant_id, group.model_id)


def _are_names(tenant_id: str, model_id: str) -> bool:
    try:
        TenantId(tenant_id), ModelId(model_id)
    except InvalidNameError:
        return False
    return True


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
