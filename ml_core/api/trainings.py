"""Where the trainings that the control API starts are done: in a process each, or in this one."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable
from typing import Any, Protocol

import orjson

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.training_report import TrainingReport
from ml_core.exceptions import QueueFullError, TrainingError, error_from_json
from ml_core.training.worker import Assignment

_WAITING = 32
"""Trainings that wait for their turn at most; each is a request that is answered late."""
_RETRY_AFTER_S = 30
_MAX_EVENT_BYTES = 16 * 2**20  # a report of a table with very many columns


class Training:
    """A training that was accepted.

    Attributes:
        started: The run's id, once the training was checked and has begun; raises what was wrong with it.
        finished: The report, once there is a version; raises why there is none.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[str] = loop.create_future()
        self.finished: asyncio.Future[TrainingReport] = loop.create_future()

    def begin(self, run_id: str) -> None:
        """The training begins."""
        self.started.set_result(run_id)

    def end(self, result: TrainingReport | BaseException) -> None:
        """The training ends, with a report or an error."""
        if isinstance(result, TrainingReport):
            self.finished.set_result(result)
            return
        if not self.started.done():
            self.started.set_exception(result)
        self.finished.set_exception(result)
        self.finished.exception()  # nobody may be waiting for it any more; the run has it


class Trainings(Protocol):
    """Does trainings."""

    def start(self, assignment: Assignment) -> Training:
        """Accept a training.

        Raises:
            QueueFullError: Too many wait.
        """
        ...


class TrainingsInProcesses:
    """Does each training in a process of its own, which gives way to replicas and requests.

    Args:
        at_once: Trainings that are done at the same time; others wait for their turn.
    """

    def __init__(self, at_once: int) -> None:
        self._turn = asyncio.Semaphore(at_once)
        self._most = at_once + _WAITING
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, assignment: Assignment) -> Training:
        """See ``Trainings``."""
        if len(self._tasks) >= self._most:
            raise QueueFullError(
                f"{len(self._tasks)} trainings are being done or wait for their turn.",
                remedy="Try again later.",
                model_id=str(assignment.model_id),
                retry_after_s=_RETRY_AFTER_S,
            )
        training = Training()
        task = asyncio.create_task(self._do(assignment, training))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return training

    async def _do(self, assignment: Assignment, training: Training) -> None:
        try:
            async with self._turn:
                await self._follow(assignment, training)
        except Exception as error:  # noqa: BLE001 - whoever waits must learn of it, whatever it is
            training.end(error)

    async def _follow(self, assignment: Assignment, training: Training) -> None:
        """Run the process and pass on what it tells."""
        pipe = asyncio.subprocess.PIPE
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ml_core.training.worker", stdin=pipe, stdout=pipe, limit=_MAX_EVENT_BYTES
        )
        assert worker.stdin is not None and worker.stdout is not None  # noqa: S101, PT018 - both are pipes
        try:
            worker.stdin.write(orjson.dumps(assignment.to_json()))
            worker.stdin.close()
            async for line in worker.stdout:
                event: dict[str, Any] = orjson.loads(line)
                if "run_id" in event:
                    training.begin(event["run_id"])
                elif "report" in event:
                    training.end(TrainingReport.from_json(event["report"]))
                else:
                    training.end(error_from_json(event["error"]))
            await worker.wait()
        finally:
            if worker.returncode is None:  # this process ends, or the line could not be read
                worker.kill()
                await worker.wait()
        if not training.finished.done():
            training.end(
                TrainingError(
                    f"The training's process ended with status {worker.returncode} before it was done.",
                    remedy="It may have run out of memory; see the server's log.",
                    stage="fit",
                    model_id=str(assignment.model_id),
                )
            )


class TrainingsInThreads:
    """Does each training in a thread of this process: for a command that does one and ends.

    Args:
        db: The registry.
    """

    def __init__(self, db: DatabaseConnection) -> None:
        self._db = db

    def start(self, assignment: Assignment) -> Training:
        """See ``Trainings``."""
        training, loop = Training(), asyncio.get_running_loop()

        def begin(run_id: str) -> None:
            loop.call_soon_threadsafe(training.begin, run_id)

        def do() -> None:
            result: TrainingReport | BaseException
            try:
                result = assignment.execute(self._db, begin)
            except BaseException as error:  # noqa: BLE001 - it is raised where the training is waited for
                result = error
            loop.call_soon_threadsafe(training.end, result)

        # A daemon, so that the command ends at once when it is interrupted.
        threading.Thread(target=do, name="training", daemon=True).start()
        return training


async def within(wait_s: float, result: Awaitable[Any]) -> bool:
    """Wait for a result, at most so many seconds; whether it is there. Raises what the result does."""
    try:
        async with asyncio.timeout(wait_s):
            await asyncio.shield(result)
    except TimeoutError:
        return False
    return True
