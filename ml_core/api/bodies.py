"""Bodies of requests: read within bounds of size and time, or received into a file."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from ml_core.exceptions import RequestTimeoutError, RequestTooLargeError, StorageFullError

MAX_JSON_BYTES = 4 * 2**20
"""Of a body that is JSON: ten thousand points of a metric are a tenth of it."""
_BODY_WITHIN_S = 30.0
"""A JSON body has to be there within this time; one of 4 MiB takes 1 Mbit/s then."""
_PIECE_WITHIN_S = 60.0
"""An upload may take as long as it does, but not pause for longer than this."""


async def read_body(request: Request) -> bytes:
    """The whole body of a request, which FastAPI then reads too.

    Raises:
        RequestTooLargeError: It has more than ``MAX_JSON_BYTES``.
        RequestTimeoutError: It was not there in time.
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
        raise _too_late(_BODY_WITHIN_S) from None
    request._body = b"".join(pieces)  # where starlette keeps a body that was read, and looks for it first
    return request._body


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
        RequestTimeoutError: The client paused for too long.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit, int(declared))
    await run_in_threadpool(_check_room, folder, int(declared) if declared.isdigit() else 0)
    descriptor, name = tempfile.mkstemp(dir=folder, suffix=suffix)
    path, size = Path(name), 0
    try:
        with os.fdopen(descriptor, "wb") as file:
            pieces = aiter(request.stream())
            while piece := await _next(pieces):
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                await run_in_threadpool(file.write, piece)
        yield path
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _disk_full(folder) from error
    finally:
        path.unlink(missing_ok=True)


async def _next(pieces: AsyncIterator[bytes]) -> bytes:
    """The next piece that is not empty; empty at the end."""
    try:
        async with asyncio.timeout(_PIECE_WITHIN_S):
            async for piece in pieces:
                if piece:
                    return piece
    except TimeoutError:
        raise _too_late(_PIECE_WITHIN_S) from None
    except ClientDisconnect:
        raise RequestTimeoutError("The client left before the end of its body.", remedy="Send it again.") from None
    return b""


def _check_room(folder: Path, wanted: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise _disk_full(folder)


def _disk_full(folder: Path) -> StorageFullError:
    return StorageFullError(
        "The server's disk has no room for the upload; nothing was kept.",
        remedy="Free some space there, then send it again.",
        path=str(folder),
    )


def _too_large(limit: int, actual: int | None = None) -> RequestTooLargeError:
    return RequestTooLargeError(
        f"The body is over the limit of {limit:,} bytes.", remedy="Send less at once.", limit=limit, actual=actual
    )


def _too_late(within_s: float) -> RequestTimeoutError:
    return RequestTimeoutError(
        f"The body did not arrive within {within_s:g} s.",
        remedy="Send it over a faster connection, or less at once.",
        deadline_ms=int(within_s * 1000),
    )
