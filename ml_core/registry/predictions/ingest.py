"""Writing the prediction log: batches of answered requests, of any tenants, in one transaction each.

``COPY`` is refused into a table under row-level security, so rows are copied into the session's own temporary table
and inserted from there, under the policy. The serving role may insert and not read.

The tenant's policy is read in the same transaction, so rows that were queued before it forbade them are not written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter

import sqlalchemy as sa
from psycopg.errors import CheckViolation, UniqueViolation
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.errors import is_timeout
from ml_core.database.tables import SCHEMA, prediction_losses, tenants
from ml_core.domain.prediction_record import AnsweredRequest, Loss, LossReason
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.exceptions import DeadlineExceededError, InvalidRequestError, RegistryUnavailableError
from ml_core.registry.predictions.rendering import COLUMNS, RenderedRequest, RenderedRequests

# Held in common by the transactions that write; see ``wait_for_writers``.
_WRITING = 0x6D6C6870  # "mlhp"
_STAGING = "pg_temp.mlcore_staged_predictions"
_LISTED = ", ".join(COLUMNS)
# ``IF NOT EXISTS`` in each transaction: behind a pooler it may be another session than that of the last.
_CREATE_STAGING = sa.text(
    f"CREATE TEMPORARY TABLE IF NOT EXISTS {_STAGING.removeprefix('pg_temp.')} ("
    "tenant_id text, at double precision, request_id text, model_id text, version text, environment text, rollout text,"
    " latency_ms real, row_number integer, input_digest bytea, inputs json, prediction jsonb, probabilities jsonb"
    ") ON COMMIT DELETE ROWS"
)
_COPY = f"COPY {_STAGING} ({_LISTED}) FROM STDIN"
_CONVERTED = {"at": "to_timestamp(at / 1000000)", "latency_ms": "latency_ms / 1000"}
_SELECTED = ", ".join(_CONVERTED.get(column, column) for column in COLUMNS)
_INSERT = f"INSERT INTO {SCHEMA}.predictions ({_LISTED}) SELECT {_SELECTED} FROM {_STAGING}"  # noqa: S608 - constants
_EPOCH = date(1970, 1, 1)
_COPY_CHUNK = 256 * 1024
_ENSURE = sa.text(f"SELECT * FROM {SCHEMA}.ensure_prediction_partitions(:days)")  # noqa: S608 - a constant


@dataclass(slots=True)
class Written:
    """The outcome of a batch, in rows; ``lost`` is in the registry too."""

    kept: int = 0
    withheld: int = 0
    lost: list[Loss] = field(default_factory=list)


class PredictionIngest:
    """Writes what replicas answered. One thread uses it at a time.

    Args:
        db: The registry.
    """

    def __init__(self, db: DatabaseConnection) -> None:
        self._db = db
        self._days: set[date] = set()

    def write(
        self, requests: Sequence[RenderedRequests], losses: Iterable[Loss], batch_id: str, *, is_repeated: bool = False
    ) -> Written:
        """Write a batch and the losses before it, all or nothing.

        Args:
            requests: Answered requests, rendered.
            losses: Rows that are missing, since the batch before.
            batch_id: Unique to this batch; the same when it is written again.
            is_repeated: Whether an earlier attempt may have been committed, so that rows which exist are skipped.

        Raises:
            RegistryUnavailableError: Postgres can't be reached; the batch may or may not have been written. Write it
                again.
            DeadlineExceededError: A statement took too long, so nothing was written. Write a smaller batch.
            InvalidRequestError: Postgres can't store a value of the batch.
        """
        for attempt in (1, 2, 3):
            missing = self._ensure_partitions(requests)
            try:
                return self._write(requests, losses, batch_id, missing, is_repeated=is_repeated)
            except RegistryUnavailableError as error:
                if not is_timeout(error):
                    raise
                raise DeadlineExceededError(
                    "The registry did not store the predictions in time.", remedy="Write fewer at once."
                ) from error
            except sa.exc.IntegrityError as error:
                if attempt == 3:
                    raise
                if isinstance(error.orig, CheckViolation):  # a partition that was there was dropped meanwhile
                    self._days.clear()
                elif isinstance(error.orig, UniqueViolation):  # a client sent one request id twice in a microsecond
                    is_repeated = True
                else:
                    raise
        raise AssertionError("unreachable")

    def _ensure_partitions(self, requests: Sequence[RenderedRequests]) -> set[date]:
        """Make the partitions of the requests' days; returns the days that are too far from the registry's today."""
        wanted = {date_of(day) for day in {request.day for request in requests}}
        if not wanted <= self._days:
            tomorrow = datetime.now(UTC).date() + timedelta(days=1)  # made before the first row of it comes
            with self._db.ingesting() as connection:
                self._days.update(connection.scalars(_ENSURE, {"days": sorted({*wanted, tomorrow})}))
        return wanted - self._days

    def _write(
        self,
        requests: Sequence[RenderedRequests],
        losses: Iterable[Loss],
        batch_id: str,
        missing: set[date],
        *,
        is_repeated: bool,
    ) -> Written:
        done = Written()
        with self._db.ingesting() as connection:
            hold_off_removal(connection)
            names = {request.tenant_id for request in requests} | {loss.tenant_id for loss in losses}
            policies = _policies(connection, names)
            lines = _lines(requests, policies, missing, done)
            if lines:
                _insert_rows(connection, lines, is_repeated=is_repeated)
            noted = [loss for loss in _summed([*losses, *done.lost]) if loss.tenant_id in policies]
            if noted:
                connection.execute(_losses(noted, batch_id))
        return done


def hold_off_removal(connection: Connection) -> None:
    """Make ``wait_for_writers`` wait for this transaction; call it before the tenant's row is read."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(_WRITING)))


