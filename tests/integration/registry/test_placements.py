"""Placements: what the platform sets and the control loop plans with."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.placement import (
    IDLE_AFTER,
    SHARED_CELL,
    PlacedTenant,
    Placement,
    Readiness,
    dedicated_cell,
    tenant_of,
)
from ml_core.domain.principal import Principal
from ml_core.exceptions import (
    InvalidRequestError,
    MLFrameworkError,
    PermissionDeniedError,
    RegistryUnavailableError,
    TenantNotFoundError,
)
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.models.store import platform_store
from ml_core.registry.audit import AuditRepository
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.keys import KeyRepository
from ml_core.registry.placements import PlacementRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.replicas import ReplicaReports, ask_replicas
from ml_core.training.trainer import Trainer
from support.registry import new_tenant, settings_for, temporary_home
from support.replicas import damage, running_replica
from support.tables import measures, split_target
from support.waiting import wait_until

OWN = Placement(is_dedicated=True, min_replicas=1, max_replicas=4, target_ongoing=16)
M = ModelId("m")


@pytest.fixture(scope="module")
def own() -> Iterator[DatabaseConnection]:
    """A registry of these tests' own: placements are listed over all tenants."""
    with temporary_home() as home, DatabaseConnection(settings=settings_for(home)) as connection:
        yield connection


def test_a_tenant_is_in_the_shared_cell_until_it_is_placed(own: DatabaseConnection) -> None:
    """Setting a placement moves nobody yet; setting it again replaces it, and the audit has both."""
    placements, tenant = PlacementRepository(own), new_tenant(own)
    assert (placements.get(tenant).is_dedicated, placements.get(tenant).updated_at) == (False, None)
    for wanted in (OWN, Placement(is_dedicated=True, max_replicas=2)):
        found = placements.set(tenant, wanted)
        assert found == placements.get(tenant)
        assert (found.is_dedicated, found.max_replicas, found.cell) == (True, wanted.max_replicas, SHARED_CELL)
        assert found.updated_by == own.principal.name
    assert [each.max_replicas for each in placements.list().items if each.tenant_id == tenant] == [2]
    recorded = AuditRepository(own, tenant).list().items
    assert [each.details["max_replicas"] for each in recorded if each.action == "placement.set"] == [4, 2]


def test_who_set_a_placement_stays_named_when_the_tenant_moves(own: DatabaseConnection) -> None:
    """The loop's move is in the audit."""
    placements, tenant = PlacementRepository(own), new_tenant(own)
    placements.set(tenant, OWN)
    loop = own.acting_as(Principal("control-loop", frozenset(Scope), tenant_id=None))
    PlacementRepository(loop).move(tenant, to_dedicated=True)
    found = placements.get(tenant)
    assert (found.cell, found.updated_by) == (dedicated_cell(tenant), own.principal.name)
    last = list(AuditRepository(own, tenant).list().items)[-1]
    assert (last.action, last.principal, last.details) == ("placement.moved", "control-loop", {"cell": found.cell})


def test_the_bounds_of_the_shared_cell_are_those_of_the_settings_until_they_are_set(own: DatabaseConnection) -> None:
    """They are no tenant's placement."""
    placements = PlacementRepository(own)
    replicas = own.settings.platform.replicas
    assert placements.shared() == Placement(min_replicas=replicas, max_replicas=replicas)
    wanted = Placement(min_replicas=2, max_replicas=6, target_ongoing=8)
    assert placements.set_shared(wanted) == placements.shared() == placements.placed().shared == wanted
    assert "*" not in [each.tenant_id for each in placements.list(limit=1000).items]


@given(st.integers(-2, 2**70) | st.just(1), st.integers(-2, 2**70) | st.just(4), st.integers(-2, 2**70) | st.just(32))
def test_bounds_are_in_range_or_refused_by_name(least: int, most: int, target: int) -> None:
    """Whatever is sent."""
    for is_dedicated in (True, False):
        if (0 if is_dedicated else 1) <= least <= most <= 1000 and most >= 1 and 1 <= target <= 256:
            assert Placement(is_dedicated, least, most, target).max_replicas == most
        else:
            with pytest.raises(InvalidRequestError, match=r"min_replicas|max_replicas|target_ongoing"):
                Placement(is_dedicated, least, most, target)


