"""The embedded server's life: started, joined, killed, recovered, refused. Real processes, real kills."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from ml_core.database import binaries, cluster
from ml_core.database.binaries import first_closed
from ml_core.database.cluster import find_postmaster, orphans
from ml_core.database.connection import DatabaseConnection
from ml_core.database.embedded import EmbeddedServer
from ml_core.exceptions import PlatformError, RegistryUnavailableError
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, new_tenant, register, settings_for, temporary_home
from support.waiting import wait_until

AS_ROOT = os.geteuid() == 0

# A process that uses the server, says so, and exits when its input ends.
USER = """
import sys
from pathlib import Path
from ml_core.database.embedded import EmbeddedServer
EmbeddedServer(Path(sys.argv[1])).start()
print("started", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of this test's own."""
    with temporary_home() as folder:
        yield folder


@pytest.fixture(scope="module")
def prepared() -> Iterator[Path]:
    """A home whose server was started once, for tests that need not begin from nothing."""
    with temporary_home() as folder:
        EmbeddedServer(folder).start()
        yield folder


def use(home: Path) -> subprocess.Popen[str]:
    """Another process that uses the server of a home."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", USER, str(home)], text=True, **pipes)  # type: ignore[call-overload]
    assert process.stdout.readline() == "started\n"
    return process  # type: ignore[no-any-return]


def end(process: subprocess.Popen[str]) -> None:
    process.communicate("", timeout=30)
    assert process.returncode == 0


def main_pid(home: Path) -> int:
    postmaster = find_postmaster(home / "postgres")
    assert postmaster is not None
    return postmaster.process.pid


def kill_server(home: Path) -> int:
    """``kill -9`` of the main process; returns its pid."""
    pid = main_pid(home)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: find_postmaster(home / "postgres") is None)
    return pid


def answers(home: Path) -> bool:
    with psycopg.connect(EmbeddedServer(home).urls.app) as session:
        return session.execute("SELECT 1").fetchone() == (1,)


def test_a_first_start_makes_everything(home: Path) -> None:
    """From an empty folder: data closed to others, a log, the three roles, no network address."""
    server = EmbeddedServer(home)
    assert not server.is_running()
    server.start()
    assert server.is_running()
    assert (home / "postgres").stat().st_mode & 0o777 == 0o700
    assert (home / "logs" / "postgres.log").exists()
    with psycopg.connect(server.urls.owner) as session:
        settings = dict(session.execute("SELECT name, setting FROM pg_settings").fetchall())
    assert settings["listen_addresses"] == ""
    assert settings["fsync"] == "on"
    assert settings["max_connections"] == "100"
    assert answers(home)


def test_starting_twice_joins(prepared: Path) -> None:
    """A second start, in this process or another, uses the server that runs."""
    pid = main_pid(prepared)
    EmbeddedServer(prepared).start()
    end(use(prepared))
    assert main_pid(prepared) == pid


def test_stopping_is_complete_and_may_be_repeated(prepared: Path) -> None:
    """After ``stop`` nothing of the server is left; a second stop does nothing; a start works again."""
    server = EmbeddedServer(prepared)
    server.stop()
    assert not server.is_running()
    assert orphans(prepared / "postgres") == []
    server.stop()
    with pytest.raises(PlatformError, match="does not run"):
        server.urls  # noqa: B018
    server.start()
    assert answers(prepared)


def test_a_start_takes_back_what_a_role_set_for_itself(prepared: Path) -> None:
    """PostgreSQL can't forbid that; one that made itself read-only would stop every tenant, also after a restart."""
    server = EmbeddedServer(prepared)
    server.start()
    with psycopg.connect(server.urls.app, autocommit=True) as session:
        session.execute("ALTER ROLE CURRENT_USER SET default_transaction_read_only = on")
        session.execute("ALTER ROLE CURRENT_USER SET lock_timeout = 0")
    server.stop()
    server.start()
    with psycopg.connect(server.urls.app) as session:
        assert session.execute("SHOW default_transaction_read_only").fetchone() == ("off",)
        assert session.execute("SHOW lock_timeout").fetchone() == ("10s",)


def test_a_killed_server_recovers_with_its_data(home: Path) -> None:
    """``kill -9`` of the main process: the pid file stays behind, and the next start finds every committed row."""
    with DatabaseConnection(settings=settings_for(home)) as db:
        tenant = new_tenant(db)
        kill_server(home)
        assert (home / "postgres" / "postmaster.pid").exists()
        EmbeddedServer(home).start()
        assert TenantRepository(db).exists(tenant)


def test_a_pid_that_belongs_to_another_process_now(prepared: Path) -> None:
    """The noted pid lives again as somebody else's process: it is not taken for the server, and not touched."""
    kill_server(prepared)
    sleeper = subprocess.Popen(
        ["/bin/cat"],
        stdin=subprocess.PIPE,
        **({"user": (prepared / "postgres").stat().st_uid} if AS_ROOT else {}),  # type: ignore[call-overload]
    )
    try:
        pid_file = prepared / "postgres" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(sleeper.pid), *lines[1:]]) + "\n")
        assert not EmbeddedServer(prepared).is_running()
        EmbeddedServer(prepared).start()
        assert answers(prepared)
        assert sleeper.poll() is None
    finally:
        sleeper.communicate(b"", timeout=10)


