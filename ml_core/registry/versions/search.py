"""Search over a tenant's versions: by model, type, tag, metric range and text, sorted, in keyset pages."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import models, version_metrics, version_tags, versions
from ml_core.domain.metric import HIGHER_IS_BETTER, Metric, MetricBound
from ml_core.domain.version import VersionSummary
from ml_core.exceptions import InvalidRequestError, did_you_mean, listed
from ml_core.ids import ModelId, TenantId
from ml_core.registry.limits import check_filters
from ml_core.registry.missing import require_model_in
from ml_core.registry.pages import Page, read_page
from ml_core.registry.search import in_range, of_owner, tagged
from ml_core.registry.versions.rows import IS_ARCHIVED, SELECT_SUMMARIES, summary_from

_MAX_TEXT = 200  # characters
_FEW_NAMES = 1_000
_CREATED = "created"
_SPLIT = "validation"
_KEY = ("model_id", "version")


@dataclass(frozen=True, slots=True)
class VersionQuery:
    """The criteria of a search, see ``VersionRepository.search``. One that is None or empty does not restrict."""

    model_id: ModelId | None = None
    model_type: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[MetricBound] = ()
    text: str | None = None
    name: str | None = None
    include_archived: bool = False
    sort: str = "created"
    descending: bool | None = None

    @property
    def metric(self) -> tuple[str, str] | None:
        """Split and metric that the versions are sorted by; None: they are sorted by their time.

        Raises:
            InvalidRequestError: It can't be a metric.
        """
        if self.sort == _CREATED:
            return None
        split, slash, metric = self.sort.rpartition("/")
        if not metric or (slash and not split):
            raise InvalidRequestError(
                f"Versions can't be sorted by {self.sort!r}.",
                remedy="Sort by 'created', or by a metric such as 'validation/accuracy' or 'train/accuracy'.",
                field="sort",
            )
        return split or _SPLIT, metric

    @property
    def is_descending(self) -> bool:
        """Which way they are sorted."""
        if self.descending is not None:
            return self.descending
        return self.metric is None or HIGHER_IS_BETTER.get(self.metric[1], True)


def search(
    connection: Connection, tenant_id: TenantId, query: VersionQuery, limit: int, cursor: str | None
) -> Page[VersionSummary]:
    """One page of the versions that a query finds.

    Raises:
        InvalidRequestError: The sorting, the limit, the text or the cursor can't be used; or nothing was found, and no
            version could have such a metric or type.
    """
    statement = SELECT_SUMMARIES
    order = [versions.c[name] for name in ("created_at", "model_id", "version")]
    if query.metric is not None:  # all of one table, so that its index has the order
        split, metric = query.metric
        order = [version_metrics.c[name] for name in ("value", "model_id", "version")]
        measured = of_owner(version_metrics, versions, _KEY, tenant_id)
        measured += [version_metrics.c.split == split, version_metrics.c.metric == metric]
        statement = statement.add_columns(order[0]).join(version_metrics, sa.and_(*measured))
    elif query.model_id is not None:  # numbers are in the order of creation
        order = [versions.c.number]
        statement = statement.add_columns(order[0])
    statement = statement.where(versions.c.tenant_id == tenant_id, *_conditions(tenant_id, query))
    if query.name:
        statement = statement.where(_named(connection, tenant_id, query))
    named = "/".join(query.metric or [order[0].name])
    page = read_page(
        connection,
        statement,
        order,
        limit=limit,
        cursor=cursor,
        descending=query.is_descending,
        sorting=f"{'-' if query.is_descending else '+'}{named}",
    )
    if not page.items and cursor is None:
        _refuse_unknown(connection, tenant_id, query)
    return page.map(summary_from)


def _conditions(tenant_id: TenantId, query: VersionQuery) -> Sequence[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if query.model_id is not None:
        conditions.append(versions.c.model_id == query.model_id)
    if query.model_type is not None:
        conditions.append(models.c.model_type == query.model_type)
    if not query.include_archived:
        conditions.append(sa.not_(IS_ARCHIVED))
    conditions += tagged(version_tags, versions, _KEY, tenant_id, query.tags)
    conditions += [_has_metric(tenant_id, wanted) for wanted in query.metrics]
    if query.text:
        conditions.append(_mentions(tenant_id, query.text))
    return check_filters(conditions)


def _has_metric(tenant_id: TenantId, wanted: MetricBound) -> sa.ColumnElement[bool]:
    metric = version_metrics.alias()
    named = (metric.c.split == wanted.split, metric.c.metric == wanted.metric)
    within = in_range(metric.c.value, wanted.at_least, wanted.at_most)
    return sa.exists().where(*of_owner(metric, versions, _KEY, tenant_id), *named, *within)


def _named(connection: Connection, tenant_id: TenantId, query: VersionQuery) -> sa.ColumnElement[bool]:
    """The condition on the name of versions.

    An index has all names of a model: where few have the text, they are found in it, in a tenth of the time that their
    rows take. Where many have it, the newest are among the first rows.
    """
    has_text = versions.c.version.icontains(query.name, autoescape=True)
    if query.model_id is None:
        return has_text
    names = sa.select(versions.c.version).filter_by(tenant_id=tenant_id, model_id=query.model_id).where(has_text)
    found = connection.scalars(names.limit(_FEW_NAMES + 1)).all()
    return has_text if len(found) > _FEW_NAMES else versions.c.version.in_(found)


def _mentions(tenant_id: TenantId, text: str) -> sa.ColumnElement[bool]:
    if len(text) > _MAX_TEXT:
        raise InvalidRequestError(
            f"A text to search for has at most {_MAX_TEXT} characters.", remedy="Shorten it.", field="text"
        )
    tag = version_tags.alias()
    in_a_tag = sa.exists().where(
        *of_owner(tag, versions, _KEY, tenant_id),
        sa.or_(tag.c.key.icontains(text, autoescape=True), tag.c.value.icontains(text, autoescape=True)),
    )
    named = (versions.c.model_id, versions.c.version, sa.cast(versions.c.metadata, sa.Text))
    return sa.or_(*(column.icontains(text, autoescape=True) for column in named), in_a_tag)


_MODEL_TYPES = ("anomaly_detection", "classification", "clustering", "regression")
_SPLITS = ("train", "validation")

# The names that an index holds, one step of the index a name: a tenant may have a million values of ten metrics.
_METRICS = sa.text("""
WITH RECURSIVE names AS (
  (SELECT split, metric FROM mlcore.version_metrics WHERE tenant_id = :tenant ORDER BY split, metric LIMIT 1)
  UNION ALL
  SELECT next.split, next.metric FROM names CROSS JOIN LATERAL (
    SELECT v.split, v.metric FROM mlcore.version_metrics v
    WHERE v.tenant_id = :tenant AND (v.split, v.metric) > (names.split, names.metric)
    ORDER BY v.split, v.metric LIMIT 1) next)
