"""The last verdicts of live versions, which the control loop keeps recent."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa

from ml_core.domain.quality import Verdict
from ml_core.exceptions import (
    ArtifactIntegrityError,
    RegistryUnavailableError,
    RequestTooLargeError,
    TenantNotFoundError,
)
from ml_core.models.store import platform_store
from ml_core.monitoring import watch
from ml_core.monitoring.quality import Quality
from ml_core.monitoring.watch import Watch
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.verdicts import VerdictRepository, alerting_tenants, unmeasured
from ml_core.system import MLSystem
from support.live import LiveModel
from support.registry import TICKETS, register, superuser
from support.tables import split_target, tickets


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Between two measurements, nor any other tenant's: the registry is that of all tests."""
    monkeypatch.setattr(watch, "_SHARE", 1e9)


@pytest.fixture
def turn(db, tenant_id, monkeypatch):
    """A turn that measures this tenant's versions only."""

    def take() -> None:
        own = [each for each in unmeasured(db, 10_000) if each.tenant_id == tenant_id]
        monkeypatch.setattr(watch, "unmeasured", lambda *_: own)
        Watch(db).turn(threading.Event())

    return take


def serve(db, tenant_id, **fields):
    """Register a version and promote it."""
    version = register(db, tenant_id, **fields).version
    EnvironmentRepository(db, tenant_id).promote(TICKETS, version)
    return version


def grow_old(db, tenant_id):
    with superuser(db) as session:
        session.execute("ALTER TABLE mlcore.live_verdicts DISABLE TRIGGER stamp")
        session.execute(
            "UPDATE mlcore.live_verdicts SET measured_at = now() - interval '61 minutes' WHERE tenant_id = %s",
            [tenant_id],
        )
        session.execute("ALTER TABLE mlcore.live_verdicts ENABLE TRIGGER stamp")


def test_an_alert_is_known_without_a_report(db, tenant_id, turn):
    """Of drift here; and the platform sees how many alerts each tenant has."""
    with MLSystem(db, tenant_id=tenant_id) as system:
        made = system.train_model(
            "m",
            "classification",
            split_target(tickets(600), "category"),
            hyperparameters={"algorithm": "logistic_regression"},
        )
        system.promote("m", made["version"])
        model = LiveModel(db, system, "m")
        model.keep()
        X, _ = split_target(tickets(400, seed=2), "category")
        X["priority"] = np.where(np.arange(400) % 2, "urgent", X["priority"])
        model.ask(X)
        assert VerdictRepository(db, tenant_id).list().items == []
        turn()
        (found,) = VerdictRepository(db, tenant_id).list().items
        assert (found.model_id, found.environment, found.version) == ("m", "production", "1")
        assert found.drift is system.quality.drift("m").verdict is Verdict.ALERT
        assert found.quality is system.quality.report("m").verdict is Verdict.UNKNOWN
        assert VerdictRepository(db, tenant_id).list(only_alerts=True).items == [found]
        (alerts,) = [each for each in alerting_tenants(db, 1000) if each.tenant_id == tenant_id]
        assert (alerts.quality, alerts.drift) == (0, 1)
        # Another version is not what the alert is about.
        data = split_target(tickets(300, seed=3), "category")
        again = system.train_model("m", "classification", data, hyperparameters={"algorithm": "logistic_regression"})
        system.promote("m", again["version"])
    assert VerdictRepository(db, tenant_id).list().items == []
    assert tenant_id not in {each.tenant_id for each in alerting_tenants(db, 1000)}
    turn()
    (found,) = VerdictRepository(db, tenant_id).list().items
    assert (found.version, found.drift) == ("2", Verdict.UNKNOWN)


def test_each_is_measured_about_once_an_hour(db, tenant_id):
    """The longest unmeasured first; what serves nothing is left out."""
    serve(db, tenant_id)
    of_tenant = lambda: [each for each in unmeasured(db, 10_000) if each.tenant_id == tenant_id]  # noqa: E731
    (due,) = of_tenant()
    assert (due.model_id, due.environment) == (TICKETS, PRODUCTION)
    verdicts = VerdictRepository(db, tenant_id)
    verdicts.set(TICKETS, PRODUCTION, "1", Verdict.OK, Verdict.OK)
    assert of_tenant() == []
    grow_old(db, tenant_id)
    assert of_tenant() == [due]
    verdicts.set(TICKETS, PRODUCTION, "1", Verdict.OK, Verdict.ALERT)
    assert of_tenant() == []
    (found,) = verdicts.list().items
    assert found.drift is Verdict.ALERT
    EnvironmentRepository(db, tenant_id).withdraw(TICKETS, reason="over")
    assert of_tenant() == []
    assert verdicts.list().items == []


