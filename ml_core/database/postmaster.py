"""What runs over a data folder: believed only when ``postmaster.pid`` and the process table agree."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

_LINES = 8  # pid, data folder, start time, port, socket folder, TCP address, shared memory, status
_STATUS = 7
_STALE = (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied)


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A PostgreSQL server's main process, which exists and works on the data folder in question."""

    process: psutil.Process
    socket_folder: Path
    port: int
    status: str

    @property
    def is_ready(self) -> bool:
        """Whether it accepts connections."""
        return self.status == "ready"


def find_postmaster(data: Path) -> Postmaster | None:
    """The server that runs over a data folder, or None.

    A pid file that is left over, cut off, or names a process that is not this folder's server counts as none.
    """
    try:
        lines = [line.strip() for line in (data / "postmaster.pid").read_text().splitlines()]
        pid = int(lines[0])
    except (OSError, ValueError, IndexError):
        return None
    if len(lines) < _LINES - 1 or not _is_server_of(pid, data):
        return None
    status = lines[_STATUS] if len(lines) > _STATUS else "starting"
    with contextlib.suppress(psutil.NoSuchProcess, ValueError):
        return Postmaster(psutil.Process(pid), Path(lines[4] or data), int(lines[3]), status)
    return None


def orphans(data: Path) -> list[psutil.Process]:
    """PostgreSQL processes that still work on a data folder, such as those whose main process was killed."""
    return [process for process in psutil.process_iter(["name"]) if _is_server_of(process.pid, data, process)]


def _is_server_of(pid: int, data: Path, process: psutil.Process | None = None) -> bool:
    try:
        found = process or psutil.Process(pid)
        if found.name() != "postgres" or found.status() == psutil.STATUS_ZOMBIE:
            return False
        return Path(found.cwd()) == data.resolve()
    except _STALE:
        return False
