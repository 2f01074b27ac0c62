"""``PredictionRepository``: the prediction log of one tenant, the labels and losses, and what the tenant keeps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ml_core.database.tables import feedback, prediction_losses, predictions, tenants
from ml_core.domain.api_key import Scope
from ml_core.domain.prediction_record import Loss, PredictionRecord
from ml_core.domain.signature import Label
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.domain.traffic import INTERVAL_S, TrafficPoint, shown_intervals
from ml_core.ids import EnvironmentName, ModelId, VersionId
from ml_core.registry import journal
from ml_core.registry.journal import advance_feed
from ml_core.registry.limits import MAX_PAGE_SIZE, check_choice, check_moment, check_range
from ml_core.registry.missing import require_model_in, tenant_not_found
from ml_core.registry.pages import Page, read_page
from ml_core.registry.predictions.labels import store_label
from ml_core.registry.promotion.rules import check_environment
from ml_core.registry.records import OfTenant, value_of

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow, AnySelect

DEFAULT_SPAN = timedelta(days=1)
"""How far back a list goes that names neither a beginning nor a request."""

_MAX_COUNTED = 100_000
"""Rows that the traffic of a tenant is counted from; of more the newest, which takes about 0.1 s."""

# The rows of a request have one time, so they come together, the last row first.
_ORDER = (predictions.c.at, predictions.c.request_id, predictions.c.row_number)
LABELLED = sa.and_(
    feedback.c.tenant_id == predictions.c.tenant_id,
    feedback.c.model_id == predictions.c.model_id,
    feedback.c.request_id == predictions.c.request_id,
    feedback.c.row_number == predictions.c.row_number,
)


class PredictionRepository(OfTenant):
    """The prediction log of one tenant: what replicas answered. Answers given in this process are not in it."""

    def list(
        self,
        model_id: str | None = None,
        *,
        version: str | None = None,
        environment: str | None = None,
        request_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        with_labels: bool = False,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[PredictionRecord]:
        """A page of predicted rows, newest first. A filter that is left out does not restrict.

        What a replica answered within the last two seconds may be missing. A range of time reads the partitions of its
        days only; the id of a request is looked up in each day's index.

        Args:
            model_id: Of this model.
            version: Answered by this version.
            environment: Asked of this pointer.
            request_id: Of this request.
            since: Answered then or later, with a time zone; None: a day before ``until``, or ever for a request.
            until: Answered before; None: now.
            with_labels: Whether each row comes with its label, if there is one.
            limit: 1 to 1,000.
            cursor: ``next_cursor`` of the page before, asked with the same filters.

        Raises:
            InvalidRequestError: The limit, the cursor or a moment can't be used, or nothing was found, no request is
                named, and there is no such environment.
            ModelNotFoundError: Nothing was found, no request is named, and there is no such model: an empty page would
                hide the typo.
        """
        model = None if model_id is None else ModelId(model_id)
        pointer = None if environment is None else EnvironmentName(environment)
        named = {"model_id": model, "environment": pointer, "request_id": request_id}
        named["version"] = None if version is None else VersionId(version)
        wanted = {name: value for name, value in named.items() if value is not None}
        within = _within(since, until, is_request_named=request_id is not None)
        statement: AnySelect = sa.select(predictions).filter_by(tenant_id=self._tenant_id, **wanted).where(*within)
        if with_labels:
            joined = predictions.outerjoin(feedback, LABELLED)
            statement = statement.add_columns(feedback.c.label, feedback.c.at.label("labelled_at")).select_from(joined)
        with self._db.tenant(self._tenant_id) as connection:
            page = read_page(connection, statement, _ORDER, limit=limit, cursor=cursor, descending=True).map(_record)
            is_typo_hidden = not page.items and request_id is None
            if is_typo_hidden and model is not None:
                require_model_in(connection, self._tenant_id, model)
        if is_typo_hidden and pointer is not None:
            check_environment(self._db, self._tenant_id, pointer)
        return page

    def get(self, request_id: str, *, model_id: str | None = None) -> Sequence[PredictionRecord]:
        """The rows of a request in their order, with their labels; at most 1,000, and none if nothing of it is kept.

        With a model only the rows that it answered: clients may use one id for several requests.
        """
        found = self.list(model_id, request_id=request_id, with_labels=True, limit=MAX_PAGE_SIZE)
        return found.items[::-1]

    def losses(self, since: date, until: date) -> Sequence[Loss]:
        """Rows that were answered and are missing in the log, by model, day (UTC) and reason, both days included."""
        loss = prediction_losses.c
        statement: AnySelect = (
            sa.select(loss.model_id, loss.day, loss.reason, sa.func.sum(loss.row_count).label("row_count"))
            .where(loss.tenant_id == self._tenant_id, loss.day.between(since, until))
            .group_by(loss.model_id, loss.day, loss.reason)
            .order_by(loss.day.desc(), loss.model_id, loss.reason)
        )
        with self._db.tenant(self._tenant_id) as connection:
            rows = connection.execute(statement).all()
        return [value_of(Loss, row, tenant_id=self._tenant_id, rows=int(row.row_count)) for row in rows]

    def traffic(self) -> Sequence[TrafficPoint]:
        """Answered requests and their latency in the last 15 minutes, oldest first.

        Refusals and errors are not in the log, nor is a tenant that keeps nothing. Of more than 100,000 rows the newest
        are counted, and the list begins later.
        """
        of = predictions.c
        begin = sa.cast(sa.literal(shown_intervals(datetime.now(UTC))[0]), sa.TIMESTAMP(timezone=True))
        newest = (
            sa.select(of.at, of.row_number, of.rollout, of.latency_ms, sa.func.now().label("now"))
            .where(of.tenant_id == self._tenant_id, of.at >= begin)
            .order_by(of.at.desc())
            .limit(_MAX_COUNTED)
            .subquery()
        )
        row = newest.c
        interval = sa.func.date_bin(timedelta(seconds=INTERVAL_S), row.at, datetime(1970, 1, 1, tzinfo=UTC))
        # Each request has a row 0; what a shadow answered nobody asked for.
        is_request = sa.and_(row.row_number == 0, row.rollout != "shadow")
        latency = sa.func.percentile_cont([0.5, 0.99]).within_group(row.latency_ms)
        counted = sa.select(
            interval.label("at"),
            sa.func.count().filter(is_request).label("requests"),
            latency.filter(is_request).label("latency"),
            sa.func.count().label("rows"),
        ).group_by(interval)
        with self._db.tenant(self._tenant_id) as connection:
            found = {each.at.astimezone(UTC): each for each in connection.execute(counted)}
        shown = shown_intervals(datetime.now(UTC))
        if found and sum(each.rows for each in found.values()) >= _MAX_COUNTED:
            shown = [at for at in shown if at > min(found)]  # of the first some rows were not read
        return [_point(at, found.get(at)) for at in shown] if found else []

    def add_label(self, model_id: str, request_id: str, row: int, label: Label, *, at: datetime | None = None) -> None:
        """Record the true label of a predicted row. A later label replaces an earlier one.

        The prediction need not be in the log yet, see ``ml_core.registry.predictions.labels``.

        Args:
            model_id: The model that answered.
            request_id: As it was answered.
            row: Which row of the request, from 0.
            label: A class, or a number.
            at: When it became known, with a time zone; None: now.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``label``.
            MLFrameworkError: As for ``labels.store_label``.
        """
        self._db.principal.require(Scope.LABEL)
        moment = check_moment("at", at)
        with self._db.tenant(self._tenant_id) as connection:
            store_label(connection, self._tenant_id, ModelId(model_id), request_id, row, label, moment)

    def policy(self) -> PredictionPolicy:
        """What is kept of the tenant's predictions."""
        statement = sa.select(tenants.c.prediction_policy).where(tenants.c.tenant_id == self._tenant_id)
        with self._db.tenant(self._tenant_id) as connection:
            found = connection.scalar(statement)
        if found is None:
            raise tenant_not_found(self._tenant_id)
        return PredictionPolicy(found)

    def set_policy(self, policy: str) -> None:
        """Set what is kept from now on; earlier rows stay until their retention ends.

        The registry applies the policy of the moment of writing; replicas stop queueing within a second.

        Args:
            policy: ``nothing``, ``digest`` (answers without inputs) or ``inputs``.

        Raises:
            InvalidRequestError: There is no such policy.
            PermissionDeniedError: The principal lacks the scope ``admin``.
        """
        wanted = check_choice(PredictionPolicy, policy, "policy")
        with journal.writing(self._db, self._tenant_id) as connection:
            subject = {"tenant_id": self._tenant_id}
            journal.record(connection, self._tenant_id, "predictions.policy_set", subject, {"policy": wanted.value})
            connection.execute(
                sa.update(tenants)
                .where(tenants.c.tenant_id == self._tenant_id)
                .values(prediction_policy=wanted.value, feed_generation=advance_feed())
            )


def _point(at: datetime, row: AnyRow | None) -> TrafficPoint:
    if row is None or not row.requests:
        return TrafficPoint(at, 0.0, None, None, None, None)
    return TrafficPoint(at, row.requests / INTERVAL_S, None, None, *row.latency)


def _within(
    since: datetime | None, until: datetime | None, *, is_request_named: bool
) -> Sequence[sa.ColumnElement[bool]]:
    """The conditions of a range of time."""
    since, until = check_range(since, until)
    if since is None and not is_request_named:
        since = (until or datetime.now(UTC)) - DEFAULT_SPAN
    at = predictions.c.at
    return [*([] if since is None else [at >= since]), *([] if until is None else [at < until])]


def _record(row: AnyRow) -> PredictionRecord:
    at, digest = row.at.astimezone(UTC), row.input_digest.hex()
    return value_of(PredictionRecord, row, at=at, row=row.row_number, input_digest=digest)