def too_slow() -> RegistryUnavailableError:
    error = RegistryUnavailableError("The registry can't be used now.", remedy="Try again.")
    error.__cause__ = psycopg.errors.QueryCanceled()
    return error


@pytest.mark.parametrize(
    "error",
    [
        RequestTooLargeError("Too many rows.", remedy="Ask for fewer."),
        ArtifactIntegrityError("The profile is missing.", remedy="Restore it."),
        OSError("The store does not answer."),
        ZeroDivisionError("A fault of a report."),
        too_slow(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cant_be_measured_keeps_nobody_waiting(db, tenant_id, turn, monkeypatch, error):
    """It is unknown until the next hour, and what another report found is kept."""

    def refuse(*_):
        raise error

    serve(db, tenant_id)
    monkeypatch.setattr(Quality, "report", lambda *_: SimpleNamespace(verdict=Verdict.ALERT))
    monkeypatch.setattr(Quality, "drift", refuse)
    turn()
    (found,) = VerdictRepository(db, tenant_id).list().items
    assert (found.quality, found.drift) == (Verdict.ALERT, Verdict.UNKNOWN)


def test_without_the_registry_a_turn_ends(db, tenant_id, turn, monkeypatch):
    """And what was found before stays."""

    def refuse(*_):
        raise RegistryUnavailableError("The registry can't be used now.", remedy="Try again.")

    serve(db, tenant_id)
    monkeypatch.setattr(Quality, "report", refuse)
    with pytest.raises(RegistryUnavailableError):
        turn()
    assert VerdictRepository(db, tenant_id).list().items == []


def test_whoever_promotes_again_waits_like_all_others(db, tenant_id, other_tenant_id):
    """The new version is due, but after what was measured before it."""
    for tenant in (tenant_id, other_tenant_id):
        serve(db, tenant)
        VerdictRepository(db, tenant).set(TICKETS, PRODUCTION, "1", Verdict.OK, Verdict.OK)
    grow_old(db, other_tenant_id)
    both = {tenant_id, other_tenant_id}
    due = lambda: [each.tenant_id for each in unmeasured(db, 10_000) if each.tenant_id in both]  # noqa: E731
    assert due() == [other_tenant_id]
    serve(db, tenant_id, version="2")
    assert due() == [other_tenant_id, tenant_id]
    VerdictRepository(db, other_tenant_id).set(TICKETS, PRODUCTION, "1", Verdict.OK, Verdict.OK)
    assert due() == [tenant_id]


def test_a_tenant_that_is_deleted_meanwhile_ends_no_turn(db, turn, tenant_id, monkeypatch):
    """Nor is anything kept of it."""
    serve(db, tenant_id)
    report = Quality.report

    def delete_first(quality, *of):
        found = report(quality, *of)
        TenantDeletion(db, platform_store(db.settings)).delete(tenant_id)
        return found

    monkeypatch.setattr(Quality, "report", delete_first)
    turn()
    with pytest.raises(TenantNotFoundError):
        VerdictRepository(db, tenant_id).set(TICKETS, PRODUCTION, "1", Verdict.OK, Verdict.OK)
    with superuser(db) as session:
        rows = session.execute("SELECT FROM mlcore.live_verdicts WHERE tenant_id = %s", [tenant_id]).fetchall()
    assert rows == []
    assert tenant_id not in {each.tenant_id for each in unmeasured(db, 10_000)}


def test_another_tenants_verdicts_are_its_own(db, tenant_id, other_tenant_id):
    """Row-level security decides."""
    serve(db, other_tenant_id)
    VerdictRepository(db, other_tenant_id).set(TICKETS, PRODUCTION, "1", Verdict.ALERT, Verdict.OK)
    assert VerdictRepository(db, tenant_id).list().items == []
    with db.tenant(tenant_id) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM mlcore.live_verdicts")) == 0
