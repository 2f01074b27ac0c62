"""The ASGI application of the prediction plane: routes, authentication, deadlines and error responses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from starlette.types import Receive, Scope, Send

from ml_core.domain.api_key import Scope as KeyScope
from ml_core.exceptions import DeadlineExceededError, RequestTimeoutError
from ml_core.inference.edge.grpc import GrpcRoutes
from ml_core.inference.edge.grpc_headers import SERVICE
from ml_core.inference.edge.http import (
    ClientLeftError,
    HttpRequest,
    HttpResponse,
    decompress,
    error_response,
    plain_error,
)
from ml_core.inference.edge.protocol import ProtocolRoutes
from ml_core.inference.edge.routes import PlatformRoutes
from ml_core.inference.gate import TenantGate
from ml_core.inference.service import PredictionService
from ml_core.inference.turns import Turns

MAX_IN_FLIGHT = 512
"""Concurrent requests of all tenants that are being answered; more are refused with 429."""
MAX_READING = 512
"""Concurrent requests of all tenants whose bodies are being read; more are refused with 429."""
TENANT_SHARE = 4
"""One tenant of several may use this fraction (1/4) of each limit."""
BODY_WITHIN_S = 5.0
"""Limit for receiving a body, if the deadline of the request is not sooner. The largest permitted body then needs 14
Mbit/s."""
LOOK_AFTER_S = 0.05
"""Seconds between two looks at the requests in progress. One that was answered before a look costs no timer."""

CLIENT_LEFT = 499
"""The status that hooks get for a request whose client disconnected, as nginx logs it. It is never sent."""

Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]

_PREDICT = (KeyScope.PREDICT,)
_LABEL = (KeyScope.LABEL,)
# Whoever may predict may see what a model takes. `read` shows far more: all data of the tenant.
_EITHER = (KeyScope.READ, KeyScope.PREDICT)


class Route(NamedTuple):
    """A route. With scopes, the caller needs a key or token for the tenant in the path that has one of them.

    The body of a POST is read before the handler is called. Other methods have no body.
    """

    method: str
    path: str
    handler: Handler
    scopes: tuple[KeyScope, ...] = ()


def routes_of(service: PredictionService) -> list[Route]:
    """The routes of the prediction plane."""
    own, protocol = PlatformRoutes(service), ProtocolRoutes(service)
    grpc = GrpcRoutes(service, protocol)
    tenant = "/t/{tenant}"
    model = f"{tenant}/v2/models/{{model}}"
    version = f"{model}/versions/{{version}}"
    return [
        Route("POST", f"{tenant}/models/{{model}}/predict", own.predict, _PREDICT),
        Route("POST", f"{tenant}/models/{{model}}/explain", own.explain, _PREDICT),
        Route("POST", f"{tenant}/models/{{model}}/feedback", own.feedback, _LABEL),
        Route("GET", f"{tenant}/v2", protocol.server, _EITHER),
        Route("GET", f"{tenant}/v2/health/live", protocol.live, _EITHER),
        Route("GET", f"{tenant}/v2/health/ready", protocol.ready, _EITHER),
        *(
            route
            for path in (model, version)
            for route in (
                Route("GET", path, protocol.model, _EITHER),
                Route("GET", f"{path}/config", protocol.config, _EITHER),
                Route("GET", f"{path}/ready", protocol.model_ready, _EITHER),
                Route("POST", f"{path}/infer", protocol.infer, _PREDICT),
            )
        ),
        # The last is compared last.
        *(
            Route("POST", f"{tenant}/{SERVICE}/{method}", handler, scopes)
            for method, handler, scopes in (
                ("ModelInfer", grpc.model_infer, _PREDICT),
                ("ModelReady", grpc.model_ready, _EITHER),
                ("ModelMetadata", grpc.model_metadata, _EITHER),
                ("ModelConfig", grpc.model_config, _EITHER),
                ("ServerLive", grpc.server_live, _EITHER),
                ("ServerReady", grpc.server_ready, _EITHER),
                ("ServerMetadata", grpc.server_metadata, _EITHER),
                ("{method}", grpc.unknown, _EITHER),
            )
        ),
        Route("GET", "/healthz", own.healthz),
        Route("GET", "/readyz", own.readyz),
    ]


def build_app(service: PredictionService, *, tenant_share: int = TENANT_SHARE) -> EdgeApp:
    """Build the application of a service.

    Args:
        service: The prediction service.
        tenant_share: The divisor of the limits for one tenant.
    """
    return EdgeApp(service, routes_of(service), tenant_share=tenant_share)


class EdgeApp:
    """Plain ASGI over a ``PredictionService``; see ``build_app``."""

    def __init__(
        self,
        service: PredictionService,
        routes: list[Route],
        *,
        tenant_share: int = TENANT_SHARE,
    ) -> None:
        self._service = service
        self._hooks = service.hooks
        self._max_bytes = service.limits.max_body_bytes
        self._reading = TenantGate("requests being read", total=MAX_READING, per_tenant=MAX_READING // tenant_share)
        bounds = TenantGate("requests", total=MAX_IN_FLIGHT, per_tenant=MAX_IN_FLIGHT // tenant_share)
        self._answering = Turns(bounds, service.loop_shares)
        self._watches = RequestWatches()
        # By number of path segments, so that a request is compared with a few templates only.
        self._by_length: dict[int, list[tuple[tuple[str, ...], dict[str, Route]]]] = {}
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        parts = tuple(route.path.split("/")[1:])
        candidates = self._by_length.setdefault(len(parts), [])
        methods = next((methods for known, methods in candidates if known == parts), None)
        if methods is None:
            methods = {}
            candidates.append((parts, methods))
        methods[route.method] = route
        if route.method == "GET":
            methods["HEAD"] = route  # the server omits the body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1003})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request = HttpRequest(scope, receive)
        try:
            response = await self._respond(request, scope["method"])
        except ClientLeftError:
            self._hooks.request_ended(request.route, CLIENT_LEFT, time.perf_counter() - started, request.caller)
            return
        except Exception as error:  # noqa: BLE001 - error_response logs it and answers 500
            response = error_response(error, request.path, request.request_id)
        await response.send(send, request.request_id.encode())
        self._hooks.request_ended(request.route, response.status, time.perf_counter() - started, request.caller)

    async def _respond(self, request: HttpRequest, method: str) -> HttpResponse:
        request.check_headers()
        methods = self._match(request, request.path.split("/")[1:])
        if methods is None:
            message = "The path does not exist. The console is at /console, and /api/docs lists the operations."
            return plain_error(404, "not_found", message, request.path, request.request_id)
        route = methods.get(method)
        request.route = next(iter(methods.values())).path if route is None else route.path
        if route is None:
            allow = {b"allow": ", ".join(sorted(methods)).encode()}
            message = f"The path supports {' and '.join(sorted(methods))}."
            return plain_error(405, "method_not_allowed", message, request.path, request.request_id, headers=allow)
        if not route.scopes:
            return await route.handler(request)
        timeout_ms = request.timeout_ms(self._service.limits)
        within_s = timeout_ms / 1000
        await self._service.authorize(request.authorization, request.tenant, *route.scopes, within_s=within_s)
        request.caller = request.tenant
        self._service.quotas.take_request(request.tenant)
        return await self._within_deadline(request, route, timeout_ms)

    async def _within_deadline(self, request: HttpRequest, route: Route, timeout_ms: int) -> HttpResponse:
        # The deadline starts after authentication, which may wait for the issuer within the same limit.
        has_body = route.method == "POST"
        now = request.arrived = asyncio.get_running_loop().time()
        request.deadline = request.body_deadline = now + timeout_ms / 1000
        if has_body and timeout_ms > BODY_WITHIN_S * 1000:
            request.body_deadline = now + BODY_WITHIN_S
        self._watches.begin(request)
        try:
            if has_body:
                self._reading.enter(request.tenant)
                try:
                    await request.read(self._max_bytes)
                    if request.encoding is not None:
                        request.body = await self._service.on_thread(
                            request.tenant, decompress, request.body, request.encoding, self._max_bytes
                        )
                finally:
                    self._reading.leave(request.tenant)
            waiting = self._answering.enter(request.tenant, len(request.body))
            try:
                if waiting is not None:
                    await waiting
                request.is_only = self._answering.is_only(request.tenant)
                return await route.handler(request)
            finally:
                self._answering.leave(request.tenant)
        except asyncio.CancelledError:
            watch = self._watches.long.get(request)
            if watch is None or not watch.ended_it():
                raise
            if watch.is_client_gone:
                raise ClientLeftError from None
            if has_body and not request.is_read:
                raise _body_too_late(timeout_ms) from None
            raise DeadlineExceededError(
                f"The request was not answered within {timeout_ms} ms.",
                remedy="Raise x-request-timeout-ms, or send fewer rows per request.",
                deadline_ms=timeout_ms,
            ) from None
        finally:
            self._watches.end(request)

    def _match(self, request: HttpRequest, parts: list[str]) -> dict[str, Route] | None:
        for template, methods in self._by_length.get(len(parts), ()):
            found: dict[str, str] = {}
            for wanted, part in zip(template, parts, strict=True):
                if wanted[:1] == "{":
                    found[wanted] = part
                elif wanted != part:
                    break
            else:
                request.tenant = found.get("{tenant}", "")
                request.model = found.get("{model}", "")
                request.version = found.get("{version}")
                return methods
        return None


class RequestWatches:
    """Gives each request that takes long a ``RequestWatch``. For one event loop.

    One timer serves all requests: at each look, those that began since the look before get their watch.

    Attributes:
        long: The watched requests.
    """

    # A watch for each request from its beginning costs as much as reading its columns; asyncio.timeout_at costs more.

    def __init__(self) -> None:
        self.long: dict[HttpRequest, RequestWatch] = {}
        self._new: dict[HttpRequest, asyncio.Task[Any] | None] = {}
        self._looking_on: asyncio.AbstractEventLoop | None = None

    def begin(self, request: HttpRequest) -> None:
        """Begin with a request, whose times are set; the current task answers it."""
        task = asyncio.current_task()
        if request.deadline - request.arrived <= LOOK_AFTER_S:
            self.long[request] = RequestWatch(request, task)
            return
        self._new[request] = task
        loop = asyncio.get_running_loop()
        if self._looking_on is not loop:
            self._looking_on = loop
            loop.call_later(LOOK_AFTER_S, self._look, loop)

    def end(self, request: HttpRequest) -> None:
        """End with a request, which was answered."""
        if request in self._new:
            del self._new[request]
        else:
            self.long.pop(request).stop()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        new, self._new = self._new, {}
        self.long |= {request: RequestWatch(request, task) for request, task in new.items()}
        if new:
            loop.call_later(LOOK_AFTER_S, self._look, loop)
        else:
            self._looking_on = None


class RequestWatch:
    """Cancels a task at the deadline of its request or the request's body, or when the client disconnects."""

    __slots__ = ("_loop", "_request", "_task", "_timer", "_waiting_to_leave", "is_client_gone", "is_over")

    def __init__(self, request: HttpRequest, task: asyncio.Task[Any] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._request = request
        self._task = task
        self._waiting_to_leave: asyncio.Task[None] | None = None
        self.is_client_gone = False
        self.is_over = False
        self._timer = self._loop.call_at(min(request.deadline, self._loop.time() + LOOK_AFTER_S), self._look)

    def ended_it(self) -> bool:
        """Whether this watch, and not the server, cancelled the task."""
        return self.is_over and self._task is not None and self._task.uncancel() == 0

    def stop(self) -> None:
        """Stop watching; call it when the request was answered."""
        self._timer.cancel()
        if self._waiting_to_leave is not None:
            self._waiting_to_leave.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if now >= self._request.deadline or (now >= self._request.body_deadline and not self._request.is_read):
            self._end()
            return
        # Only after the body was read: its reader notices a disconnect, and two readers would take each other's data.
        if self._waiting_to_leave is None and self._request.is_read:
            self._waiting_to_leave = self._loop.create_task(self._request.client_left())
            self._waiting_to_leave.add_done_callback(self._client_left)
        is_watched = self._waiting_to_leave is not None
        self._timer = self._loop.call_at(
            self._request.deadline if is_watched else min(self._request.deadline, now + LOOK_AFTER_S), self._look
        )

    def _client_left(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None and not self.is_over:
            self.is_client_gone = True
            self._end()

    def _end(self) -> None:
        self.is_over = True
        if self._task is not None:
            self._task.cancel()


def _body_too_late(timeout_ms: int) -> RequestTimeoutError:
    within_ms = min(timeout_ms, int(BODY_WITHIN_S * 1000))
    return RequestTimeoutError(
        f"The body was not received within {within_ms} ms.",
        remedy="Send fewer rows per request.",
        deadline_ms=within_ms,
    )


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