SELECT split, metric FROM names LIMIT 1000
""")


def _refuse_unknown(connection: Connection, tenant_id: TenantId, query: VersionQuery) -> None:
    """Refuse what no version of the tenant could have: a typo would read like a result. Asked if nothing was found.

    Raises:
        ModelNotFoundError: The tenant has no such model.
        InvalidRequestError: No model is of such a type, or no version has such a metric; names the nearest.
    """
    if query.model_id is not None:
        require_model_in(connection, tenant_id, query.model_id)
    if query.model_type is not None and query.model_type not in _MODEL_TYPES:
        types = sa.select(models.c.model_type).where(models.c.tenant_id == tenant_id).distinct()
        known = {*_MODEL_TYPES, *connection.scalars(types)}
        if query.model_type not in known:
            raise _unknown(f"No model is of the type {query.model_type!r}.", query.model_type, known, "model_type")
    asked = [("metrics", wanted.split, wanted.metric) for wanted in query.metrics]
    if query.metric is not None:
        asked.append(("sort", *query.metric))
    if asked:
        _refuse_unknown_metrics(connection, tenant_id, asked)


def _refuse_unknown_metrics(connection: Connection, tenant_id: TenantId, asked: list[tuple[str, str, str]]) -> None:
    there = [(row.split, row.metric) for row in connection.execute(_METRICS, {"tenant": tenant_id})]
    splits = {*_SPLITS, *(split for split, _ in there)}
    metrics = {metric for _, metric in there}
    for argument, split, metric in asked:
        if split not in splits:
            raise _unknown(f"No version has a metric of the split {split!r}.", split, splits, argument)
        if metric not in metrics and metric not in HIGHER_IS_BETTER:
            near = metrics if difflib.get_close_matches(metric, metrics, n=1) else {*metrics, *HIGHER_IS_BETTER}
            raise _unknown(f"No version has the metric {metric!r}.", metric, near, argument)


def metrics_of(connection: Connection, tenant_id: TenantId) -> list[Metric]:
    """The metrics that versions of a tenant have, by split and name; at most 1,000."""
    found = connection.execute(_METRICS, {"tenant": tenant_id})
    return [Metric(row.split, row.metric, HIGHER_IS_BETTER.get(row.metric)) for row in found]


def _unknown(message: str, wanted: str, known: Collection[str], field: str) -> InvalidRequestError:
    names = sorted(known)
    return InvalidRequestError(message, remedy=f"{did_you_mean(wanted, names)}There are: {listed(names)}.", field=field)
