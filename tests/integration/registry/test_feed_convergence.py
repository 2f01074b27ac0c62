"""Whatever a reader of the feed missed, it comes to know what a fresh snapshot says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.listener import Listener
from ml_core.database.tables import FEED_CHANNEL
from ml_core.domain import version as version_module
from ml_core.domain.api_key import Scope
from ml_core.domain.assignment import CanaryRollout, PointerRef
from ml_core.domain.rollout import Change, Trigger
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import InvalidTransitionError, ModelLoadError
from ml_core.ids import ModelId, TenantId, VersionId, VersionRef
from ml_core.inference import pointers as pointers_module
from ml_core.inference.assignment import Assignment
from ml_core.inference.follower import AssignmentFollower
from ml_core.inference.model_table import ModelTable
from ml_core.models.loading import LoadedModel
from ml_core.models.own_types import Trust
from ml_core.registry import feed as feed_module
from ml_core.registry.feed import FeedReader
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.promotion.moving import MoveRequest, prepare, swap
from ml_core.registry.promotion.rollouts import RolloutRepository
from support.feeds import FeedState
from support.registry import SELF_TEST, SIGNATURE, TICKETS, new_tenant, register, superuser
from support.waiting import wait_until

ONE, TWO, THREE = (VersionId(name) for name in "123")


@dataclass
class Deaf:
    """A listener that no notification reaches."""

    closed: threading.Event = field(default_factory=threading.Event)

    def wait(self, timeout_s: float) -> bool:
        self.closed.wait(timeout_s)
        return False

    def close(self) -> None:
        self.closed.set()


@dataclass
class Replica:
    """A follower with a table, and what it listens with."""

    follower: AssignmentFollower
    table: ModelTable
    listeners: list[Listener | Deaf]


@pytest.fixture
def start(db: DatabaseConnection) -> Iterator[Callable[..., Replica]]:
    """Starts replicas, which load nothing: what they want is what counts."""
    started: list[Replica] = []

    def load(version: ServableVersion) -> LoadedModel:
        raise ModelLoadError(f"{version.ref} is not to be loaded.")

    def begin(*, poll_interval_s: float, deaf: bool = False) -> Replica:
        listeners: list[Listener | Deaf] = []

        def listen() -> Listener | Deaf:
            listeners.append(Deaf() if deaf else db.listen(FEED_CHANNEL))
            return listeners[-1]

        table = ModelTable(load, max_memory_bytes=1)
        follower = AssignmentFollower(FeedReader(db), listen, Assignment(), table, poll_interval_s=poll_interval_s)
        started.append(Replica(follower, table, listeners))
        follower.start()
        assert follower.wait_first(20)
        return started[-1]

    yield begin
    for replica in started:
        replica.follower.stop()
        replica.table.close()


def wait_for_version(replica: Replica, tenant: TenantId, version: VersionId | None) -> None:
    """Wait until the replica wants a version for production."""

    def is_wanted() -> bool:
        pointer = replica.table.pointer((tenant, TICKETS, PRODUCTION))
        return (None if pointer is None else pointer.wanted.stable.ref.version) == version

    wait_until(is_wanted)


@pytest.fixture
def environments(db: DatabaseConnection, tenant_id: TenantId) -> EnvironmentRepository:
    """Three versions of ``tickets``, the first of them promoted."""
    for name in (ONE, TWO, THREE):
        register(db, tenant_id, name)
    environments = EnvironmentRepository(db, tenant_id)
    environments.promote(TICKETS, ONE, PRODUCTION, actor="me")
    return environments


def test_a_canary_and_a_shadow_arrive_whole(
    db: DatabaseConnection, tenant_id: TenantId, environments: EnvironmentRepository
) -> None:
    """With all that it takes to load them, in a delta and in a snapshot alike."""
    feed, rollouts = FeedReader(db), RolloutRepository(db, tenant_id)
    generation = feed.read(None).generation
    rollouts.start(TICKETS, TWO, 7, sticky="customer")
    rollouts.shadow(TICKETS, THREE, PRODUCTION)
    one, two, three = (feed.servable(VersionRef(tenant_id, TICKETS, name)) for name in (ONE, TWO, THREE))
    for delta in (feed.read(generation), feed.read(None)):
        rollout = delta.rollouts[PointerRef(tenant_id, TICKETS, PRODUCTION)]
        assert rollout is not None
        assert (rollout.stable, rollout.canary, rollout.shadow) == (one, CanaryRollout(two, 7, "customer"), three)
        assert list(rollout.versions()) == [one, two, three]
        assert (rollout.generation, rollout.unreadable) == (3, ())


@pytest.mark.parametrize("by", ["a delta", "a snapshot"])
def test_a_pointer_for_which_there_was_no_room_follows_once_there_is(
    db: DatabaseConnection,
    tenant_id: TenantId,
    start: Callable[..., Replica],
    monkeypatch: pytest.MonkeyPatch,
    by: str,
) -> None:
    """Without another move of it, whether its move or the first read brought it."""
    size = len(json.dumps(SIGNATURE.to_json())) + len(json.dumps(SELF_TEST.to_json())) + len("[]null")
    for module in (feed_module, pointers_module):
        monkeypatch.setattr(module, "MAX_TENANT_BYTES", size)
    monkeypatch.setattr(version_module, "SHARED_BYTES", 0)
    environments, models = EnvironmentRepository(db, tenant_id), [ModelId(name) for name in "abc"]
    replica = start(poll_interval_s=0.05) if by == "a delta" else None
    for model in models:
        environments.promote(model, register(db, tenant_id, model_id=model).version, PRODUCTION)
    replica = replica or start(poll_interval_s=0.05)

    def wanted() -> set[str]:
        return {model for tenant, model, _ in replica.table._pointers.by_key.copy() if tenant == tenant_id}

    left = set(models)
    while left:
        wait_until(lambda: len(wanted() & left) == 1)
        (model,) = wanted()
        left.remove(model)
        environments.withdraw(model, PRODUCTION)
    wait_until(lambda: not wanted() and tenant_id not in replica.table._pointers.unread)


@pytest.mark.parametrize("part", ["canary", "shadow"])
def test_a_part_that_can_not_be_read_leaves_the_stable_version(
    db: DatabaseConnection,
    tenant_id: TenantId,
    environments: EnvironmentRepository,
    caplog: pytest.LogCaptureFixture,
    part: str,
) -> None:
    """It is followed without that part, which is marked and logged."""
    rollouts = RolloutRepository(db, tenant_id)
    rollouts.start(TICKETS, TWO, 7)
    rollouts.shadow(TICKETS, THREE, PRODUCTION)
    with superuser(db) as session:
        statement = "UPDATE mlcore.versions SET modules = '[3]' WHERE tenant_id = %s AND version = %s"
        session.execute(statement, (tenant_id, TWO if part == "canary" else THREE))
    delta = FeedReader(db).read(None)
    rollout = delta.rollouts[PointerRef(tenant_id, TICKETS, PRODUCTION)]
    assert rollout is not None
    assert rollout.stable.ref.version == ONE
    assert (rollout.canary is None, rollout.shadow is None) == (part == "canary", part == "shadow")
    assert rollout.unreadable == (part,)
    assert PointerRef(tenant_id, TICKETS, PRODUCTION) not in delta.unreadable
    assert f"version {TWO if part == 'canary' else THREE} that is served by" in caplog.text


def test_one_look_after_an_hour_of_changes(
    db: DatabaseConnection, tenant_id: TenantId, environments: EnvironmentRepository
) -> None:
    """Hundreds of moves, tenants and keys that came and went: one delta brings the reader up to date."""
    reader, rollouts = FeedState(FeedReader(db)), RolloutRepository(db, tenant_id)
    reader.follow()
    for number in range(40):
        other = new_tenant(db)
        key = KeyRepository(db, other).create("k", [Scope.PREDICT])
        if number % 2:
            KeyRepository(db, other).revoke(key.key_id)
        environments.promote(TICKETS, (ONE, THREE)[number % 2], PRODUCTION, actor="me")
        rollouts.start(TICKETS, TWO, 1 + number)
        rollouts.step(TICKETS, 50)
        if number % 3:
            rollouts.abort(TICKETS, PRODUCTION)
        else:
            environments.withdraw(TICKETS, PRODUCTION, actor="me")
    delta = reader.follow()
    assert not delta.is_snapshot
    assert reader.is_up_to_date()


def test_what_was_rolled_back_is_never_told(
    db: DatabaseConnection, tenant_id: TenantId, environments: EnvironmentRepository
) -> None:
    """Nor does it leave a hole in which a later change is missed."""
    reader = FeedState(FeedReader(db))
    generation = reader.follow().generation
    with pytest.raises(ZeroDivisionError):
        move_and_fail(db, tenant_id)
    assert reader.follow().is_empty
    environments.promote(TICKETS, THREE, PRODUCTION, actor="me")
    delta = reader.follow()
    rollout = delta.rollouts[PointerRef(tenant_id, TICKETS, PRODUCTION)]
    assert rollout is not None
    assert (rollout.stable.ref.version, delta.generation) == (THREE, generation + 1)
    assert reader.is_up_to_date()


def move_and_fail(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Promote in a transaction that does not come to its end."""
    with db.tenant(tenant_id) as connection:
        wanted = MoveRequest(TICKETS, PRODUCTION, Change(Trigger.PROMOTE, TWO))
        swap(connection, prepare(connection, tenant_id, wanted, Trust()))
        raise ZeroDivisionError


