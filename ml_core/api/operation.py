"""What every operation does before and after its own work: authenticate, check the scope, remember repeated writes."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import anyio
import orjson
from fastapi import APIRouter, Query, Request, Response, params, status
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from ml_core.api.access import caller, remembered_caller
from ml_core.api.bodies import HashedBody, digest_of_body, read_form, read_json
from ml_core.api.errors import on_error
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.exceptions import Action, IdempotencyConflictError, InvalidRequestError, MLFrameworkError, status_of
from ml_core.ids import TenantId
from ml_core.models.formats.archive import MAX_UNPACKED_BYTES
from ml_core.registry.authentication import REMEMBERED_S
from ml_core.registry.idempotency import BEAT_EVERY_S, IdempotencyRepository, Stored, other_request
from ml_core.registry.limits import MAX_PAGE_SIZE
from ml_core.registry.promotion.rules import require_move

logger = logging.getLogger(__name__)

LimitQuery = Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="At most so many items.")]
CursorQuery = Annotated[str | None, Query(description="`next_cursor` of the page before.")]
NameQuery = Annotated[str | None, Query(description="With this text in the name.")]
ArchivedQuery = Annotated[bool, Query(description="Archived ones too.")]
_WITH_BODY = ("POST", "PUT", "PATCH")
_TRIED_AGAIN = (status.HTTP_408_REQUEST_TIMEOUT, status.HTTP_429_TOO_MANY_REQUESTS)
_KEPT_HEADERS = ("content-type", "etag")
_SAYING_HEADERS = ("content-type", "content-length", "if-match")
"""Headers that are a part of what a request asks for."""
_BODY_DIGEST = "body-sha256"
"""Kept with the headers of an answer to an upload, whose body is known only once it was read."""
_BEATS = ThreadPoolExecutor(2, "idempotency-beat")  # its own, because requests may occupy all other threads
T = TypeVar("T")
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def parsed(kind: TypeAdapter[T], text: str, field: str) -> T:
    """A value that a request carries as JSON where JSON is not its body.

    Raises:
        RequestValidationError: The text is no JSON, or does not fit.
    """
    try:
        return kind.validate_json(text)
    except ValidationError as error:
        found = [{**each, "loc": ("query", field, *each["loc"])} for each in error.errors()]
        raise RequestValidationError(found) from error


def tags_of(texts: list[str] | None) -> dict[str, str]:
    """The tags of a query: ``key=value`` texts.

    Raises:
        InvalidRequestError: One has no equals sign, or no key before it.
    """
    for text in texts or ():
        if not text.partition("=")[0].strip() or "=" not in text:
            raise InvalidRequestError(f"{text[:100]!r} is not a tag.", remedy="Write key=value.", field="tag")
    return dict(text.split("=", 1) for text in texts or ())


class Operation(APIRoute):
    """A route that names the scope it needs; see ``access.needs``.

    The caller is authenticated, and its tenant and scope are checked, before anything else of the request is read.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint if inspect.iscoroutinefunction(endpoint) else _on_a_thread(endpoint), **options)
        described = self.openapi_extra or {}
        if not self.operation_id or "x-scope" not in described:
            raise TypeError(f"The operation at {path} names no operation_id, or no scope: give openapi_extra=needs(…).")
        self._scope = Scope(described["x-scope"])
        self._moves_pointer = "x-moves-pointer" in described
        self._receives_file = "requestBody" in described
        self._answers_secret = "x-answer-is-secret" in described
        self._reads_form = self.body_field is not None and isinstance(self.body_field.field_info, params.Form)

    def get_route_handler(self) -> Handler:
        """Called by FastAPI once a route."""
        handle = super().get_route_handler()

        async def serve(request: Request) -> Response:
            try:
                return await serve_open(request)
            finally:
                await request.close()  # the file of a form

        async def serve_open(request: Request) -> Response:
            asked_at = time.monotonic()
            db = remembered_caller(request)
            if db is None:
                db = await run_in_threadpool(caller, request)
            request.state.db = db
            if self._moves_pointer:
                names = request.path_params
                await run_in_threadpool(require_move, db, TenantId(names["tenant"]), names["environment"])
            else:
                db.principal.require(self._scope)
            body = b""
            if request.method in _WITH_BODY and not self._receives_file:
                body = await self._read(request)
                # The key may have been revoked while the body arrived. For an operation that makes a key, the registry
                # is asked in any case: a key that is still remembered would leave one that works for good.
                is_late = time.monotonic() - asked_at > REMEMBERED_S
                if self._reads_form or self._answers_secret or is_late:
                    request.state.db = db = await run_in_threadpool(caller, request)
            if self._reads_form:
                async with request.app.state.services.file_work.of(request.path_params["tenant"]):
                    return await answer(request, db, body)
            return await answer(request, db, body)

        async def answer(request: Request, db: DatabaseConnection, body: bytes) -> Response:
            key = request.headers.get("idempotency-key")
            if key is None or request.method == "GET" or db.principal.changes_nothing:
                return await handle(request)
            return await self._once(key, request, body, handle)

        return serve

    async def _read(self, request: Request) -> bytes:
        """The body: JSON, or of a form, whose file is kept with the request, the digest."""
        if not self._reads_form:
            return await read_json(request)
        largest = request.app.state.services.db.settings.api.max_upload_bytes
        hashed = HashedBody(request)
        await read_form(request, min(largest, MAX_UNPACKED_BYTES))
        return hashed.digest.encode()

    async def _once(self, key: str, request: Request, body: bytes, handle: Handler) -> Response:
        """Serve a request that may be repeated: the first is executed, the others get its answer.

        What failed on the platform's side, for want of room or on the way may be tried again, and so may an upload that
        was refused. Any other refusal is an answer like any other. A secret is not kept, so it is not answered twice.
        Nor is a request that is cancelled at its deadline executed again: what a thread had begun may be done.
        """
        known = IdempotencyRepository(request.state.db, request.path_params.get("tenant"))
        stored = await run_in_threadpool(known.begin, key, _digest(request, body))
        if stored is not None:
            return await self._repeated(stored, key, request)
        uploaded = HashedBody(request) if self._receives_file else None
        try:
            async with _beating(known, key):
                response = await handle(request)
        except MLFrameworkError as error:
            code = status_of(error)
            if uploaded or code in _TRIED_AGAIN or code >= status.HTTP_500_INTERNAL_SERVER_ERROR:
                await _to_its_end(known.release, key)
                raise
            response = on_error(request, error)
        except asyncio.CancelledError:
            await _to_its_end(known.finish, key, status.HTTP_504_GATEWAY_TIMEOUT, None)
            raise
        except Exception:
            await _to_its_end(known.release, key)
            raise
        headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
        if uploaded:
            headers[_BODY_DIGEST] = uploaded.digest
        kept = response
        if self._answers_secret and response.status_code < status.HTTP_400_BAD_REQUEST:
            kept = on_error(request, _secret_not_kept(key, request, orjson.loads(response.body)["key_id"]))
        await _to_its_end(known.finish, key, kept.status_code, bytes(kept.body), headers)
        return response

    async def _repeated(self, stored: Stored, key: str, request: Request) -> Response:
        headers = dict(stored.headers)
        digest = headers.pop(_BODY_DIGEST, None)
        largest = request.app.state.services.db.settings.api.max_upload_bytes
        if digest is not None and digest != await digest_of_body(request, largest):
            raise other_request(key)
        return Response(stored.body, stored.status, {**headers, "idempotency-replayed": "true"})


