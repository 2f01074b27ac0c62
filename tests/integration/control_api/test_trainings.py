"""Trainings that are started over HTTP: each in a process of its own, which may die, wait, or be left behind."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.api.trainings import Turns
from ml_core.client import MLClient
from ml_core.domain.api_key import Scope
from ml_core.domain.run import RunStatus
from ml_core.exceptions import (
    AuthenticationError,
    DeadlineExceededError,
    InvalidNameError,
    InvalidRequestError,
    MLFrameworkError,
    QueueFullError,
    RunNotFoundError,
    RunStateError,
    TrainingError,
)
from ml_core.ids import RunId
from ml_core.registry.keys import KeyRepository
from support.http_server import mounted, served
from support.waiting import wait_until

FAST = {"algorithm": "logistic_regression"}
_WORKER = b"ml_core.training.worker"


def workers(parent: int | None = None) -> list[int]:
    """The processes of trainings that this process (or another) has started."""
    return [worker for worker, its_parent in all_workers().items() if its_parent == (parent or os.getpid())]


def all_workers() -> dict[int, int]:
    """Process of a training → the process that started it."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and _WORKER in (folder / "cmdline").read_bytes().split(b"\0"):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    found[int(folder.name)] = int(fields[1])
        except OSError:
            continue
    return found


@pytest.fixture
def dataset(client, tmp_path):
    """A dataset that is trained on in a moment."""
    path = tmp_path / "points.csv"
    rows = (f"{n},{n % 7},{'odd' if n % 2 else 'even'}\n" for n in range(400))
    path.write_text("a,b,parity\n" + "".join(rows))
    client.datasets.create("points", path)
    return "points"


@pytest.fixture
def paused(monkeypatch, tmp_path):
    """Makes workers wait around a method of theirs for as long as the file is there that it returns."""
    gate, site = tmp_path / "gate", tmp_path / "site"

    def pause(module, method, *, after=False):
        gate.touch()
        site.mkdir()
        owner, name = method.split(".")
        (site / "sitecustomize.py").write_text(
            "import os, sys, time\n"
            "if 'ml_core.training.worker' in ' '.join(sys.orig_argv):\n"
            f"    from {module} import {owner}\n"
            f"    method = {owner}.{name}\n"
            "    def wait():\n"
            f"        while os.path.exists({str(gate)!r}): time.sleep(0.02)\n"
            "    def paused(*args, **options):\n"
            f"        {'pass' if after else 'wait()'}\n"
            "        result = method(*args, **options)\n"
            f"        {'wait()' if after else 'pass'}\n"
            "        return result\n"
            f"    {owner}.{name} = paused\n"
        )
        monkeypatch.setenv("PYTHONPATH", f"{site}:{os.environ.get('PYTHONPATH', '')}")
        return gate

    yield pause
    gate.unlink(missing_ok=True)


@pytest.fixture
def slow(paused):
    """Workers wait between the start of their run and the fit, for as long as the file is there."""
    return paused("ml_core.training.trainer", "Trainer._fit")


@pytest.fixture
def other_client(address, db, other_tenant_id):
    """A client of another tenant."""
    key = str(KeyRepository(db, other_tenant_id).create("admin", [Scope.ADMIN]))
    with MLClient(address, api_key=key, tenant_id=other_tenant_id, timeout_s=30) as asks:
        yield asks


def train(client, dataset, *, wait_s=0, **spec):
    """Start a training; with ``wait_s`` wait for its end, on a busy machine a few times."""
    spec = {"hyperparameters": FAST, **spec}
    found = client.models.train("parity", dataset, target="parity", wait_s=wait_s, **spec)
    for _ in range(3 if wait_s else 0):
        if found.run.status == RunStatus.RUNNING:
            found = client.models.training("parity", found.run.run_id, wait_s=wait_s)
    return found


def test_a_training_makes_a_version(client, dataset):
    """It is a run with its version, and the worker is gone."""
    done = train(client, dataset, wait_s=60)
    assert done.run.status == RunStatus.FINISHED
    version = client.versions.get("parity")
    assert version.lineage.run_id == done.run.run_id
    assert client.versions.training("parity", version.version) == done.report
    wait_until(lambda: not workers())


def test_what_is_wrong_with_it_is_its_own_error(client, dataset):
    """Over two processes and HTTP: the class, its attributes and what mends it."""
    with pytest.raises(InvalidRequestError, match="nothing") as missing:
        train(client, "nothing", wait_s=60)
    assert missing.value.action.operation == "datasets.list"
    with pytest.raises(MLFrameworkError, match="no_such") as no_column:
        client.models.train("parity", dataset, target="no_such", wait_s=60)
    assert no_column.value.code != "internal"


