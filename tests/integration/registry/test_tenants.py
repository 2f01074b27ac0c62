"""Tenants in the registry."""

from __future__ import annotations

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import TenantExistsError, TenantNotFoundError
from ml_core.ids import TenantId
from ml_core.registry.tenants import TenantRepository
from support.registry import new_tenant


def test_a_tenant_is_created_once(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A second creation is an error that names it; ``ensure`` accepts what is there."""
    tenants = TenantRepository(db)
    with pytest.raises(TenantExistsError) as caught:
        tenants.create(tenant_id)
    assert caught.value.tenant_id == tenant_id
    tenants.ensure(tenant_id)


def test_an_unknown_tenant(db: DatabaseConnection) -> None:
    """``exists`` says no, ``require`` says how to create it."""
    tenants, unknown = TenantRepository(db), TenantId("nobody")
    assert not tenants.exists(unknown)
    with pytest.raises(TenantNotFoundError, match="mlcore tenants create nobody"):
        tenants.require(unknown)


def test_ensure_creates(db: DatabaseConnection) -> None:
    """What ``ensure`` was asked for exists afterwards."""
    tenants, name = TenantRepository(db), TenantId("ensured")
    tenants.ensure(name)
    tenants.require(name)


def test_tenants_are_listed_in_pages(db: DatabaseConnection) -> None:
    """Pages by name, cut at the last name of the page before, give the whole list once."""
    tenants = TenantRepository(db)
    for _ in range(5):
        new_tenant(db)
    whole = [tenant.tenant_id for tenant in tenants.list()]
    assert whole == sorted(whole)
    paged: list[TenantId] = []
    while page := tenants.list(limit=2, after=paged[-1] if paged else None):
        assert len(page) <= 2
        paged += [tenant.tenant_id for tenant in page]
    assert paged == whole
