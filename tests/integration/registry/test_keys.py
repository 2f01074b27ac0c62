"""API keys in the registry."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import KeyRef, Scope
from ml_core.exceptions import (
    Action,
    AuthenticationError,
    InvalidNameError,
    InvalidRequestError,
    KeyNotFoundError,
    TenantNotFoundError,
)
from ml_core.ids import EnvironmentName, TenantId
from ml_core.registry.feed import FeedReader
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import PRODUCTION
from support.registry import superuser
from support.stored import DEADLINE_S, wait_for_a_waiting_session


def test_a_key_is_listed_without_its_secret(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Name, scopes and time are kept; neither the list nor the table holds the secret."""
    keys = KeyRepository(db, tenant_id)
    key = keys.create("laptop", [Scope.PREDICT, Scope.READ])
    (info,) = keys.list().items
    assert keys.get(key.key_id) == info
    assert (info.key_id, info.name, info.scopes) == (key.key_id, "laptop", {Scope.PREDICT, Scope.READ})
    assert info.revoked_at is None
    with superuser(db) as session:
        row = session.execute("SELECT * FROM mlcore.api_keys WHERE key_id = %s", (key.key_id,)).fetchone()
    assert key.secret not in repr(row)


def test_a_stored_key_recognises_its_secret(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """What the feed carries of a key lets a replica check the secret, and only it."""
    key = KeyRepository(db, tenant_id).create("k", [Scope.PREDICT])
    record = FeedReader(db).read(None).keys[KeyRef(tenant_id, key.key_id)]
    assert record is not None
    assert record.tenant_id == tenant_id
    assert record.matches(key.secret)
    assert not record.matches(key.secret[::-1])


def test_a_revoked_key_stays_listed_and_stays_revoked(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Revoking twice changes nothing, not even the time or the feed."""
    keys, feed = KeyRepository(db, tenant_id), FeedReader(db)
    key = keys.create("k", [Scope.PREDICT])
    first = keys.revoke(key.key_id)
    generation = feed.read(None).generation
    assert first.revoked_at is not None
    assert keys.revoke(key.key_id) == first
    assert keys.list().items == [first]
    assert keys.get(key.key_id) == first
    assert feed.read(generation).keys == {}


def test_another_tenants_key_can_not_be_revoked(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """It is not known there, and goes on working."""
    key = KeyRepository(db, other_tenant_id).create("k", [Scope.PREDICT])
    keys = KeyRepository(db, tenant_id)
    for call in (keys.revoke, keys.get):
        with pytest.raises(KeyNotFoundError, match="no key") as caught:
            call(key.key_id)
        assert isinstance(caught.value, InvalidRequestError)
        assert caught.value.action == Action.of("keys.list", tenant=tenant_id)
    assert FeedReader(db).read(None).keys[KeyRef(other_tenant_id, key.key_id)] is not None


@pytest.mark.parametrize(
    ("name", "scopes"),
    [
        ("k", []),
        ("k", ["fly"]),
        ("k", ["promote:"]),
        ("", [Scope.READ]),
        (" ", [Scope.READ]),
        ("k" * 101, [Scope.READ]),
    ],
)
def test_keys_that_make_no_sense(db: DatabaseConnection, tenant_id: TenantId, name: str, scopes: list[Any]) -> None:
    """No scope, an unknown scope, no name or an endless one: refused before anything is stored."""
    keys = KeyRepository(db, tenant_id)
    with pytest.raises((InvalidRequestError, InvalidNameError)):
        keys.create(name, scopes)
    assert keys.list().items == []


def test_keys_are_listed_in_pages(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Oldest first, each once, however small a page is."""
    keys = KeyRepository(db, str(tenant_id))
    made = [keys.create(f"k{number}", [Scope.READ]).key_id for number in range(5)]
    seen: list[str] = []
    page = keys.list(limit=2)
    seen += [info.key_id for info in page.items]
    while page.next_cursor is not None:
        page = keys.list(limit=2, cursor=page.next_cursor)
        seen += [info.key_id for info in page.items]
    assert seen == made
    assert keys.list(limit=5).next_cursor is None


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": 1001}, {"cursor": "x"}, {"cursor": "WyJhIiwiYiJd"}])
def test_a_page_that_can_not_be_asked_for(db: DatabaseConnection, tenant_id: TenantId, options: Any) -> None:
    """A limit out of range, or a cursor of something else."""
    with pytest.raises(InvalidRequestError):
        KeyRepository(db, tenant_id).list(**options)


def test_a_key_says_who_holds_it(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """The principal is named after the key's id and may do what the key may, protected environments by name only."""
    keys = KeyRepository(db, tenant_id)
    key = keys.create("deploys", [Scope.READ, "promote:production"])
    principal = keys.authenticate(str(key))
    assert (principal.name, principal.scopes) == (f"key:{key.key_id}", {Scope.READ})
    assert principal.may_move(PRODUCTION, is_protected=True)
    assert not principal.may_move(EnvironmentName("staging"), is_protected=False)
    assert keys.list().items[0].scopes == {"read", "promote:production"}


def test_no_other_key_is_believed(db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId) -> None:
    """A wrong secret, another tenant's key and a revoked key are told the same."""
    keys, others = KeyRepository(db, tenant_id), KeyRepository(db, other_tenant_id)
    key = keys.create("k", [Scope.READ])
    keys.revoke(key.key_id)
    foreign, wrong = others.create("k", [Scope.READ]), keys.create("w", [Scope.READ])
    messages = set()
    for text in (str(key), str(foreign), f"mlk_{wrong.key_id}_{foreign.secret}"):
        with pytest.raises(AuthenticationError) as caught:
            keys.authenticate(text)
        messages.add(str(caught.value))
    assert len(messages) == 1


@pytest.mark.parametrize("change", ["create", "revoke"])
def test_a_key_that_waits_holds_nobody_up(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId, change: str
) -> None:
    """Somebody holds one tenant's row, as its deletion does: keys of others are made meanwhile."""
    keys, others = KeyRepository(db, tenant_id), KeyRepository(db, other_tenant_id)
    key = keys.create("k", [Scope.READ])
    with superuser(db) as session, ThreadPoolExecutor(1) as pool:
        with session.transaction():
            session.execute("SELECT 1 FROM mlcore.tenants WHERE tenant_id = %s FOR UPDATE", (tenant_id,))
            waiting = (
                pool.submit(keys.create, "w", ["read"]) if change == "create" else pool.submit(keys.revoke, key.key_id)
            )
            wait_for_a_waiting_session(db)
            others.create("k", [Scope.READ])
            assert not waiting.done()
        waiting.result(DEADLINE_S)


def test_a_key_needs_a_tenant(db: DatabaseConnection) -> None:
    """A key of a tenant that does not exist is refused."""
    with pytest.raises(TenantNotFoundError):
        KeyRepository(db, TenantId("nobody")).create("k", [Scope.READ])
