"""Where the trainings that the control API starts are done: in a process each, or in this one."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.training_report import TrainingReport
from ml_core.exceptions import MLFrameworkError, QueueFullError, RequestTimeoutError, TrainingError, error_from_json
from ml_core.ids import TenantId
from ml_core.registry.runs import RunRepository
from ml_core.training.assignment import Assignment

_WAITING = 32
"""Trainings that wait for their turn at most; each is a request that is answered late."""
_TENANT_SHARE = 2
"""One tenant may have this fraction of those that run and wait."""
_RETRY_AFTER_S = 30
_LOOK_EVERY_S = 1.0
"""How often to look whether the caller of a training that has not begun is still there."""
_KEPT = 32
"""Trainings that have ended whose report or error is kept for whoever waits; afterwards the registry has the rest."""
_MAX_EVENT_BYTES = 16 * 2**20  # a report of a table with very many columns


class Training:
    """A training that was accepted.

    Args:
        check: Raises an error if its caller may no longer train; called on a thread.

    Attributes:
        started: Done once the training was checked and its run has begun; raises what was wrong with it.
        finished: The report, once there is a version; raises why there is none. Cancelled with the training.
        check: As given.
        is_cancelled: Whether it is no longer wanted.
    """

    def __init__(self, check: Callable[[], object]) -> None:
        self.check = check
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self.started: asyncio.Future[None] = self._loop.create_future()
        self.finished: asyncio.Future[TrainingReport] = self._loop.create_future()
        self.is_cancelled = False

    def follow(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work in a task, which ``cancel`` cancels."""
        self._task = asyncio.create_task(work)

    def end(self, result: TrainingReport | BaseException) -> None:
        """The training ends, with a report or an error."""
        if self.finished.done():
            return
        if isinstance(result, TrainingReport):
            self.finished.set_result(result)
            return
        if not self.started.done():
            self.started.set_exception(result)
        self.finished.set_exception(result)
        self.finished.exception()  # nobody may be waiting for it any more; the run has it

    def cancel(self) -> None:
        """Stop it, from any thread, and end its run as cancelled."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        self.is_cancelled = True
        self.started.cancel()
        self.finished.cancel()
        if self._task is not None:
            self._task.cancel()


class Trainings(ABC):
    """Does trainings, and knows those that run or ended lately.

    Args:
        db: The registry.
    """

    def __init__(self, db: DatabaseConnection) -> None:
        self._db = db
        self._begun: OrderedDict[tuple[TenantId, str], Training] = OrderedDict()

    def start(self, assignment: Assignment, check: Callable[[], object]) -> Training:
        """Accept a training.

        Args:
            assignment: What to do.
            check: See ``Training``; called when a training that had to wait begins.

        Raises:
            QueueFullError: Too many wait.
        """
        training = Training(check)
        training.follow(self._follow(assignment, training))
        return training

    def find(self, tenant_id: TenantId, run_id: str) -> Training | None:
        """The training of a run; None: another process does it, or it ended long ago."""
        return self._begun.get((tenant_id, run_id))

    @abstractmethod
    async def _do(self, assignment: Assignment, training: Training) -> TrainingReport:
        """Do it; call ``_begin`` once it has begun. Cancelled, it has stopped when this returns."""

    async def _follow(self, assignment: Assignment, training: Training) -> None:
        try:
            training.end(await self._do(assignment, training))
        except Exception as error:  # noqa: BLE001 - whoever waits must learn of it, whatever it is
            training.end(error)
        except asyncio.CancelledError:
            # Its run may have begun without this process having learned of it, so it is ended by the id.
            await run_in_threadpool(self._end_run, assignment, RunRepository.cancel, "It is no longer wanted.")
            raise

    def _begin(self, assignment: Assignment, training: Training) -> None:
        """A training begins; on the event loop."""
        if training.started.done():
            return  # it was cancelled
        self._begun[assignment.tenant_id, assignment.run_id] = training
        ended = [run for run, known in self._begun.items() if known.finished.done()]
        for run in ended[:-_KEPT]:
            del self._begun[run]
        training.started.set_result(None)

    def _end_run(self, assignment: Assignment, end: Callable[[RunRepository, str, str], None], why: str) -> None:
        acting = self._db.acting_as(assignment.principal, assignment.request_id)
        # It has not begun, it was ended meanwhile, or the registry is away: then it counts as dead soon.
        with suppress(MLFrameworkError):
            end(RunRepository(acting, assignment.tenant_id), assignment.run_id, why)


class Turns:
    """So many at a time; whoever else comes waits, and tenants take turns.

    Args:
        at_once: How many.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def of(self, tenant_id: str) -> AsyncIterator[None]:
        """A turn of a tenant."""
        if self._free:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(tenant_id, deque()).append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():  # it came just now
                    self._pass_on()
                raise
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            tenant_id, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[tenant_id] = turns  # behind the other tenants
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class TrainingsInProcesses(Trainings):
    """Does each training in a process of its own, which gives way to replicas and requests.

    A process that is killed fails its run. Each ends with this process, also where that is killed.

    Args:
        db: The registry. ``MLCORE_TRAININGS_AT_ONCE`` of its settings are done at the same time; others wait.
    """

    def __init__(self, db: DatabaseConnection) -> None:
        super().__init__(db)
        self._turns = Turns(db.settings.api.trainings_at_once)
        self._most = db.settings.api.trainings_at_once + _WAITING
        self._accepted: Counter[TenantId] = Counter()

    def start(self, assignment: Assignment, check: Callable[[], object]) -> Training:
        """See ``Trainings``."""
        all_tenants, own = self._accepted.total(), self._accepted[assignment.tenant_id]
        if all_tenants >= self._most or own >= self._most // _TENANT_SHARE:
            raise QueueFullError(
                f"{all_tenants} trainings are being done or wait for their turn, {own} of them this tenant's.",
                remedy="Try again later.",
                model_id=str(assignment.model_id),
                retry_after_s=_RETRY_AFTER_S,
            )
        self._accepted[assignment.tenant_id] += 1
        return super().start(assignment, check)

    async def _do(self, assignment: Assignment, training: Training) -> TrainingReport:
        try:
            async with self._turns.of(assignment.tenant_id):
                await run_in_threadpool(training.check)
                return await self._work(assignment, training)
        finally:
            self._accepted -= Counter([assignment.tenant_id])  # keeps no zeros

    async def _work(self, assignment: Assignment, training: Training) -> TrainingReport:
        """Run the process and pass on what it tells."""
        pipe = asyncio.subprocess.PIPE
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ml_core.training.worker"),
            stdin=pipe,
            stdout=pipe,
            limit=_MAX_EVENT_BYTES,
            env=await run_in_threadpool(self._environment),
        )
        assert worker.stdin is not None and worker.stdout is not None  # noqa: S101, PT018 - both are pipes
        try:
            worker.stdin.write(orjson.dumps(assignment.to_json()) + b"\n")  # not closed: the worker ends with the pipe
            async for line in worker.stdout:
                event: dict[str, Any] = orjson.loads(line)
                if "report" in event:
                    return TrainingReport.from_json(event["report"])
                if "error" in event:
                    raise error_from_json(event["error"])
                self._begin(assignment, training)
            await worker.wait()
        finally:
            await _reap(worker)
        error = TrainingError(
            f"The training's process ended with status {worker.returncode} before it was done.",
            remedy="It may have run out of memory; see the server's log.",
            stage="fit",
            model_id=str(assignment.model_id),
        )
        await run_in_threadpool(self._end_run, assignment, RunRepository.fail, str(error))
        raise error

    def _environment(self) -> dict[str, str]:
        """A worker's: the same registry and home, and no login for migrations."""
        own = {name: value for name, value in os.environ.items() if name != "MLCORE_DATABASE_OWNER_URL"}
        # Threads of OpenMP that spin while they wait take the processor from replicas, and from each other.
        waiting = {"OMP_WAIT_POLICY": "passive"}
        home = str(self._db.settings.platform.home)
        return {**waiting, **own, **self._db.environment, "MLCORE_HOME": home}


