"""Promotions while requests run: served within a moment, nothing failed, nothing mixed."""

from ml_core.ids import ModelId
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.system import MLSystem
from support.replicas import damage
from support.running_platform import PRODUCTION
from support.tables import measures, split_target
from support.waiting import wait_until


def test_no_request_fails_while_a_version_is_promoted(platform):
    """Old answers, then new answers; after a replica flipped it does not go back."""
    tenant = platform.tenant("initech")
    X, y = split_target(measures(), "outcome")
    row = X.iloc[0].to_dict()
    first, second = tenant.train("measures", (X, y)), tenant.train("measures", (X, y), n_estimators=20)
    tenant.promote("measures", first, wait_for=row)
    with tenant.traffic("measures", row) as report:
        report.wait_for(first, 100, 30)
        tenant.promote("measures", second)
        report.wait_for(second, 100, 30)
    assert report.failures == []
    assert set(report.answers) == {first, second}


def test_a_rollback_is_served_like_a_promotion(platform):
    """The version before answers again."""
    tenant = platform.tenant("rollback")
    X, y = split_target(measures(), "outcome")
    row = X.iloc[0].to_dict()
    first, second = tenant.train("m", (X, y), n_estimators=5), tenant.train("m", (X, y), n_estimators=6)
    tenant.promote("m", first, wait_for=row)
    tenant.promote("m", second, wait_for=row)
    EnvironmentRepository(platform.db, tenant.tenant_id).rollback(
        ModelId("m"), PRODUCTION, actor="test", reason="worse"
    )
    wait_until(lambda: tenant.predict("m", [row]).json()["version"] == first)


def test_a_damaged_artifact_is_not_served(platform):
    """One flipped byte: the old version goes on answering, and each replica says why the new one is not there."""
    tenant = platform.tenant("flipped")
    X, y = split_target(measures(), "outcome")
    row = X.iloc[0].to_dict()
    good, bad = tenant.train("m", (X, y), n_estimators=5), tenant.train("m", (X, y), n_estimators=6)
    tenant.promote("m", good, wait_for=row)
    damage(platform.db, tenant.tenant_id, ModelId("m"), bad)
    tenant.promote("m", bad)
    answers = MLSystem(platform.db, tenant_id=tenant.tenant_id).environments.replicas("m", wait_s=20)
    assert {(answer.state, answer.version, answer.serves) for answer in answers} == {("failed", bad, good)}
    assert len(answers) == 2
    for _ in range(20):
        assert tenant.predict("m", [row]).json()["version"] == good
    status = platform.local.status()
    assert (status.state, status.failed_loads) == ("degraded", 1)
    EnvironmentRepository(platform.db, tenant.tenant_id).rollback(ModelId("m"), PRODUCTION)
    wait_until(lambda: platform.local.status().state == "running")
