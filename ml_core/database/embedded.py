"""The embedded server: a real PostgreSQL under the platform's home, started, joined, recovered and stopped.

It listens on a socket in a folder that only its own account (and root) may enter, and on no network address. It trusts
whoever reaches the socket, so the folder stays closed to others.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import os
import shlex
import shutil
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from ml_core.database.binaries import POSTGRES_MAJOR, Programs, find_programs, first_closed, last_lines
from ml_core.database.handles import Handles, locked
from ml_core.database.postmaster import Postmaster, find_postmaster, orphans
from ml_core.database.security import APP_ROLE, INGEST_ROLE, OWNER_ROLE, ROLES
from ml_core.database.urls import DatabaseUrls
from ml_core.exceptions import PlatformError

_log = logging.getLogger(__name__)

DATABASE = "mlcore"
_SUPERUSER = "postgres"
_LOCK_TIMEOUT_S = 120.0  # a first start with a slow disk takes some 30 s
_START_TIMEOUT_S = 60.0  # recovery after a crash replays the log first
_STOP_TIMEOUT_S = 20.0
_KILL_TIMEOUT_S = 10.0
_FAREWELL_S = 2.0  # backends notice that their main process died, and leave by themselves
_CONNECT_TIMEOUT_S = 10
_MIN_FREE_BYTES = 32 * 2**20  # two segments of the write-ahead log
_MAX_SOCKET_PATH = 100  # bytes; the kernel takes 107
_POLL_S = 0.05

_SERVER_OPTIONS = {
    "max_connections": "100",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
    # The registry is small and the machine is somebody's laptop.
    "shared_buffers": "64MB",
}


class EmbeddedServer:
    """The server of one home. Each method may be called from several processes at once.

    A process that called ``start`` uses the server until it exits; the last such process stops it then, unless the
    server is pinned.

    Args:
        home: The platform's folder; made if it does not exist.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.data = self.home / "postgres"
        self.log_file = self.home / "logs" / "postgres.log"
        self._pin_file = self.home / "postgres.pinned"
        self._handles = Handles(self.home / "postgres.handles.json")
        self._registered = False

    @property
    def urls(self) -> DatabaseUrls:
        """The URLs of the three roles.

        Raises:
            PlatformError: It does not run.
        """
        postmaster = find_postmaster(self.data)
        if postmaster is None:
            raise _failure(f"The embedded PostgreSQL under {self.home} does not run.", "Start it: mlcore up.")
        return DatabaseUrls(*(_url(postmaster, role) for role in (APP_ROLE, INGEST_ROLE, OWNER_ROLE)))

    def is_running(self) -> bool:
        """Whether it runs and accepts connections."""
        postmaster = find_postmaster(self.data)
        return postmaster is not None and postmaster.is_ready

    def start(self) -> None:
        """Start it, or join it where it runs; recovers what a killed run left behind.

        Raises:
            PlatformError: It can't be started; says why and what to do.
        """
        self._prepare_home()
        with self._locked():
            programs = find_programs(self.home)
            self._ensure_running(programs)
            self._handles.add_own()
        if not self._registered:
            self._registered = True
            atexit.register(self._release)

    def stop(self) -> None:
        """Stop it for everybody, and remove the pin. Does nothing when it does not run; never hangs.

        Raises:
            PlatformError: It could not even be killed.
        """
        if not self.home.is_dir():
            return
        with self._locked():
            self._pin_file.unlink(missing_ok=True)
            self._stop()

    def pin(self) -> None:
        """Let it run on when the last process that uses it exits."""
        self._pin_file.touch()

    def unpin(self) -> None:
        """Let the last process that uses it stop it."""
        self._pin_file.unlink(missing_ok=True)

    @property
    def is_pinned(self) -> bool:
        """Whether it outlives the processes that use it."""
        return self._pin_file.exists()

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return locked(self.home / "postgres.lock", _LOCK_TIMEOUT_S)

    def _release(self) -> None:
        """At the end of the process: the last one stops an unpinned server."""
        if not self.home.is_dir():
            return
        try:
            with self._locked():
                self._handles.remove_own()
                if not self._handles.living() and not self.is_pinned:
                    self._stop()
        except (PlatformError, OSError) as error:
            _log.warning("the embedded PostgreSQL under %s was not stopped: %s", self.home, error)

    def _prepare_home(self) -> None:
        try:
            self.home.mkdir(mode=0o711, parents=True, exist_ok=True)
            self.log_file.parent.mkdir(exist_ok=True)
            if os.geteuid() == 0:
                # Others may pass through, as the server's account must, but not look around.
                self.home.chmod((self.home.stat().st_mode & 0o777) | 0o011)
            probe = self.home / f".writable.{os.getpid()}.{threading.get_ident()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise _failure(
                f"The folder {self.home} can't be used: {error.strerror or error}.",
                "Set MLCORE_HOME to a folder that you may write and that has space.",
            ) from error
        closed = first_closed(self.home) if os.geteuid() == 0 else None
        if closed is not None:
            raise _failure(
                f"The folder {closed} is closed to other users, and root runs PostgreSQL as one.",
                "Set MLCORE_HOME to a folder elsewhere, such as /var/lib/mlcore.",
            )

    def _ensure_running(self, programs: Programs) -> None:
        postmaster = find_postmaster(self.data)
        if postmaster is not None and postmaster.status in ("stopping", "starting"):
            postmaster = self._settle()
        if postmaster is None:
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
                raise _failure(
                    f"{self.data} belongs to PostgreSQL {found}; this release runs {POSTGRES_MAJOR}.",
                    f"Use the release that made it, or move {self.data} away to begin anew.",
                )
            return
        if self.data.exists() and any(self.data.iterdir()):
            raise _failure(
                f"{self.data} holds files that are not a PostgreSQL data folder.",
                f"Move {self.data} away and try again.",
            )
        fresh = self.home / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir(mode=0o700)
            if programs.account is not None:
                os.chown(fresh, programs.account.uid, programs.account.gid)
            options = (
                "-U",
                _SUPERUSER,
                "--encoding=utf8",
                "--auth-local=trust",
                "--auth-host=reject",
                "--locale=C.UTF-8",
            )
            programs.run("initdb", *options, "-D", str(fresh), cwd=self.home, timeout_s=_START_TIMEOUT_S)
            if self.data.exists():
                self.data.rmdir()
            fresh.rename(self.data)
        except OSError as error:
            raise self._cannot_start(f"has no data folder: {error.strerror or error}") from error
        except PlatformError as error:
            shutil.rmtree(fresh, ignore_errors=True)
            raise self._cannot_start(f"has no data folder: {error.message}") from error

    def _clear_leftovers(self, sockets: Path) -> None:
        """After a kill: end backends that outlived the main process, then drop the lock files that it left behind.

        PostgreSQL takes any living process with the noted pid for its own, also a dead one that nobody waited for, as
        in a container without an init. But the pid file also guards the shared memory, so it may go only when no
        process works on the folder any more.
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
        # Relative to the data folder: pg_ctl builds a shell command and does not quote every name.
        log = os.path.relpath(self.log_file, self.data)
        arguments = ("start", "-D", ".", "-l", log, *wait, "-o", options)
        written = self.log_file.stat().st_size
        try:
            programs.run("pg_ctl", *arguments, cwd=self.data, timeout_s=_START_TIMEOUT_S + _KILL_TIMEOUT_S)
        except PlatformError as error:
            reason = self._reason_in_log(written) or error.message
            raise self._cannot_start(f"does not start: {reason}") from error

    def _socket_folder(self, programs: Programs) -> Path:
        # A comma separates folders, for the server and its clients alike.
        if len(os.fsencode(self.data / ".s.PGSQL.5432")) <= _MAX_SOCKET_PATH and "," not in str(self.data):
            return self.data
        name = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"mlcore-{programs.uid}-{name}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if programs.account is not None and folder.stat(follow_symlinks=False).st_uid == os.geteuid():
                os.chown(folder, programs.account.uid, programs.account.gid)
            found = folder.stat(follow_symlinks=False)
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
        """The roles and the database; a login that exists is left as it is."""
        postmaster = find_postmaster(self.data)
        if postmaster is None:
            raise self._cannot_start("ended right after its start")
        try:
            with psycopg.connect(
                _url(postmaster, _SUPERUSER, "postgres"), autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S
            ) as session:
                known = {row[0] for row in session.execute("SELECT rolname FROM pg_roles")}
                for role in ROLES:
                    if role not in known:
                        session.execute(f"CREATE ROLE {role} LOGIN")
                if session.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
                    session.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER_ROLE}")
        except psycopg.Error as error:
            raise self._cannot_start(f"does not answer: {str(error).strip()}") from error

    def _stop(self) -> None:
        postmaster = find_postmaster(self.data)
        if postmaster is None:
            return
        try:
            programs = find_programs(self.home)
            arguments = ("stop", "-D", ".", "-m", "fast", "-w", "-t", f"{_STOP_TIMEOUT_S:.0f}")
            programs.run("pg_ctl", *arguments, cwd=self.data, timeout_s=_STOP_TIMEOUT_S + 5)
        except PlatformError as error:
            _log.warning("the embedded PostgreSQL did not stop and is killed: %s", error)
            _kill_all(self.data)
            if find_postmaster(self.data) is not None:
                raise _failure(
                    f"The embedded PostgreSQL (process {postmaster.process.pid}) can't be ended.",
                    f"End it by hand: kill -9 {postmaster.process.pid}.",
                ) from error

    def _cannot_start(self, reason: str) -> PlatformError:
        full = "no space left" in reason.lower() or shutil.disk_usage(self.home).free < _MIN_FREE_BYTES
        hint = "The disk is full: free some space and try again." if full else f"See {self.log_file}."
        return _failure(f"The embedded PostgreSQL under {self.home} {reason}.", hint)


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


def _url(postmaster: Postmaster, role: str, database: str = DATABASE) -> str:
    return f"postgresql://{role}@/{database}?host={quote(str(postmaster.socket_folder))}&port={postmaster.port}"


def _failure(message: str, remedy: str) -> PlatformError:
    return PlatformError(message, remedy=remedy, component="postgres")
