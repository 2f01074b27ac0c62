"""Holds keep versions, whoever wants them gone."""

from __future__ import annotations

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.principal import Principal
from ml_core.exceptions import InvalidRequestError, ModelNotFoundError, PermissionDeniedError, VersionInUseError
from ml_core.ids import HoldName, ModelId, TenantId, VersionId
from ml_core.registry.collection.holds import HoldRepository
from ml_core.registry.versions.models import ModelRepository
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, register

LEGAL = HoldName("legal")


@pytest.fixture
def holds(db: DatabaseConnection, tenant_id: TenantId) -> HoldRepository:
    return HoldRepository(db, tenant_id)


def test_a_held_version_can_not_be_deleted(db: DatabaseConnection, tenant_id: TenantId, holds: HoldRepository) -> None:
    """Neither the version nor its model goes, and the error names the hold; once it is released, both go."""
    version = register(db, tenant_id).version
    holds.place(TICKETS, version, LEGAL, "case 4711")
    with pytest.raises(VersionInUseError, match=f"legal on tickets@{version}") as caught:
        VersionRepository(db, tenant_id).delete(TICKETS, version)
    assert caught.value.used_by == ["hold:legal"]
    with pytest.raises(VersionInUseError):
        ModelRepository(db, tenant_id).delete(TICKETS)
    holds.release(TICKETS, version, LEGAL)
    VersionRepository(db, tenant_id).delete(TICKETS, version)


def test_a_held_version_can_be_archived(db: DatabaseConnection, tenant_id: TenantId, holds: HoldRepository) -> None:
    """A hold keeps the bytes; it does not keep the version in lists."""
    version = register(db, tenant_id).version
    holds.place(TICKETS, version, LEGAL, "case 4711")
    VersionRepository(db, tenant_id).archive(TICKETS, version)


def test_placing_again_keeps_the_first_reason(
    db: DatabaseConnection, tenant_id: TenantId, holds: HoldRepository
) -> None:
    """A hold of the same name is there once, as it was placed first."""
    version = register(db, tenant_id).version
    first = holds.place(TICKETS, version, LEGAL, "case 4711")
    assert holds.place(TICKETS, version, LEGAL, "another") == first
    assert first.created_by == db.principal.name


def test_holds_are_listed_in_pages(db: DatabaseConnection, tenant_id: TenantId, holds: HoldRepository) -> None:
    """Pages follow each other without gap or repetition; a model's own can be asked for."""
    version = register(db, tenant_id).version
    names = [HoldName(name) for name in ("a", "b", "c")]
    for name in names:
        holds.place(TICKETS, version, name, "why")
    page = holds.list(limit=2)
    rest = holds.list(limit=2, cursor=page.next_cursor)
    assert [hold.name for hold in [*page.items, *rest.items]] == names
    assert rest.next_cursor is None
    assert [hold.name for hold in holds.list(TICKETS).items] == names
    with pytest.raises(ModelNotFoundError):
        holds.list(ModelId("other"))


def test_what_can_not_be_held(db: DatabaseConnection, tenant_id: TenantId, holds: HoldRepository) -> None:
    """No version, no reason, no such hold: each is said."""
    version = register(db, tenant_id).version
    with pytest.raises(ModelNotFoundError):
        holds.place(TICKETS, VersionId("9"), LEGAL, "case 4711")
    with pytest.raises(InvalidRequestError, match="reason"):
        holds.place(TICKETS, version, LEGAL, " ")
    with pytest.raises(InvalidRequestError, match="has no hold"):
        holds.release(TICKETS, version, LEGAL)


def test_releasing_takes_the_scope_admin(db: DatabaseConnection, tenant_id: TenantId, holds: HoldRepository) -> None:
    """Whoever may only train can't release what a lawyer placed."""
    version = register(db, tenant_id).version
    holds.place(TICKETS, version, LEGAL, "case 4711")
    trainer = db.acting_as(Principal("key:0", frozenset({Scope.TRAIN})))
    with pytest.raises(PermissionDeniedError):
        HoldRepository(trainer, tenant_id).release(TICKETS, version, LEGAL)
