"""Reports of replicas: written by each for itself, as the serving plane.

``seen_replicas`` reads them for whoever runs the platform, ``ask_replicas`` for a tenant: what each has loaded of one
pointer.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, array, insert
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import (
    SCHEMA,
    environments,
    feed_clock,
    placements,
    replica_pending,
    replica_reports,
    replica_traffic,
)
from ml_core.domain.placement import NOTED_EVERY, SHARED_CELL, dedicated_cell
from ml_core.domain.replica_report import MAX_REASON, LoadState, PendingVersion, ReplicaAnswer, ReplicaReport
from ml_core.domain.traffic import BUCKETS, INTERVAL_S, INTERVALS, Interval, TrafficPoint, point_of, shown_intervals
from ml_core.exceptions import RegistryUnavailableError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry.records import value_of

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

# A pointer may have been removed since it was reported: the join leaves it out, where the foreign key would refuse all.
_INSERT_PENDING = sa.text(
    f"INSERT INTO {SCHEMA}.replica_pending"  # noqa: S608 - constants
    " (tenant_id, model_id, environment, version, cell, replica_id, position, state, serves, code, reason, cause)"
    " SELECT tenant_id, model_id, environment, r.version, :cell, :replica_id, r.position, r.state, r.serves, r.code,"
    " r.reason, r.cause FROM jsonb_to_recordset(:rows) AS r (tenant_id text, model_id text, environment text,"
    " version text, position smallint, state text, serves text, code text, reason text, cause text)"
    f" JOIN {SCHEMA}.environments e USING (tenant_id, model_id, environment)"
).bindparams(sa.bindparam("rows", type_=JSONB))


class ReplicaReports:
    """The report of one replica. One thread uses it.

    Args:
        db: The registry.
        replica_id: The replica; no other has ever had it.
        cell: Its cell.
    """

    def __init__(self, db: DatabaseConnection, replica_id: str, cell: str = SHARED_CELL) -> None:
        self._db = db
        self._key = {"cell": cell, "replica_id": replica_id}
        self._own = sa.and_(replica_reports.c.cell == cell, replica_reports.c.replica_id == replica_id)
        self._started_at: datetime | None = None

    def write(self, report: ReplicaReport, ttl_s: float) -> None:
        """Replace the replica's report.

        Args:
            report: What it says.
            ttl_s: Seconds after which the replica counts as dead unless it reports again.
        """
        values = {name: getattr(report, name) for name in _COLUMNS}
        if self._started_at is not None:
            values["started_at"] = self._started_at
        rows = [_row(position, pending) for position, pending in enumerate(report.pending)]
        with self._db.ingesting() as connection:
            self._drop(connection, self._key["replica_id"])
            statement = replica_reports.insert().values(**self._key, **values, expires_at=_in(ttl_s))
            started_at = connection.scalar(statement.returning(replica_reports.c.started_at))
            if rows:
                connection.execute(_INSERT_PENDING, {**self._key, "rows": rows})
        self._started_at = started_at

    def touch(self, ttl_s: float) -> bool:
        """Renew the report, and remove those of dead replicas; False: it does not exist."""
        touched = replica_reports.update().where(self._own).values(reported_at=sa.func.now(), expires_at=_in(ttl_s))
        with self._db.ingesting() as connection:
            is_there = connection.execute(touched).rowcount == 1
            self._drop(connection, None)
        return is_there

    def note_requests(self, asked: Collection[str]) -> None:
        """Record that tenants were asked for predictions, once a minute of those whose cells end without.

        Args:
            asked: The tenants.
        """
        of = placements.c
        is_due = of.requested_at < sa.func.now() - NOTED_EVERY
        with self._db.ingesting() as connection:
            due = connection.scalars(sa.select(of.tenant_id).where(of.min_replicas == 0, is_due))
            if noted := [tenant for tenant in due if tenant in asked]:
                connection.execute(
                    placements.update().where(of.tenant_id.in_(noted), is_due).values(requested_at=sa.func.now())
                )

    def add_traffic(self, intervals: Sequence[Interval]) -> None:
        """Add what the replica answered in intervals that have ended; one that was added before stays as it is."""
        rows = [{**self._key, **dataclasses.asdict(each)} for each in intervals]
        with self._db.ingesting() as connection:
            connection.execute(insert(replica_traffic).on_conflict_do_nothing(), rows)
            connection.execute(sa.select(sa.func.mlcore.drop_traffic()))

    def remove(self) -> None:
        """Take the report back: the replica ends. What it answered stays."""
        with self._db.ingesting() as connection:
            self._drop(connection, self._key["replica_id"])

    def _drop(self, connection: Connection, replica_id: str | None) -> None:
        """Remove a replica's report, if one is named, and those of replicas that died more than a minute ago."""
        connection.execute(sa.select(sa.func.mlcore.drop_reports(self._key["cell"], replica_id)))


