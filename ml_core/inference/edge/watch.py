"""The end of a request that takes too long: a deadline, or its client's leaving, whichever comes first."""

from __future__ import annotations

import asyncio

from ml_core.inference.edge.http import HttpRequest

LOOK_AFTER_S = 0.05
"""A request that is answered sooner costs one timer and no task: whether its client is still there makes no odds."""


class RequestWatch:
    """Cancels the current task at the request's deadline or its body's, or when one that waits has lost its client.

    ``asyncio.timeout_at`` does the first part for several times the price, which small answers feel.
    """

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
        """Whether a cancellation that arrived is this one's alone, and not also the server's."""
        return self.is_over and self._task is not None and self._task.uncancel() == 0

    def stop(self) -> None:
        """The request was answered."""
        self._timer.cancel()
        if self._waiting_to_leave is not None:
            self._waiting_to_leave.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if now >= self._request.deadline or (now >= self._request.body_deadline and not self._request.is_read):
            self._end()
            return
        # While the body is being read its reader notices; two readers would take each other's messages.
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
