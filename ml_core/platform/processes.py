"""Processes that the platform started: found by mark, ended by id.

Everything that ``ray start`` leaves behind runs in the session that it was started in, and most of it also carries the
mark in its environment. Either is enough to be found, so that orphans of a killed Ray (the ingress, the dashboard's
agents) are found too, and nobody else's Ray is ever touched.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from ml_core.exceptions import PlatformError

MARK = "MLCORE_PLATFORM_HOME"
"""Environment variable that every process of a platform inherits: the platform's home folder."""

_GRACE_S = 2.0
"""Nothing of Ray keeps state that would need longer; some of its processes ignore SIGTERM altogether."""
_KILL_TIMEOUT_S = 5.0
_ROUNDS = 5
"""Ray starts workers ahead of need, so one may appear between looking and ending; hardly ever two rounds in a row."""


def find_marked(home: Path, session_id: int | None) -> list[psutil.Process]:
    """The live processes of the platform at ``home``.

    Args:
        home: The platform's home folder, as in the mark.
        session_id: The operating system's session in which Ray was started, if known.
    """
    own_session = os.getsid(0)
    marked = [process for process in psutil.process_iter() if _mark_of(process) == str(home)]
    sessions = {_session_of(process) for process in marked} | {session_id}
    sessions -= {None, own_session}
    family = [process for process in psutil.process_iter() if _session_of(process) in sessions]
    unique = {process.pid: process for process in [*marked, *family]}
    unique.pop(os.getpid(), None)
    return [process for process in unique.values() if _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended since it was listed
        return False


def end(processes: Iterable[psutil.Process], *, grace_s: float = _GRACE_S) -> int:
    """End processes, gently first.

    Args:
        processes: Which.
        grace_s: Seconds that they may take after SIGTERM before they get SIGKILL.

    Returns:
        How many there were.
    """
    targets = list(processes)
    for process in targets:
        _signal(process, kill=False)
    _, alive = psutil.wait_procs(targets, timeout=grace_s)
    for process in alive:
        _signal(process, kill=True)
    psutil.wait_procs(alive, timeout=_KILL_TIMEOUT_S)
    return len(targets)


def end_platform(home: Path, session_id: int | None) -> int:
    """End the processes of a platform, those too that they start while they are being ended.

    Args:
        home: The platform's home folder.
        session_id: As for ``find_marked``.

    Returns:
        How many there were.

    Raises:
        PlatformError: Some can't be ended.
    """
    ended = 0
    for _ in range(_ROUNDS):
        found = find_marked(home, session_id)
        if not found:
            return ended
        ended += end(found)
    raise PlatformError(
        f"These processes of the platform can't be ended: {', '.join(str(process.pid) for process in found)}.",
        remedy="End them by hand, then try again.",
        component="ray",
    )


def set_priority(niceness: int) -> None:
    """Give every thread of this process a niceness; only root can take a higher one back.

    On Linux each thread has its own, and a new one that of its maker.
    """
    tasks = Path("/proc/self/task")
    for thread in [int(task.name) for task in tasks.iterdir()] if tasks.exists() else [0]:
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, thread, niceness)


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return


def _mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None


def _session_of(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None
