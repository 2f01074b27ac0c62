"""Streams of events: what has changed of a tenant, or of the platform, told as it happens (server-sent events).

One task of the process looks for changes while any stream is open, and tells all of them; a stream holds no thread and
no session of the database. An event says that something changed, not what: whoever gets it reads again. So events that
a slow client has not read yet become one, and a stream never needs more memory than its topics.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import MLFrameworkError, QueueFullError, RegistryUnavailableError
from ml_core.ids import TenantId
from ml_core.inference.gate import TenantGate
from ml_core.registry.changes import ChangeReader, Look
from ml_core.registry.replicas import reported_states

logger = logging.getLogger(__name__)

MAX_STREAMS: Final = 256
"""Of a process, each of which takes about 40 kB, and all of them 2 % of a core while nothing changes. They count as
requests in flight, of which there may be twice as many. Beyond them a further one takes the place of one of the tenant
that has most, if that has two more; whoever listened there may come again."""
MAX_OF_TENANT: Final = 32
"""Of a tenant; also of the platform's own."""
KEEP_ALIVE_S: Final = 5.0
"""Between two comments on a stream that has nothing to tell; the ingress cuts one that is silent for ten seconds."""
LIFE_S: Final = 600.0
"""Of a stream, at most: an ingress that was replaced runs as long as its connections."""
_LOOK_EVERY_S: Final = 0.25
_CHECK_EVERY_S: Final = 2.0
# The largest share of time for looks and checks.
_SHARE: Final = 0.2
_RETRY_MS: Final = 2_000
# Of whoever is refused: places are free when somebody leaves, after ``LIFE_S`` at most.
_REFUSED_S: Final = 30
CELLS: Final = "cells"
"""The topic of what replicas serve, which only the platform's own streams have."""


class Stream:
    """An open stream.

    Args:
        tenant_id: Whose changes it tells; None: those of the platform.
        after: The id of the last event that its client has seen; None: it has seen none.
        check: Raises if its caller may not listen any more; called on a thread.
    """

    def __init__(self, tenant_id: TenantId | None, after: int | None, check: Callable[[], object]) -> None:
        self.tenant_id = tenant_id
        self.check = check
        self.is_over = False
        self._after = after
        self._position = 0
        self._topics: set[str] = set()
        # Not all that were opened together end together.
        self.ends_at = time.monotonic() + LIFE_S * random.uniform(0.8, 1.0)  # noqa: S311 - no secret
        self._woken = asyncio.Event()

    def tell(self, position: int, topics: set[str]) -> None:
        """Add what changed; all before the position was told."""
        self._position = max(self._position, position)
        if topics:
            self._topics |= topics
            self._woken.set()

    def end(self) -> None:
        """End the stream."""
        self.is_over = True
        self._woken.set()

    async def events(self) -> AsyncIterator[bytes]:
        """What is sent, until it ends."""
        # What was missed comes with the next event, and is missed again by whoever has seen this one only.
        has_missed = self._after is not None and bool(self._topics)
        yield b"retry: %d\n%b" % (_RETRY_MS, _event(self._after if has_missed else self._position, "listening", {}))
        while not self.is_over and time.monotonic() < self.ends_at:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), KEEP_ALIVE_S)
            self._woken.clear()
            if self._topics and not self.is_over:
                topics, self._topics = self._topics, set()
                yield _event(self._position, "changed", {"topics": sorted(topics)})
            else:
                yield b": keep-alive\n\n"


def _event(position: int | None, name: str, data: dict[str, object]) -> bytes:
    return f"id: {position}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


