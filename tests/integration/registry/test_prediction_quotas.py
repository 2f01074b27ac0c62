"""Quotas of predictions: set by the platform, read by the tenant, followed by replicas."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.placement import Placement, dedicated_cell
from ml_core.domain.principal import Principal
from ml_core.domain.tenant_policies import PredictionQuota
from ml_core.exceptions import PermissionDeniedError, TenantNotFoundError
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.inference.edge.app import build_app
from ml_core.inference.replica import Replica
from ml_core.registry.audit import AuditRepository
from ml_core.registry.feed import FeedReader
from ml_core.registry.keys import KeyRepository
from ml_core.registry.placements import PlacementRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.training.trainer import Trainer
from support.inprocess_cell import Cell
from support.registry import new_tenant
from support.replicas import running_replica
from support.tables import measures, split_target
from support.waiting import wait_until

QUOTA = PredictionQuota(weight=2, requests_per_s=100, rows_per_s=5000, burst_s=3)
DATA = split_target(measures(), "outcome")
ROW = DATA[0].iloc[0].to_dict()


def test_a_quota_is_set_read_and_recorded(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """None before, the whole of it after, and a second one replaces it."""
    tenants = TenantRepository(db)
    assert tenants.quota(tenant_id) == PredictionQuota()
    for quota in (QUOTA, PredictionQuota(requests_per_s=1)):
        tenants.set_quota(tenant_id, quota)
        assert tenants.quota(tenant_id) == quota
    recorded = [event for event in AuditRepository(db, tenant_id).list().items if event.action == "tenant.quota_set"]
    assert [event.details["requests_per_s"] for event in recorded] in ([1, 100], [100, 1])
    with pytest.raises(TenantNotFoundError):
        tenants.set_quota("nobody", QUOTA)


def test_a_tenant_reads_its_quota_and_can_not_raise_it(
    db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """Neither with its own key nor with raw SQL in its own transaction; it sees nobody else's."""
    tenants = TenantRepository(db)
    tenants.set_quota(tenant_id, QUOTA)
    tenants.set_quota(other_tenant_id, QUOTA)
    admin = db.acting_as(Principal("key:1", frozenset({Scope.ADMIN}), tenant_id=tenant_id))
    assert TenantRepository(admin).quota(tenant_id) == QUOTA
    with pytest.raises(PermissionDeniedError):
        TenantRepository(admin).set_quota(tenant_id, PredictionQuota())
    with db.tenant(tenant_id) as connection:
        rows = connection.execute(sa.text("SELECT tenant_id FROM mlcore.prediction_quotas")).scalars().all()
        assert rows == [tenant_id]
        assert connection.execute(sa.text("UPDATE mlcore.prediction_quotas SET requests_per_s = 1e6")).rowcount == 0
    for statement in (
        f"INSERT INTO mlcore.prediction_quotas (tenant_id) VALUES ('{new_tenant(db)}')",
        f"INSERT INTO mlcore.prediction_quotas (tenant_id) VALUES ('{tenant_id}') ON CONFLICT DO NOTHING",
        "DELETE FROM mlcore.prediction_quotas",
    ):
        with (
            pytest.raises(Exception, match=r"permission denied|row-level security"),
            db.tenant(tenant_id) as connection,
        ):
            connection.execute(sa.text(statement))


def test_the_feed_carries_a_quota_as_the_change_of_a_tenant(db: DatabaseConnection) -> None:
    """A delta names the tenant with it, also to a dedicated cell; a snapshot names those that have one."""
    tenant, other = new_tenant(db), new_tenant(db)
    feed = FeedReader(db)
    before = feed.read(None)
    assert tenant not in before.quotas
    TenantRepository(db).set_quota(tenant, QUOTA)
    delta = feed.read(before.generation)
    assert (delta.tenants, delta.quotas) == ({tenant: True}, {tenant: QUOTA})
    snapshot = feed.read(None)
    assert snapshot.quotas[tenant] == QUOTA
    assert other not in snapshot.quotas
    placements = PlacementRepository(db)
    placements.set(tenant, Placement(is_dedicated=True))
    placements.move(tenant, to_dedicated=True)
    assert feed.read(snapshot.generation).quotas == {}
    assert FeedReader(db, dedicated_cell(tenant)).read(None).quotas == {tenant: QUOTA}


def status_of(replica: Replica, tenant_id: TenantId, key: str) -> int:
    """Ask for one row."""
    cell = Cell(None, None, replica.table, replica.service, build_app(replica.service), {})  # type: ignore[arg-type]
    return cell.ask("POST", f"/t/{tenant_id}/models/m/predict", key=key, json={"rows": [ROW]}).status_code


def test_replicas_apply_a_quota_while_they_run(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Set, raised and taken back without a restart; a second replica halves the part of the first."""
    version = Trainer(db, tenant_id).train("m", None, DATA, hyperparameters={"n_estimators": 5})["version"]
    EnvironmentRepository(db, tenant_id).promote(ModelId("m"), VersionId(version), PRODUCTION, actor="test")
    key = str(KeyRepository(db, tenant_id).create("test", [Scope.PREDICT]))
    tenants = TenantRepository(db)
    with running_replica(db, "first", poll_interval_s=0.1) as replica:
        assignment = replica.service._assignment

        def apply(quota: PredictionQuota) -> None:
            tenants.set_quota(tenant_id, quota)
            wait_until(lambda: assignment.quota(tenant_id) == quota)

        wait_until(lambda: status_of(replica, tenant_id, key) == 200)
        apply(PredictionQuota(requests_per_s=0.01, burst_s=300))
        assert [status_of(replica, tenant_id, key) for _ in range(5)] == [200, 200, 200, 429, 429]
        apply(PredictionQuota(requests_per_s=0.01, burst_s=500))
        assert [status_of(replica, tenant_id, key) for _ in range(6)] == [200] * 5 + [429]
        apply(PredictionQuota())
        assert {status_of(replica, tenant_id, key) for _ in range(20)} == {200}
        wait_until(lambda: assignment.replicas == 1)
        with running_replica(db, "second", poll_interval_s=0.1) as other:
            wait_until(lambda: assignment.replicas == other.service._assignment.replicas == 2)
        wait_until(lambda: assignment.replicas == 1)