def test_a_fault_of_the_platform_in_a_worker_is_not_shown(client, dataset, monkeypatch, tmp_path, caplog):
    """Its text names places of the platform: they are in the log, and not in the error or the run."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'ml_core.training.worker' in ' '.join(sys.orig_argv):\n"
        "    from ml_core.training.trainer import Trainer\n"
        "    def fail(*_): raise OSError(28, 'No space left on device', '/srv/hidden')\n"
        "    Trainer._fit = fail\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    with pytest.raises(TrainingError, match=r"The training failed\. Report the id of the request") as failed:
        train(client, dataset, wait_s=60)
    (run,) = client.runs.list()
    assert run.error.startswith("OSError. Report the id of the request or run")
    assert "/srv/hidden" not in f"{failed.value} {failed.value.details}"
    assert "OSError: [Errno 28] No space left on device: '/srv/hidden'" in caplog.text


def test_a_worker_that_is_killed_fails_its_run(client, dataset, slow):
    """At once, with a reason; and the next training is done."""
    run = train(client, dataset).run
    (worker,) = workers()
    os.kill(worker, signal.SIGKILL)
    ended = wait_until(lambda: (found := client.runs.get(run.run_id)).status != RunStatus.RUNNING and found, 60)
    assert ended.status == RunStatus.FAILED
    assert "-9" in ended.error
    assert "memory" in ended.error
    slow.unlink()
    assert train(client, dataset, wait_s=60).run.status == RunStatus.FINISHED


def test_one_waits_for_the_other(app, client, dataset, slow):
    """With MLCORE_TRAININGS_AT_ONCE=1 there is one process; the run is running until it is done."""
    first = train(client, dataset).run
    assert first.status == client.runs.get(first.run_id).status == RunStatus.RUNNING
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(train, client, dataset, wait_s=60)
        wait_until(lambda: app.state.services.trainings._accepted.total() == 2)
        assert len(workers()) == 1
        assert not second.done()
        slow.unlink()
        assert second.result().run.status == RunStatus.FINISHED
    assert client.runs.get(first.run_id).status == RunStatus.FINISHED


def test_a_key_that_is_revoked_meanwhile_starts_no_training(app, address, db, tenant_id, client, dataset, slow):
    """The one that has begun goes on; the one that waits is refused when its turn comes, and leaves no run."""
    keys = KeyRepository(db, tenant_id)
    key = keys.create("trains", [Scope.TRAIN])
    first = train(client, dataset).run
    with (
        MLClient(address, api_key=str(key), tenant_id=tenant_id, timeout_s=30) as asks,
        ThreadPoolExecutor(1) as pool,
    ):
        second = pool.submit(train, asks, dataset)
        wait_until(lambda: app.state.services.trainings._accepted.total() == 2)
        keys.revoke(key.key_id)
        slow.unlink()
        with pytest.raises(AuthenticationError, match="not valid"):
            second.result()
    assert [run.run_id for run in client.runs.list()] == [first.run_id]


def test_a_training_whose_turn_does_not_come_is_dropped(app, client, dataset, slow):
    """Its caller knows of no run, so there is none."""
    first = train(client, dataset).run
    call = type(client.models).train(client.models, "parity", dataset, target="parity")
    with pytest.raises(DeadlineExceededError):
        client._connection.send(dataclasses.replace(call, timeout_s=0.5))
    wait_until(lambda: app.state.services.trainings._accepted.total() == 1)
    slow.unlink()
    later = train(client, dataset, wait_s=60).run  # its turn is after that of the one that was dropped
    assert {run.run_id for run in client.runs.list()} == {first.run_id, later.run_id}


def test_a_run_whose_start_nobody_learned_is_cancelled(client, dataset, paused, address, admin_key):
    """Its client left after the run was recorded and before the server knew of that."""
    gate = paused("ml_core.registry.runs.repository", "RunRepository.start", after=True)
    call = type(client.models).train(client.models, "parity", dataset, target="parity")
    body, url = call.body.model_dump_json(exclude_unset=True).encode(), httpx.URL(address)
    head = (
        f"POST {call.path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {admin_key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(head.encode() + body)
        (run,) = wait_until(lambda: list(client.runs.list()), 60)
        assert run.status == RunStatus.RUNNING
    wait_until(lambda: client.runs.get(run.run_id).status == RunStatus.CANCELLED)
    wait_until(lambda: not workers())
    gate.unlink()


def test_a_client_chooses_the_id_of_the_run(client, other_client, dataset, slow, tmp_path):
    """So it can cancel what it read no answer about; the id is the tenant's own."""
    chosen = RunId.new()
    assert train(client, dataset, run_id=chosen).run.run_id == chosen
    with pytest.raises(InvalidNameError, match="16 lower-case hexadecimal digits"):
        train(client, dataset, run_id="mine")
    (tmp_path / "few.csv").write_text("a,parity\n1,odd\n2,even\n" * 20)
    other_client.datasets.create("points", tmp_path / "few.csv")
    with pytest.raises(RunNotFoundError):
        other_client.runs.cancel(chosen)
    client.runs.cancel(chosen)
    wait_until(lambda: not workers())
    slow.unlink()
    with pytest.raises(RunStateError, match="already"):
        train(client, dataset, run_id=chosen, wait_s=60)
    assert train(other_client, "points", run_id=chosen, wait_s=60).run.status == RunStatus.FINISHED
    assert client.runs.get(chosen).status == RunStatus.CANCELLED


