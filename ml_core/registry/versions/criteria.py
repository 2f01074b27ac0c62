"""What a caller searches versions by, in plain names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict

from ml_core.domain.metric_range import parse_bound
from ml_core.ids import ModelId
from ml_core.registry.versions.search import MetricRange, VersionQuery


class VersionCriteria(TypedDict, total=False):
    """The keywords of a search; what is left out does not restrict. ``ModelRegistry.search_versions`` explains them."""

    model_type: str | None
    tags: Mapping[str, str] | None
    metrics: Iterable[str | MetricRange] | str | None
    text: str | None
    include_archived: bool
    sort: str
    descending: bool | None


def version_query(
    model_id: str | None = None,
    *,
    model_type: str | None = None,
    tags: Mapping[str, str] | None = None,
    metrics: Iterable[str | MetricRange] | str | None = None,
    text: str | None = None,
    include_archived: bool = False,
    sort: str = "created",
    descending: bool | None = None,
) -> VersionQuery:
    """The query for a caller's words.

    Raises:
        InvalidRequestError: A metric's bound can't be read.
        InvalidNameError: The model's name is not valid.
    """
    return VersionQuery(
        model_id=None if model_id is None else ModelId(model_id),
        model_type=model_type,
        tags=tags or {},
        metrics=[_range(each) for each in ([metrics] if isinstance(metrics, str) else metrics or ())],
        text=text,
        include_archived=include_archived,
        sort=sort,
        descending=descending,
    )


def _range(given: str | MetricRange) -> MetricRange:
    if isinstance(given, MetricRange):
        return given
    bound = parse_bound(given)
    return MetricRange(bound.metric, bound.at_least, bound.at_most, bound.split)
