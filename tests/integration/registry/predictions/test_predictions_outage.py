"""Postgres goes away while a replica answers: what fits is kept, the rest is counted, and it goes on by itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.database.embedded import EmbeddedServer
from ml_core.domain.prediction_record import LossReason
from ml_core.inference.prediction_log import PredictionLog
from ml_core.registry.predictions import PredictionRepository
from ml_core.registry.predictions.ingest import PredictionIngest
from ml_core.settings import PredictionLogSettings
from support.predictions import spooled, today
from support.registry import new_tenant, register, settings_for, temporary_home
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
