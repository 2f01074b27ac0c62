"""Bodies of requests: read within bounds of size and time, or received into a file."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from fastapi import HTTPException, Request, status
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.responses import MalformedRangeHeader, RangeNotSatisfiable
from starlette.types import Message

from ml_core.api.access import caller
from ml_core.database.strict_json import plain
from ml_core.exceptions import (
    InvalidRequestError,
    MLFrameworkError,
    RequestTimeoutError,
    RequestTooLargeError,
    StorageFullError,
)
from ml_core.inference.edge.http import decompress

MAX_JSON_BYTES = 4 * 2**20
"""Of a body that is JSON: ten thousand points of a metric are a tenth of it."""
_BODY_WITHIN_S = 30.0
"""A JSON body has to be there within this time; one of 4 MiB takes 1 Mbit/s then."""
_PART_BYTES = 2**20
_PART_WITHIN_S = 60.0
"""An upload may take as long as it does, but each of its parts has to arrive within this time: 140 kbit/s. Otherwise
clients that send a byte now and then would occupy all places for requests."""
_ABANDONED_AFTER_S = 60.0
"""A file that is younger may not be locked yet by the process that made it."""


async def read_json(request: Request) -> bytes:
    """The body of a request whose body is JSON; FastAPI then finds it read.

    Raises:
        RequestTooLargeError: It has more than ``MAX_JSON_BYTES``, as it is sent or once it is unpacked.
        RequestTimeoutError: It was not there in time.
        UnsupportedEncodingError: It is compressed otherwise than as gzip or deflate.
        InvalidRequestError: It is not JSON, or has a number that JSON has not; names the field.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_WITHIN_S):
            async for piece in request.stream():
                size += len(piece)
                if size > MAX_JSON_BYTES:
                    raise _too_large(MAX_JSON_BYTES)
                pieces.append(piece)
    except TimeoutError:
        raise _too_late(_BODY_WITHIN_S, "The body") from None
    body = b"".join(pieces)
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        body = decompress(body, encoding.encode("latin-1"), MAX_JSON_BYTES)
    if body:
        _check_media_type(request, "application/json", "Send JSON")
        # Where starlette keeps a body that was read, and looks for it first.
        request._json = _parsed(body)
    request._body = body
    return body


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        what = str(error)
    with suppress(ValueError, RecursionError):
        plain(json.loads(body))  # names the field of a NaN
    raise InvalidRequestError(f"The body is not JSON: {what}.", remedy="Correct it.", field="body")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it has {name}")


async def read_form(request: Request, limit: int) -> None:
    """Read a form of several parts; FastAPI then finds it read. Its file is in ``TMPDIR``, and has no name there.

    Args:
        request: Not read yet.
        limit: Bytes that it may have.

    Raises:
        RequestTooLargeError: It has more.
        RequestTimeoutError: The client sent it too slowly.
        StorageFullError: The disk has no room for it.
        InvalidRequestError: It is no such form.
    """
    _check_media_type(request, "multipart/form-data", "Send a form")
    _check_declared(request, limit)
    pieces = _pieces(request, limit)
    parser = MultiPartParser(request.headers, pieces, max_files=1, max_fields=8, max_part_size=MAX_JSON_BYTES)
    try:
        with _room_in(Path(tempfile.gettempdir())):
            request._form = await parser.parse()
    except MultiPartException as error:
        raise InvalidRequestError(
            f"The form can't be read: {error.message}",
            remedy="The operation's description at /api/docs has its fields.",
            field="body",
        ) from None
    finally:
        # The parser itself forgets the file of a form that is cut off.
        form = request._form or FormData()
        whole = {id(part.file) for _, part in form.multi_items() if isinstance(part, UploadFile)}
        for file in parser._files_to_close_on_error:
            if id(file) not in whole:
                file.close()


