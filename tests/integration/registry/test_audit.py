"""The audit: each write leaves who did it and for which request; programs read all of it in order and miss none."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.principal import Principal
from ml_core.exceptions import InvalidRequestError, PromotionConflictError
from ml_core.ids import TenantId, VersionId
from ml_core.registry import journal
from ml_core.registry.audit import AuditRepository, renew_positions
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, register, superuser

ALICE = Principal("alice", frozenset({Scope.ADMIN}))


def actions(db: DatabaseConnection, tenant_id: TenantId, **query: Any) -> list[str]:
    return [entry.action for entry in AuditRepository(db, tenant_id).list(descending=True, **query).items]


def test_a_change_says_who_made_it_and_for_which_request(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Principal and request come from the connection, so no caller can leave them out."""
    key = KeyRepository(db.acting_as(ALICE, "req-1"), tenant_id).create("k", [Scope.READ])
    entry = AuditRepository(db, tenant_id).list(descending=True).items[0]
    assert (entry.principal, entry.request_id, entry.action) == ("alice", "req-1", "key.created")
    assert entry.subject == {"key_id": key.key_id}
    assert entry.details == {"name": "k", "scopes": ["read"]}


def test_who_acts_ends_with_the_connection_that_was_told(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """The same session of the pool names the next principal, not the last one."""
    KeyRepository(db.acting_as(ALICE, "req-1"), tenant_id).create("k", [Scope.READ])
    KeyRepository(db, tenant_id).create("k", [Scope.READ])
    entry = AuditRepository(db, tenant_id).list(descending=True).items[0]
    assert (entry.principal, entry.request_id) == (db.principal.name, None)


def test_raw_sql_is_attributed_as_well(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """The database knows the principal."""
    with db.acting_as(ALICE, "req-2").tenant(tenant_id) as connection:
        statement = (
            "INSERT INTO mlcore.audit (tenant_id, action) VALUES (:t, 'by.hand') RETURNING principal, request_id"
        )
        assert connection.execute(sa.text(statement), {"t": tenant_id}).one() == ("alice", "req-2")


def test_what_was_refused_leaves_nothing(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """The record is part of the transaction: without the change there is none."""
    register(db, tenant_id)
    before = actions(db, tenant_id)
    with pytest.raises(PromotionConflictError):
        EnvironmentRepository(db, tenant_id).promote(
            TICKETS, VersionId("1"), PRODUCTION, expected_generation=7, actor="late"
        )
    assert actions(db, tenant_id) == before


def test_changes_are_found_by_what_they_are(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """By action, all actions of a noun, principal, request, subject and time."""
    register(db.acting_as(ALICE, "req-3"), tenant_id)
    register(db, tenant_id)
    VersionRepository(db, tenant_id).archive(TICKETS, VersionId("1"))
    newest = AuditRepository(db, tenant_id).list(descending=True).items[0]
    assert actions(db, tenant_id, action="version.archived") == ["version.archived"]
    assert actions(db, tenant_id, action="version.") == ["version.archived"] + ["version.registered"] * 2
    assert actions(db, tenant_id, request_id="req-3") == ["version.registered"]
    subject = {"model_id": "tickets", "version": "1"}
    assert actions(db, tenant_id, subject=subject) == ["version.archived", "version.registered"]
    assert actions(db, tenant_id, since=newest.at) == ["version.archived"]
    assert "version.archived" not in actions(db, tenant_id, until=newest.at)
    assert actions(db, tenant_id, since=newest.at + timedelta(days=1)) == []


@pytest.mark.parametrize("field", ["since", "until"])
def test_a_moment_without_its_time_zone_is_refused(db: DatabaseConnection, tenant_id: TenantId, field: str) -> None:
    """Whose noon it is would be a guess."""
    with pytest.raises(InvalidRequestError, match=f"'{field}' has no time zone"):
        AuditRepository(db, tenant_id).list(**{field: datetime(2026, 1, 1)})  # noqa: DTZ001 - on purpose


def test_pages_of_the_audit(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Newest first; pages put together are the whole."""
    for _ in range(4):
        register(db, tenant_id)
    audit = AuditRepository(db, tenant_id)
    first = audit.list(descending=True, limit=2)
    second = audit.list(descending=True, limit=3, after=first.next_cursor)
    assert [*first.items, *second.items] == audit.list(descending=True).items
    assert second.next_cursor is None
    with pytest.raises(InvalidRequestError):
        audit.list(after="WyJ4Il0")


def test_another_tenants_audit_is_its_own(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """Nothing of what others do is seen."""
    register(db, other_tenant_id)
    assert actions(db, tenant_id) == ["tenant.created"]


class Follower:
    """A program that follows the changes of a tenant, as ``AuditRepository.list`` says."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._audit = AuditRepository(db, tenant_id)
        self.cursor: str | None = None
        self.seen: list[str] = []

    def poll(self, limit: int = 100) -> list[str]:
        """What is new, by the id of the key that each change created."""
        page = self._audit.list(after=self.cursor, limit=limit, action="key.created")
        if page.items:
            self.cursor = page.items[-1].cursor
        new = [entry.subject["key_id"] for entry in page.items]
        self.seen += new
        return new


def record(connection: sa.Connection, tenant_id: TenantId, name: str) -> None:
    journal.record(connection, tenant_id, "key.created", {"key_id": name})


@pytest.fixture
def follower(db: DatabaseConnection, tenant_id: TenantId) -> Follower:
    return Follower(db, tenant_id)


def test_a_slow_change_is_not_missed(db: DatabaseConnection, tenant_id: TenantId, follower: Follower) -> None:
    """It began first and commits last: the reader sees neither before it, and both in order after it."""
    with db.tenant(tenant_id) as slow:
        record(slow, tenant_id, "slow")
        with db.tenant(tenant_id) as quick:
            record(quick, tenant_id, "quick")
        assert follower.poll() == []
        assert actions(db, tenant_id)[0] == "key.created"  # newest first shows what is committed
    assert follower.poll() == ["slow", "quick"]
    assert follower.poll() == []


def test_a_slow_change_that_fails_holds_nothing_back(
    db: DatabaseConnection, tenant_id: TenantId, follower: Follower
) -> None:
    """Once it is rolled back, the changes after it are shown."""
    with db.tenant(tenant_id) as slow:
        record(slow, tenant_id, "slow")
        with db.tenant(tenant_id) as quick:
            record(quick, tenant_id, "quick")
        slow.rollback()
    assert follower.poll() == ["quick"]


def test_whoever_only_reads_holds_nothing_back(db: DatabaseConnection, tenant_id: TenantId, follower: Follower) -> None:
    """An open transaction that has written nothing, as that of a backup, has no id to wait for."""
    with superuser(db) as reader, reader.transaction():
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        reader.execute("SELECT count(*) FROM mlcore.audit")
        with db.tenant(tenant_id) as connection:
            record(connection, tenant_id, "one")
        assert follower.poll() == ["one"]


def test_a_reader_among_many_writers_misses_none(
    db: DatabaseConnection, tenant_id: TenantId, follower: Follower
) -> None:
    """Six writers whose transactions overlap at random, some of which fail; each change is read once, in one order."""
    committed: list[str] = []

    def write(writer: int) -> None:
        chance = random.Random(writer)
        for i in range(25):
            name = f"{writer}-{i}"
            try:
                with db.tenant(tenant_id) as connection:
                    record(connection, tenant_id, name)
                    connection.execute(sa.text("SELECT pg_sleep(:s)"), {"s": chance.random() / 50})
                    if chance.random() < 0.2:
                        raise LookupError
            except LookupError:
                continue
            committed.append(name)

    writers = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in writers:
        thread.start()
    while any(thread.is_alive() for thread in writers):
        follower.poll(limit=3)
    for thread in writers:
        thread.join()
    while follower.poll():
        pass
    assert sorted(follower.seen) == sorted(committed)
    whole = AuditRepository(db, tenant_id).list(action="key.created", limit=1000).items
    assert [entry.subject["key_id"] for entry in whole] == follower.seen


@pytest.fixture
def another_server(db: DatabaseConnection) -> Iterator[None]:
    """The registry as if it had been restored from one whose transactions had far higher numbers."""
    with superuser(db) as session:
        (base,) = session.execute("SELECT base FROM mlcore.audit_clock").fetchone() or (0,)
        session.execute("UPDATE mlcore.audit_clock SET base = base + 4000000000")
        yield
        session.execute("UPDATE mlcore.audit_clock SET base = greatest(%s, base)", (base,))


@pytest.mark.usefixtures("another_server")
def test_changes_of_before_a_restore_are_shown_and_those_after_it_come_later(
    db: DatabaseConnection, tenant_id: TenantId, follower: Follower
) -> None:
    """Though the new server's transactions have lower numbers: a reader's cursor stays valid."""
    with db.tenant(tenant_id) as connection:
        record(connection, tenant_id, "before")
    assert follower.poll() == ["before"]
    with superuser(db) as session:
        session.execute("UPDATE mlcore.audit_clock SET base = base - 4000000000")
    assert actions(db, tenant_id, action="key.created") == ["key.created"]
    with db._engine(db.urls.owner.replace("mlcore_owner@", "postgres@")).begin() as admin:
        renew_positions(admin)
    with db.tenant(tenant_id) as connection:
        record(connection, tenant_id, "after")
    assert follower.poll() == ["after"]
    assert Follower(db, tenant_id).poll() == ["before", "after"]


def test_sql_can_not_choose_a_position(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A change that claimed to be of the future would be shown to no reader."""
    forged = "INSERT INTO mlcore.audit (tenant_id, action, position) VALUES (:t, 'x', 1)"
    with pytest.raises(ProgrammingError, match="permission denied"), db.tenant(tenant_id) as connection:
        connection.execute(sa.text(forged), {"t": tenant_id})