def wait_for_writers(connection: Connection) -> None:
    """Wait for the transactions that write to the log now, and keep others from it until this one ends.

    For the removal of a tenant: once its row is marked as deleted and this has returned, no row of it is added.
    """
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITING)))


def _policies(connection: Connection, names: set[str]) -> dict[str, PredictionPolicy]:
    statement = sa.select(tenants.c.tenant_id, tenants.c.prediction_policy).where(
        tenants.c.tenant_id == sa.any_(sa.literal(sorted(names), sa.ARRAY(sa.Text))), tenants.c.deleted_at.is_(None)
    )
    return {tenant: PredictionPolicy(policy) for tenant, policy in connection.execute(statement)}


def _lines(
    requests: Sequence[RenderedRequests], policies: Mapping[str, PredictionPolicy], missing: set[date], done: Written
) -> list[bytes]:
    """The rows that may be kept; counts in ``done`` the others."""
    lines = []
    # Rows that are neighbours in the indexes are inserted together: Postgres takes a fifth less time.
    for request in sorted(requests, key=attrgetter("tenant_id", "model_id")):
        policy = policies.get(request.tenant_id)
        if policy is None:
            done.lost.append(lost(request, LossReason.TENANT_GONE))
        elif PredictionPolicy.NOTHING in (policy, request.policy):
            done.withheld += request.rows
        elif missing and date_of(request.day) in missing:
            done.lost.append(lost(request, LossReason.WRONG_CLOCK))
        else:
            lines += request.parts if policy is PredictionPolicy.INPUTS else request.parts_without_inputs()
            done.kept += request.rows
    return lines


def _insert_rows(connection: Connection, lines: Sequence[bytes], *, is_repeated: bool) -> None:
    connection.execute(_CREATE_STAGING)
    session = connection.connection.driver_connection
    if session is None:
        raise InvalidRequestError("The connection was closed.")
    with session.cursor().copy(_COPY) as copy:
        content = b"".join(lines)
        for start in range(0, len(content), _COPY_CHUNK):
            copy.write(content[start : start + _COPY_CHUNK])
    # Without ON CONFLICT unless there may be one: looking first costs a seventh of the rate.
    connection.execute(sa.text(f"{_INSERT} ON CONFLICT DO NOTHING" if is_repeated else _INSERT))


def _losses(losses: Sequence[Loss], batch_id: str) -> sa.Insert:
    rows = [
        {
            "tenant_id": loss.tenant_id,
            "day": loss.day,
            "model_id": loss.model_id,
            "reason": loss.reason.value,
            "loss_id": batch_id,
            "row_count": loss.rows,
        }
        for loss in losses
    ]
    return insert(prediction_losses).values(rows).on_conflict_do_nothing()


def _summed(losses: Iterable[Loss]) -> list[Loss]:
    """One for each tenant, model, day and reason."""
    sums: Counter[tuple[str, str, date, LossReason]] = Counter()
    for loss in losses:
        sums[loss.tenant_id, loss.model_id, loss.day, loss.reason] += loss.rows
    return [Loss(*key, rows) for key, rows in sums.items()]


def lost(request: AnsweredRequest | RenderedRequest | RenderedRequests, reason: LossReason) -> Loss:
    """The loss of a whole request."""
    return Loss(request.tenant_id, request.model_id, date_of(request.day), reason, request.rows)


def date_of(day: int) -> date:
    """The date of a number of days since 1970-01-01."""
    return _EPOCH + timedelta(days=day)