def test_lost_notifications(
    start: Callable[..., Replica], tenant_id: TenantId, environments: EnvironmentRepository
) -> None:
    """A replica that hears none follows by looking."""
    replica = start(poll_interval_s=0.02, deaf=True)
    wait_for_version(replica, tenant_id, ONE)
    for version in (TWO, THREE):
        environments.promote(TICKETS, version, PRODUCTION, actor="me")
        wait_for_version(replica, tenant_id, version)
    environments.withdraw(TICKETS, PRODUCTION, actor="me")
    wait_for_version(replica, tenant_id, None)


def test_a_notification_is_enough(
    start: Callable[..., Replica], tenant_id: TenantId, environments: EnvironmentRepository
) -> None:
    """A replica that would look once an hour follows at once; a promotion by another session wakes it."""
    replica = start(poll_interval_s=3600)
    environments.promote(TICKETS, TWO, PRODUCTION, actor="me")
    wait_for_version(replica, tenant_id, TWO)


def test_a_listener_whose_session_is_ended(
    db: DatabaseConnection, start: Callable[..., Replica], tenant_id: TenantId, environments: EnvironmentRepository
) -> None:
    """What was changed meanwhile is known after the reconnect, and the new session hears what follows."""
    replica = start(poll_interval_s=3600)
    (first,) = replica.listeners
    assert isinstance(first, Listener)
    pid = first._connection.info.backend_pid
    with superuser(db) as session:
        session.execute("SELECT pg_terminate_backend(%s)", (pid,))
    environments.promote(TICKETS, TWO, PRODUCTION, actor="me")
    wait_for_version(replica, tenant_id, TWO)
    assert len(replica.listeners) == 2
    wait_until(lambda: replica.follower.is_current)  # it says so after it has applied what it read
    environments.promote(TICKETS, THREE, PRODUCTION, actor="me")
    wait_for_version(replica, tenant_id, THREE)
    assert len(replica.listeners) == 2