_COLUMNS = ("generation", "epoch", "is_current", "pointers", "resident", "deferred", "loading", "failed", "unlisted")


def _in(seconds: float) -> sa.ColumnElement[datetime]:
    return sa.func.now() + timedelta(seconds=seconds)


def _row(position: int, pending: PendingVersion) -> dict[str, object]:
    texts = {"reason": _storable(pending.reason), "cause": _storable(pending.cause)}
    return {**dataclasses.asdict(pending), **texts, "position": position, "state": pending.state.value}


def _storable(text: str | None) -> str | None:
    # Postgres stores neither NUL nor half a surrogate pair.
    clean = text and text.encode("utf-8", "replace").decode().replace("\0", "?")
    return clean if clean is None or len(clean) <= MAX_REASON else f"{clean[: MAX_REASON - 1]}…"


@dataclass(frozen=True, slots=True)
class SeenReplica:
    """What a live replica last reported, beside what the registry wants.

    The counts and ``pending`` are those of ``ml_core.domain.replica_report.ReplicaReport``.

    Attributes:
        cell: The cell that it belongs to.
        replica_id: The replica.
        started_at: Of its first report.
        reported_at: Of its last one.
        generation: Of the assignment that it has applied.
        is_behind: Whether the registry is at a later generation, or the replica can't read it.
    """

    cell: str
    replica_id: str
    started_at: datetime
    reported_at: datetime
    generation: int
    is_behind: bool
    pointers: int
    resident: int
    deferred: int
    loading: int
    failed: int
    pending: tuple[PendingVersion, ...]

    @property
    def failures(self) -> list[PendingVersion]:
        """The listed versions that it could not load."""
        return [each for each in self.pending if each.state is LoadState.FAILED]


def seen_replicas(db: DatabaseConnection) -> Sequence[SeenReplica]:
    """The live replicas of all cells, the longest running first. For operators: it names all tenants."""
    of = replica_reports.c
    is_applied = sa.and_(of.epoch == feed_clock.c.epoch, of.generation >= feed_clock.c.generation)
    statement = (
        sa.select(replica_reports, sa.not_(sa.and_(of.is_current, is_applied)).label("is_behind"))
        .join(feed_clock, sa.true())
        .where(of.expires_at > sa.func.now())
        .order_by(of.started_at, of.replica_id)
    )
    with db.serving() as connection:
        pending = _pending_by_replica(connection)
        return [
            value_of(SeenReplica, row, pending=pending.get((row.cell, row.replica_id), ()))
            for row in connection.execute(statement)
        ]


def reported_states(db: DatabaseConnection) -> Sequence[object]:
    """What the live replicas report of what they serve, to be compared with an earlier answer."""
    names = ("cell", "replica_id", "epoch", "generation", "is_current", "pointers", "resident", "deferred", "failed")
    of = replica_reports.c
    statement = sa.select(*(of[name] for name in names)).where(of.expires_at > sa.func.now())
    with db.serving() as connection:
        return connection.execute(statement.order_by(of.cell, of.replica_id)).all()


def _pending_by_replica(connection: Connection) -> dict[tuple[str, str], tuple[PendingVersion, ...]]:
    of = replica_pending.c
    rows = connection.execute(sa.select(replica_pending).order_by(of.cell, of.replica_id, of.position))
    by_replica = groupby(rows, key=attrgetter("cell", "replica_id"))
    return {
        replica: tuple(value_of(PendingVersion, row, reason=row.cause or row.reason) for row in own)
        for replica, own in by_replica
    }


_MOST_CELLS = 50


def cell_traffic(db: DatabaseConnection) -> Mapping[str, Sequence[TrafficPoint]]:
    """Cell → what its replicas answered in the last 15 minutes, oldest first; an interval without requests has zeros.

    A cell that had no request is left out, and of many the busiest are shown, the busiest first. Postgres adds up the
    replicas: there are 90 rows of each.
    """
    of, kept = replica_traffic.c, replica_traffic.c.at > sa.func.now() - timedelta(seconds=INTERVALS * INTERVAL_S)
    requests = sa.func.sum(of.answered + of.refused + of.failed)
    by_cell = sa.select(of.cell, requests.label("requests")).where(kept).group_by(of.cell)
    busiest = by_cell.order_by(requests.desc(), of.cell).limit(_MOST_CELLS).subquery()
    latency = array([_sum(of.latency[bucket + 1]) for bucket in range(BUCKETS)])
    counts = [_sum(of[name]).label(name) for name in ("answered", "refused", "failed")]
    statement = (
        sa.select(of.cell, of.at, *counts, latency.label("latency"), sa.func.now().label("now"))
        .join(busiest, busiest.c.cell == of.cell)
        .where(kept)
        .group_by(of.cell, of.at, busiest.c.requests)
        .order_by(busiest.c.requests.desc(), of.cell)
    )
    with db.serving() as connection:
        rows = connection.execute(statement).all()
    found: dict[str, dict[datetime, Interval]] = {}
    for row in rows:
        at = row.at.astimezone(UTC)
        found.setdefault(row.cell, {})[at] = value_of(Interval, row, at=at)
    shown = shown_intervals(rows[0].now) if rows else []
    return {
        cell: [point_of(intervals.get(at) or Interval(at, 0, 0, 0, ())) for at in shown]
        for cell, intervals in found.items()
    }


