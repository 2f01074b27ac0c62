"""Postgres goes away while a replica answers: what fits is kept, the rest is counted, and it goes on by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ml_core.database import connection as connection_module
from ml_core.database.connection import DatabaseConnection
from ml_core.database.embedded import EmbeddedServer
from ml_core.domain.prediction_record import LossReason
from ml_core.inference.prediction_log import PredictionLog
from ml_core.registry.predictions import PredictionRepository
from ml_core.registry.predictions.ingest import PredictionIngest
from ml_core.settings import PredictionLogSettings
from support.predictions import spooled, today
from support.registry import new_tenant, register, settings_for, superuser, temporary_home
from support.waiting import wait_until


@pytest.fixture
def own_db() -> Iterator[DatabaseConnection]:
    """A registry whose server the test may stop."""
    with temporary_home() as home, DatabaseConnection(settings=settings_for(home)) as connection:
        yield connection


def test_an_outage_costs_what_does_not_fit_and_no_restart(own_db):
    """Answered before, during and after: all that was held is there once, and the rest is known to be missing."""
    tenant_id = new_tenant(own_db)
    register(own_db, tenant_id)
    log = PredictionLog(PredictionIngest(own_db), PredictionLogSettings(flush_s=0.05, queue_mb=4))
    log.start()
    try:
        log.append(spooled(tenant_id, request_id="before"))
        wait_until(lambda: log.describe()["written"] == 1)
        EmbeddedServer(own_db.settings.platform.home).stop()
        row = {"text": "x" * 1_500_000}
        for number in range(15):
            log.append(spooled(tenant_id, [row], request_id=f"during{number}"))
        wait_until(lambda: log.describe()["error"] == "registry_unavailable")
        lost = log.describe()["lost"]["queue_full"]
        restarted = EmbeddedServer(own_db.settings.platform.home)
        restarted.start()
        wait_until(lambda: log.describe()["queued"] == 0, 30)
        log.append(spooled(tenant_id, request_id="after"))
        wait_until(lambda: log.describe()["written"] == 17 - lost)
    finally:
        log.close()
    predictions = PredictionRepository(own_db, tenant_id)
    kept = [record.request_id for record in predictions.list().items]
    assert len(kept) == len(set(kept)) == 17 - lost
    assert {"before", "during0", "after"} <= set(kept)
    losses = predictions.losses(today(), today())
    assert [(loss.reason, loss.rows) for loss in losses] == [(LossReason.QUEUE_FULL, lost)]
    counts = log.describe()
    assert (counts["accepted"], counts["queued"], counts["error"]) == (17, 0, None)
    assert counts["lost"] == {"queue_full": lost}


def test_a_tenant_with_large_rows_costs_no_other_its_rows(own_db: DatabaseConnection) -> None:
    """While Postgres is away the spool keeps space for the others; what is lost is counted for whose rows they were."""
    large, small = new_tenant(own_db), new_tenant(own_db)
    log = PredictionLog(PredictionIngest(own_db), PredictionLogSettings(flush_s=0.05, queue_mb=24))
    EmbeddedServer(own_db.settings.platform.home).stop()
    log.start()
    try:
        row = {"text": "x" * 500_000}
        for number in range(100):
            log.append(spooled(large, [row], request_id=f"large{number}"))
            log.append(spooled(small, request_id=f"small{number}"))
        wait_until(lambda: log.describe()["error"] == "registry_unavailable")
        EmbeddedServer(own_db.settings.platform.home).start()
        wait_until(lambda: log.describe()["queued"] == 0, 60)
    finally:
        log.close()
    lost = log.describe()["lost"]["queue_full"]
    assert 50 < lost < 80, "it has more than half of the spool, and not all"
    assert len(PredictionRepository(own_db, small).list(limit=200).items) == 100
    assert len(PredictionRepository(own_db, large).list(limit=200).items) == 100 - lost
    assert PredictionRepository(own_db, small).losses(today(), today()) == []
    assert sum(loss.rows for loss in PredictionRepository(own_db, large).losses(today(), today())) == lost


@pytest.fixture
def slow_db(own_db: DatabaseConnection, monkeypatch: pytest.MonkeyPatch) -> DatabaseConnection:
    """A registry that stores a row in 10 ms and ends a statement after 200 ms."""
    for name in ("_TAKE_ROLE", "_TAKE_ROLE_AND_ENTER"):
        text = getattr(connection_module, name)
        monkeypatch.setattr(connection_module, name, text.replace("'30s'", "'200ms'"))
        assert getattr(connection_module, name) != text
    with superuser(own_db) as session:
        session.execute(
            "CREATE FUNCTION pg_temp_slow() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_catalog.pg_sleep(CASE WHEN NEW.request_id = 'endless' THEN 10 ELSE 0.01 END);"
            " RETURN NEW; END $$"
        )
        session.execute(
            "CREATE TRIGGER slow BEFORE INSERT ON mlcore.predictions FOR EACH ROW EXECUTE FUNCTION pg_temp_slow()"
        )
    return own_db


def test_a_batch_beyond_the_time_of_a_statement_is_divided(slow_db: DatabaseConnection) -> None:
    """It used to be repeated for ever, and the log of all tenants stood still behind it."""
    tenants = [new_tenant(slow_db) for _ in range(2)]
    log = PredictionLog(PredictionIngest(slow_db), PredictionLogSettings(flush_s=0.05))
    ids = [f"r{number:02}" for number in range(60)]
    for number, request_id in enumerate(ids):
        log.append(spooled(tenants[number % 2], request_id=request_id))
    log.start()
    try:
        wait_until(lambda: log.describe()["queued"] == 0, 30)
    finally:
        log.close()
    counts = log.describe()
    assert (counts["written"], counts["lost"], counts["error"]) == (60, {}, None)
    assert counts["timeouts"] >= 3
    found = [each.request_id for tenant in tenants for each in PredictionRepository(slow_db, tenant).list().items]
    assert sorted(found) == ids


def test_a_request_beyond_the_time_of_a_statement_is_lost_alone(slow_db: DatabaseConnection) -> None:
    """Those before and after it are in the log, and it is counted for its tenant."""
    one, other = new_tenant(slow_db), new_tenant(slow_db)
    log = PredictionLog(PredictionIngest(slow_db), PredictionLogSettings(flush_s=0.05))
    for tenant, request_id in ((one, "before"), (other, "endless"), (one, "after")):
        log.append(spooled(tenant, request_id=request_id))
    log.start()
    try:
        wait_until(lambda: log.describe()["queued"] == 0, 60)
    finally:
        log.close()
    assert log.describe()["lost"] == {"refused": 1}
    found = PredictionRepository(slow_db, one).list().items
    assert sorted(each.request_id for each in found) == ["after", "before"]
    losses = PredictionRepository(slow_db, other).losses(today(), today())
    assert [(loss.reason, loss.rows) for loss in losses] == [(LossReason.REFUSED, 1)]
