"""The processes of the platform: found by an environment variable or session, ended by id.

All processes of ``ray start`` run in its session, and most inherit the environment variable ``MARK``. Either identifies
a process, so the remaining processes of a killed Ray are found, and those of other Ray clusters are not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from ml_core.exceptions import PlatformError

MARK = "MLCORE_PLATFORM_HOME"
"""The environment variable of the platform's processes; its value is the home folder."""

# Time between SIGTERM and SIGKILL. Ray keeps no state that needs longer, and some of its processes ignore SIGTERM.
_GRACE_S = 2.0
_KILL_TIMEOUT_S = 5.0
# Attempts to end all processes: Ray may start a worker between finding and ending them.
_ROUNDS = 5


def find_marked(home: Path, session_id: int | None) -> list[psutil.Process]:
    """Find the live processes of a platform.

    Args:
        home: The home folder of the platform.
        session_id: The session (of the operating system) in which Ray was started, if known.
    """
    own_session = os.getsid(0)
    marked = [process for process in psutil.process_iter() if _mark_of(process) == str(home)]
    sessions = {_session_of(process) for process in marked} | {session_id}
    sessions -= {None, own_session}
    family = [process for process in psutil.process_iter() if _session_of(process) in sessions]
    unique = {process.pid: process for process in [*marked, *family]}
    unique.pop(os.getpid(), None)
    return [process for process in unique.values() if _is_alive(process)]


def is_running(session_id: int, name: str) -> bool:
    """Whether a process of this name lives in a session (of the operating system)."""
    return any(
        _session_of(process) == session_id and _is_alive(process)
        for process in psutil.process_iter()
        if _is_named(process, name)
    )


def _is_named(process: psutil.Process, name: str) -> bool:
    try:
        return bool(process.name() == name)
    except psutil.NoSuchProcess:  # it ended since it was listed
        return False


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended since it was listed
        return False


def end(processes: Iterable[psutil.Process], *, grace_s: float = _GRACE_S) -> int:
    """End processes with SIGTERM, then SIGKILL.

    Args:
        processes: The processes.
        grace_s: Seconds between the two signals.

    Returns:
        The number of processes.
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
    """End the processes of a platform, including those that start meanwhile.

    Args:
        home: The home folder of the platform.
        session_id: As for ``find_marked``.

    Returns:
        The number of processes.

    Raises:
        PlatformError: Some processes can't be ended.
    """
    ended = 0
    for _ in range(_ROUNDS):
        found = find_marked(home, session_id)
        if not found:
            return ended
        ended += end(found)
    raise PlatformError(
        f"These processes of the platform can't be ended: {', '.join(str(process.pid) for process in found)}.",
        remedy="End them manually, then try again.",
        component="ray",
    )


def set_priority(niceness: int) -> None:
    """Set the niceness of all threads of this process. Only root can lower it again."""
    # On Linux niceness belongs to a thread, and new threads inherit it.
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
