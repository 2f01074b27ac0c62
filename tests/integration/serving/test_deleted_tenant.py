"""A deleted tenant is served no more."""

from __future__ import annotations

from ml_core.models.store import platform_store
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from support.tables import measures, split_target
from support.waiting import wait_until

X, y = split_target(measures(), "outcome")
ROW = X.iloc[0].to_dict()


def test_replicas_stop_answering_for_it(platform):
    """A moment after the deletion its key opens nothing, on any replica, and its files are gone."""
    tenant = platform.tenant("leaving")
    tenant.promote("m", tenant.train("m", (X, y), n_estimators=5), wait_for=ROW)
    assert tenant.predict("m", [ROW]).status_code == 200
    store = platform_store(platform.settings)
    report = TenantDeletion(platform.db, store).delete(tenant.tenant_id)
    assert report.artifacts.count >= 1
    wait_until(lambda: {tenant.predict("m", [ROW]).status_code for _ in range(10)} == {401}, 10)
    assert tenant.tenant_id not in set(store.tenants())
