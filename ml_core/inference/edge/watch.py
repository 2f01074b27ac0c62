"""Cancellation of requests at their deadline or when the client disconnects."""

from __future__ import annotations

import asyncio

from ml_core.inference.edge.http import HttpRequest

LOOK_AFTER_S = 0.05
"""Time after which the connection of a request is watched. A request that is answered sooner costs one timer only."""


class RequestWatch:
    """Cancels the current task at the deadline of the request or its body, or when the client disconnects."""

    # asyncio.timeout_at, for the deadline alone, costs several times as much per request.

    __slots__ = ("_loop", "_request", "_task", "_timer", "_waiting_to_leave", "is_client_gone", "is_over")

    def __init__(self, request: HttpRequest) -> None:
        self._loop = asyncio.get_running_loop()
        self._request = request
        self._task = asyncio.current_task()
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
