"""Sends calls over HTTP, or to an application in this process; a request is prepared and read alike in both clients."""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import httpx
import orjson
from pydantic import BaseModel

from ml_core import exceptions
from ml_core.client.calls import Call, Download, Form, Upload
from ml_core.settings import LOOPBACK, check_number

T = TypeVar("T")

_PIECE = 256 * 1024
# A connection that was kept open may be closed just as it is used again: by an ingress that reloads, or with the
# replica that held the request.
_CONNECTION_LOST = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
_WRITES = ("POST", "PUT", "PATCH", "DELETE")
# Whatever a call may take: a machine that does not accept a connection or a piece by then is gone.
_CONNECT_WITHIN_S = 10.0
_SENT_WITHIN_S = 60.0
_ASK_AGAIN_S = 0.25


def check_address(url: str, api_key: str | None, timeout_s: float) -> None:
    """Refuse what can't be right before the first request is made with it.

    Raises:
        ConfigurationError: The address, the key or the timeout can't be used.
    """
    check_number("timeout_s", timeout_s, remedy="Give a number of seconds.")
    try:
        address = httpx.URL(url)
        is_address = address.scheme in ("http", "https") and bool(address.host)
    except httpx.InvalidURL:
        is_address = False
    if not is_address:
        what, remedy, setting = f"{url!r} is not an address", "Give one such as http://127.0.0.1:8000.", "url"
    elif api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key):
        what, remedy, setting = (
            "The key is empty or has characters that no key has",
            "Give the whole key, as it was shown once: mlk_….",
            "api_key",
        )
    else:
        return
    raise exceptions.ConfigurationError(f"{what}.", remedy=remedy, setting=setting)


