"""A search that found nothing: whether what it asks for is known at all, or a typo that would read like a result."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import models
from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.exceptions import InvalidRequestError, listed
from ml_core.ids import TenantId
from ml_core.registry.missing import did_you_mean, model_not_found

if TYPE_CHECKING:
    from ml_core.registry.versions.search import VersionQuery

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


def refuse_unknown(connection: Connection, tenant_id: TenantId, query: VersionQuery) -> None:
    """Refuse what no version of the tenant could have. Only worth asking where nothing was found.

    Raises:
        ModelNotFoundError: The tenant has no such model.
        InvalidRequestError: No model is of such a type, or no version has such a metric; names the nearest.
    """
    if query.model_id is not None:
        mine = models.c.tenant_id == tenant_id, models.c.model_id == query.model_id, models.c.deleted_at.is_(None)
        if not connection.scalar(sa.select(sa.exists().where(*mine))):
            raise model_not_found(tenant_id, query.model_id, why="does not exist", connection=connection)
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
    for field, split, metric in asked:
        if split not in splits:
            raise _unknown(f"No version has a metric of the split {split!r}.", split, splits, field)
        if metric not in metrics and metric not in HIGHER_IS_BETTER:
            near = metrics if difflib.get_close_matches(metric, metrics, n=1) else {*metrics, *HIGHER_IS_BETTER}
            raise _unknown(f"No version has the metric {metric!r}.", metric, near, field)


def _unknown(message: str, wanted: str, known: Collection[str], field: str) -> InvalidRequestError:
    names = sorted(known)
    return InvalidRequestError(message, remedy=f"{did_you_mean(wanted, names)}There are: {listed(names)}.", field=field)
