"""Retention: a day of the history goes with its partition, in a moment and with its bytes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import PARTITION_SCHEMA, SCHEMA, feedback, prediction_losses
from ml_core.exceptions import InvalidRequestError, RegistryUnavailableError
from ml_core.ids import TenantId
from ml_core.registry.tenants import TenantRepository

_log = logging.getLogger(__name__)

_PREFIX = "predictions_"
# Dropping a partition keeps everybody off the whole table while it waits for its turn.
_LOCK_TIMEOUT = sa.text("SELECT set_config('lock_timeout', '2s', true)")
_PARTITIONS = sa.text(
    "SELECT c.relname, GREATEST(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid)"
    " FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " WHERE i.inhparent = CAST(:parent AS regclass) ORDER BY c.relname"
)
_TENANTS_A_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Partition:
    """A day of the history; ``rows`` is an estimate of the database's statistics."""

    day: date
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, or would be.

    Attributes:
        before: The first day that stays.
        partitions: The days that went.
        busy: Days that could not go now, because somebody reads them; the next run takes them.
        labels: Labels that went.
        losses: Notes of lost rows that went.
    """

    before: date
    partitions: tuple[Partition, ...]
    busy: tuple[date, ...]
    labels: int
    losses: int


def list_partitions(db: DatabaseConnection) -> list[Partition]:
    """The days that the history has, oldest first. Takes the owner's login.

    Raises:
        RegistryUnavailableError: Postgres can't be reached.
    """
    with db.maintaining() as connection:
        rows = connection.execute(_PARTITIONS, {"parent": f"{SCHEMA}.predictions"}).all()
    return [Partition(_day_of(name), estimate, size) for name, estimate, size in rows]


def prune(db: DatabaseConnection, keep_days: int | None = None, *, dry_run: bool = False) -> Pruned:
    """Remove what is older than the retention, of all tenants: predictions by the day, labels and notes of losses.

    Takes the owner's login: a partition holds the rows of all tenants, and no runtime role may drop one.

    Args:
        db: The registry.
        keep_days: Whole days to keep before today (UTC); None: ``MLCORE_HISTORY_RETENTION_DAYS``.
        dry_run: Only say what would go.

    Raises:
        InvalidRequestError: ``keep_days`` is less than 1.
        RegistryUnavailableError: Postgres can't be reached.
    """
    days = db.settings.history.retention_days if keep_days is None else keep_days
    if days < 1:
        raise InvalidRequestError(
            f"The history is kept for at least 1 day, not {days}.", remedy="Correct it.", field="keep_days"
        )
    before = datetime.now(UTC).date() - timedelta(days=days)
    old = [partition for partition in list_partitions(db) if partition.day < before]
    busy = () if dry_run else tuple(partition.day for partition in old if not _drop(db, partition.day))
    labels, losses = _prune_tenants(db, before, dry_run=dry_run)
    gone = tuple(partition for partition in old if partition.day not in busy)
    return Pruned(before, gone, busy, labels, losses)


def _drop(db: DatabaseConnection, day: date) -> bool:
    """Drop a partition, unless somebody keeps it busy."""
    name = f"{PARTITION_SCHEMA}.{_PREFIX}{day:%Y%m%d}"
    try:
        with db.maintaining() as connection:
            connection.execute(_LOCK_TIMEOUT)
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {name}"))
    except RegistryUnavailableError as error:
        _log.warning("The history of %s is not dropped now: %s", day, error)
        return False
    return True


def _prune_tenants(db: DatabaseConnection, before: date, *, dry_run: bool) -> tuple[int, int]:
    """Old labels and notes of losses, tenant by tenant."""
    moment = datetime(before.year, before.month, before.day, tzinfo=UTC)
    labels = losses = 0
    for tenant in _tenants(db):
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


def _tenants(db: DatabaseConnection) -> Iterator[TenantId]:
    after: TenantId | None = None
    while True:
        page: Any = TenantRepository(db).list(limit=_TENANTS_A_PAGE, after=after)
        yield from (tenant.tenant_id for tenant in page)
        if len(page) < _TENANTS_A_PAGE:
            return
        after = page[-1].tenant_id


def _day_of(name: str) -> date:
    return datetime.strptime(name.removeprefix(_PREFIX), "%Y%m%d").replace(tzinfo=UTC).date()