@pytest.mark.parametrize("content", ["", "12", "not a number\n\n", "1\n/somewhere\n"])
def test_a_damaged_pid_file(prepared: Path, content: str) -> None:
    """A pid file that is empty or cut off, as after a full disk, does not keep the server down."""
    EmbeddedServer(prepared).stop()
    (prepared / "postgres" / "postmaster.pid").write_text(content)
    EmbeddedServer(prepared).start()
    assert answers(prepared)


def test_backends_that_outlived_the_main_process(prepared: Path) -> None:
    """Leftover processes hold the shared memory: they are ended before a new server starts."""
    with psycopg.connect(EmbeddedServer(prepared).urls.app, autocommit=True) as session:
        backend = psutil.Process(session.info.backend_pid)
        backend.suspend()  # so that it can't notice the death of its parent
        kill_server(prepared)
        assert backend.pid in [process.pid for process in orphans(prepared / "postgres")]
        EmbeddedServer(prepared).start()
        assert not backend.is_running() or backend.status() == psutil.STATUS_ZOMBIE
    assert answers(prepared)


def test_a_server_that_hangs_is_killed_by_stop(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``stop`` never hangs: a main process that does not react is killed."""
    monkeypatch.setattr(cluster, "_STOP_TIMEOUT_S", 1.0)
    psutil.Process(main_pid(prepared)).suspend()
    EmbeddedServer(prepared).stop()
    assert orphans(prepared / "postgres") == []
    EmbeddedServer(prepared).start()
    assert answers(prepared)


def test_processes_that_start_at_once_share_one_server(home: Path) -> None:
    """Four processes begin together from nothing: one initialises, all join."""
    command = [sys.executable, "-c", USER, str(home)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    assert [process.stdout.readline() for process in processes] == ["started\n"] * 4
    servers = [p for p in orphans(home / "postgres") if not _is_child(p, home)]
    assert len(servers) == 1
    for process in processes:
        end(process)


def _is_child(process: psutil.Process, home: Path) -> bool:
    return process.ppid() == main_pid(home)


def test_the_last_process_that_uses_it_stops_it(home: Path) -> None:
    """While one user lives the server does; with the last one it goes."""
    first, second = use(home), use(home)
    end(first)
    assert EmbeddedServer(home).is_running()
    end(second)
    assert not EmbeddedServer(home).is_running()


def test_a_killed_user_does_not_count(home: Path) -> None:
    """A process that was killed can't sign off; the next one to exit knows that it is gone."""
    killed, last = use(home), use(home)
    killed.kill()
    killed.communicate(timeout=10)
    end(last)
    assert not EmbeddedServer(home).is_running()


@pytest.mark.parametrize("delay_s", [0.02, 0.3, 0.6])
def test_an_interrupted_start_leaves_nothing(home: Path, delay_s: float) -> None:
    """Ctrl-C at any moment of a first start: the process ends, no server stays, and the next start works."""
    code = USER.replace("EmbeddedServer(Path", "print('begin', flush=True)\nEmbeddedServer(Path")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begin\n"
    threading.Event().wait(delay_s)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert orphans(home / "postgres") == []
    assert orphans(home / "postgres.new") == []
    EmbeddedServer(home).start()
    assert answers(home)


def test_a_pinned_server_outlives_its_users(home: Path) -> None:
    """``mlcore up`` pins it; ``stop`` ends it all the same and takes the pin away."""
    process = use(home)
    server = EmbeddedServer(home)
    server.pin()
    end(process)
    assert server.is_running()
    server.stop()
    assert not server.is_running()
    assert not server.is_pinned


def test_unpinning_stops_what_nobody_uses(home: Path) -> None:
    """A start that failed half-way leaves no server behind; one that others use goes on."""
    process = use(home)
    server = EmbeddedServer(home)
    server.pin()
    server.unpin()
    assert server.is_running()
    server.pin()
    end(process)
    assert server.is_running()
    server.unpin()
    assert not server.is_running()


def test_a_path_too_long_for_a_socket(home: Path) -> None:
    """A deep home puts the socket elsewhere, in a folder that only the server's account may enter."""
    deep = home / ("d" * 60) / ("e" * 60)
    try:
        server = EmbeddedServer(deep)
        server.start()
        assert answers(deep)
        postmaster = find_postmaster(deep / "postgres")
        assert postmaster is not None
        assert postmaster.socket_folder != deep / "postgres"
        assert postmaster.socket_folder.stat().st_mode & 0o077 == 0
        server.stop()
        assert not postmaster.socket_folder.exists()
    finally:
        EmbeddedServer(deep).stop()


def test_a_socket_folder_that_somebody_else_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder under the name that ours would have, open to others or a link, is not used."""
    temporary = home / "tmp"
    temporary.mkdir(mode=0o711)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    deep = home / ("d" * 60) / ("e" * 60)
    EmbeddedServer(deep).start()
    postmaster = find_postmaster(deep / "postgres")
    assert postmaster is not None
    EmbeddedServer(deep).stop()
    postmaster.socket_folder.symlink_to(home)
    with pytest.raises(PlatformError, match="somebody else"):
        EmbeddedServer(deep).start()


def test_names_with_spaces_and_quotes(home: Path) -> None:
    """A home whose name needs quoting works like any other."""
    odd = home / 'it\'s my, "home"'
    try:
        EmbeddedServer(odd).start()
        assert answers(odd)
    finally:
        EmbeddedServer(odd).stop()


def test_a_home_that_is_a_file(home: Path) -> None:
    """One sentence that names the path and the setting."""
    file = home / "file"
    file.write_text("x")
    with pytest.raises(PlatformError, match="MLCORE_HOME"):
        EmbeddedServer(file).start()


def test_a_home_that_can_not_be_written() -> None:
    """A folder of a file system that takes nothing."""
    with pytest.raises(PlatformError, match="MLCORE_HOME"):
        EmbeddedServer(Path("/proc/mlcore")).start()


def test_a_file_of_ours_that_can_not_be_written(home: Path) -> None:
    """The error names the file; what is wrong with it is the system's own word. Once it can be, the server starts."""
    for name in ("postgres.lock", "postgres.users", "logs/postgres.log"):
        (home / name).mkdir(parents=True)
        with pytest.raises(PlatformError, match=name):
            EmbeddedServer(home).start()
        (home / name).rmdir()
    EmbeddedServer(home).start()
    assert answers(home)


@pytest.mark.skipif(not AS_ROOT, reason="only root runs the server as another user")
def test_a_home_inside_a_private_folder(tmp_path: Path) -> None:
    """The server's account can't pass a closed folder; it is named, and it stays closed."""
    closed = tmp_path / "private"
    closed.mkdir(mode=0o700)
    with pytest.raises(PlatformError, match="closed to other users"):
        EmbeddedServer(closed / "home").start()
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not AS_ROOT, reason="only root runs the server as another user")
def test_programs_inside_a_private_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment under root's own home: the programs are copied to where the server's account can run them."""
    installation = binaries.installed_programs().parent
    private = tmp_path / installation.parent.name / installation.name
    shutil.copytree(installation, private)
    libraries = f"{installation.parent.name}.libs"
    shutil.copytree(installation.parents[1] / libraries, tmp_path / libraries)
    monkeypatch.setattr(binaries, "installed_programs", lambda: private / "bin")
    assert first_closed(private) is not None
    EmbeddedServer(home).start()
    assert answers(home)
    assert Path(psutil.Process(main_pid(home)).exe()).is_relative_to(home)
    EmbeddedServer(home).stop()
    EmbeddedServer(home).start()
    assert answers(home)


def test_data_of_another_major_version(home: Path) -> None:
    """Data of another release is left alone and named."""
    data = home / "postgres"
    data.mkdir()
    (data / "PG_VERSION").write_text("15\n")
    with pytest.raises(PlatformError, match="PostgreSQL 15"):
        EmbeddedServer(home).start()
    assert [file.name for file in data.iterdir()] == ["PG_VERSION"]


def test_a_data_folder_that_is_something_else(home: Path) -> None:
    """A folder with other files is not initialised over."""
    data = home / "postgres"
    data.mkdir()
    (data / "thesis.txt").write_text("years of work")
    with pytest.raises(PlatformError, match="Move"):
        EmbeddedServer(home).start()
    assert (data / "thesis.txt").read_text() == "years of work"


def test_an_initialisation_that_was_killed(home: Path) -> None:
    """Half a data folder from a killed first start is thrown away."""
    half = home / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    EmbeddedServer(home).start()
    assert answers(home)
    assert not half.exists()


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A home on a file system of so many megabytes."""
    with temporary_home() as folder:
        options = f"size={megabytes}m,mode=711"
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if not AS_ROOT or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("this machine does not allow mounts")
        try:
            yield folder
        finally:
            EmbeddedServer(folder).stop()
            subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_at_the_first_start() -> None:
    """No space: one error that says so, and no half-made data folder. With space it starts."""
    with small_disk(20) as folder:
        with pytest.raises(PlatformError, match="free some space"):
            EmbeddedServer(folder).start()
        assert not (folder / "postgres").exists()
        assert not (folder / "postgres.new").exists()
        subprocess.run(["mount", "-o", "remount,size=400m", str(folder)], check=True)
        EmbeddedServer(folder).start()
        assert answers(folder)


