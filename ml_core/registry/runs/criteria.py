"""What a caller searches runs by, in plain names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypedDict

from ml_core.domain.metric_range import parse_bound
from ml_core.domain.run import RunQuery, RunStatus, ValueRange
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import ModelId


class RunCriteria(TypedDict, total=False):
    """The keywords of a search; what is left out does not restrict. ``MLSystem.search_runs`` explains them."""

    kind: str | None
    status: str | None
    tags: Mapping[str, str] | None
    parameters: Mapping[str, Any] | None
    metrics: Iterable[str] | str | None
    parent_run_id: str | None
    started_from: datetime | None
    started_before: datetime | None


def run_query(
    model_id: str | None = None,
    *,
    kind: str | None = None,
    status: str | None = None,
    tags: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    metrics: Iterable[str] | str | None = None,
    parent_run_id: str | None = None,
    started_from: datetime | None = None,
    started_before: datetime | None = None,
) -> RunQuery:
    """The query for a caller's words.

    Raises:
        InvalidRequestError: There is no such status, or a metric's bound can't be read.
        InvalidNameError: The model's name is not valid.
    """
    return RunQuery(
        model_id=None if model_id is None else ModelId(model_id),
        kind=kind,
        status=None if status is None else _status(status),
        parent_run_id=parent_run_id,
        tags=tags or {},
        parameters=parameters or {},
        metrics=_ranges([metrics] if isinstance(metrics, str) else metrics or ()),
        started_from=started_from,
        started_before=started_before,
    )


def _status(status: str) -> RunStatus:
    try:
        return RunStatus(status)
    except ValueError:
        raise InvalidRequestError(
            f"There is no status {status!r}.", remedy=f"A run is one of {', '.join(RunStatus)}.", field="status"
        ) from None


def _ranges(texts: Iterable[str]) -> dict[str, ValueRange]:
    """Metric → range: all bounds of a metric hold."""
    ranges: dict[str, ValueRange] = {}
    for bound in map(parse_bound, texts):
        known = ranges.get(bound.name, ValueRange())
        least = [value for value in (known.at_least, bound.at_least) if value is not None]
        most = [value for value in (known.at_most, bound.at_most) if value is not None]
        ranges[bound.name] = ValueRange(max(least, default=None), min(most, default=None))
    return ranges
