"""The embedded server: a real PostgreSQL under the platform's home, shared by the processes that use it.

It listens on a socket in a folder that only its own account and root may enter, and on no network address. It
authenticates nobody who reaches the socket, so the folder stays closed to others.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from pathlib import Path

from ml_core.database.binaries import first_closed
from ml_core.database.cluster import SUPERUSER, Cluster, Postmaster, failure, find_postmaster, server_url
from ml_core.database.handles import Usage, locked
from ml_core.database.security import APP_ROLE, INGEST_ROLE, OWNER_ROLE
from ml_core.database.urls import DatabaseUrls
from ml_core.exceptions import Action, PlatformError

_log = logging.getLogger(__name__)

_LOCK_TIMEOUT_S = 120.0  # a first start with a slow disk takes some 30 s


class EmbeddedServer:
    """The server of one home. Each method may be called from several processes at once.

    A process that called ``start`` uses the server until it exits; the last such process stops it then, unless the
    server is pinned.

    Args:
        home: The platform's folder; made if it does not exist.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self._cluster = Cluster(self.home)
        self._lock_file = self.home / "postgres.lock"
        self._pin_file = self.home / "postgres.pinned"
        self._usage = Usage(self.home / "postgres.users")
        self._registered = False

    @property
    def urls(self) -> DatabaseUrls:
        """The URLs of the three roles.

        Raises:
            PlatformError: It does not run.
        """
        postmaster = self._postmaster()
        return DatabaseUrls(*(server_url(postmaster, role) for role in (APP_ROLE, INGEST_ROLE, OWNER_ROLE)))

    @property
    def admin_url(self) -> str:
        """The superuser's URL, for backups and restores; nothing else uses it.

        Raises:
            PlatformError: It does not run.
        """
        return server_url(self._postmaster(), SUPERUSER)

    def _postmaster(self) -> Postmaster:
        postmaster = find_postmaster(self._cluster.data)
        if postmaster is None:
            raise failure(
                f"The embedded PostgreSQL under {self.home} does not run.", "Start it.", action=Action.of("up")
            )
        return postmaster

    def is_running(self) -> bool:
        """Whether it runs and accepts connections."""
        postmaster = find_postmaster(self._cluster.data)
        return postmaster is not None and postmaster.is_ready

    def start(self) -> None:
        """Start it, or join it where it runs; recovers what a killed run left behind.

        Raises:
            PlatformError: It can't be started; says why and what to do.
        """
        self._prepare_home()
        if not self._registered:
            self._registered = True
            atexit.register(self._release)  # first: an interrupted start must not leave a server behind
        try:
            with self._locked():
                self._usage.begin()
                self._cluster.ensure_running()
        except OSError as error:
            raise self._unusable(error) from error

    def stop(self) -> None:
        """Stop it for all users, and remove the pin. Does nothing when it does not run; never hangs.

        Raises:
            PlatformError: It could not even be killed.
        """
        if not self.home.is_dir():
            return
        with self._locked():
            self._pin_file.unlink(missing_ok=True)
            self._cluster.stop()

    def pin(self) -> None:
        """Keep it running when the last process that uses it exits."""
        self._pin_file.touch()

    def unpin(self) -> None:
        """Let the last process that uses it stop it; stop it now if none does."""
        if not self.home.is_dir():
            return
        with self._locked():
            self._pin_file.unlink(missing_ok=True)
            if not self._usage.is_any():
                self._cluster.stop()

    @property
    def is_pinned(self) -> bool:
        """Whether it outlives the processes that use it."""
        return self._pin_file.exists()

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return locked(self._lock_file, _LOCK_TIMEOUT_S)

    def _release(self) -> None:
        """At the end of the process: the last one stops an unpinned server."""
        if not self.home.is_dir():
            return
        try:
            with self._locked():
                self._usage.end()
                if not self._usage.is_any() and not self.is_pinned:
                    self._cluster.stop()
        except (PlatformError, OSError) as error:
            _log.warning("the embedded PostgreSQL under %s was not stopped: %s", self.home, error)

    def _prepare_home(self) -> None:
        try:
            self.home.mkdir(mode=0o711, parents=True, exist_ok=True)
            if os.geteuid() == 0 and (self._lock_file.exists() or not any(self.home.iterdir())):
                # Ours: others may pass through, as the server's account must, but not look around.
                self.home.chmod((self.home.stat().st_mode & 0o777) | 0o011)
            self._cluster.log_file.parent.mkdir(exist_ok=True)
            probe = self.home / f".writable.{os.getpid()}.{threading.get_ident()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise self._unusable(error) from error
        closed = first_closed(self.home) if os.geteuid() == 0 else None
        if closed is not None:
            raise failure(
                f"The folder {closed} is closed to other users, and root runs PostgreSQL as one.",
                "Set MLCORE_HOME to a folder elsewhere, such as /var/lib/mlcore.",
            )

    def _unusable(self, error: OSError) -> PlatformError:
        where = error.filename2 or error.filename or self.home
        return failure(
            f"The folder {self.home} can't be used: {error.strerror or error} ({where}).",
            "Set MLCORE_HOME to a folder that you may write and that has space.",
        )
