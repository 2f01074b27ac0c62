"""The outbox: events reach other programs in order, at least once, and one consumer at a time."""

from __future__ import annotations

import itertools
import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.ids import TenantId
from ml_core.registry import journal
from ml_core.registry.keys import KeyRepository
from ml_core.registry.outbox import Event, OutboxReader
from support.registry import register

DEADLINE_S = 20


@pytest.fixture
def outbox(db: DatabaseConnection, tenant_id: TenantId) -> OutboxReader:
    for _ in range(6):
        register(db, tenant_id)
    return OutboxReader(db, tenant_id)


def test_events_come_in_order_and_once(outbox: OutboxReader, tenant_id: TenantId) -> None:
    """All of them, oldest first, batch after batch; a second delivery has nothing left."""
    seen: list[Event] = []
    while outbox.deliver(seen.append, limit=2):
        pass
    assert [event.topic for event in seen] == ["tenant.created", *["version.registered"] * 6]
    assert [event.payload.get("version") for event in seen[1:]] == ["1", "2", "3", "4", "5", "6"]
    assert [event.outbox_id for event in seen] == sorted({event.outbox_id for event in seen})
    assert outbox.deliver(seen.append) == 0


def test_an_event_is_delivered_once_its_change_is_committed(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A change that took longer comes later, with a lower number than one that overtook it; none is lost."""
    outbox, seen = OutboxReader(db, tenant_id), []
    with db.tenant(tenant_id) as slow:
        journal.record(slow, tenant_id, "key.created", {"key_id": "slow"})
        KeyRepository(db, tenant_id).create("quick", [Scope.READ])
        outbox.deliver(seen.append)
    assert [event.topic for event in seen] == ["tenant.created", "key.created"]
    outbox.deliver(seen.append)
    assert seen[2].payload == {"key_id": "slow"}
    assert seen[2].outbox_id < seen[1].outbox_id


def test_a_handler_that_passes_over_an_event_lets_the_others_through(outbox: OutboxReader) -> None:
    """Who can never take an event returns; only an error stops what comes after."""
    seen: list[str] = []

    def take_versions(event: Event) -> bool:
        if not event.topic.startswith("version."):
            return False
        seen.append(event.topic)
        return True

    assert outbox.deliver(take_versions) == 7
    assert len(seen) == 6


def test_a_failing_handler_leaves_its_event(outbox: OutboxReader) -> None:
    """What came before it is delivered, it and the rest are not; the error is the handler's own."""
    seen: list[Event] = []
    calls = itertools.count(1)

    def refuse_the_third(event: Event) -> None:
        if next(calls) == 3:
            raise ZeroDivisionError
        seen.append(event)

    with pytest.raises(ZeroDivisionError):
        outbox.deliver(refuse_the_third)
    first = [event.outbox_id for event in seen]
    assert len(first) == 2
    seen.clear()
    assert outbox.deliver(seen.append) == 5
    assert min(event.outbox_id for event in seen) > max(first)


def test_two_consumers_never_hold_the_same_event(outbox: OutboxReader) -> None:
    """While one works on its batch, the other gets the events after it."""
    mine: list[int] = []
    theirs: list[int] = []
    holding, done = threading.Event(), threading.Event()

    def hold(event: Event) -> None:
        mine.append(event.outbox_id)
        holding.set()
        assert done.wait(DEADLINE_S)

    worker = threading.Thread(target=lambda: outbox.deliver(hold, limit=3))
    worker.start()
    assert holding.wait(DEADLINE_S)
    outbox.deliver(lambda event: theirs.append(event.outbox_id))
    done.set()
    worker.join(DEADLINE_S)
    assert len(mine) == 3
    assert len(theirs) == 4
    assert set(mine) & set(theirs) == set()


def test_pruning_takes_delivered_events_only(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId, outbox: OutboxReader
) -> None:
    """Undelivered events stay whatever their age, and so do those of other tenants."""
    OutboxReader(db, other_tenant_id).deliver(lambda event: None)
    outbox.deliver(lambda event: None, limit=3)
    assert outbox.prune(timedelta(days=1)) == 0
    assert outbox.prune(timedelta(0)) == 3
    assert outbox.deliver(lambda event: None) == 4
    assert OutboxReader(db, other_tenant_id).prune(timedelta(0)) == 1


def test_the_runtime_can_not_remove_undelivered_events(
    db: DatabaseConnection, tenant_id: TenantId, outbox: OutboxReader
) -> None:
    """The one way to remove events is the function, which passes over undelivered ones, whatever age is asked for."""
    with db.tenant(tenant_id) as connection:
        assert connection.scalar(sa.text("SELECT mlcore.prune_outbox('-1 year', 1000)")) == 0
    with pytest.raises(ProgrammingError, match="permission denied"), db.tenant(tenant_id) as connection:
        connection.execute(sa.text("DELETE FROM mlcore.outbox"))