def test_a_disk_that_fills_up_while_it_runs() -> None:
    """Writes fail with the registry's error; with space again, everything that was committed is there."""
    with small_disk(150) as folder, DatabaseConnection(settings=settings_for(folder)) as db:
        tenant = new_tenant(db)
        free = shutil.disk_usage(folder).free
        (folder / "ballast").write_bytes(b"x" * (free - 2**20))
        committed: list[str] = []

        def fill() -> None:
            while len(committed) < 2_000:
                notes = {"fill": [uuid.uuid4().hex for _ in range(1_800)]}
                committed.append(register(db, tenant, metadata=notes).version)

        with pytest.raises(RegistryUnavailableError):
            fill()
        (folder / "ballast").unlink()
        EmbeddedServer(folder).start()
        assert [v.version for v in VersionRepository(db, tenant).list(TICKETS).items][::-1] == committed


def test_a_configuration_that_the_server_refuses(prepared: Path) -> None:
    """A server that refuses to start is an error with its own reason, here a broken configuration."""
    EmbeddedServer(prepared).stop()
    configuration = prepared / "postgres" / "postgresql.auto.conf"
    before = configuration.read_text()
    configuration.write_text("work_mem = nonsense\n")
    try:
        with pytest.raises(PlatformError, match="work_mem"):
            EmbeddedServer(prepared).start()
    finally:
        configuration.write_text(before)
    EmbeddedServer(prepared).start()
    assert answers(prepared)


def test_stop_without_a_home_does_nothing(home: Path) -> None:
    """Stopping what never was makes no folder."""
    EmbeddedServer(home / "never").stop()
    assert not (home / "never").exists()


def test_nobody_listens_on_the_network(prepared: Path) -> None:
    """The usual port is not opened by us."""
    postmaster = psutil.Process(main_pid(prepared))
    assert [c for c in postmaster.net_connections() if c.family in (socket.AF_INET, socket.AF_INET6)] == []
