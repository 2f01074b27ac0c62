"""Changes of all tenants, as one reader finds them: each is told once it is committed, whatever runs beside it."""

from __future__ import annotations

import random
from contextlib import ExitStack

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.principal import Principal
from ml_core.exceptions import PermissionDeniedError
from ml_core.ids import TenantId
from ml_core.registry import journal
from ml_core.registry.audit import AuditRepository, renew_positions
from ml_core.registry.changes import ChangeReader, Look
from ml_core.registry.jobs import JobQueue, JobRepository
from ml_core.registry.keys import KeyRepository


class Reader:
    """Looks again and again."""

    def __init__(self, db: DatabaseConnection) -> None:
        self._changes = ChangeReader(db)
        self.last: Look | None = None

    def look(self) -> dict[TenantId, set[str]]:
        """What has changed since the look before."""
        self.last = self._changes.look(self.last)
        return dict(self.last.changed)


@pytest.fixture
def reader(db: DatabaseConnection) -> Reader:
    """One that has looked once."""
    found = Reader(db)
    assert found.look() == {}
    return found


def change(db: DatabaseConnection, tenant_id: TenantId) -> None:
    KeyRepository(db, tenant_id).create("k", [Scope.READ])


def test_a_change_is_told_once_and_to_its_tenant(db, reader, tenant_id, other_tenant_id):
    """Of the audit, and of a job."""
    assert reader.look() == {tenant_id: {"audit"}, other_tenant_id: {"audit"}}  # they were created
    change(db, tenant_id)
    assert reader.look() == {tenant_id: {"audit"}}
    assert reader.look() == {}
    JobRepository(db, other_tenant_id).submit("train", {})
    assert reader.look() == {other_tenant_id: {"audit", "jobs"}}
    assert reader.look() == {}


def test_progress_of_a_job_is_a_change(db, reader, tenant_id):
    """Though the audit has nothing of it; so are its begin and its lease."""
    jobs, queue = JobRepository(db, tenant_id), JobQueue(db)
    job_id = jobs.submit("train", {}).job_id
    reader.look()
    while (attempt := queue.claim("tester", 100.0, 30.0)) is not None and attempt.job_id != job_id:
        pass  # of other tests
    assert attempt is not None
    assert reader.look()[tenant_id] == {"jobs"}
    jobs.begin(job_id, attempt.run_id, 30.0)
    assert "jobs" in reader.look()[tenant_id]
    jobs.beat(job_id, attempt.run_id, 30.0, {"stage": "fit"}, ["a line"])
    assert reader.look() == {tenant_id: {"jobs"}}
    jobs.cancel(job_id)
    jobs.lose(job_id, attempt.run_id, "cancelled")


def test_a_position_is_the_transactions_own(db, tenant_id):
    """Whatever SQL says: a job of the future would be told for ever."""
    JobRepository(db, tenant_id).submit("train", {})
    with db.tenant(tenant_id) as connection:
        columns = "tenant_id, job_id, kind, cpus, scopes, submitted_by, request_id, max_attempts, position"
        values = ":tenant, 'job_00000000000000ff', 'train', 1, '{train}', 'x', '', 1, 9223372036854775807"
        connection.execute(sa.text(f"INSERT INTO mlcore.jobs ({columns}) VALUES ({values})"), {"tenant": tenant_id})
        found = connection.scalars(sa.text("SELECT position FROM mlcore.jobs")).all()
    now, _ = ChangeReader(db).missed(None, None)
    assert max(found) < now
    JobRepository(db, tenant_id).cancel("job_00000000000000ff")


def test_a_change_is_told_while_an_older_transaction_runs_and_again_with_the_feed(db, reader, tenant_id):
    """At once for those who read what is newest; and for those who follow the ordered feed, when that shows it."""
    reader.look()
    with db.tenant(tenant_id) as slow:
        journal.record(slow, tenant_id, "key.created", {"key_id": "slow"})
        change(db, tenant_id)
        assert reader.look() == {tenant_id: {"audit"}}
        assert reader.look() == {}
        last = AuditRepository(db, tenant_id).list().items
        assert [entry.action for entry in last] == ["tenant.created"]
    assert reader.look() == {tenant_id: {"audit"}}
    assert len(AuditRepository(db, tenant_id).list().items) == 3
    assert reader.look() == {}


def test_what_was_missed_is_known_to_every_process(db, tenant_id, other_tenant_id):
    """By the position that was seen last; of one tenant, or of any."""
    changes = ChangeReader(db)
    seen, nothing = changes.missed(tenant_id, None)
    assert nothing == set()
    assert changes.missed(tenant_id, seen)[1] == set()
    JobRepository(db, other_tenant_id).submit("train", {})
    assert changes.missed(tenant_id, seen)[1] == set()
    assert changes.missed(other_tenant_id, seen)[1] == changes.missed(None, seen)[1] == {"audit", "jobs"}
    change(db, tenant_id)
    later, missed = changes.missed(tenant_id, seen)
    assert missed == {"audit"}
    assert later > seen
    assert changes.missed(tenant_id, later)[1] == set()


def test_a_restored_registry_goes_on(db, tenant_id):
    """Positions rise over a restore, so what is new then is missed by whoever has seen the old one."""
    changes = ChangeReader(db)
    seen, _ = changes.missed(tenant_id, None)
    engine = sa.create_engine(db.urls.owner.replace("mlcore_owner@", "postgres@"))
    with engine.begin() as connection:
        renew_positions(connection)
    engine.dispose()
    change(db, tenant_id)
    assert changes.missed(tenant_id, seen)[1] == {"audit"}


def test_a_tenants_principal_sees_nothing_of_all(db, tenant_id):
    """Whoever looks over all tenants is the platform."""
    principal = Principal("key:x", frozenset({Scope.ADMIN}), tenant_id=tenant_id)
    with pytest.raises(PermissionDeniedError):
        ChangeReader(db.acting_as(principal)).look(None)


@pytest.mark.parametrize("seed", range(8))
def test_each_commit_is_told_by_the_next_look(db, reader, tenant_id, other_tenant_id, seed):
    """Whatever runs beside it: transactions that begin, are committed and rolled back in any order, and looks between.

    What is told was committed, though maybe before the last look: while an older transaction ran.
    """
    reader.look()
    chance = random.Random(seed)
    running: list[tuple[ExitStack, TenantId, Connection]] = []
    due, committed = set(), set()
    with ExitStack() as rest:
        for _ in range(60):
            match chance.choice(("begin", "commit", "commit", "roll back", "look")):
                case "begin" if len(running) < 4:
                    tenant, stack = chance.choice((tenant_id, other_tenant_id)), rest.enter_context(ExitStack())
                    connection = stack.enter_context(db.tenant(tenant))
                    journal.record(connection, tenant, "key.created", {"key_id": "k"})
                    running.append((stack, tenant, connection))
                case "commit" if running:
                    stack, tenant, _ = running.pop(chance.randrange(len(running)))
                    stack.close()
                    due.add(tenant)
                    committed.add(tenant)
                case "roll back" if running:
                    stack, _, connection = running.pop(chance.randrange(len(running)))
                    connection.rollback()
                    stack.close()
                case "look":
                    told = reader.look()
                    assert due <= told.keys() <= committed
                    due.clear()
    assert due <= reader.look().keys()