async def _reap(worker: asyncio.subprocess.Process) -> None:
    """End a process and close its pipes, also where this is cancelled, as a loop that is being closed does."""
    if worker.returncode is None:
        worker.kill()
    while True:
        with suppress(asyncio.CancelledError):
            await worker.communicate()
            return


class TrainingsInThreads(Trainings):
    """Does each training in a thread of this process: for a command that does one and ends."""

    async def _do(self, assignment: Assignment, training: Training) -> TrainingReport:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[TrainingReport] = loop.create_future()

        def begin() -> None:
            if training.is_cancelled:
                raise KeyboardInterrupt  # so that the run that has just begun ends as cancelled
            loop.call_soon_threadsafe(self._begin, assignment, training)

        def work() -> None:
            result: TrainingReport | BaseException
            try:
                result = assignment.execute(self._db, begin)
            except BaseException as error:  # noqa: BLE001 - it is raised where the training is waited for
                result = error
            with suppress(RuntimeError):  # the loop is closed: the command was interrupted
                loop.call_soon_threadsafe(end, result)

        def end(result: TrainingReport | BaseException) -> None:
            if ended.done():
                return
            if isinstance(result, TrainingReport):
                ended.set_result(result)
            else:
                ended.set_exception(result)

        # A daemon, so that the command ends at once when it is interrupted.
        threading.Thread(target=work, name="training", daemon=True).start()
        return await ended


async def begun(training: Training, is_gone: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a training has begun.

    Args:
        training: The training.
        is_gone: Whether the caller has left.

    Raises:
        MLFrameworkError: What was wrong with the training.
        RequestTimeoutError: The caller has left.
    """
    while not (await asyncio.wait([training.started], timeout=_LOOK_EVERY_S))[0]:
        if await is_gone():
            raise RequestTimeoutError("The client left before the training began.", remedy="Send it again.")
    training.started.result()
