"""``ProcessRunner``: attempts as processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import Attempt
from ml_core.exceptions import PlatformError
from ml_core.ids import RunId

_STOP_S = 10.0


class ProcessRunner:
    """Starts a process for each attempt, with its output in a file named after the run.

    The processes go on when this one ends: they report to the registry themselves.

    Args:
        db: The registry, whose address they get.
    """

    def __init__(self, db: DatabaseConnection) -> None:
        self._db = db
        self._logs = db.settings.platform.home / "logs" / "jobs"
        self._processes: dict[RunId, subprocess.Popen[bytes]] = {}

    def start(self, attempt: Attempt, variables: Mapping[str, str]) -> None:
        """See ``Runner``."""
        if attempt.run_id in self._processes:
            return
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            with (self._logs / f"{attempt.run_id}.log").open("wb") as log:
                self._processes[attempt.run_id] = subprocess.Popen(  # noqa: S603 - the names in it were parsed
                    [sys.executable, *attempt.arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**self._environment(attempt), **variables},
                    start_new_session=True,
                )
        except OSError as error:
            raise PlatformError(
                f"A process could not be started: {error.strerror}.",
                remedy="See whether the machine has memory, processes and disk space left.",
                component="jobs",
            ) from error

    def seen(self) -> dict[RunId, str | None]:
        """See ``Runner``."""
        return {run_id: _end_of(process.poll()) for run_id, process in self._processes.items()}

    def stop(self, run_id: RunId) -> None:
        """See ``Runner``."""
        process = self._processes.pop(run_id, None)
        if process is not None:
            process.kill()
            process.wait(_STOP_S)

    def close(self) -> None:
        """End all processes."""
        for run_id in list(self._processes):
            self.stop(run_id)

    def _environment(self, attempt: Attempt) -> dict[str, str]:
        """A worker's: the same registry and home, no login for migrations, and as many threads as it has cores."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("MLCORE_DATABASE_OWNER_URL")}
        # Threads of OpenMP that spin while they wait take the processor from replicas, and from each other.
        waiting = {"OMP_WAIT_POLICY": "passive"}
        home = {"MLCORE_HOME": str(self._db.settings.platform.home)}
        return {**waiting, **attempt.threads, **own, **self._db.environment, **home}


def _end_of(code: int | None) -> str | None:
    """How a process ended; what it printed last is the operator's."""
    if code is None:
        return None
    if code < 0:
        return f"Its process was killed by signal {-code}; it may have run out of memory."
    return f"Its process ended with status {code}."
