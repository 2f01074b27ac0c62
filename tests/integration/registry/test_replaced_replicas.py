"""Replicas whose threads are lost to models that do not return: nothing else ends such a call."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import DeadlineExceededError, ModelLoadError, PlatformError
from ml_core.inference import fair_threads, model_table
from ml_core.inference import replica as replica_module
from ml_core.inference.fair_threads import MAX_LOST
from ml_core.inference.loads import MAX_LOST_LOADS
from ml_core.inference.pointers import VersionKey, version_key
from ml_core.inference.replica import Replica
from ml_core.models.store import LocalStore
from support.inprocess_cell import fitted, renamed, servable
from support.replicas import running_replica
from support.tables import measures, split_target


@pytest.fixture
def version(tmp_path_factory: pytest.TempPathFactory) -> ServableVersion:
    """One whose calls hang."""
    model = fitted("measures", split_target(measures(60), "outcome"), n_estimators=2)
    return servable(LocalStore(tmp_path_factory.mktemp("artifacts")), model)


@pytest.fixture
def wake(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Ends the calls that hang. They are lost at their deadlines, and nobody waits for a successor."""
    monkeypatch.setattr(fair_threads, "LOST_AFTER_S", 0.0)
    monkeypatch.setattr(replica_module, "REPLACED_AFTER_S", 0.0)
    wake = threading.Event()
    yield wake
    wake.set()


def spend(replica: Replica, version: VersionKey, wake: threading.Event) -> None:
    """Lose as many calls of a version as a replica may."""

    async def hang() -> None:
        loop, threads = asyncio.get_running_loop(), replica.service.threads
        for number in range(MAX_LOST):
            hanging = threads.submit(f"t{number}", wake.wait, 60, deadline=loop.time() + 0.01, version=version)
            with pytest.raises(DeadlineExceededError):
                await hanging

    asyncio.run(hang())


def test_they_are_replaced_one_after_the_other(
    db: DatabaseConnection, version: ServableVersion, wake: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next replica does not load what did not return, for a while."""
    key = version_key(version)
    with ExitStack() as second:
        two = second.enter_context(running_replica(db, "two"))
        with running_replica(db, "one") as one:
            one.check_health()
            for replica in (one, two):
                spend(replica, key, wake)
            for _ in range(2):
                with pytest.raises(PlatformError, match="32 calls and 0 loads of models have not returned"):
                    one.check_health()
                two.check_health()
            assert (one.service.describe()["lost_calls"], one.service.lost_versions) == (MAX_LOST, {key})
        with pytest.raises(PlatformError, match="have not returned"):
            two.check_health()
    with running_replica(db, "three") as three:
        with pytest.raises(ModelLoadError, match="a replica was replaced because of it: code"):
            three.table.request_load(version).result(10)
        with pytest.raises(ModelLoadError, match="is missing"):
            three.table.request_load(renamed(version, "2")).result(10)
    later = SimpleNamespace(time=lambda: 1e12, monotonic=time.monotonic)  # servers of other tests read the true clock
    monkeypatch.setattr(model_table, "time", later)
    with running_replica(db, "four") as four, pytest.raises(ModelLoadError, match="is missing"):
        four.table.request_load(version).result(10)


def test_a_replica_waits_for_the_successor_of_the_one_before(
    db: DatabaseConnection, version: ServableVersion, wake: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is not replaced at all if the calls return meanwhile."""
    monkeypatch.setattr(replica_module, "REPLACED_AFTER_S", 60.0)
    with running_replica(db, "patient") as replica:
        spend(replica, version_key(version), wake)
        replica.check_health()
        wake.set()
        monkeypatch.setattr(replica_module, "REPLACED_AFTER_S", 0.0)
        asyncio.run(_returned(replica))
        replica.check_health()


async def _returned(replica: Replica) -> None:
    while replica.service.is_spent:
        await asyncio.sleep(0.01)


def test_lost_loads_count_as_well(db: DatabaseConnection, wake: threading.Event) -> None:
    """Each of them keeps a thread."""
    with running_replica(db, "loading") as replica:
        replica.table._load_own._lost |= {("t", "m", str(number), "0") for number in range(MAX_LOST_LOADS)}
        with pytest.raises(PlatformError, match="0 calls and 32 loads of models have not returned"):
            replica.check_health()
