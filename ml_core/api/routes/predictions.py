"""The prediction log."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

from fastapi import Query

from ml_core.api.access import TenantAccess
from ml_core.api.operation import CursorQuery, LimitQuery, operations
from ml_core.api.routes.adding import operation
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.platform import TrafficPoint
from ml_core.api.schemas.predictions import LogPolicy, Loss, NewLabel, NewLogPolicy, Prediction
from ml_core.domain.api_key import Scope
from ml_core.registry.predictions import PredictionRepository

router = operations("predictions", "/tenants/{tenant}")


@operation(router, "GET", "/predictions", "predictions.list", Scope.READ)
def list_predictions(
    access: TenantAccess,
    model: Annotated[str | None, Query(description="By this model.")] = None,
    version: Annotated[str | None, Query(description="By this version.")] = None,
    environment: Annotated[str | None, Query(description="Asked of this environment.")] = None,
    request_id: Annotated[str | None, Query(description="Of this request.")] = None,
    since: Annotated[datetime | None, Query(description="At this moment or later.")] = None,
    until: Annotated[datetime | None, Query(description="Before this moment.")] = None,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[Prediction]:
    """List predicted rows, newest first, each with its label if there is one.

    Without `since` and `request_id` only the day before `until` is read.
    """
    found = access.of(PredictionRepository).list(
        model,
        version=version,
        environment=environment,
        request_id=request_id,
        since=since,
        until=until,
        with_labels=True,
        limit=limit,
        cursor=cursor,
    )
    return Page[Prediction].model_validate(found)


@operation(router, "GET", "/predictions/{request}", "predictions.get", Scope.READ)
def get_prediction(
    access: TenantAccess,
    request: str,
    model: Annotated[str | None, Query(description="Answered by this model.")] = None,
) -> list[Prediction]:
    """The rows of a request in their order, with their labels. The list is empty if nothing of it is kept."""
    return [Prediction.model_validate(row) for row in access.of(PredictionRepository).get(request, model_id=model)]


@operation(router, "POST", "/predictions/{request}/labels", "predictions.label", Scope.LABEL)
def label_prediction(access: TenantAccess, request: str, body: NewLabel) -> None:
    """Record the truth of a prediction. A later label replaces an earlier one."""
    access.of(PredictionRepository).add_label(body.model_id, request, body.row, body.label, at=body.at)


@operation(router, "GET", "/prediction-losses", "predictions.losses", Scope.READ)
def list_losses(
    access: TenantAccess,
    since: Annotated[date, Query(description="The first day, UTC.")],
    until: Annotated[date, Query(description="The last day, UTC; it is included.")],
) -> list[Loss]:
    """List rows that are missing in the log, by day and reason."""
    return [Loss.model_validate(found) for found in access.of(PredictionRepository).losses(since, until)]


@operation(router, "GET", "/prediction-traffic", "predictions.traffic", Scope.READ)
def show_traffic(access: TenantAccess) -> list[TrafficPoint]:
    """Answered requests and their latency in the last 15 minutes, counted from the log.

    Refusals and errors are not in the log, so they are null. The list is empty if nothing was logged. Of more than
    100,000 rows the newest are counted, and the list begins later.
    """
    return [TrafficPoint.model_validate(point) for point in access.of(PredictionRepository).traffic()]


@operation(router, "GET", "/prediction-policy", "predictions.policy", Scope.READ)
def get_policy(access: TenantAccess) -> LogPolicy:
    """What the log keeps of the tenant."""
    return LogPolicy(policy=access.of(PredictionRepository).policy())


@operation(router, "PUT", "/prediction-policy", "predictions.set_policy", Scope.ADMIN)
def set_policy(access: TenantAccess, body: NewLogPolicy) -> LogPolicy:
    """Change what the log keeps from now on."""
    predictions = access.of(PredictionRepository)
    predictions.set_policy(body.policy)
    return LogPolicy(policy=predictions.policy())
