"""``MLSystem.predictions``: what the platform answered and what turned out to be true, in plain names."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.prediction_record import Loss, PredictionRecord
from ml_core.domain.signature import Label
from ml_core.domain.tenant_policies import HistoryPolicy
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry.history.repository import HistoryFilter, HistoryRepository
from ml_core.registry.pages import Page


class Predictions:
    """The prediction history of one tenant: what served replicas answered. Answers of this process are not in it.

    Args:
        db: The registry; its principal is who acts.
        tenant_id: The tenant.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._history = HistoryRepository(db, tenant_id)

    def list(
        self,
        model_id: str | None = None,
        *,
        version: str | None = None,
        environment: str | None = None,
        request_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        with_feedback: bool = False,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[PredictionRecord]:
        """A page of predictions, newest first. What is left out does not restrict.

        Args:
            model_id: Of this model.
            version: Answered by this version.
            environment: Asked of this pointer.
            request_id: Of this request.
            since: Answered then or later, with a time zone; None: a day before ``until``, or ever for a request.
            until: Answered before; None: now.
            with_feedback: Whether each comes with its label, if there is one.
            limit: 1 to 1,000.
            cursor: ``next_cursor`` of the page before, asked with the same arguments.

        Raises:
            InvalidRequestError: The limit, the cursor, or a moment can't be used.
        """
        wanted = HistoryFilter(
            model_id=None if model_id is None else ModelId(model_id),
            version=None if version is None else VersionId(version),
            environment=None if environment is None else EnvironmentName(environment),
            request_id=request_id,
            since=since,
            until=until,
        )
        return self._history.query(wanted, with_feedback=with_feedback, limit=limit, cursor=cursor)

    def add_feedback(
        self, model_id: str, request_id: str, row: int, label: Label, *, at: datetime | None = None
    ) -> None:
        """Record the true label of a predicted row. A later label replaces an earlier one.

        Args:
            model_id: The model that answered.
            request_id: As it was answered.
            row: Which row of the request, from 0.
            label: A class, or a number.
            at: When it became known, with a time zone; None: now.

        Raises:
            InvalidRequestError: A value can't be used; names the field.
            ModelNotFoundError: There is no such model.
            PermissionDeniedError: The connection's principal lacks the scope ``predict``.
        """
        self._history.add_feedback(ModelId(model_id), request_id, row, label, at=at)

    def losses(self, since: date, until: date) -> Sequence[Loss]:
        """What is missing: rows that were answered and not kept, by model, day (UTC) and reason; both days included."""
        return self._history.losses(since, until)

    def policy(self) -> str:
        """What is kept of the tenant's predictions: ``nothing``, ``digest`` or ``inputs``.

        Raises:
            TenantNotFoundError: There is no such tenant.
        """
        return self._history.policy().value

    def set_policy(self, policy: str) -> None:
        """Say what is kept from now on: ``nothing``, ``digest`` (answers without inputs) or ``inputs``.

        Raises:
            InvalidRequestError: There is no such policy.
            PermissionDeniedError: The connection's principal may not.
            TenantNotFoundError: There is no such tenant.
        """
        try:
            wanted = HistoryPolicy(policy)
        except ValueError:
            raise InvalidRequestError(
                f"There is no policy {policy!r}.", remedy=f"Use one of {', '.join(HistoryPolicy)}.", field="policy"
            ) from None
        self._history.set_policy(wanted)
