"""The supervisor: a process that repairs the platform, by the code of ``mlcore up``, when Ray or PostgreSQL has died.

Serve replaces its replicas and its ingress itself. What answers slowly is no reason for a repair, only what has ended.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psutil
from filelock import FileLock, Timeout

from ml_core.exceptions import Action, MLFrameworkError, PlatformError
from ml_core.platform.processes import MARK

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
# The longest pause between two failed repairs.
_PAUSE_MAX_S = 60.0
_START_TIMEOUT_S = 30.0
# Others hold the lock for a moment when they look whether it is free.
_CLAIM_TIMEOUT_S = 5.0
# A repair that is interrupted stops what it has started.
_STOP_TIMEOUT_S = 60.0


class Supervisor:
    """The supervisor of one home folder, seen from other processes. It holds a lock as long as it lives.

    Args:
        home: The platform's home folder.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._pid = home / "supervisor.pid"
        self._log = home / "logs" / "supervisor.log"

    def is_running(self) -> bool:
        """Whether it lives."""
        if not self._pid.exists():
            return False
        try:
            with self._lock():
                self._pid.unlink(missing_ok=True)  # of one that was killed: the next one must not be taken for it
                return False
        except Timeout:
            return True

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it unless it lives, and wait until it looks after the platform.

        Args:
            environment: The settings of the platform.

        Raises:
            PlatformError: It does not start.
        """
        if self.is_running():
            return
        inherited = {name: value for name, value in os.environ.items() if name != MARK}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            code = subprocess.call(
                [sys.executable, "-m", "ml_core.platform.supervisor"],
                env={**inherited, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._home,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self.is_running():
            if code != 0 or time.monotonic() > deadline:
                raise PlatformError(
                    "The supervisor does not start.",
                    remedy=f"See {self._log}, then try again.",
                    action=Action("up"),
                    component="supervisor",
                )
            time.sleep(0.05)

    def stop(self) -> bool:
        """End it, and wait until it has ended. Returns whether it lived."""
        if not self.is_running():
            return False
        with suppress(psutil.NoSuchProcess, FileNotFoundError):  # it ended meanwhile, and somebody removed its file
            process = psutil.Process(int(self._pid.read_text()))
            process.terminate()
            with suppress(Timeout), self._lock(_STOP_TIMEOUT_S):
                return True
            process.kill()
        with self._lock(_STOP_TIMEOUT_S):
            return True

    def claim(self) -> FileLock:
        """Be the supervisor, in the process that it is.

        Raises:
            Timeout: Another one lives.
        """
        lock = self._lock(_CLAIM_TIMEOUT_S)
        lock.acquire()
        written = self._pid.with_suffix(".tmp")
        written.write_text(str(os.getpid()))
        written.replace(self._pid)  # at once, as whoever sees the file reads it
        return lock

    def _lock(self, timeout_s: float = 0) -> FileLock:
        return FileLock(self._home / "supervisor.lock", timeout=timeout_s)


def main() -> None:
    """The process: look, repair, and pause longer after each repair that failed."""
    # Imported here, because it imports this module.
    from ml_core.platform.local import LocalPlatform
    from ml_core.settings import Settings

    if os.fork():
        os._exit(0)  # whoever started it does not have it as a child
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logger.setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _end)
    settings = Settings.from_environment()
    platform, pause = LocalPlatform(settings), _LOOK_EVERY_S
    with Supervisor(settings.platform.home).claim():
        while True:
            time.sleep(pause)
            if platform.is_alive():
                continue
            logger.warning("A part of the platform has ended; it is repaired.")
            try:
                platform.repair()
                pause = _LOOK_EVERY_S
                logger.info("The platform is repaired.")
            except Exception as error:
                pause = min(2 * pause, _PAUSE_MAX_S)
                bug = None if isinstance(error, MLFrameworkError) else error
                message = "The platform can't be repaired; the next attempt is in %.0f s: %s"
                logger.warning(message, pause, error, exc_info=bug)


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit


if __name__ == "__main__":
    main()