def test_a_registry_that_was_restored_from_a_backup(
    db: DatabaseConnection, tenant_id: TenantId, environments: EnvironmentRepository
) -> None:
    """A reader that is ahead of the registry begins anew, rather than wait until it is overtaken."""
    reader = FeedState(FeedReader(db))
    reader.follow()
    reader.generation = (reader.generation or 0) + 1000
    reader.state["rollouts"] = {PointerRef(tenant_id, TICKETS, PRODUCTION): "what was lost"}
    assert reader.follow().is_snapshot
    assert reader.is_up_to_date()


def test_the_audit_and_the_feed_agree(
    db: DatabaseConnection, tenant_id: TenantId, environments: EnvironmentRepository
) -> None:
    """Each move has one audit row, with the generation to which it brought the pointer; a refused one has none."""
    rollouts = RolloutRepository(db, tenant_id)
    rollouts.start(TICKETS, TWO, 5)
    with pytest.raises(InvalidTransitionError):
        environments.promote(TICKETS, THREE, PRODUCTION, actor="me")
    rollouts.finish(TICKETS, PRODUCTION)
    with db.tenant(tenant_id) as connection:
        moves = connection.execute(
            sa.text(
                "SELECT action, details FROM mlcore.audit WHERE action ~ '^(environment|rollout)' ORDER BY audit_id"
            )
        ).all()
    assert [(action, d["generation"], d["version"]) for action, d in moves] == [
        ("environment.moved", 1, ONE),
        ("rollout.started", 2, ONE),
        ("rollout.finished", 3, TWO),
    ]
