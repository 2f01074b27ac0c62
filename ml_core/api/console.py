"""The console in a browser: the files of ``ml_core/console``, a client of the control API and of nothing else."""

from __future__ import annotations

import functools
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

import ml_core
from ml_core.api import session

FOLDER = Path(ml_core.__file__).parent / "console"

# A browser keeps the files and asks whether they changed, which is answered without them.
_HEADERS = {**session.PAGE_HEADERS, "cache-control": "no-cache"}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    etag: str


@functools.cache
def _files() -> dict[str, _File]:
    """Path → file. All of them have a few hundred kilobytes, so they are kept in memory."""
    found = {}
    for path in FOLDER.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            kind = "text/javascript" if path.suffix == ".js" else mimetypes.guess_type(path.name)[0]
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[path.relative_to(FOLDER).as_posix()] = _File(content, kind or "application/octet-stream", etag)
    return found


def add_console(app: FastAPI) -> None:
    """Serve the console of an application at ``/console/``, and the sessions with which it signs in.

    Its addresses are relative, so any prefix will do.
    """
    app.router.routes.extend(session.router.routes)

    @app.get("/console", include_in_schema=False)
    async def redirect() -> Response:
        return Response(status_code=307, headers={"location": "console/"})

    @app.api_route("/console/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def file(path: str, request: Request) -> Response:
        found = _files().get(path or "index.html")
        if found is None:
            raise HTTPException(404, headers=_HEADERS)
        headers = {**_HEADERS, "etag": found.etag}
        if found.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(found.content, media_type=found.media_type, headers=headers)
