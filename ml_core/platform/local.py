"""The platform on one machine: ``up``, ``down`` and ``status``.

``up`` is level-triggered: it inspects the running processes, ends those of a killed run, and starts missing parts. An
interrupted ``up`` stops what it started.
"""

from __future__ import annotations

import dataclasses
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx
from filelock import FileLock, Timeout

from ml_core.cells.plan import CONTROL_LOOP, Application, SeenApplication, least_replicas, plan
from ml_core.cells.serve_api import ServeApi
from ml_core.database.embedded import EmbeddedServer
from ml_core.domain.placement import SHARED_CELL
from ml_core.exceptions import Action, ConfigurationError, MLFrameworkError, PlatformError
from ml_core.platform import processes
from ml_core.platform.applications import OPTIONS, OTHERS, serve_api
from ml_core.platform.ports import HOST, require_free
from ml_core.platform.ray_cluster import RayPorts, read_token, start_head, temporary_folder, token_path
from ml_core.platform.state import PlatformState
from ml_core.platform.supervisor import Supervisor
from ml_core.settings import Settings

if TYPE_CHECKING:
    from ml_core.registry.replicas import SeenReplica

Step = Callable[[str], AbstractContextManager[None]]
"""Shows the progress of a step: called with its name; the context lasts as long as the step."""

# Limit for the start of the replicas, which takes about 6 s on two idle cores.
_SERVE_TIMEOUT_S = 180.0
_RUNNING, _FAILED = "RUNNING", "DEPLOY_FAILED"
_LOOK_EVERY_S = 0.2
_OTHERS = {each["name"]: 1 for each in OTHERS}
_RAYLET = "raylet"
# Limit for a repair by the supervisor, for which other processes wait.
_REPAIR_TIMEOUT_S = 300.0
_HEALTH_TIMEOUT_S = 5.0
_READY, _CONTROL_ALIVE = "/readyz", "/api/healthz"
# Time for reports after a change. A report takes a tenth of a second, so a replica that is still behind lags.
_SETTLE_S = 1.0
# Time for replicas to reconnect to a registry that is available again, at most ``follower.BACKOFF_MAX_S`` (10 s).
_CATCH_UP_S = 15.0


def _silent(_name: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True, slots=True)
class PlatformStatus:
    """The state of the platform and its parts.

    Attributes:
        state: ``running``, ``degraded`` (a part is missing) or ``stopped``.
        url: The address of the ingress; None if stopped.
        database: Whether the embedded PostgreSQL server answers.
        ray: Whether Ray's REST interface answers.
        serve: Serve's status of the shared cell, or None.
        running_replicas: Running replicas by Serve.
        wanted_replicas: Declared replicas; with autoscaling the least.
        dedicated: Dedicated cell → Serve's status, prefix and running replicas.
        ingress: Whether a replica behind the ingress answers ready.
        control_api: Whether the control API answers at ``/api`` of the ingress.
        control_loop: Whether the control loop runs, which starts jobs and moves tenants between cells.
        supervisor: Whether the supervisor runs, which repairs the platform.
        replicas: The reports of the live replicas; None if the registry can't be read.
        failed_loads: Versions whose load failed in a replica.
        home: The folder of the platform.
        logs: The folder of the logs.
    """

    state: str
    url: str | None
    database: bool
    ray: bool
    serve: str | None
    running_replicas: int
    wanted_replicas: int
    dedicated: Mapping[str, str]
    ingress: bool
    control_api: bool
    control_loop: bool
    supervisor: bool
    replicas: Sequence[SeenReplica] | None
    failed_loads: int
    home: str
    logs: str


