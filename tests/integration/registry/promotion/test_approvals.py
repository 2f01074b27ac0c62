"""Approvals: by somebody else than the author, for one version and one environment."""

from __future__ import annotations

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.exceptions import InvalidRequestError, ModelNotFoundError, PermissionDeniedError, PromotionRefusedError
from ml_core.ids import EnvironmentName, TenantId, VersionId
from ml_core.registry.audit import AuditRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.promotion.gates import GateRepository
from ml_core.registry.versions.models import ModelRepository
from support.gated import somebody
from support.registry import TICKETS, register

STAGING = EnvironmentName("staging")
ONE, TWO = VersionId("1"), VersionId("2")


@pytest.fixture
def approved(db: DatabaseConnection, tenant_id: TenantId) -> GateRepository:
    """A version that ``tester`` registered, and a gate that asks for two approvals."""
    register(db, tenant_id, "1")
    gates = GateRepository(db, tenant_id)
    gates.set(TICKETS, PRODUCTION, "signed", "approval", {"count": 2})
    return gates


def approve(
    db: DatabaseConnection,
    tenant_id: TenantId,
    name: str,
    *,
    version: VersionId = ONE,
    environment: EnvironmentName = PRODUCTION,
    scope: Scope = Scope.APPROVE,
) -> None:
    repository = GateRepository(somebody(db, name, scope), tenant_id)
    repository.approve(TICKETS, version, environment, reason=f"{name} looked at it")


def promote(db: DatabaseConnection, tenant_id: TenantId) -> int:
    return EnvironmentRepository(db, tenant_id).promote(TICKETS, ONE, PRODUCTION, actor="me").generation


def test_two_others_have_to_approve(db: DatabaseConnection, tenant_id: TenantId, approved: GateRepository) -> None:
    """One is told to be one of two; the second opens the gate. Who approved is in the history."""
    approve(db, tenant_id, "ben")
    with pytest.raises(PromotionRefusedError, match=r"1 of 2 approvals \(by ben\)"):
        promote(db, tenant_id)
    approve(db, tenant_id, "cleo")
    assert promote(db, tenant_id) == 1
    (entry,) = EnvironmentRepository(db, tenant_id).history(TICKETS, PRODUCTION).items
    assert "by ben, cleo" in entry.gates[0]["message"]


def test_the_author_is_refused(db: DatabaseConnection, tenant_id: TenantId, approved: GateRepository) -> None:
    """With any scope."""
    with pytest.raises(PermissionDeniedError, match=r"tester registered version 1.*does not count"):
        approve(db, tenant_id, "tester", scope=Scope.ADMIN)
    assert GateRepository(db, tenant_id).approvals(TICKETS, ONE, PRODUCTION) == []


def test_approving_takes_its_scope(db: DatabaseConnection, tenant_id: TenantId, approved: GateRepository) -> None:
    """Promoting is another thing."""
    with pytest.raises(PermissionDeniedError, match="approve"):
        approve(db, tenant_id, "dev", scope=Scope.PROMOTE)


def test_an_approval_counts_once(db: DatabaseConnection, tenant_id: TenantId, approved: GateRepository) -> None:
    """Again changes nothing, in the table and in the audit; the first reason stays."""
    for _ in range(2):
        approve(db, tenant_id, "ben")
    (record,) = GateRepository(db, tenant_id).approvals(TICKETS, ONE, PRODUCTION)
    assert (record.approver, record.reason) == ("ben", "ben looked at it")
    (noted,) = AuditRepository(db, tenant_id).list(action="version.approved", descending=True).items
    assert (noted.principal, noted.subject) == (
        "ben",
        {"model_id": TICKETS, "version": ONE, "environment": PRODUCTION},
    )


def test_an_approval_is_of_one_version_in_one_environment(
    db: DatabaseConnection, tenant_id: TenantId, approved: GateRepository
) -> None:
    """Not of the next version, and not of staging's."""
    register(db, tenant_id, "2")
    for name in ("ben", "cleo"):
        approve(db, tenant_id, name, version=TWO)
        approve(db, tenant_id, name, environment=STAGING)
    with pytest.raises(PromotionRefusedError, match="0 of 2"):
        promote(db, tenant_id)


def test_what_is_not_there_can_not_be_approved(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId, approved: GateRepository
) -> None:
    """No such version, one of another tenant, an archived one, no such environment."""
    with pytest.raises(ModelNotFoundError, match="9"):
        approve(db, tenant_id, "ben", version=VersionId("9"))
    with pytest.raises(ModelNotFoundError):
        approve(db, other_tenant_id, "ben")
    with pytest.raises(InvalidRequestError, match="production"):
        approve(db, tenant_id, "ben", environment=EnvironmentName("prodction"))
    ModelRepository(db, tenant_id).archive(TICKETS)
    with pytest.raises(ModelNotFoundError, match="archived"):
        approve(db, tenant_id, "ben")
