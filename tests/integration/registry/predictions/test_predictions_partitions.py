"""Partitions of the prediction log: made when a day comes, closed to everybody, dropped when it is old."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import InvalidRequestError
from ml_core.registry.predictions import PredictionRepository
from ml_core.registry.predictions.ingest import PredictionIngest, wait_for_writers
from ml_core.registry.predictions.retention import list_partitions, prune
from support.predictions import answered, rendered, today, write
from support.registry import TICKETS, new_tenant, register, settings_for, superuser, temporary_home

OLD = 100
"""Days; older than anything that other tests make."""


def name_of(day: date) -> str:
    """A day's partition."""
    return f"mlcore_predictions.predictions_{day:%Y%m%d}"


@pytest.fixture
def old_day(db: DatabaseConnection) -> Iterator[date]:
    """A day long ago that has a partition, until the end of the test."""
    day = today() - timedelta(days=OLD)
    with db.maintaining() as connection:
        connection.execute(sa.text("SELECT mlcore.create_prediction_partition(:day)"), {"day": day})
    yield day
    with db.maintaining() as connection:
        connection.execute(sa.text(f"DROP TABLE IF EXISTS {name_of(day)}"))


def put(db: DatabaseConnection, tenant_id: str, day: date) -> None:
    """A row of a day, as no replica may write it any more."""
    with superuser(db) as session:
        session.execute(
            "INSERT INTO mlcore.predictions (tenant_id, request_id, row_number, at, model_id, version, rollout,"
            " input_digest, latency_ms) VALUES (%s, 'r', 0, %s, 'm', '1', 'stable', '', 1)",
            (tenant_id, f"{day} 01:00+00"),
        )


def test_a_row_lies_in_the_partition_of_its_day(db, tenant_id):
    """By the day in UTC."""
    days = [today() - timedelta(days=1), today()]
    write(db, *(answered(tenant_id, at=moment_of(day)) for day in days))
    with db.tenant(tenant_id) as connection:
        found = set(connection.scalars(sa.text("SELECT tableoid::regclass::text FROM mlcore.predictions")))
    assert found == {name_of(day) for day in days}


def moment_of(day: date) -> float:
    """The first second of a day, UTC, in seconds since 1970."""
    return (day - date(1970, 1, 1)).days * 86400.0


def test_the_next_day_is_there_before_it_begins(db, tenant_id):
    """So that its first row waits for no lock."""
    write(db, answered(tenant_id))
    assert {today(), today() + timedelta(days=1)} <= {partition.day for partition in list_partitions(db)}


def test_replicas_make_a_partition_at_the_same_time():
    """Each goes on, and there is one."""
    with temporary_home() as home, DatabaseConnection(settings=settings_for(home)) as db:
        tenant_id = new_tenant(db)
        start, kept = threading.Barrier(4), []

        def run():
            start.wait(10)
            kept.append(write(db, answered(tenant_id)).kept)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert kept == [1, 1, 1, 1]
        assert len(list_partitions(db)) == 2


@pytest.mark.parametrize("role", ["mlcore_app", "mlcore_ingest"])
def test_a_partition_can_not_be_named_directly(db, tenant_id, role):
    """No runtime role gets into the partitions' schema; so neither past the policies of the whole."""
    write(db, answered(tenant_id))
    transaction = db.tenant(tenant_id) if role == "mlcore_app" else db.ingesting(tenant_id)
    with pytest.raises(ProgrammingError, match="permission denied for schema"), transaction as connection:
        connection.execute(sa.text(f"SELECT * FROM {name_of(today())}"))


def test_a_partition_that_was_granted_by_mistake_shows_nothing(db, tenant_id):
    """Row-level security is on for each, without a policy for anybody who serves."""
    write(db, answered(tenant_id))
    table = name_of(today())
    with superuser(db) as session:
        session.execute(f"GRANT USAGE ON SCHEMA mlcore_predictions TO mlcore_app; GRANT ALL ON {table} TO mlcore_app")
        try:
            with db.tenant(tenant_id) as connection:
                assert connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) == 0
        finally:
            session.execute(
                f"REVOKE ALL ON {table} FROM mlcore_app; REVOKE USAGE ON SCHEMA mlcore_predictions FROM mlcore_app"
            )


def test_every_partition_is_forced_behind_row_level_security(db, tenant_id, old_day):
    """However it came about."""
    write(db, answered(tenant_id))
    with superuser(db) as session:
        rows = session.execute(
            "SELECT relrowsecurity AND relforcerowsecurity FROM pg_class"
            " WHERE relnamespace = 'mlcore_predictions'::regnamespace AND relkind = 'r'"
        ).fetchall()
    assert len(rows) >= 3
    assert set(rows) == {(True,)}


