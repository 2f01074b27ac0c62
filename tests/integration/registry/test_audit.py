"""The audit: each write leaves who did it, for which request, and an event for programs."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.principal import Principal
from ml_core.exceptions import InvalidRequestError, PromotionConflictError
from ml_core.ids import TenantId, VersionId
from ml_core.registry.audit import AuditQuery, AuditRepository
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, register

ALICE = Principal("alice", frozenset({Scope.ADMIN}))


def actions(db: DatabaseConnection, tenant_id: TenantId, query: AuditQuery | None = None) -> list[str]:
    return [entry.action for entry in AuditRepository(db, tenant_id).query(query).items]


def test_a_change_says_who_made_it_and_for_which_request(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Principal and request come from the connection, so no caller can leave them out."""
    key = KeyRepository(db.acting_as(ALICE, "req-1"), tenant_id).create("k", [Scope.READ])
    entry = AuditRepository(db, tenant_id).query().items[0]
    assert (entry.principal, entry.request_id, entry.action) == ("alice", "req-1", "key.created")
    assert entry.subject == {"key_id": key.key_id}
    assert entry.details == {"name": "k", "scopes": ["read"]}


def test_who_acts_ends_with_the_connection_that_was_told(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """The same session of the pool names the next principal, not the last one."""
    KeyRepository(db.acting_as(ALICE, "req-1"), tenant_id).create("k", [Scope.READ])
    KeyRepository(db, tenant_id).create("k", [Scope.READ])
    entry = AuditRepository(db, tenant_id).query().items[0]
    assert (entry.principal, entry.request_id) == (db.principal.name, None)


def test_raw_sql_is_attributed_as_well(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """The database knows the principal."""
    with db.acting_as(ALICE, "req-2").tenant(tenant_id) as connection:
        statement = (
            "INSERT INTO mlcore.audit (tenant_id, action) VALUES (:t, 'by.hand') RETURNING principal, request_id"
        )
        assert connection.execute(sa.text(statement), {"t": tenant_id}).one() == ("alice", "req-2")


def test_a_change_and_its_event_are_one(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """For each audit row there is an outbox row of the same topic."""
    register(db, tenant_id)
    VersionRepository(db, tenant_id).archive(TICKETS, VersionId("1"))
    with db.tenant(tenant_id) as connection:
        topics = list(connection.scalars(sa.text("SELECT topic FROM mlcore.outbox ORDER BY outbox_id")))
    assert topics == ["tenant.created", "version.registered", "version.archived"]
    assert actions(db, tenant_id) == topics[::-1]


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
    newest = AuditRepository(db, tenant_id).query().items[0]
    assert actions(db, tenant_id, AuditQuery(action="version.archived")) == ["version.archived"]
    assert actions(db, tenant_id, AuditQuery(action="version.")) == ["version.archived"] + ["version.registered"] * 2
    assert actions(db, tenant_id, AuditQuery(request_id="req-3")) == ["version.registered"]
    subject = {"model_id": "tickets", "version": "1"}
    assert actions(db, tenant_id, AuditQuery(subject=subject)) == ["version.archived", "version.registered"]
    assert actions(db, tenant_id, AuditQuery(since=newest.at)) == ["version.archived"]
    assert "version.archived" not in actions(db, tenant_id, AuditQuery(until=newest.at))
    assert actions(db, tenant_id, AuditQuery(since=newest.at + timedelta(days=1))) == []


@pytest.mark.parametrize("field", ["since", "until"])
def test_a_moment_without_its_time_zone_is_refused(db: DatabaseConnection, tenant_id: TenantId, field: str) -> None:
    """Whose noon it is would be a guess."""
    with pytest.raises(InvalidRequestError, match=f"'{field}' has no time zone"):
        AuditRepository(db, tenant_id).query(AuditQuery(**{field: datetime(2026, 1, 1)}))  # noqa: DTZ001 - on purpose


def test_pages_of_the_audit(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Newest first; pages put together are the whole."""
    for _ in range(4):
        register(db, tenant_id)
    audit = AuditRepository(db, tenant_id)
    first = audit.query(limit=2)
    second = audit.query(limit=3, cursor=first.next_cursor)
    assert [*first.items, *second.items] == audit.query().items
    assert second.next_cursor is None
    with pytest.raises(InvalidRequestError):
        audit.query(cursor="WyJ4Il0")


def test_another_tenants_audit_is_its_own(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """Nothing of what others do is seen."""
    register(db, other_tenant_id)
    assert actions(db, tenant_id) == ["tenant.created"]