@given(st.from_regex(TenantId.pattern, fullmatch=True))
def test_no_two_cells_have_one_name(name: str) -> None:
    """A tenant may be called ``shared``."""
    cell = dedicated_cell(TenantId(name))
    assert tenant_of(cell) == name
    assert cell not in {SHARED_CELL, "control", "control-loop"}


def test_only_the_platform_places(own: DatabaseConnection) -> None:
    """Neither a tenant's admin nor a reader of the platform; nobody places who does not exist."""
    tenant = new_tenant(own)
    admin = own.acting_as(Principal("key:1", frozenset({Scope.ADMIN}), tenant_id=tenant))
    reader = own.acting_as(Principal("key:2", frozenset({Scope.READ}), tenant_id=None))
    for db in (admin, reader):
        for act in (
            lambda repository: repository.set(tenant, OWN),
            lambda repository: repository.set_shared(Placement()),
            lambda repository: repository.move(tenant, to_dedicated=True),
        ):
            with pytest.raises(PermissionDeniedError):
                act(PlacementRepository(db))
    with pytest.raises(MLFrameworkError):
        PlacementRepository(admin).list()
    for act in (lambda: PlacementRepository(own).set("nobody", OWN), lambda: PlacementRepository(own).get("nobody")):
        with pytest.raises(TenantNotFoundError):
            act()


def test_bounds_of_no_cell_are_refused(own: DatabaseConnection) -> None:
    """Nobody would notice that they have no effect."""
    tenant, placed = new_tenant(own), PlacementRepository(own)
    for bounds in ({"max_replicas": 2}, {"min_replicas": 2, "max_replicas": 2}, {"target_ongoing": 8}):
        with pytest.raises(InvalidRequestError, match="the shared cell serves the tenant"):
            placed.set(tenant, Placement(**bounds))
    assert placed.get(tenant).updated_at is None


def test_a_tenants_own_sql_places_nobody(own: DatabaseConnection) -> None:
    """It reads its placement and writes none."""
    tenant = new_tenant(own)
    PlacementRepository(own).set(tenant, OWN)
    with own.tenant(tenant) as connection:
        assert connection.scalars(sa.text("SELECT max_replicas FROM mlcore.placements")).all() == [4]
        assert connection.execute(sa.text("UPDATE mlcore.placements SET has_moved = true")).rowcount == 0
    insert = "INSERT INTO mlcore.placements VALUES (:t, true, true, 1, 1, 1, now(), now(), 'x')"
    with pytest.raises(DBAPIError, match="row-level security"), own.tenant(new_tenant(own)) as connection:
        connection.execute(sa.text(insert), {"t": tenant})


def test_a_deleted_tenant_has_no_placement(own: DatabaseConnection) -> None:
    """So that the control loop removes its cell; nobody places it again."""
    placements, tenant = PlacementRepository(own), new_tenant(own)
    placements.set(tenant, OWN)
    TenantDeletion(own, platform_store(own.settings)).delete(tenant)
    assert tenant not in [each.tenant_id for each in placements.list(limit=1000).items]
    assert placed(own, tenant) is None
    with pytest.raises(TenantNotFoundError):
        placements.set(tenant, OWN)


def placed(db: DatabaseConnection, tenant: TenantId) -> PlacedTenant | None:
    """What the control loop reads of a tenant."""
    found = [each for each in PlacementRepository(db).placed().tenants if each.tenant_id == tenant]
    return found[0] if found else None


def fall_idle(db: DatabaseConnection, tenant: TenantId) -> None:
    """Put the last request of a tenant back."""
    with db.platform() as connection:
        earlier = sa.text("UPDATE mlcore.placements SET requested_at = now() - :ago WHERE tenant_id = :tenant")
        connection.execute(earlier, {"ago": IDLE_AFTER + timedelta(minutes=1), "tenant": tenant})


