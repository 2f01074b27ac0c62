"""``Dispatcher``: takes jobs from the queue to a runner, and settles those whose process is gone.

It is level-triggered: each turn compares the jobs that hold cores with the processes that the runner has. Any number of
dispatchers may share a queue; each can be killed at any time, and its jobs go on or are taken over by another.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Protocol

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import Attempt
from ml_core.exceptions import AuthenticationError, JobNotFoundError, JobStateError, MLFrameworkError
from ml_core.ids import RunId
from ml_core.jobs.execution import LEASE_S
from ml_core.jobs.revocation import refuse_revoked
from ml_core.jobs.schedules import submit_due
from ml_core.registry.jobs import JobQueue, JobRepository
from ml_core.registry.jobs.queue import Held

_log = logging.getLogger(__name__)

_TURN_S: Final = 0.5
_LARGEST_PAUSE_S: Final = 10.0


class Runner(Protocol):
    """Where attempts have their processes. A process is named by the run of its first attempt.

    It may go on with other jobs of the same batch (``ml_core.jobs.worker``), and then has their runs.
    """

    def start(self, attempt: Attempt, variables: Mapping[str, str]) -> None:
        """Start a process; one that was started for this run already stays the only one.

        Args:
            attempt: What it executes.
            variables: Of its environment, over those of the platform's other processes; secrets.

        Raises:
            MLFrameworkError: It can't be started.
        """

    def seen(self) -> Mapping[RunId, str | None]:
        """The processes that this runner started: name → why it ended, for people; None: it lives."""

    def stop(self, run_id: RunId) -> None:
        """End the process of this name if it lives. It need not be seen afterwards."""


class Dispatcher:
    """Dispatches jobs of all tenants.

    Args:
        db: The registry; its principal belongs to no tenant.
        runner: Where the processes are.
        cpus: Cores that the jobs of this dispatcher may have at once.
        name: Tells dispatchers apart; one that is restarted under its name finds its jobs again.
    """

    def __init__(self, db: DatabaseConnection, runner: Runner, *, cpus: float, name: str) -> None:
        self._db = db
        self._queue = JobQueue(db)
        self._runner = runner
        self._cpus = cpus
        self._name = name

    def run(self, stopped: threading.Event) -> None:
        """Submit what is due and take turns until the event is set. An error ends a turn, and the next one is later."""
        pause = _TURN_S
        while not stopped.wait(pause):
            try:
                submit_due(self._db)
                self.turn()
                pause = _TURN_S
            except MLFrameworkError as error:
                pause = min(2 * pause, _LARGEST_PAUSE_S)
                _log.warning("The dispatcher waits %.1f s: %s", pause, error)
            except Exception:  # noqa: BLE001 - the jobs of all tenants wait for the next turn
                pause = _LARGEST_PAUSE_S
                _log.exception("A turn of the dispatcher failed; the next one is in %.0f s", pause)

    def turn(self) -> None:
        """Settle what has ended, then start what may start.

        Raises:
            RegistryUnavailableError: The registry is away; the processes go on.
        """
        # In this order: a process that is seen has a job that was claimed before, also by another of this name.
        seen = self._runner.seen()
        held = self._queue.held(self._name)
        free = self._cpus
        gone = {each.process for each in held if each.is_lapsed or (each.is_own and seen.get(each.process) is not None)}
        for each in held:
            if each.process in gone:
                self._settle(each, seen.get(each.process))
            else:
                free -= each.cpus
        for process in seen.keys() - {each.process for each in held}:
            self._runner.stop(process)  # its job has ended, or goes on elsewhere
        # A job that was claimed and never started, as by a dispatcher that was killed, is not seen: its lease lapses.
        self._queue.renew([process for process, why in seen.items() if why is None], LEASE_S)
        while free > 0 and (attempt := self._queue.claim(self._name, free, LEASE_S, all_cpus=self._cpus)) is not None:
            if self._started(attempt):
                free -= attempt.cpus

    def _settle(self, held: Held, why: str | None) -> None:
        """Settle an attempt whose process has ended or does not report; nothing may follow before it is gone."""
        self._runner.stop(held.process)
        settle(self._db, held, why or "Its process did not report any more.")

    def _started(self, attempt: Attempt) -> bool:
        jobs = JobRepository(self._db, attempt.tenant_id)
        if attempt.cpus > self._cpus:
            message = f"The job needs {attempt.cpus:g} cores; the platform gives jobs {self._cpus:g}."
            jobs.fail(attempt.job_id, attempt.run_id, {"code": "job_too_large", "message": message})
            return False
        try:
            refuse_revoked(self._db, attempt.tenant_id, attempt.principal)
            self._runner.start(attempt, self._variables(attempt))
        except AuthenticationError as error:
            jobs.fail(attempt.job_id, attempt.run_id, error.to_json())
            return False
        except MLFrameworkError as error:
            jobs.lose(attempt.job_id, attempt.run_id, str(error.public()), error.to_json())
            return False
        return True

    def _variables(self, attempt: Attempt) -> dict[str, str]:
        if attempt.batch_id is not None:  # it claims the batch's next jobs, of other tenants: it needs the key
            return {}
        return self._db.job_environment(attempt.tenant_id, attempt.job_id, attempt.run_id)


def settle(db: DatabaseConnection, held: Held, why: str) -> None:
    """Settle an attempt whose process is gone, unless it reported its end meanwhile."""
    with suppress(JobNotFoundError, JobStateError):
        job = JobRepository(db, held.tenant_id).lose(held.job_id, held.run_id, why)
        _log.warning("The job %s of %s is %s: %s", job.job_id, job.tenant_id, job.state, why)
