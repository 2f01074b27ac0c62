"""Protected environments: who may move a pointer, and which environments there are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.exceptions import ConfigurationError, InvalidRequestError, PermissionDeniedError
from ml_core.ids import EnvironmentName, TenantId, VersionId
from ml_core.registry.audit import AuditRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.promotion.rollouts import RolloutRepository
from ml_core.registry.promotion.rules import environments_of
from ml_core.settings import RegistrySettings, Settings
from support.gated import somebody
from support.registry import TICKETS, register

STAGING = EnvironmentName("staging")
ONE, TWO = VersionId("1"), VersionId("2")

MOVES: dict[str, Callable[[DatabaseConnection, TenantId], object]] = {
    "promote": lambda db, t: EnvironmentRepository(db, t).promote(TICKETS, ONE, PRODUCTION, actor="me"),
    "rollback": lambda db, t: EnvironmentRepository(db, t).rollback(TICKETS, PRODUCTION, actor="me"),
    "withdraw": lambda db, t: EnvironmentRepository(db, t).withdraw(TICKETS, PRODUCTION, actor="me"),
    "canary": lambda db, t: RolloutRepository(db, t).start(TICKETS, ONE, 5),
    "shadow": lambda db, t: RolloutRepository(db, t).shadow(TICKETS, ONE, PRODUCTION),
}


@pytest.fixture
def protected(db: DatabaseConnection, tenant_id: TenantId) -> EnvironmentRepository:
    """Two versions were promoted to production, which then became protected."""
    for version in (ONE, TWO):
        register(db, tenant_id, version)
        EnvironmentRepository(db, tenant_id).promote(TICKETS, version, PRODUCTION, actor="me")
    policies = EnvironmentRepository(db, tenant_id)
    policies.protect(PRODUCTION)
    return policies


@pytest.mark.parametrize("move", MOVES)
def test_promote_alone_does_not_move_a_protected_pointer(
    db: DatabaseConnection, tenant_id: TenantId, protected: EnvironmentRepository, move: str
) -> None:
    """Whichever move; the error names the scope that does."""
    dev = somebody(db, "dev", Scope.PROMOTE, promotes=(STAGING,))
    with pytest.raises(PermissionDeniedError, match="protected") as caught:
        MOVES[move](dev, tenant_id)
    assert caught.value.attributes() == {"scope": "promote:production"}
    assert EnvironmentRepository(db, tenant_id).get(TICKETS, PRODUCTION).generation == 2


@pytest.mark.parametrize("move", MOVES)
def test_the_environments_own_scope_moves_it(
    db: DatabaseConnection, tenant_id: TenantId, protected: EnvironmentRepository, move: str
) -> None:
    """``promote:production`` is enough, and so is ``admin``."""
    MOVES[move](somebody(db, "release", promotes=(PRODUCTION,)), tenant_id)
    assert EnvironmentRepository(db, tenant_id).get(TICKETS, PRODUCTION).generation == 3


def test_an_admin_moves_it(db: DatabaseConnection, tenant_id: TenantId, protected: EnvironmentRepository) -> None:
    """As everything."""
    MOVES["promote"](somebody(db, "boss", Scope.ADMIN), tenant_id)


@pytest.mark.parametrize("move", MOVES)
def test_without_protection_the_scope_promote_is_needed_and_enough(
    db: DatabaseConnection, tenant_id: TenantId, protected: EnvironmentRepository, move: str
) -> None:
    """A reader moves nothing anywhere."""
    protected.unprotect(PRODUCTION)
    with pytest.raises(PermissionDeniedError) as caught:
        MOVES[move](somebody(db, "reader", Scope.READ, promotes=(STAGING,)), tenant_id)
    assert caught.value.attributes() == {"scope": "promote"}
    MOVES[move](somebody(db, "dev", Scope.PROMOTE), tenant_id)


def test_protection_is_of_one_environment_of_one_tenant(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId, protected: EnvironmentRepository
) -> None:
    """Staging moves on, and so does production of somebody else."""
    dev = somebody(db, "dev", Scope.PROMOTE)
    EnvironmentRepository(dev, tenant_id).promote(TICKETS, ONE, STAGING, actor="dev")
    register(db, other_tenant_id, "1")
    MOVES["promote"](dev, other_tenant_id)


def test_only_an_admin_protects(db: DatabaseConnection, tenant_id: TenantId, protected: EnvironmentRepository) -> None:
    """Otherwise who is kept out could let himself in."""
    dev = EnvironmentRepository(somebody(db, "dev", Scope.PROMOTE, promotes=(PRODUCTION,)), tenant_id)
    for change in (dev.unprotect, dev.protect):
        with pytest.raises(PermissionDeniedError, match="admin"):
            change(PRODUCTION)


def test_policies_are_listed_and_audited(
    db: DatabaseConnection, tenant_id: TenantId, protected: EnvironmentRepository
) -> None:
    """Every environment of the setting, in its order, with who decided; a typo is refused."""
    EnvironmentRepository(somebody(db, "boss", Scope.ADMIN), tenant_id).unprotect(STAGING)
    listed = [(p.environment, p.is_protected, p.updated_by) for p in protected.policies()]
    me = db.principal.name
    assert listed == [("development", False, None), ("staging", False, "boss"), ("production", True, me)]
    with pytest.raises(InvalidRequestError, match="production"):
        protected.protect(EnvironmentName("prodction"))
    noted = AuditRepository(db, tenant_id).list(action="environment.", descending=True).items
    assert [(e.action, e.principal, e.subject) for e in noted[:2]] == [
        ("environment.unprotected", "boss", {"environment": "staging"}),
        ("environment.protected", me, {"environment": "production"}),
    ]


def test_the_environments_are_those_of_the_setting() -> None:
    """In its order; what is no name, or nothing at all, names the variable."""
    settings = Settings.from_environment({"MLCORE_ENVIRONMENTS": "test, canary-eu ,production"})
    assert environments_of(settings) == ("test", "canary-eu", "production")
    assert environments_of(Settings.from_environment({})) == ("development", "staging", "production")
    for wrong in ("Prod", ",", "a b"):
        with pytest.raises(ConfigurationError) as caught:
            environments_of(Settings(registry=RegistrySettings(environments=wrong)))
        assert caught.value.attributes() == {"setting": "MLCORE_ENVIRONMENTS"}