def test_a_tenant_that_is_not_asked_is_idle(own: DatabaseConnection) -> None:
    """Until it is asked again, or placed again; where the cell keeps a replica it never is."""
    tenant, other = new_tenant(own), new_tenant(own)
    placements, reports = PlacementRepository(own), ReplicaReports(own, "r")
    placements.set(tenant, Placement(is_dedicated=True, min_replicas=0))
    placements.set(other, OWN)

    def idle() -> list[bool]:
        return [each.is_idle for each in (placed(own, tenant), placed(own, other)) if each is not None]

    assert idle() == [False, False]
    for name in (tenant, other):
        fall_idle(own, name)
    assert idle() == [True, False]
    reports.note_requests({other, "nobody"})
    assert idle() == [True, False]
    reports.note_requests({tenant, other})
    assert idle() == [False, False]
    fall_idle(own, tenant)
    placements.set(tenant, Placement(is_dedicated=True, min_replicas=0, max_replicas=2))
    assert idle() == [False, False]


def test_a_request_that_can_not_be_noted_is_noted_later(
    own: DatabaseConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a replica of whichever cell, once the registry is there again; nobody has to ask a second time."""
    tenant, note, refused = new_tenant(own), ReplicaReports.note_requests, []
    PlacementRepository(own).set(tenant, Placement(is_dedicated=True, min_replicas=0))
    fall_idle(own, tenant)

    def note_at_last(self: ReplicaReports, asked: Collection[str]) -> None:
        if not refused:
            refused.append(asked)
            raise RegistryUnavailableError("It is away.")
        note(self, asked)

    monkeypatch.setattr(ReplicaReports, "note_requests", note_at_last)
    with running_replica(own, "asked", dedicated_cell(tenant)) as replica:
        replica.service.asked.add(tenant)
        wait_until(lambda: (found := placed(own, tenant)) is not None and not found.is_idle, timeout_s=30)
    assert refused == [{tenant}]


def test_a_cell_is_ready_once_each_replica_has_loaded_all(own: DatabaseConnection) -> None:
    """A replica that is behind, loads or could not load a version of the tenant is not; others' versions don't count.
    A promotion asks the replicas of the cells that follow the tenant."""
    tenant, other = new_tenant(own), new_tenant(own)
    placements = PlacementRepository(own)
    placements.set(tenant, OWN)
    for name in (tenant, other):
        Trainer(own, name).train(M, None, split_target(measures(60), "outcome"), hyperparameters={"n_estimators": 2})
    damage(own, other, M, VersionId("1"))
    for name in (tenant, other):
        EnvironmentRepository(own, name).promote(M, VersionId("1"), PRODUCTION)
    assert placed(own, tenant) == PlacedTenant(tenant, OWN)
    with running_replica(own, "a"), running_replica(own, "b", dedicated_cell(tenant)):
        ready = PlacedTenant(tenant, OWN, own=Readiness(1, 1), shared=Readiness(1, 1))
        wait_until(lambda: placed(own, tenant) == ready)
        assert {each.replica_id for each in ask_replicas(own, tenant, M, PRODUCTION)} == {"a", "b"}
        assert {each.replica_id for each in ask_replicas(own, other, M, PRODUCTION)} == {"a"}
        KeyRepository(own, tenant).create("k", [Scope.READ])
        wait_until(lambda: placed(own, tenant) == ready)
        placements.move(tenant, to_dedicated=True)
        wait_until(lambda: (placed(own, tenant) or ready).own == Readiness(1, 1))
        assert {each.replica_id for each in ask_replicas(own, tenant, M, PRODUCTION)} == {"b"}
        damage(own, tenant, M, VersionId("1"))
        placements.move(tenant, to_dedicated=False)
        wait_until(lambda: {each.state.value for each in ask_replicas(own, tenant, M, PRODUCTION)} >= {"failed"})
        wait_until(lambda: (placed(own, tenant) or ready).own == Readiness(1, 1))
        found = placed(own, tenant)
        assert found is not None
        assert found.shared == Readiness(1, 0)