def test_the_serving_plane_adds_predictions_and_reads_none(db, tenant_id):
    """A replica that was taken over can't read what others answered."""
    write(db, answered(tenant_id))
    for table in ("predictions", "prediction_losses"):
        with pytest.raises(ProgrammingError, match="permission denied"), db.ingesting(tenant_id) as connection:
            connection.execute(sa.text(f"SELECT * FROM mlcore.{table}"))


def test_the_serving_plane_writes_labels_of_the_transactions_tenant_only(db, tenant_id, other_tenant_id):
    """Raw SQL that names another is refused."""
    for tenant in (tenant_id, other_tenant_id):
        register(db, tenant)
    statement = sa.text(
        "INSERT INTO mlcore.feedback (tenant_id, model_id, request_id, row_number, label)"
        " VALUES (:t, 'tickets', 'r', 0, '1')"
    )
    with pytest.raises(ProgrammingError, match="row-level security"), db.ingesting(tenant_id) as connection:
        connection.execute(statement, {"t": other_tenant_id})


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT mlcore.ensure_prediction_partitions(ARRAY[current_date])",
        "SELECT mlcore.create_prediction_partition(current_date)",
        "DELETE FROM mlcore.predictions",
        "UPDATE mlcore.predictions SET version = '2'",
        "INSERT INTO mlcore.prediction_losses VALUES ('t', current_date, 'm', 'x', 'x', 1)",
    ],
)
def test_the_runtime_changes_no_prediction(db, tenant_id, statement):
    """Neither rows nor partitions, of its own tenant either."""
    with pytest.raises(ProgrammingError, match="permission denied"), db.tenant(tenant_id) as connection:
        connection.execute(sa.text(statement))


def test_old_days_go_with_their_partitions(db, tenant_id, old_day):
    """With their bytes; younger days stay. A dry run only says so."""
    put(db, tenant_id, old_day)
    write(db, answered(tenant_id))
    assert old_day in {partition.day for partition in prune(db, OLD - 1, dry_run=True).partitions}
    assert old_day in {partition.day for partition in list_partitions(db)}
    assert old_day not in {partition.day for partition in prune(db, OLD).partitions}
    pruned = prune(db, OLD - 1)
    assert (old_day in {partition.day for partition in pruned.partitions}, pruned.busy) == (True, ())
    assert old_day not in {partition.day for partition in list_partitions(db)}
    assert len(PredictionRepository(db, tenant_id).list().items) == 1


def test_a_day_that_somebody_reads_is_left_for_the_next_run(db, tenant_id, old_day):
    """Dropping it would make everybody else wait."""
    with db.tenant(tenant_id) as connection:
        connection.execute(sa.text("SELECT 1 FROM mlcore.predictions LIMIT 1")).all()
        assert prune(db, OLD - 1).busy == (old_day,)
    assert prune(db, OLD - 1).busy == ()


def test_old_labels_and_losses_go_too(db, tenant_id, other_tenant_id):
    """Of every tenant."""
    moment = moment_of(today() - timedelta(days=OLD))
    for tenant in (tenant_id, other_tenant_id):
        register(db, tenant)
        predictions = PredictionRepository(db, tenant)
        predictions.add_label(TICKETS, "new", 0, "b")
        with db.tenant(tenant) as connection:
            predictions.add_label(TICKETS, "old", 0, "b")
            connection.execute(
                sa.text("UPDATE mlcore.feedback SET at = to_timestamp(:at) WHERE request_id = 'old'"), {"at": moment}
            )
        write(db, answered(tenant, at=moment))
    pruned = prune(db, OLD - 1)
    assert (pruned.labels, pruned.losses) == (2, 2)
    with db.tenant(tenant_id) as connection:
        assert list(connection.scalars(sa.text("SELECT request_id FROM mlcore.feedback"))) == ["new"]
        assert connection.scalar(sa.text("SELECT count(*) FROM mlcore.prediction_losses")) == 0


def test_today_can_not_be_pruned(db):
    """At least one day is kept."""
    with pytest.raises(InvalidRequestError):
        prune(db, 0)


def test_a_partition_that_was_dropped_is_made_again(db, tenant_id):
    """A writer that knew it goes on."""
    ingest = PredictionIngest(db)
    yesterday = today() - timedelta(days=5)
    request = answered(tenant_id, at=moment_of(yesterday))
    ingest.write(rendered(request), [], "one")
    with db.maintaining() as connection:
        connection.execute(sa.text(f"DROP TABLE {name_of(yesterday)}"))
    assert ingest.write(rendered(request), [], "two").kept == 1
    with db.tenant(tenant_id) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM mlcore.predictions")) == 1


def test_the_removal_of_a_tenant_waits_for_writers_and_keeps_new_ones_out(db, tenant_id):
    """After it nothing of the tenant is added."""
    written = threading.Event()

    def run():
        write(db, answered(tenant_id))
        written.set()

    writer = threading.Thread(target=run)
    with db.tenant(tenant_id) as connection:
        wait_for_writers(connection)
        writer.start()
        assert not written.wait(0.3)
    assert written.wait(10)
    writer.join(10)
