"""Sends calls over HTTP, or to an application in this process; a request is prepared and read alike in both clients."""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
import httpx
from pydantic import BaseModel

from ml_core import exceptions
from ml_core.client.calls import Call, Download, Form, Upload
from ml_core.client.errors import error_from_response

T = TypeVar("T")

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PIECE = 256 * 1024
# A connection that was kept open may be closed just as it is used again: by an ingress that reloads, or with the
# replica that held the request.
_CONNECTION_LOST = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
_WRITES = ("POST", "PUT", "PATCH", "DELETE")


def check_address(url: str, api_key: str | None, timeout_s: float) -> None:
    """Refuse what can't be right before the first request is made with it.

    Raises:
        ConfigurationError: The address, the key or the timeout can't be used.
    """
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
    elif not 0 < timeout_s < math.inf:
        what, remedy, setting = f"timeout_s is {timeout_s}", "Give a number of seconds above 0.", "timeout_s"
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

    def _prepared(self, call: Call[Any]) -> dict[str, Any]:
        """The arguments of ``httpx``'s ``build_request``, but for an uploaded body."""
        timeout_s = call.timeout_s or self._timeout_s
        headers = {"x-request-timeout-ms": str(max(1, round(timeout_s * 1000)))}
        if call.method in _WRITES and call.path.startswith("/api/"):
            headers["idempotency-key"] = secrets.token_hex(16)  # so that it may be sent twice
        prepared: dict[str, Any] = {
            "method": call.method,
            "url": call.path,
            "params": {name: value for name, value in call.params.items() if value is not None},
            "headers": headers,
            # A little longer than the server's own deadline, so that its explanation arrives first.
            "timeout": timeout_s + 1.0,
        }
        if isinstance(call.body, BaseModel):
            prepared["content"] = call.body.model_dump_json(exclude_unset=True)
        elif isinstance(call.body, bytes):
            prepared["content"] = call.body
        if "content" in prepared:
            headers["content-type"] = "application/json"
        if call.form is not None:
            prepared["files"] = _parts(call.form)
        if call.upload is not None:
            headers |= {
                "content-type": call.upload.content_type,
                "content-length": str(call.upload.path.stat().st_size),
            }
        return prepared

    @contextmanager
    def _explained(self, call: Call[Any]) -> Iterator[None]:
        """Failures to reach the platform as the platform's own errors."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise exceptions.DeadlineExceededError(
                f"No answer from {self._url} within {call.timeout_s or self._timeout_s:g} s.",
                remedy="Send less at once, or allow more time with timeout_s.",
            ) from error
        except httpx.HTTPError as error:
            raise exceptions.PlatformError(
                f"{self._url} can't be reached: {error}.",
                remedy="Check the address, and whether the platform runs there.",
                action=exceptions.Action("status"),
                component="ingress",
            ) from error


class SyncConnection(Connection):
    """Sends a call and waits for the answer.

    Args:
        url: See ``Connection``.
        api_key: See ``Connection``.
        timeout_s: See ``Connection``.
        transport: Instead of the network.
    """

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
        prepared = self._prepared(call)
        with self._explained(call):
            try:
                response = self._once(call, prepared)
            except _CONNECTION_LOST:
                response = self._once(call, prepared)
            try:
                if call.download is not None and response.is_success:
                    _write(response, call.download)
                    return call.read(b"")
                response.read()
            finally:
                response.close()
        if response.is_success:
            return call.read(response.content)
        raise error_from_response(response)

    def _once(self, call: Call[Any], prepared: dict[str, Any]) -> httpx.Response:
        if call.upload is not None:
            prepared = {**prepared, "content": _pieces(call.upload)}
        return self._http.send(self._http.build_request(**prepared), stream=True)


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
        prepared = self._prepared(call)
        with self._explained(call):
            try:
                response = await self._once(call, prepared)
            except _CONNECTION_LOST:
                response = await self._once(call, prepared)
            try:
                if call.download is not None and response.is_success:
                    await _write_async(response, call.download)
                    return call.read(b"")
                await response.aread()
            finally:
                await response.aclose()
        if response.is_success:
            return call.read(response.content)
        raise error_from_response(response)

    async def _once(self, call: Call[Any], prepared: dict[str, Any]) -> httpx.Response:
        if call.upload is not None:
            prepared = {**prepared, "content": _async_pieces(call.upload)}
        return await self._http.send(self._http.build_request(**prepared), stream=True)


def _parts(form: Form) -> dict[str, Any]:
    """A form as ``httpx`` takes it."""
    documents = {name: (None, body.model_dump_json(), "application/json") for name, body in form.documents.items()}
    file = (form.upload.path.name, form.upload.path.read_bytes(), form.upload.content_type)
    return {**documents, form.name: file}


def _pieces(upload: Upload) -> Iterator[bytes]:
    total, sent = upload.path.stat().st_size, 0
    with upload.path.open("rb") as file:
        while piece := file.read(_PIECE):
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
        if self._download.path.exists():
            raise exceptions.InvalidRequestError(
                f"{self._download.path} exists already.", remedy="Name a file that does not exist yet.", field="path"
            )
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


def _write(response: httpx.Response, download: Download) -> None:
    with _File(response, download) as file:
        for piece in response.iter_bytes(_PIECE):
            file.write(piece)


async def _write_async(response: httpx.Response, download: Download) -> None:
    with _File(response, download) as file:
        async for piece in response.aiter_bytes(_PIECE):
            await anyio.to_thread.run_sync(file.write, piece)
