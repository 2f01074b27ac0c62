"""Ways round the gates for somebody who may promote and no more: each is closed, and ends with what is to be done."""

from __future__ import annotations

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.exceptions import PermissionDeniedError, PromotionRefusedError
from ml_core.ids import EnvironmentName, TenantId, VersionId
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.promotion.gates import GateRepository
from ml_core.registry.promotion.rollouts import RolloutRepository
from support.gated import somebody
from support.registry import TICKETS, register, superuser

ONE, TWO, THREE = (VersionId(name) for name in "123")
OTHER = Signature((InputColumn("other", ColumnKind.NUMBER, nullable=False),), Output(OutputKind.CLASSES, ("a", "b")))


@pytest.fixture
def admin(db: DatabaseConnection, tenant_id: TenantId) -> EnvironmentRepository:
    """Version 1 in production, a gate that asks for its signature, and a version 2 that has another."""
    register(db, tenant_id, "1")
    register(db, tenant_id, "2", signature=OTHER)
    register(db, tenant_id, "3")
    environments = EnvironmentRepository(db, tenant_id)
    environments.promote(TICKETS, ONE, PRODUCTION, actor="admin")
    GateRepository(db, tenant_id).set(TICKETS, PRODUCTION, "same_rows", "signature_compatible")
    return environments


@pytest.fixture
def promoter(db: DatabaseConnection, tenant_id: TenantId, admin: EnvironmentRepository) -> EnvironmentRepository:
    """The same environments, for a key with the scope ``promote`` alone."""
    return EnvironmentRepository(somebody(db, "bob", Scope.PROMOTE), tenant_id)


def test_a_withdrawal_leaves_the_last_version_to_compare_with(promoter: EnvironmentRepository) -> None:
    """Who withdraws does not get rid of what the gate compares with; the same version may come back."""
    promoter.withdraw(TICKETS, PRODUCTION, actor="bob")
    with pytest.raises(PromotionRefusedError, match="version 1 may not fit"):
        promoter.promote(TICKETS, TWO, PRODUCTION, actor="bob")
    assert promoter.promote(TICKETS, ONE, PRODUCTION, actor="bob").generation == 3
    assert "served this version last" in promoter.history(TICKETS, PRODUCTION).items[0].gates[0]["message"]


def test_rollbacks_before_a_withdrawal_are_followed(
    admin: EnvironmentRepository, promoter: EnvironmentRepository
) -> None:
    """What was served last is what the last rollback brought back, not what was promoted last."""
    admin.promote(TICKETS, TWO, PRODUCTION, actor="admin", override="an incident")
    promoter.rollback(TICKETS, PRODUCTION, actor="bob")
    promoter.withdraw(TICKETS, PRODUCTION, actor="bob")
    with pytest.raises(PromotionRefusedError, match="version 1 may not fit"):
        promoter.promote(TICKETS, TWO, PRODUCTION, actor="bob")


def test_a_last_version_that_was_deleted_can_not_be_compared_with(
    db: DatabaseConnection, tenant_id: TenantId, admin: EnvironmentRepository, promoter: EnvironmentRepository
) -> None:
    """Then nobody can say that the next one is no worse: an admin has to. Where nothing was served it passes."""
    promoter.withdraw(TICKETS, PRODUCTION, actor="bob")
    with superuser(db) as session:
        session.execute("DELETE FROM mlcore.versions WHERE tenant_id = %s AND version = '1'", (str(tenant_id),))
    with pytest.raises(PromotionRefusedError, match=r"could not be evaluated: Version 1 .* was deleted"):
        promoter.promote(TICKETS, TWO, PRODUCTION, actor="bob")
    assert admin.promote(TICKETS, TWO, PRODUCTION, actor="admin", override="a new start").generation == 3
    staging = EnvironmentName("staging")
    GateRepository(db, tenant_id).set(TICKETS, staging, "same_rows", "signature_compatible")
    assert promoter.promote(TICKETS, TWO, staging, actor="bob").generation == 1


def overridden(admin: EnvironmentRepository) -> None:
    """Version 2 was served by an override, and version 1 is again."""
    admin.promote(TICKETS, TWO, PRODUCTION, actor="admin", override="incident 7")
    admin.promote(TICKETS, ONE, PRODUCTION, actor="admin", override="it is over")


def test_what_an_admin_let_pass_comes_back_by_an_admin(
    admin: EnvironmentRepository, promoter: EnvironmentRepository
) -> None:
    """The error says why, and what else there is to do; nothing moved."""
    overridden(admin)
    with pytest.raises(PermissionDeniedError, match=r"Version 2 .*incident 7.*bob") as caught:
        promoter.rollback(TICKETS, PRODUCTION, actor="bob")
    assert caught.value.attributes() == {"scope": "admin"}
    assert "Promote it again" in str(caught.value)
    assert promoter.get(TICKETS, PRODUCTION).version == ONE
    assert admin.rollback(TICKETS, PRODUCTION, actor="admin").version == TWO


def test_what_passed_its_gates_comes_back_by_anybody(
    admin: EnvironmentRepository, promoter: EnvironmentRepository
) -> None:
    """Also where the version on top of it was let pass by an override."""
    admin.promote(TICKETS, TWO, PRODUCTION, actor="admin", override="incident 7")
    assert promoter.rollback(TICKETS, PRODUCTION, actor="bob").version == ONE