def test_a_full_queue_and_more_than_half_of_it_are_refused(app, client, dataset, slow, monkeypatch):
    """429 with a pause, at once, and so is a tenant that has its half; later there is room again."""
    first = train(client, dataset).run
    monkeypatch.setattr(app.state.services.trainings, "_most", 2)
    with pytest.raises(QueueFullError, match="1 of them this tenant's"):
        train(client, dataset)
    monkeypatch.setattr(app.state.services.trainings, "_most", 1)
    with pytest.raises(QueueFullError) as full:
        train(client, dataset)
    assert full.value.retry_after_s == 30
    slow.unlink()
    wait_until(lambda: client.runs.get(first.run_id).status == RunStatus.FINISHED, 60)
    wait_until(lambda: not app.state.services.trainings._accepted)


def test_tenants_take_turns():
    """Whoever asks for many at once does not hold up who asks for one; a turn of who left is the next one's."""
    order = []

    async def take(turns, tenant_id):
        async with turns.of(tenant_id):
            order.append(tenant_id)
            await asyncio.sleep(0)

    async def main():
        turns = Turns(1)
        wanted = [asyncio.create_task(take(turns, tenant_id)) for tenant_id in ("a", "a", "a", "gone", "b", "a", "c")]
        await asyncio.sleep(0)
        wanted[3].cancel()
        await asyncio.gather(*wanted, return_exceptions=True)
        given = asyncio.create_task(take(turns, "d"))
        async with turns.of("a"):
            await asyncio.sleep(0)
        given.cancel()  # just as its turn came
        await asyncio.gather(given, return_exceptions=True)
        await asyncio.wait_for(take(turns, "e"), 5)

    asyncio.run(main())
    assert order == ["a", "a", "b", "c", "a", "a", "e"]


def test_a_worker_ends_with_the_server(db, admin_key, tenant_id, dataset, slow):
    """It is stopped, or killed: no process is left behind."""
    del slow
    with (
        served(mounted(create_app(Services(db)))) as port,
        MLClient(f"http://127.0.0.1:{port}", api_key=admin_key, tenant_id=tenant_id) as client,
    ):
        train(client, dataset)
        assert workers()
    wait_until(lambda: not workers())


def test_a_worker_ends_with_a_server_that_is_killed(db, admin_key, tenant_id, dataset, slow, tmp_path):
    """SIGKILL leaves it no time for anything; the worker notices that nobody reads it."""
    del slow
    part, port_file = tmp_path / "part", tmp_path / "port"
    program = f"""
import time
from pathlib import Path
from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.database.connection import DatabaseConnection
from support.http_server import mounted, served
with DatabaseConnection() as db, served(mounted(create_app(Services(db)))) as port:
    Path({str(part)!r}).write_text(str(port))
    Path({str(part)!r}).rename({str(port_file)!r})
    time.sleep(600)
"""
    tests = str(Path(__file__).parents[2])
    environment = {**os.environ, **db.environment, "MLCORE_HOME": str(db.settings.platform.home)}
    environment |= {
        "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{tests}",
        "MLCORE_DATABASE_OWNER_URL": "postgresql://owner@127.0.0.1:1/x",
    }
    server = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        wait_until(port_file.exists, 60)
        with MLClient(f"http://127.0.0.1:{port_file.read_text()}", api_key=admin_key, tenant_id=tenant_id) as client:
            train(client, dataset)
        (worker,) = workers(server.pid)
        its = Path(f"/proc/{worker}/environ").read_bytes()
        assert b"MLCORE_DATABASE_URL=" in its
        assert b"MLCORE_DATABASE_OWNER_URL" not in its
    finally:
        server.kill()
        server.wait()
    wait_until(lambda: worker not in all_workers())