class Connection:
    """What both kinds of connection share.

    Args:
        url: The ingress, such as ``http://127.0.0.1:8000``.
        api_key: Sent with each request; None: none.
        timeout_s: Seconds to wait for an answer; also sent as the request's deadline.
    """

    def __init__(self, url: str, api_key: str | None, timeout_s: float) -> None:
        check_address(url, api_key, timeout_s)
        self._timeout_s = timeout_s
        self._url = url
        self._options: dict[str, Any] = {
            "base_url": url,
            "headers": {} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            # A proxy of the environment can't reach this machine's own addresses.
            "trust_env": httpx.URL(url).host not in LOOPBACK,
        }

    def _timeout_of(self, call: Call[Any]) -> float:
        return call.timeout_s or self._timeout_s

    def _prepared(self, call: Call[Any]) -> tuple[dict[str, Any], Upload | None]:
        """The arguments of ``httpx``'s ``build_request``, and the file that is its body."""
        if call.download is not None and call.download.path.exists():
            raise exceptions.InvalidRequestError(
                f"{call.download.path} exists already.", remedy="Name a file that does not exist yet.", field="path"
            )
        timeout_s = self._timeout_of(call)
        headers = {"x-request-timeout-ms": str(max(1, round(timeout_s * 1000)))}
        if call.method in _WRITES and call.path.startswith("/api/"):
            headers["idempotency-key"] = secrets.token_hex(16)  # so that it may be sent twice
        prepared: dict[str, Any] = {
            "method": call.method,
            "url": call.path,
            "params": {name: value for name, value in call.params.items() if value is not None},
            "headers": headers,
            # A little longer than the server's own deadline, so that its explanation arrives first.
            "timeout": httpx.Timeout(
                timeout_s + 1.0,
                connect=min(timeout_s, _CONNECT_WITHIN_S) + 1.0,
                write=min(timeout_s, _SENT_WITHIN_S) + 1.0,
            ),
        }
        if isinstance(call.body, BaseModel):
            prepared["content"] = call.body.model_dump_json(exclude_unset=True)
        elif isinstance(call.body, bytes):
            prepared["content"] = call.body
        if "content" in prepared:
            headers["content-type"] = "application/json"
        upload = call.upload if call.form is None else _as_upload(call.form)
        if upload is not None:
            headers |= {"content-type": upload.content_type, "content-length": str(_size_of(upload))}
        return prepared, upload

    def _pause(self, error: exceptions.IdempotencyConflictError, started: float, call: Call[Any]) -> float:
        """Seconds until a repeated write may be asked for again: the first of it is still running.

        Raises:
            IdempotencyConflictError: It is not, or there is no time left.
        """
        if "retry_after_s" not in error.details or time.monotonic() - started > self._timeout_of(call):
            raise error
        return _ASK_AGAIN_S

    @contextmanager
    def _explained(self, call: Call[Any]) -> Iterator[None]:
        """Failures to reach the platform as the platform's own errors."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise exceptions.DeadlineExceededError(
                f"No answer from {self._url} within {self._timeout_of(call):g} s.",
                remedy="Send less at once, or allow more time with timeout_s.",
            ) from error
        except httpx.HTTPError as error:
            raise exceptions.PlatformError(
                f"{self._url} can't be reached: {error}.",
                remedy="Check the address, and whether the platform runs there.",
                action=exceptions.Action("status"),
                component="ingress",
            ) from error
        except OSError as error:  # of a file: httpx has errors of its own for the network
            verb, field = ("read", "file") if call.download is None else ("written", "path")
            raise exceptions.InvalidRequestError(
                f"{error.filename or 'The file'} can't be {verb}: {error.strerror}.",
                remedy="Check the file, its folder and the space on its disk.",
                field=field,
            ) from error


class SyncConnection(Connection):
    """Sends a call and waits for the answer; ``transport`` takes the place of the network."""

    def __init__(
        self, url: str, api_key: str | None, timeout_s: float, transport: httpx.BaseTransport | None = None
    ) -> None:
        super().__init__(url, api_key, timeout_s)
        self._http = httpx.Client(**self._options, transport=transport)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """The answer of a call.

        Raises:
            MLFrameworkError: The class of ``ml_core.exceptions`` that the platform named.
            DeadlineExceededError: There was no answer in time.
            PlatformError: The platform can't be reached.
        """
        started = time.monotonic()
        with ExitStack() as made, self._explained(call):
            if call.complete is not None:
                call = call.complete(made)
            prepared, upload = self._prepared(call)
            try:
                return self._once(call, prepared, upload)
            except _CONNECTION_LOST:
                pass
            while True:
                try:
                    return self._once(call, prepared, upload)
                except exceptions.IdempotencyConflictError as error:
                    time.sleep(self._pause(error, started, call))

    def _once(self, call: Call[T], prepared: dict[str, Any], upload: Upload | None) -> T:
        if upload is not None:
            prepared = {**prepared, "content": _pieces(upload)}
        response = self._http.send(self._http.build_request(**prepared), stream=True)
        try:
            if call.download is not None and response.is_success:
                with _File(response, call.download) as file:
                    for piece in response.iter_bytes(_PIECE):
                        file.write(piece)
                return call.read(b"")
            response.read()
        finally:
            response.close()
        return _answer(call, response)


class AsyncConnection(Connection):
    """As ``SyncConnection``, with ``await``; arguments are the same."""

    def __init__(
        self, url: str, api_key: str | None, timeout_s: float, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        super().__init__(url, api_key, timeout_s)
        self._http = httpx.AsyncClient(**self._options, transport=transport)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def asend(self, call: Call[T]) -> T:
        """The answer of a call, see ``SyncConnection.send``."""
        started = time.monotonic()
        with ExitStack() as made, self._explained(call):
            if call.complete is not None:
                call = await anyio.to_thread.run_sync(call.complete, made)
            prepared, upload = self._prepared(call)
            try:
                return await self._once(call, prepared, upload)
            except _CONNECTION_LOST:
                pass
            while True:
                try:
                    return await self._once(call, prepared, upload)
                except exceptions.IdempotencyConflictError as error:
                    await anyio.sleep(self._pause(error, started, call))

    async def _once(self, call: Call[T], prepared: dict[str, Any], upload: Upload | None) -> T:
        if upload is not None:
            prepared = {**prepared, "content": _async_pieces(upload)}
        response = await self._http.send(self._http.build_request(**prepared), stream=True)
        try:
            if call.download is not None and response.is_success:
                with _File(response, call.download) as file:
                    async for piece in response.aiter_bytes(_PIECE):
                        await anyio.to_thread.run_sync(file.write, piece)
                return call.read(b"")
            await response.aread()
        finally:
            await response.aclose()
        return _answer(call, response)


def _answer(call: Call[T], response: httpx.Response) -> T:
    if response.is_success:
        return call.read(response.content)
    raise _error_of(response)


def _error_of(response: httpx.Response) -> exceptions.MLFrameworkError:
    """The exception that an error response describes."""
    try:
        document = orjson.loads(response.content)["error"]
        error = exceptions.error_from_json(document)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return exceptions.PlatformError(
            f"The server answered {response.status_code} without an explanation.",
            remedy="Check that the address is that of an ML Core ingress.",
            component="ingress",
        )
    error.details["request_id"] = document.get("request_id")
    return error


def _as_upload(form: Form) -> Upload:
    """A form (RFC 7578) as the file with what comes before and after it, so that it is streamed as any other."""
    boundary = secrets.token_hex(16)
    head = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\nContent-Type: application/json\r\n\r\n'
        f"{body.model_dump_json()}\r\n"
        for name, body in form.documents.items()
    )
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{form.name}"; filename="{form.name}"\r\n'
        f"Content-Type: {form.upload.content_type}\r\n\r\n"
    )
    return replace(
        form.upload,
        content_type=f"multipart/form-data; boundary={boundary}",
        before=head.encode(),
        after=f"\r\n--{boundary}--\r\n".encode(),
    )


def _size_of(upload: Upload) -> int:
    with upload.path.open("rb") as file:  # so that what can't be read is found before anything is sent
        return len(upload.before) + os.fstat(file.fileno()).st_size + len(upload.after)


def _pieces(upload: Upload) -> Iterator[bytes]:
    total, sent = _size_of(upload), 0
    with upload.path.open("rb") as file:
        pieces = itertools.chain([upload.before], iter(lambda: file.read(_PIECE), b""), [upload.after])
        for piece in filter(None, pieces):
            sent += len(piece)
            yield piece
            if upload.on_progress is not None:
                upload.on_progress(sent, total)


async def _async_pieces(upload: Upload) -> AsyncIterator[bytes]:
    pieces = _pieces(upload)
    while piece := await anyio.to_thread.run_sync(next, pieces, None):
        yield piece


class _File:
    """A file that a download is written to; it is there under its name only once it is whole."""

    def __init__(self, response: httpx.Response, download: Download) -> None:
        self._download = download
        self._total = int(response.headers.get("content-length", 0))
        self._received = 0
        self._part = Path(f"{download.path}.part")

    def __enter__(self) -> _File:
        self._file = self._part.open("wb")
        return self

    def write(self, piece: bytes) -> None:
        self._file.write(piece)
        self._received += len(piece)
        if self._download.on_progress is not None:
            self._download.on_progress(self._received, self._total)

    def __exit__(self, kind: object, *_: object) -> None:
        self._file.close()
        if kind is None:
            self._part.rename(self._download.path)
        else:
            self._part.unlink(missing_ok=True)