def test_an_override_of_a_canary_is_none_of_the_stable_version(
    db: DatabaseConnection, tenant_id: TenantId, admin: EnvironmentRepository, promoter: EnvironmentRepository
) -> None:
    """The last row of version 1's stay has the reason of a canary that was aborted."""
    rollouts = RolloutRepository(db, tenant_id)
    rollouts.start(TICKETS, TWO, 5, override="a try")
    rollouts.abort(TICKETS, PRODUCTION)
    promoter.promote(TICKETS, THREE, PRODUCTION, actor="bob")
    assert promoter.rollback(TICKETS, PRODUCTION, actor="bob").version == ONE


def test_a_canary_that_finished_by_an_override_comes_back_by_an_admin(
    db: DatabaseConnection, tenant_id: TenantId, admin: EnvironmentRepository, promoter: EnvironmentRepository
) -> None:
    """As a promotion by an override does."""
    rollouts = RolloutRepository(db, tenant_id)
    rollouts.start(TICKETS, TWO, 5, override="a try")
    rollouts.finish(TICKETS, PRODUCTION, override="it does well")
    admin.promote(TICKETS, ONE, PRODUCTION, actor="admin", override="it does not")
    with pytest.raises(PermissionDeniedError, match="it does well"):
        promoter.rollback(TICKETS, PRODUCTION, actor="bob")


@pytest.mark.parametrize("way", ["again", "withdrawn", "shadow", "rolled back"])
def test_later_moves_do_not_wash_an_override_away(
    db: DatabaseConnection, tenant_id: TenantId, promoter: EnvironmentRepository, admin: EnvironmentRepository, way: str
) -> None:
    """While the version is served, gates that compare find nothing to compare it with: that is no evaluation of it."""
    admin.promote(TICKETS, TWO, PRODUCTION, actor="admin", override="incident 7")
    if way == "withdrawn":
        promoter.withdraw(TICKETS, PRODUCTION, actor="bob")
    if way in ("again", "withdrawn"):
        promoter.promote(TICKETS, TWO, PRODUCTION, actor="bob")
    if way == "shadow":
        shadows = RolloutRepository(somebody(db, "bob", Scope.PROMOTE), tenant_id)
        shadows.shadow(TICKETS, THREE, PRODUCTION)
        shadows.unshadow(TICKETS, PRODUCTION)
    admin.promote(TICKETS, ONE, PRODUCTION, actor="admin", override="it is over")
    if way == "rolled back":
        admin.rollback(TICKETS, PRODUCTION, actor="admin")
        admin.promote(TICKETS, THREE, PRODUCTION, actor="admin", override="it is over")
    with pytest.raises(PermissionDeniedError, match="incident 7"):
        promoter.rollback(TICKETS, PRODUCTION, actor="bob")


def test_a_version_that_passed_since_comes_back_by_anybody(
    db: DatabaseConnection, tenant_id: TenantId, admin: EnvironmentRepository, promoter: EnvironmentRepository
) -> None:
    """An override counts for one stay: this one began with a promotion that the gates let pass."""
    gates = GateRepository(db, tenant_id)
    gates.remove(TICKETS, PRODUCTION, "same_rows")
    gates.set(TICKETS, PRODUCTION, "signed", "approval")
    admin.promote(TICKETS, TWO, PRODUCTION, actor="admin", override="incident 7")
    admin.promote(TICKETS, ONE, PRODUCTION, actor="admin", override="it is over")
    GateRepository(somebody(db, "ann", Scope.APPROVE), tenant_id).approve(TICKETS, TWO, PRODUCTION)
    promoter.promote(TICKETS, TWO, PRODUCTION, actor="bob")
    admin.promote(TICKETS, ONE, PRODUCTION, actor="admin", override="again")
    assert promoter.rollback(TICKETS, PRODUCTION, actor="bob").version == TWO


def test_without_gates_a_rollback_takes_no_admin(
    db: DatabaseConnection, tenant_id: TenantId, admin: EnvironmentRepository, promoter: EnvironmentRepository
) -> None:
    """Whoever may promote the version may go back to it."""
    overridden(admin)
    GateRepository(db, tenant_id).remove(TICKETS, PRODUCTION, "same_rows")
    assert promoter.rollback(TICKETS, PRODUCTION, actor="bob").version == TWO


def test_a_canary_is_evaluated_by_the_gates_that_were_set_while_it_ran(
    db: DatabaseConnection, tenant_id: TenantId, admin: EnvironmentRepository
) -> None:
    """A change of its percent asks no gate; its end does."""
    rollouts, bound = (RolloutRepository(who, tenant_id) for who in (db, somebody(db, "bob", Scope.PROMOTE)))
    rollouts.start(TICKETS, THREE, 5)
    GateRepository(db, tenant_id).set(TICKETS, PRODUCTION, "signed", "approval")
    assert bound.step(TICKETS, 99).generation == 3
    with pytest.raises(PromotionRefusedError, match="0 of 1 approvals"):
        bound.finish(TICKETS, PRODUCTION)
