"""A replica is ready once it has the models that were asked recently; the others follow."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Sequence

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.assignment import AssignmentDelta
from ml_core.domain.version import ServableVersion
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.inference import replica as replica_module
from ml_core.inference.recent import RecentPointers
from ml_core.inference.replica import Replica
from ml_core.models.loading import LoadedModel, load_version
from ml_core.models.own_types import Trust
from ml_core.models.store import ArtifactStore
from ml_core.registry.feed import FeedReader
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.training.trainer import Trainer
from support.registry import new_tenant, settings_for, temporary_home
from support.replicas import replica_settings, running_replica
from support.tables import measures, split_target

NAMES = [ModelId(f"m{number}") for number in range(4)]


@pytest.fixture(scope="module")
def own() -> Iterator[DatabaseConnection]:
    """A registry of these tests' own: a replica follows all tenants of a cell."""
    with temporary_home() as home, DatabaseConnection(settings=settings_for(home)) as connection:
        yield connection


@pytest.fixture(scope="module")
def acme(own: DatabaseConnection) -> TenantId:
    """A tenant with four promoted models."""
    tenant_id = new_tenant(own)
    trainer = Trainer(own, tenant_id)
    for name in NAMES:
        trainer.train(name, None, split_target(measures(60), "outcome"), hyperparameters={"n_estimators": 2})
        EnvironmentRepository(own, tenant_id).promote(name, VersionId("1"), PRODUCTION)
    return tenant_id


def test_it_is_ready_with_the_models_that_were_asked_recently(
    own: DatabaseConnection, acme: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are loaded first, and it does not wait for the others, which a request loads before their turn."""
    with running_replica(own, "before") as before:
        assert before.table.wait_idle(30)
        for name in ("m1", "m3"):
            resident = before.table.acquire_pointer((acme, name, PRODUCTION))
            assert resident is not None
            before.table.release(resident)
    loaded: list[str] = []
    go_on = threading.Event()

    def load(store: ArtifactStore, version: ServableVersion, trust: Trust) -> LoadedModel:
        loaded.append(version.ref.model_id)
        assert len(loaded) != 3 or go_on.wait(30), "the first that nobody asked for"
        return load_version(store, version, trust)

    monkeypatch.setattr(replica_module, "load_version", load)
    replica = Replica(replica_settings(own), "after")
    try:
        assert replica.start(wait_s=30)
        assert loaded[:2] == ["m3", "m1"]
        assert replica.table.acquire_pointer((acme, "m3", PRODUCTION)) is not None
        others = {"m0", "m2"}
        asked = ({*others} - set(loaded)).pop()  # the last in the order
        version = replica.table.target((acme, asked, PRODUCTION))
        assert replica.table.request_load(version).result(30) is not None
        go_on.set()
        assert replica.table.wait_idle(30)
        assert sorted(loaded) == ["m0", "m1", "m2", "m3"]
    finally:
        go_on.set()
        replica.stop()


def test_it_waits_for_recent_models_that_several_environments_share(
    own: DatabaseConnection, acme: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are fewer loads than pointers then."""
    for environment in ("staging", "development"):
        for name in NAMES:
            EnvironmentRepository(own, acme).promote(name, VersionId("1"), EnvironmentName(environment))
    RecentPointers(own.settings.platform.home, "shared").write([(acme, "m2", "production")])
    go_on = threading.Event()

    def load(store: ArtifactStore, version: ServableVersion, trust: Trust) -> LoadedModel:
        assert version.ref.model_id != "m2" or go_on.wait(30)
        return load_version(store, version, trust)

    monkeypatch.setattr(replica_module, "load_version", load)
    monkeypatch.setattr(replica_module, "MODELS_WAIT_S", 30.0)
    replica = Replica(replica_settings(own), "shares")
    starting = threading.Thread(target=replica.start, args=(30.0,))
    starting.start()
    try:
        starting.join(1.0)
        assert starting.is_alive()
        go_on.set()
        starting.join(30)
        assert replica.table.acquire_pointer((acme, "m2", "production")) is not None
    finally:
        go_on.set()
        replica.stop()


def test_without_a_record_it_waits_for_all_models(own: DatabaseConnection, acme: TenantId) -> None:
    """As the first replica on a machine does, for as long as it is told to."""
    for path in (own.settings.platform.home / "recent").glob("*"):
        path.unlink()
    replica = Replica(replica_settings(own), "first")
    try:
        assert replica.start(wait_s=30)
        assert replica.table.describe()["loaded"] == len(NAMES)
    finally:
        replica.stop()
    assert not (own.settings.platform.home / "recent" / "shared.json").exists(), "nobody asked"


def test_it_waits_for_models_a_moment_only(
    own: DatabaseConnection, acme: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the only replica: a request loads its model before the thousands that are loaded ahead."""
    go_on = threading.Event()

    def load(store: ArtifactStore, version: ServableVersion, trust: Trust) -> LoadedModel:
        assert version.ref.model_id == "m2" or go_on.wait(30)
        return load_version(store, version, trust)

    monkeypatch.setattr(replica_module, "load_version", load)
    monkeypatch.setattr(replica_module, "MODELS_WAIT_S", 0.1)
    replica = Replica(replica_settings(own), "hurried")
    try:
        assert replica.start(wait_s=30) is False
        assert replica.service.is_ready
        wanted = replica.table.target((acme, "m2", PRODUCTION))
        assert replica.table.request_load(wanted).result(30) is not None
    finally:
        go_on.set()
        replica.stop()


def test_it_waits_longer_while_the_assignment_is_read(
    own: DatabaseConnection, acme: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large one on a busy machine: a replica without it would refuse every request, and be replaced in vain."""
    asked, go_on, read = threading.Event(), threading.Event(), FeedReader.read

    def read_slowly(reader: FeedReader, after: int | None, again: Sequence[str]) -> AssignmentDelta:
        asked.set()
        assert go_on.wait(30)
        return read(reader, after, again)

    monkeypatch.setattr(FeedReader, "read", read_slowly)
    replica = Replica(replica_settings(own, require_assignment=True), "patient")
    starting = threading.Thread(target=replica.start, args=(0.01,))
    starting.start()
    try:
        assert asked.wait(30)
        starting.join(0.5)
        assert starting.is_alive()
        go_on.set()
        starting.join(30)
        assert replica.service.is_ready
        assert replica.table.describe()["pointers"] >= len(NAMES)
        assert gc.isenabled()
    finally:
        go_on.set()
        replica.stop()
