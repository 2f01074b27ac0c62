"""Retention: a day of the prediction log is one partition, which is dropped with its bytes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import PARTITION_SCHEMA, SCHEMA, feedback, prediction_losses
from ml_core.exceptions import InvalidRequestError, RegistryUnavailableError
from ml_core.registry.tenants import tenant_ids

_log = logging.getLogger(__name__)

_PREFIX = "predictions_"
# Dropping a partition blocks every reader of the whole table while it waits for its lock.
_LOCK_TIMEOUT = sa.text("SELECT set_config('lock_timeout', '2s', true)")
_PARTITIONS = sa.text(
    "SELECT c.relname, GREATEST(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid)"
    " FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " WHERE i.inhparent = CAST(:parent AS regclass) ORDER BY c.relname"
)


@dataclass(frozen=True, slots=True)
class Partition:
    """A day of the prediction log; ``rows`` is an estimate of the database's statistics."""

    day: date
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, or would be.

    Attributes:
        before: The first day that is kept.
        partitions: The days that were removed.
        busy: Days that are in use, so that they could not be removed; the next run removes them.
        labels: Labels that were removed.
        losses: Counts of lost rows that were removed.
    """

    before: date
    partitions: tuple[Partition, ...]
    busy: tuple[date, ...]
    labels: int
    losses: int


def list_partitions(db: DatabaseConnection) -> list[Partition]:
    """The days that the prediction log has, oldest first. Needs the owner's login."""
    with db.maintaining() as connection:
        rows = connection.execute(_PARTITIONS, {"parent": f"{SCHEMA}.predictions"}).all()
    return [Partition(_day_of(name), estimate, size) for name, estimate, size in rows]


def prune(db: DatabaseConnection, keep_days: int | None = None, *, dry_run: bool = False) -> Pruned:
    """Remove what is older than the retention, of all tenants: predictions by the day, labels and counts of losses.

    Needs the owner's login: a partition holds the rows of all tenants, and no runtime role may drop one.

    Args:
        db: The registry.
        keep_days: Whole days to keep before today (UTC); None: ``MLCORE_PREDICTION_LOG_RETENTION_DAYS``.
        dry_run: Only report what would be removed.

    Raises:
        InvalidRequestError: ``keep_days`` is less than 1.
    """
    days = db.settings.prediction_log.retention_days if keep_days is None else keep_days
    if days < 1:
        raise InvalidRequestError(
            f"The prediction log is kept for at least 1 day, not {days}.", remedy="Correct it.", field="keep_days"
        )
    before = datetime.now(UTC).date() - timedelta(days=days)
    old = [partition for partition in list_partitions(db) if partition.day < before]
    busy = () if dry_run else tuple(partition.day for partition in old if not _drop(db, partition.day))
    labels, losses = _prune_tenants(db, before, dry_run=dry_run)
    gone = tuple(partition for partition in old if partition.day not in busy)
    return Pruned(before, gone, busy, labels, losses)


def _drop(db: DatabaseConnection, day: date) -> bool:
    """Drop a partition, unless it is in use."""
    name = f"{PARTITION_SCHEMA}.{_PREFIX}{day:%Y%m%d}"
    try:
        with db.maintaining() as connection:
            connection.execute(_LOCK_TIMEOUT)
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {name}"))
    except RegistryUnavailableError as error:
        _log.warning("The predictions of %s are not dropped now: %s", day, error)
        return False
    return True


def _prune_tenants(db: DatabaseConnection, before: date, *, dry_run: bool) -> tuple[int, int]:
    """Remove old labels and counts of losses, tenant by tenant."""
    moment = datetime(before.year, before.month, before.day, tzinfo=UTC)
    labels = losses = 0
    for tenant in tenant_ids(db):
        with db.maintaining(tenant) as connection:
            counts = []
            for table, is_old in (
                (feedback, feedback.c.at < moment),
                (prediction_losses, prediction_losses.c.day < before),
            ):
                where = sa.and_(table.c.tenant_id == tenant, is_old)
                if dry_run:
                    counts.append(connection.scalar(sa.select(sa.func.count()).select_from(table).where(where)) or 0)
                else:
                    counts.append(connection.execute(sa.delete(table).where(where)).rowcount)
        labels, losses = labels + counts[0], losses + counts[1]
    return labels, losses


def _day_of(name: str) -> date:
    return datetime.strptime(name.removeprefix(_PREFIX), "%Y%m%d").replace(tzinfo=UTC).date()