def _sum(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.sum(column), sa.BigInteger)


_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.25
_BY_BADNESS = list(LoadState)


def ask_replicas(
    db: DatabaseConnection,
    tenant_id: TenantId,
    model_id: ModelId,
    environment: EnvironmentName,
    version: VersionId | None = None,
    *,
    wait_s: float = 0.0,
) -> Sequence[ReplicaAnswer]:
    """What each live replica last reported of a pointer, as ``EnvironmentRepository.replicas`` describes it.

    Nothing if no replica is alive, or there is no such pointer.
    """
    deadline, pause = time.monotonic() + wait_s, _FIRST_PAUSE_S
    statement = _statement(tenant_id, model_id, environment, version)
    while True:
        left = deadline - time.monotonic()
        try:
            answers = _ask(db, tenant_id, statement)
            if left <= 0 or all(answer.state.is_final for answer in answers):
                return answers
        except RegistryUnavailableError:
            if left <= 0:
                raise
        time.sleep(min(pause, max(left, 0.0)))
        pause = min(1.5 * pause, _LONGEST_PAUSE_S)


def _statement(
    tenant_id: TenantId, model_id: ModelId, environment: EnvironmentName, version: VersionId | None
) -> sa.Select[Any]:
    """One row for each live replica and pending version of the pointer; one row for a replica without any."""
    report, pending, pointer = replica_reports.c, replica_pending.c, environments.c
    is_pending = sa.and_(
        pending.tenant_id == pointer.tenant_id,
        pending.model_id == pointer.model_id,
        pending.environment == pointer.environment,
        pending.cell == report.cell,
        pending.replica_id == report.replica_id,
        sa.true() if version is None else pending.version == version,
    )
    is_applied = sa.and_(report.epoch == feed_clock.c.epoch, report.generation >= pointer.feed_generation)
    has_moved = sa.exists().where(placements.c.tenant_id == tenant_id, placements.c.has_moved)
    is_in_shared = sa.and_(report.cell == SHARED_CELL, ~has_moved)
    return (
        sa.select(
            report.replica_id,
            report.unlisted,
            is_applied.label("is_applied"),
            pointer.version.label("stable"),
            *(pending[name] for name in ("version", "state", "serves", "code", "reason", "cause")),
        )
        .join_from(environments, feed_clock, sa.true())
        .join(replica_reports, sa.or_(report.cell == dedicated_cell(tenant_id), is_in_shared))
        .join(replica_pending, is_pending, isouter=True)
        .where(pointer.tenant_id == tenant_id, pointer.model_id == model_id, pointer.environment == environment)
        .where(report.expires_at > sa.func.now())
        .order_by(report.started_at, report.replica_id)
    )


def _ask(db: DatabaseConnection, tenant_id: TenantId, statement: sa.Select[Any]) -> Sequence[ReplicaAnswer]:
    found: dict[str, list[ReplicaAnswer]] = {}
    with db.tenant(tenant_id) as connection:
        for row in connection.execute(statement):
            found.setdefault(row.replica_id, []).append(_answer(row, is_operator=db.principal.tenant_id is None))
    return [max(answers, key=lambda answer: _BY_BADNESS.index(answer.state)) for answers in found.values()]


def _answer(row: AnyRow, *, is_operator: bool) -> ReplicaAnswer:
    if not row.is_applied:
        return ReplicaAnswer(row.replica_id, LoadState.BEHIND)
    if row.state is not None:
        return value_of(ReplicaAnswer, row, reason=(is_operator and row.cause) or row.reason)
    if row.unlisted:  # a version that the report has no room for may be this pointer's
        return ReplicaAnswer(row.replica_id, LoadState.LOADING)
    return ReplicaAnswer(row.replica_id, LoadState.LOADED, serves=row.stable)
