"""``HistoryRepository``: one tenant's predictions, labels and losses, and what it lets be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import feedback, prediction_losses, predictions, tenants
from ml_core.domain.api_key import Scope
from ml_core.domain.prediction_record import Loss, LossReason, PredictionRecord
from ml_core.domain.signature import Label
from ml_core.domain.tenant_policies import HistoryPolicy
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry import journal
from ml_core.registry.clock import advance_feed
from ml_core.registry.history.labels import check_moment, store_label
from ml_core.registry.missing import tenant_not_found
from ml_core.registry.pages import Page, after, check_limit, decode_cursor, encode_cursor

if TYPE_CHECKING:
    from ml_core.registry.versions.rows import AnyRow, AnySelect

DEFAULT_SPAN = timedelta(days=1)
"""How far back a query goes that names neither a beginning nor a request."""

# The rows of a request have one time, so they come together, the last row first.
_ORDER = (predictions.c.at, predictions.c.request_id, predictions.c.row_number)
_LABELLED = sa.and_(
    feedback.c.tenant_id == predictions.c.tenant_id,
    feedback.c.model_id == predictions.c.model_id,
    feedback.c.request_id == predictions.c.request_id,
    feedback.c.row_number == predictions.c.row_number,
)


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """Which predictions to find; what is None does not matter.

    Attributes:
        model_id: Of this model.
        version: Answered by this version.
        environment: Asked of this pointer.
        request_id: Of this request.
        since: Answered then or later; None: a day before ``until``, or ever where a request is named.
        until: Answered before; None: now.
    """

    model_id: ModelId | None = None
    version: VersionId | None = None
    environment: EnvironmentName | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class HistoryRepository:
    """The prediction history of one tenant.

    Args:
        db: The registry.
        tenant_id: The tenant.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._db = db
        self._tenant_id = tenant_id

    def query(
        self,
        wanted: HistoryFilter | None = None,
        *,
        with_feedback: bool = False,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[PredictionRecord]:
        """A page of predictions, newest first. What a replica answered within the last second may not be there yet.

        A range of time reads the partitions of its days only. A request's id is looked up in each day's index, or in
        those of the range where one is given with it.

        Args:
            wanted: Which.
            with_feedback: Whether each comes with its label, if there is one.
            limit: 1 to 1,000.
            cursor: ``next_cursor`` of the page before, asked with the same filter.

        Raises:
            InvalidRequestError: The limit, the cursor, or a moment can't be used.
        """
        wanted = wanted or HistoryFilter()
        statement = sa.select(predictions).where(*self._conditions(wanted))
        if with_feedback:
            joined = predictions.outerjoin(feedback, _LABELLED)
            statement = statement.add_columns(feedback.c.label, feedback.c.at.label("labelled_at")).select_from(joined)
        if cursor is not None:
            statement = statement.where(after(_ORDER, _read_cursor(cursor), descending=True))
        statement = statement.order_by(*(column.desc() for column in _ORDER)).limit(check_limit(limit) + 1)
        with self._db.tenant(self._tenant_id) as connection:
            rows = connection.execute(statement).all()
        records = [_record(row) for row in rows[:limit]]
        if len(rows) <= limit:
            return Page(records)
        last = records[-1]
        return Page(records, encode_cursor([last.at.isoformat(), last.request_id, last.row]))

    def _conditions(self, wanted: HistoryFilter) -> list[sa.ColumnElement[bool]]:
        since, until = _range(wanted)
        column = predictions.c
        conditions = [column.tenant_id == self._tenant_id]
        if since is not None:
            conditions.append(column.at >= since)
        if until is not None:
            conditions.append(column.at < until)
        for name in ("model_id", "version", "environment", "request_id"):
            value = getattr(wanted, name)
            if value is not None:
                conditions.append(column[name] == value)
        return conditions

    def losses(self, since: date, until: date) -> Sequence[Loss]:
        """What is missing: rows that were answered and not kept, by model, day and reason.

        Args:
            since: The first day, UTC.
            until: The last day.
        """
        loss = prediction_losses.c
        statement: AnySelect = (
            sa.select(loss.model_id, loss.day, loss.reason, sa.func.sum(loss.row_count).label("row_count"))
            .where(loss.tenant_id == self._tenant_id, loss.day.between(since, until))
            .group_by(loss.model_id, loss.day, loss.reason)
            .order_by(loss.day.desc(), loss.model_id, loss.reason)
        )
        with self._db.tenant(self._tenant_id) as connection:
            rows = connection.execute(statement).all()
        return [
            Loss(self._tenant_id, row.model_id, row.day, LossReason(row.reason), int(row.row_count)) for row in rows
        ]

    def add_feedback(
        self, model_id: ModelId, request_id: str, row: int, label: Label, *, at: datetime | None = None
    ) -> None:
        """Record the true label of a predicted row. A later label replaces an earlier one.

        The prediction need not be in the history yet, see ``ml_core.registry.history.labels``.

        Args:
            model_id: The model that answered.
            request_id: As it was answered.
            row: Which row of the request, from 0.
            label: A class, or a number.
            at: When it became known; None: now.

        Raises:
            InvalidRequestError: A value can't be used; names the field.
            ModelNotFoundError: There is no such model.
            PermissionDeniedError: The principal lacks the scope ``label``.
            TenantNotFoundError: There is no such tenant any more.
        """
        self._db.principal.require(Scope.LABEL)
        moment = check_moment("at", at)
        with self._db.tenant(self._tenant_id) as connection:
            store_label(connection, self._tenant_id, model_id, request_id, row, label, moment)

    def policy(self) -> HistoryPolicy:
        """What is kept of the tenant's predictions.

        Raises:
            TenantNotFoundError: There is no such tenant.
        """
        statement = sa.select(tenants.c.prediction_policy).where(tenants.c.tenant_id == self._tenant_id)
        with self._db.tenant(self._tenant_id) as connection:
            found = connection.scalar(statement)
        if found is None:
            raise tenant_not_found(self._tenant_id)
        return HistoryPolicy(found)

    def set_policy(self, policy: HistoryPolicy) -> None:
        """Say what is kept from now on. What was kept before stays, until it is too old.

        The registry writes nothing that is forbidden at the moment of writing; replicas stop to queue it within a
        second.

        Raises:
            TenantNotFoundError: There is no such tenant.
        """
        with journal.writing(self._db, self._tenant_id) as connection:
            subject = {"tenant_id": self._tenant_id}
            journal.record(connection, self._tenant_id, "predictions.policy_set", subject, {"policy": policy.value})
            connection.execute(
                sa.update(tenants)
                .where(tenants.c.tenant_id == self._tenant_id)
                .values(prediction_policy=policy.value, feed_generation=advance_feed(tenants.c.cell))
            )


def _range(wanted: HistoryFilter) -> tuple[datetime | None, datetime | None]:
    since, until = check_moment("since", wanted.since), check_moment("until", wanted.until)
    if since is not None and until is not None and since >= until:
        raise InvalidRequestError("The range of time ends before it begins.", remedy="Correct it.", field="until")
    if since is None and wanted.request_id is None:
        since = (until or datetime.now(UTC)) - DEFAULT_SPAN
    return since, until


def _read_cursor(cursor: str) -> list[Any]:
    at, request_id, row = decode_cursor(cursor, str, str, int)
    try:
        return [sa.literal(datetime.fromisoformat(at), predictions.c.at.type), request_id, row]
    except ValueError:
        raise InvalidRequestError(
            "The cursor is not one that this list returned.", remedy="Begin without one.", field="cursor"
        ) from None


def _record(row: AnyRow) -> PredictionRecord:
    found = row._mapping
    return PredictionRecord(
        at=row.at.astimezone(UTC),
        request_id=row.request_id,
        row=row.row_number,
        model_id=row.model_id,
        version=row.version,
        environment=row.environment,
        rollout=row.rollout,
        prediction=row.prediction,
        probabilities=row.probabilities,
        latency_ms=row.latency_ms,
        input_digest=row.input_digest.hex(),
        inputs=row.inputs,
        label=found.get("label"),
        labelled_at=found.get("labelled_at"),
    )