@asynccontextmanager
async def _beating(known: IdempotencyRepository, key: str) -> AsyncIterator[None]:
    """Keep the claim of a key alive, so that no repeated request takes it over while this one runs."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(BEAT_EVERY_S)
            try:
                await asyncio.get_running_loop().run_in_executor(_BEATS, known.beat, key)
            except Exception as error:  # noqa: BLE001 - the next one may succeed
                logger.warning("The idempotency key of a running request can't be renewed: %s", error)

    beats = asyncio.create_task(beat())
    try:
        yield
    finally:
        beats.cancel()


async def _to_its_end(work: Callable[..., None], *args: Any) -> None:
    """Do the work in a thread even if the deadline of the request is over: else its key is claimed for minutes."""
    with anyio.CancelScope(shield=True):
        await run_in_threadpool(work, *args)


def _secret_not_kept(key: str, request: Request, created: str) -> IdempotencyConflictError:
    """What a repeated request for a new key is answered."""
    tenant = request.path_params.get("tenant")
    names = {"key_id": created} if tenant is None else {"tenant": tenant, "key_id": created}
    return IdempotencyConflictError(
        f"The first request with the idempotency key {key!r} created the key {created}; its secret was not kept.",
        remedy="If its answer was lost, revoke the key and create another.",
        action=Action("platform_keys.revoke" if tenant is None else "keys.revoke", names),
        key=key,
        details={"key_id": created},
    )


def _on_a_thread(endpoint: Callable[..., T]) -> Callable[..., Coroutine[Any, Any, T]]:
    """An endpoint that runs on a thread. FastAPI would take one more to validate what it returns."""

    @functools.wraps(endpoint)
    async def run(**arguments: Any) -> T:
        return await run_in_threadpool(endpoint, **arguments)

    return run


def _digest(request: Request, body: bytes) -> str:
    """sha256 of what a request asks for, without the bytes of a file, which are not read yet."""
    said = [request.headers.get(name, "") for name in _SAYING_HEADERS]
    parts = (request.method, request.url.path, request.url.query, *said)
    return hashlib.sha256(orjson.dumps(parts) + body).hexdigest()


def operations(noun: str, prefix: str = "") -> APIRouter:
    """A router of one noun's operations."""
    return APIRouter(prefix=f"/v1{prefix}", tags=[noun], route_class=Operation)