class Events:
    """The open streams of a process.

    Args:
        db: The registry.
    """

    def __init__(self, db: DatabaseConnection) -> None:
        self._db = db
        self._changes = ChangeReader(db)
        self._gate = TenantGate("event streams", total=MAX_STREAMS, per_tenant=MAX_OF_TENANT)
        self._streams: set[Stream] = set()
        self._following: asyncio.Task[None] | None = None
        self._began = asyncio.Event()

    @asynccontextmanager
    async def stream(
        self, tenant_id: TenantId | None, after: int | None, check: Callable[[], object]
    ) -> AsyncIterator[Stream]:
        """A stream that is open while the block runs.

        Args:
            tenant_id: As for ``Stream``.
            after: As for ``Stream``.
            check: As for ``Stream``.

        Raises:
            QueueFullError: There are too many, of the tenant or in all.
            RegistryUnavailableError: The registry is away.
        """
        self._make_room(tenant_id or "")
        stream = Stream(tenant_id, after, check)
        self._streams.add(stream)
        try:
            if self._following is None:
                self._began.clear()
                self._following = asyncio.create_task(self._follow())
            # What is committed after the first look is told; what was before it is missed, or was seen.
            await self._began.wait()
            position, missed = await run_in_threadpool(self._changes.missed, tenant_id, after)
            if tenant_id is None and after is not None:
                missed.add(CELLS)  # of which nobody remembers what a client has seen
            stream.tell(position, missed)
            yield stream
        finally:
            self._leave(stream)

    def _make_room(self, tenant: str) -> None:
        """Enter the gate, in the place of another tenant's stream if there is no other."""
        try:
            self._gate.enter(tenant)
        except QueueFullError as error:
            mine = self._gate.of(tenant)
            others = [each for each in self._streams if self._gate.of(each.tenant_id or "") > mine + 1]
            if mine >= MAX_OF_TENANT or not others:
                error.__dict__.update(retry_after_s=_REFUSED_S)
                raise
            ended = max(others, key=lambda each: (self._gate.of(each.tenant_id or ""), -each.ends_at))
            ended.end()
            self._leave(ended)
            self._gate.enter(tenant)

    def _leave(self, stream: Stream) -> None:
        if stream in self._streams:  # another one may have its place already
            self._streams.remove(stream)
            self._gate.leave(stream.tenant_id or "")

    async def _follow(self) -> None:
        """Look and tell while there are streams. If that fails they end: whoever opens another is told why."""
        look: Look | None = None
        cells: Sequence[object] | None = None  # not known
        next_check = time.monotonic() + _CHECK_EVERY_S
        try:
            while self._streams:
                began = time.monotonic()
                if began >= next_check:
                    await self._check()
                    next_check = time.monotonic() + max(_CHECK_EVERY_S, (time.monotonic() - began) / _SHARE)
                began = time.monotonic()
                look = await run_in_threadpool(self._changes.look, look)
                before, cells = cells, await self._cells()
                self._tell(look, has_moved=cells is not None and cells != before)
                self._began.set()
                await asyncio.sleep(max(_LOOK_EVERY_S, (time.monotonic() - began) / _SHARE))
        except MLFrameworkError as error:
            logger.warning("The streams of events end: %s", error)
        except Exception:
            logger.exception("The streams of events end.")
        finally:
            self._following = None
            self._began.set()
            for stream in self._streams:
                stream.end()

    async def _cells(self) -> Sequence[object] | None:
        if any(stream.tenant_id is None for stream in self._streams):
            return await run_in_threadpool(reported_states, self._db)
        return None

    def _tell(self, look: Look, *, has_moved: bool) -> None:
        of_all = set().union(*look.changed.values()) | ({CELLS} if has_moved else set())
        for stream in self._streams:
            topics = of_all if stream.tenant_id is None else look.changed.get(stream.tenant_id, set())
            stream.tell(look.position, topics)

    async def _check(self) -> None:
        """End the streams whose callers may not listen any more."""
        for stream in await run_in_threadpool(_refused, list(self._streams)):
            stream.end()


def _refused(streams: Sequence[Stream]) -> Sequence[Stream]:
    found = []
    for stream in streams:
        try:
            stream.check()
        except RegistryUnavailableError:
            raise  # which each would wait for in vain
        except MLFrameworkError:
            found.append(stream)
    return found


class EventStream(Response):
    """Sends a stream until it ends, or its client leaves.

    Args:
        events: The streams of the process.
        tenant_id: As for ``Stream``.
        after: As for ``Stream``.
        check: As for ``Stream``.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: Events, tenant_id: TenantId | None, after: int | None, check: Callable[[], object]
    ) -> None:
        self._open = partial(events.stream, tenant_id, after, check)
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Serve one ASGI connection."""
        async with self._open() as stream, anyio.create_task_group() as tasks:
            # What is sent to a client that reads nothing waits for ever.
            tasks.cancel_scope.deadline = anyio.current_time() + LIFE_S + 2 * KEEP_ALIVE_S
            tasks.start_soon(_until_left, receive, tasks.cancel_scope)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for event in stream.events():
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            tasks.cancel_scope.cancel()


async def _until_left(receive: Receive, running: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    running.cancel()