@asynccontextmanager
async def received(request: Request, folder: Path, limit: int, *, suffix: str = "") -> AsyncIterator[Path]:
    """The body of a request as a file, removed when the block ends. It is never in memory as a whole.

    Args:
        request: Not read yet.
        folder: Where the file is made.
        limit: Bytes that it may have.
        suffix: Of the file's name.

    Raises:
        RequestTooLargeError: It has more bytes than ``limit``.
        StorageFullError: It has more bytes than the disk has room for.
        RequestTimeoutError: The client sent it too slowly.
        AuthenticationError: The key was revoked meanwhile.
    """
    wanted = _check_declared(request, limit)
    await run_in_threadpool(_make_room, folder, wanted)
    descriptor, name = tempfile.mkstemp(dir=folder, suffix=suffix)
    path = Path(name)
    try:
        with _room_in(folder), os.fdopen(descriptor, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the block ends: see ``_remove_abandoned``
            async for piece in _pieces(request, limit):
                await run_in_threadpool(file.write, piece)
            await run_in_threadpool(file.flush)
            await run_in_threadpool(caller, request)
            async with request.app.state.services.file_work.of(request.path_params["tenant"]):
                yield path
    except MLFrameworkError as error:  # the client knows nothing of this file's name, and need not
        error.message = error.message.replace(str(path), "The file")
        raise
    finally:
        path.unlink(missing_ok=True)


class HashedBody:
    """The body of a request that is not read yet, with the sha256 of what was read of it.

    Args:
        request: Whoever reads it from now on reads it through this.
    """

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self._sha256 = hashlib.sha256()
        request._receive = self._receive_and_hash

    @property
    def digest(self) -> str:
        """The sha256, in hexadecimal digits."""
        return self._sha256.hexdigest()

    async def _receive_and_hash(self) -> Message:
        message = await self._receive()
        self._sha256.update(message.get("body", b""))
        return message


async def digest_of_body(request: Request, limit: int) -> str:
    """The sha256 of a body of so many bytes at most, which is read and dropped.

    Raises:
        RequestTooLargeError: It has more bytes.
        RequestTimeoutError: The client sent it too slowly.
    """
    hashed = HashedBody(request)
    async for _ in _pieces(request, limit):
        pass
    return hashed.digest


async def _pieces(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The body, piece by piece, within its bounds. Only time spent on waiting for the client counts."""
    stream, clock = aiter(request.stream()), asyncio.get_running_loop().time
    size, part_bytes, left_s = 0, 0, _PART_WITHIN_S
    while True:
        asked_at = clock()
        try:
            async with asyncio.timeout(left_s):
                piece = await anext(stream, b"")  # starlette's last piece is empty, too
        except TimeoutError:
            raise _too_late(_PART_WITHIN_S, f"The next {_PART_BYTES:,} bytes of the body") from None
        except ClientDisconnect:
            raise RequestTimeoutError("The client left before the end of its body.", remedy="Send it again.") from None
        if not piece:
            return
        left_s -= clock() - asked_at
        part_bytes += len(piece)
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        if part_bytes >= _PART_BYTES:
            part_bytes, left_s = 0, _PART_WITHIN_S
        yield piece


def _check_declared(request: Request, limit: int) -> int:
    """What a request says of its size; 0 if nothing."""
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdigit() else 0
    if size > limit:
        raise _too_large(limit, size)
    return size


def _check_media_type(request: Request, wanted: str, remedy: str) -> None:
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found != wanted:
        raise InvalidRequestError(
            f"The body is of the type {found[:100] or 'unknown'!r}.",
            remedy=f"{remedy} as {wanted}.",
            field="content-type",
        )


class Download(FileResponse):
    """A file, whole or the ranges of it that are asked for; a range that it has not is refused in the one shape."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            raise InvalidRequestError(
                "The header Range can't be read.", remedy="Send one such as bytes=0-99.", field="range"
            ) from None
        except RangeNotSatisfiable:
            raise HTTPException(
                status.HTTP_416_RANGE_NOT_SATISFIABLE,
                f"The file has {file_size:,} bytes, and none in this range.",
                headers={"content-range": f"bytes */{file_size}"},
            ) from None


def _make_room(folder: Path, wanted: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    if wanted > shutil.disk_usage(folder).free:
        raise _disk_full(folder)


def _remove_abandoned(folder: Path) -> None:
    """Remove the files of processes that were killed: those that nobody has locked."""
    for path in folder.iterdir():
        with suppress(OSError), path.open("rb") as file:
            if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


@contextmanager
def _room_in(folder: Path) -> Iterator[None]:
    """A disk that is full as the platform's own error."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _disk_full(folder) from error


def _disk_full(folder: Path) -> StorageFullError:
    return StorageFullError(
        "The server's disk has no room for the upload; nothing was kept.",
        internal=str(folder),
        remedy="Free some space there, then send it again.",
    )


def _too_large(limit: int, actual: int | None = None) -> RequestTooLargeError:
    return RequestTooLargeError(
        f"The body is over the limit of {limit:,} bytes.", remedy="Send less at once.", limit=limit, actual=actual
    )


def _too_late(within_s: float, what: str) -> RequestTimeoutError:
    return RequestTimeoutError(
        f"{what} did not arrive within {within_s:g} s.",
        remedy="Send it over a faster connection, compress it, or send less at once.",
        deadline_ms=int(within_s * 1000),
    )
