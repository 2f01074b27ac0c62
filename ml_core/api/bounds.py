"""Bounds of one process of the control API: requests at a time, and the time until an answer begins.

Bodies are bounded in ``bodies``. Threads are bounded by whoever runs the process; see ``deployments.control_api``.
"""

from __future__ import annotations

import math
import re

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml_core.exceptions import DeadlineExceededError
from ml_core.inference.edge.http import HttpRequest, error_response
from ml_core.inference.gate import TenantGate
from ml_core.settings import ServingSettings

DEADLINES = ServingSettings(default_timeout_ms=60_000, max_timeout_ms=3_600_000)
"""Longer than those of predictions: a gate may read a large held-out dataset, and deleting a tenant removes each of its
files."""
MAX_IN_FLIGHT = 512
"""Requests of all tenants, those that wait for a thread included."""
_TENANT_SHARE = 2
"""One tenant may have this fraction of them."""
_TENANT = re.compile(r"/v1/tenants/([^/]+)")


class Bounds:
    """ASGI middleware: refuses what is over a bound, and answers each request by its deadline.

    The deadline is counted from the last byte of the request's body, as HAProxy counts it. Work that a thread has begun
    goes on to its end, so that nothing is left half done; work that still waits for a thread is dropped.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._gate = TenantGate("requests", total=MAX_IN_FLIGHT, per_tenant=MAX_IN_FLIGHT // _TENANT_SHARE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        named = _TENANT.search(scope["path"])
        tenant = named[1] if named else ""
        has_started = False

        async def send_and_note(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            request = HttpRequest(scope, receive)
            request.check_headers()
            timeout_s = request.timeout_ms(DEADLINES) / 1000
            self._gate.enter(tenant)
            try:
                await _within(timeout_s, self._app, scope, receive, send_and_note)
            finally:
                self._gate.leave(tenant)
        except ClientDisconnect:
            return
        except Exception as error:
            if has_started:
                raise
            # ``app.RequestIds`` adds the id.
            await error_response(error, scope["path"], scope["state"]["request_id"]).send(send, None)


async def _within(timeout_s: float, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run an application until its answer is sent; the answer has to begin in time.

    Raises:
        DeadlineExceededError: It did not.
    """
    # anyio's and not asyncio's: it does not abandon a thread that runs.
    limit = anyio.CancelScope(deadline=anyio.current_time() + timeout_s)
    is_read = has_begun = False

    async def receive_untimed() -> Message:
        nonlocal is_read
        if is_read:  # whoever asks now waits for the client to leave
            return await receive()
        limit.deadline = math.inf  # bodies have bounds of their own
        message = await receive()
        is_read = not message.get("more_body", False)
        if not has_begun:  # else an empty body is read while a stream is sent
            limit.deadline = anyio.current_time() + timeout_s
        return message

    async def send_untimed(message: Message) -> None:
        nonlocal has_begun
        has_begun, limit.deadline = True, math.inf
        await send(message)

    with limit:
        await app(scope, receive_untimed, send_untimed)
    if limit.cancelled_caught:
        raise DeadlineExceededError(
            f"There was no answer within {timeout_s:g} s.",
            remedy="Allow more in x-request-timeout-ms, or ask again when the platform is less busy.",
            deadline_ms=round(timeout_s * 1000),
        )