class LocalPlatform:
    """The embedded platform of one home folder.

    Args:
        settings: ``platform.home``, ``platform.http_port`` and ``platform.replicas`` apply.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.database.url is not None:
            raise ConfigurationError(
                "The embedded platform has its own PostgreSQL server, but MLCORE_DATABASE_URL is set.",
                remedy="Unset it to use the embedded platform. On a cluster the Helm chart starts the platform.",
                setting="MLCORE_DATABASE_URL",
            )
        self._settings = settings
        self._home = settings.platform.home
        self._server = EmbeddedServer(self._home)
        self._supervisor = Supervisor(self._home)

    @property
    def state(self) -> PlatformState | None:
        """The state that the last ``up`` saved, or None."""
        return PlatformState.load(self._home)

    def up(self, step: Step = _silent) -> PlatformState:
        """Start or repair the platform, wait until it answers, and start its supervisor. A running one keeps its port.

        Args:
            step: Shows progress.

        Raises:
            PlatformError: A port is in use, or a part does not start.
        """
        state, platform = self.repair(step), self._settings.platform
        port, replicas = str(state.http_port), str(platform.replicas)
        self._supervisor.start({"MLCORE_HOME": str(self._home), "MLCORE_HTTP_PORT": port, "MLCORE_REPLICAS": replicas})
        return state

    def repair(self, step: Step = _silent) -> PlatformState:
        """As ``up``, without the supervisor, which calls it."""
        with self._only_one():
            state = self.state
            if state is not None and self._serves(state):
                if self.status().state != "running":
                    # Only the database or a replica is missing. Serve restarts replicas itself.
                    self._start_database(step)
                    self._wait_until_running(state, step)
                return state
            try:
                return self._start(step)
            except BaseException:
                # Stop what was started. The database stops with the last process that uses it.
                with _undisturbed():
                    self._end_ray()
                    self._server.unpin()
                    PlatformState.forget(self._home)
                raise

    def down(self, step: Step = _silent) -> bool:
        """Stop the platform. Returns whether any part was running."""
        with step("Stopping Serve, Ray and Postgres"):
            was_supervised = self._supervisor.stop()  # first, so that it repairs nothing
            with self._only_one():
                return self._stop() or was_supervised

    def is_alive(self) -> bool:
        """Whether the processes live that nothing else replaces: Ray's own, and PostgreSQL."""
        state = self.state
        return state is not None and processes.is_running(state.session_id, _RAYLET) and self._server.is_running()

    def status(self) -> PlatformStatus:
        """Inspect all parts of the platform."""
        state = self.state
        database = self._server.is_running()
        applications = self._applications(state) if state else None
        serve, loop = ((applications or {}).get(name) for name in (SHARED_CELL, CONTROL_LOOP))
        control_loop = loop is not None and loop.running_replicas > 0
        supervisor = self._supervisor.is_running()
        wanted = _least(serve)
        ingress = state is not None and _answers(state.url, _READY)
        control_api = state is not None and _answers(state.url, _CONTROL_ALIVE)
        serves_whole = (
            state is not None and serve is not None and serve.status == _RUNNING and serve.running_replicas >= wanted
        )
        replicas = self._reports(wanted, _SETTLE_S if serves_whole else 0.0) if database and state else None
        parts = (database, serves_whole, ingress, control_api, control_loop, supervisor)
        is_whole = all(parts) and _are_whole(replicas, wanted)
        return PlatformStatus(
            state="running" if is_whole else ("degraded" if state or any(parts) else "stopped"),
            url=state.url if state else None,
            database=database,
            ray=applications is not None,
            serve=serve.status if serve else None,
            running_replicas=serve.running_replicas if serve else 0,
            wanted_replicas=wanted,
            dedicated={
                name: f"{each.status} at {each.route_prefix}, replicas: {each.running_replicas}"
                for name, each in (applications or {}).items()
                if name not in (SHARED_CELL, *_OTHERS)
            },
            ingress=ingress,
            control_api=control_api,
            control_loop=control_loop,
            supervisor=supervisor,
            replicas=replicas,
            failed_loads=_failed_loads(replicas or ()),
            home=str(self._home),
            logs=str(self._home / "logs"),
        )

    def _start(self, step: Step) -> PlatformState:
        platform = self._settings.platform
        if self.state is not None or processes.find_marked(self._home, None):
            with step("Ending processes of an earlier run"):
                self._end_ray()
        require_free(platform.http_port)
        self._start_database(step)
        # Created now, so that a missing folder means that the store is unavailable.
        platform.artifact_root.mkdir(mode=0o700, parents=True, exist_ok=True)
        ports = RayPorts.choose()
        with step("Starting Ray"):
            session_id = start_head(self._home, ports, self._replica_environment(ports))
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        state = PlatformState(platform.http_port, ports.dashboard, session_id, started_at)
        state.save(self._home)
        with step("Starting Ray Serve and its ingress"), self._serve_api(state) as api:
            api.declare(self._applications_wanted())
        self._wait_until_running(state, step)
        return state

    def _applications_wanted(self) -> Sequence[Application]:
        """What the control loop would declare where nothing is seen. From then on it is the only one to declare."""
        from ml_core.database.connection import DatabaseConnection
        from ml_core.registry.placements import PlacementRepository

        with closing(DatabaseConnection(settings=self._settings)) as database:
            placements = PlacementRepository(database).placed()
        return plan(placements, {}, now=time.time(), options=OPTIONS, others=OTHERS).applications

    def _start_database(self, step: Step) -> None:
        with step("Starting PostgreSQL"):
            self._server.start()
            self._server.pin()
        with step("Bringing the database schema up to date"):
            self._migrate()

    def _wait_until_running(self, state: PlatformState, step: Step) -> None:
        deadline = time.monotonic() + _SERVE_TIMEOUT_S
        replicas = self._settings.platform.replicas
        name = f"Waiting for {replicas} replicas of the shared cell, the control API and the control loop"
        with step(name):
            while time.monotonic() < deadline:
                seen = self._applications(state) or {}  # an overloaded dashboard answers later
                # Neither dedicated cells nor bounds that are too large for the machine keep the platform from starting.
                wanted = {SHARED_CELL: min(replicas, _least(seen.get(SHARED_CELL)) or replicas), **_OTHERS}
                for application, status in seen.items():
                    if status.status == _FAILED and application in wanted:
                        raise PlatformError(
                            f"The application {application} did not start: {status.message.strip() or 'no message'}",
                            remedy=f"See its log under {self._home / 'logs'}.",
                            component="serve",
                        )
                runs = all(each in seen and seen[each].running_replicas >= count for each, count in wanted.items())
                if runs and _answers(state.url, _READY) and _answers(state.url, _CONTROL_ALIVE):
                    self._reports(wanted[SHARED_CELL], _CATCH_UP_S)
                    return
                time.sleep(_LOOK_EVERY_S)
        raise PlatformError(
            f"The platform did not answer within {_SERVE_TIMEOUT_S:.0f} s.",
            remedy="The machine may be overloaded. Try again.",
            action=Action("up"),
            component="serve",
        )

    def _migrate(self) -> None:
        # Imported on use: `mlcore status` does not need SQLAlchemy and Alembic.
        from ml_core.database.connection import DatabaseConnection

        with closing(DatabaseConnection(settings=self._settings)) as database:
            database.migrate()

    def _replica_environment(self, ports: RayPorts) -> dict[str, str]:
        from ml_core.database.connection import DatabaseConnection

        with closing(DatabaseConnection(settings=self._settings)) as database:
            ray = {
                "MLCORE_RAY_URL": f"http://{HOST}:{ports.dashboard}",
                "MLCORE_RAY_TOKEN_FILE": str(token_path(self._home)),
            }
            platform = self._settings.platform
            own = {"MLCORE_HTTP_PORT": str(platform.http_port), "MLCORE_REPLICAS": str(platform.replicas)}
            return {"MLCORE_HOME": str(self._home), **own, **ray, **database.environment}

    def _stop(self) -> bool:
        with _undisturbed():
            ended = self._end_ray()
            was_running = self._server.is_running()
            self._server.stop()
            PlatformState.forget(self._home)
        return bool(ended) or was_running

    def _end_ray(self) -> int:
        state = self.state
        ended = processes.end_platform(self._home, state.session_id if state else None)
        # Ray creates a folder for sockets and logs at each start and never removes one.
        shutil.rmtree(temporary_folder(self._home), ignore_errors=True)
        return ended

    def _serves(self, state: PlatformState) -> bool:
        """Whether a replica answers, and Serve can restart the others."""
        if not processes.is_running(state.session_id, _RAYLET):
            return False
        serve = (self._applications(state) or {}).get(SHARED_CELL)
        return serve is not None and serve.status != _FAILED and _answers(state.url, _READY)

    def _applications(self, state: PlatformState) -> Mapping[str, SeenApplication] | None:
        """The status of each Serve application; None if Ray does not answer."""
        try:
            with self._serve_api(state) as api:
                return api.status()
        except PlatformError:
            return None

    def _reports(self, wanted: int, wait_s: float) -> Sequence[SeenReplica] | None:
        """Wait until all replicas have caught up with the registry, or ``wait_s`` passed; returns their reports.

        The shared cell has ``wanted`` replicas at least.
        """
        # Imported on use: SQLAlchemy is slow to import.
        from ml_core.database.connection import DatabaseConnection
        from ml_core.registry.replicas import seen_replicas

        deadline = time.monotonic() + wait_s
        try:
            urls = self._server.urls  # with a URL the connection does not start the embedded server
            database = dataclasses.replace(self._settings.database, url=urls.app, ingest_url=urls.ingest)
            with closing(DatabaseConnection(settings=dataclasses.replace(self._settings, database=database))) as db:
                while True:
                    seen = seen_replicas(db)
                    if _have_caught_up(seen, wanted) or time.monotonic() >= deadline:
                        return seen
                    time.sleep(_LOOK_EVERY_S / 4)
        except MLFrameworkError:
            return None

    def _serve_api(self, state: PlatformState) -> AbstractContextManager[ServeApi]:
        url = f"http://{HOST}:{state.dashboard_port}"
        return closing(serve_api(url, read_token(self._home), state.http_port))

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        lock = FileLock(self._home / "platform.lock")
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_REPAIR_TIMEOUT_S if self._supervisor.is_running() else 0)
        except Timeout:
            raise PlatformError(
                f"Another process is starting or stopping the platform of {self._home}.",
                remedy="Wait until it has finished, then check the status of the platform.",
                action=Action("status"),
                component="platform",
            ) from None
        except OSError as error:
            raise PlatformError(
                f"The platform's folder {self._home} can't be written: {error.strerror}.",
                remedy="Set MLCORE_HOME to a writable folder.",
                component="platform",
            ) from error
        try:
            yield
        finally:
            lock.release()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM, so that a second Ctrl-C does not interrupt the cleanup."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _answers(url: str, path: str) -> bool:
    """Whether a health path behind the ingress answers 200."""
    try:
        # trust_env=False: a proxy must not get requests to the loopback interface.
        return httpx.get(f"{url}{path}", timeout=_HEALTH_TIMEOUT_S, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _have_caught_up(replicas: Sequence[SeenReplica], wanted: int) -> bool:
    of_shared = sum(replica.cell == SHARED_CELL for replica in replicas)
    return of_shared >= wanted and not any(replica.is_behind for replica in replicas)


def _least(application: SeenApplication | None) -> int:
    return 0 if application is None or application.config is None else least_replicas(application.config)


def _are_whole(replicas: Sequence[SeenReplica] | None, wanted: int) -> bool:
    """Whether all replicas report, are current, and have no failed loads."""
    if replicas is None:
        return False
    return _have_caught_up(replicas, wanted) and not any(replica.failed for replica in replicas)


def _failed_loads(replicas: Sequence[SeenReplica]) -> int:
    listed = {(each.tenant_id, each.model_id, each.version) for replica in replicas for each in replica.failures}
    return max(len(listed), *(replica.failed for replica in replicas), 0)
