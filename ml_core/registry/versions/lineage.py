"""What a version was made from, what was made from it, and how two versions differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.tables import dataset_versions, runs, versions
from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.domain.notebook import VersionComparison
from ml_core.domain.signature import InputColumn, Signature
from ml_core.domain.version import Lineage, ModelVersion
from ml_core.registry.references import SERVED, references

_MOST = 1_000  # versions in each direction: each retraining may continue the version before it


def lineage_of(connection: Connection, found: ModelVersion) -> dict[str, Any]:
    """The lineage of a version in both directions, see ``ModelRegistry.get_lineage``."""
    version = found.version
    descendants = _descendants(connection, found)
    serving = references(connection, found.tenant_id, [found.model_id], version, roles=SERVED)
    return {
        "model_id": str(found.model_id),
        "version": str(version),
        "digest": str(found.digest),
        **asdict(found.lineage),
        "modules": [asdict(each) for each in found.modules],
        "created_at": found.created_at,
        "created_by": found.created_by,
        "run": _run(connection, found),
        "datasets": _datasets(connection, found),
        "ancestors": _ancestors(connection, found),
        "children": [name for name, parent in descendants if parent == version],
        "descendants": [name for name, _ in descendants],
        "environments": sorted({each.holder for each in serving}),
    }


def _run(connection: Connection, found: ModelVersion) -> dict[str, Any] | None:
    one = sa.select(runs.c.run_id, runs.c.kind, runs.c.status)
    one = one.filter_by(tenant_id=found.tenant_id, run_id=found.lineage.run_id)
    row = connection.execute(one).one_or_none()
    return None if row is None else dict(row._mapping)


def _datasets(connection: Connection, found: ModelVersion) -> list[str]:
    of = dataset_versions.c
    same = sa.select(of.dataset_id, of.number)
    same = same.filter_by(tenant_id=found.tenant_id, digest=found.lineage.dataset_digest)
    return [f"{row.dataset_id}@{row.number}" for row in connection.execute(same.order_by(of.dataset_id, of.number))]


def _ancestors(connection: Connection, found: ModelVersion) -> list[str]:
    """The parent, its parent and so on, ``_MOST`` at most. A deleted one ends the chain: its own parent is unknown."""
    of = versions.c
    mine = sa.and_(of.tenant_id == found.tenant_id, of.model_id == found.model_id)
    chain = sa.select(of.version, of.parent_version, sa.literal(0).label("depth")).where(
        mine, of.version == found.version
    )
    above = chain.cte("above", recursive=True)
    above = above.union_all(
        sa.select(of.version, of.parent_version, above.c.depth + 1).where(
            mine, of.version == above.c.parent_version, above.c.depth < _MOST
        )
    )
    return list(connection.scalars(sa.select(above.c.version).where(above.c.depth > 0).order_by(above.c.depth)))


def _descendants(connection: Connection, found: ModelVersion) -> list[tuple[str, str]]:
    """The versions made from this one, directly or not, with their parents, oldest first; the nearest ``_MOST``."""
    of = versions.c
    mine = sa.and_(of.tenant_id == found.tenant_id, of.model_id == found.model_id)
    first = sa.select(of.version, of.parent_version, of.number).where(mine, of.parent_version == found.version)
    below = first.cte("below", recursive=True)
    below = below.union_all(
        sa.select(of.version, of.parent_version, of.number).where(mine, of.parent_version == below.c.version)
    )
    nearest = sa.select(below).limit(_MOST).subquery()  # a generation at a time, and none beyond the limit
    statement = sa.select(nearest.c.version, nearest.c.parent_version).order_by(nearest.c.number)
    return [(row.version, row.parent_version) for row in connection.execute(statement)]


def compare(first: ModelVersion, second: ModelVersion) -> VersionComparison:
    """Two versions of a model side by side, see ``ModelRegistry.compare_versions``."""
    names = (str(first.version), str(second.version))
    return VersionComparison(
        {
            "model_id": str(first.model_id),
            "version1": names[0],
            "version2": names[1],
            "metrics": {
                split: _metrics(first.metrics.get(split, {}), second.metrics.get(split, {}), names)
                for split in sorted({*first.metrics, *second.metrics})
            },
            "hyperparameters": _differing(first.hyperparameters, second.hyperparameters),
            "data": _data(first.lineage, second.lineage),
            "signature": _signatures(first.signature, second.signature),
            "libraries": _differing(first.lineage.libraries, second.lineage.libraries),
        }
    )


def _data(first: Lineage, second: Lineage) -> dict[str, Any]:
    """Whether two versions were trained on the same data. Digests of different kinds can't be compared."""
    if first.data_digest is not None and second.data_digest is not None:
        digests = (first.data_digest, second.data_digest)
        return {"version1": digests[0], "version2": digests[1], "same": digests[0] == digests[1]}
    registered = (first.dataset_digest, second.dataset_digest)
    same: bool | None = None
    if None not in registered:
        is_of_one_kind = first.data_digest is None and second.data_digest is None
        same = registered[0] == registered[1] or (False if is_of_one_kind else None)
    return {"version1": registered[0], "version2": registered[1], "same": same}


def _metrics(first: Mapping[str, float], second: Mapping[str, float], names: tuple[str, str]) -> dict[str, Any]:
    return {name: _metric(name, first.get(name), second.get(name), names) for name in sorted({*first, *second})}


def _metric(name: str, first: float | None, second: float | None, names: tuple[str, str]) -> dict[str, Any]:
    difference = None if first is None or second is None else second - first
    better = None
    if difference and name in HIGHER_IS_BETTER:
        better = names[1] if (difference > 0) == HIGHER_IS_BETTER[name] else names[0]
    return {"version1": first, "version2": second, "difference": difference, "better": better}


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {"version1": first.get(name), "version2": second.get(name)}
        for name in sorted({*first, *second})
        if first.get(name) != second.get(name)
    }


def _signatures(first: Signature, second: Signature) -> dict[str, Any]:
    old = {column.name: column for column in first.inputs}
    new = {column.name: column for column in second.inputs}
    return {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name in new if name in old and _meaning(new[name]) != _meaning(old[name])],
        "same_output": first.output == second.output,
    }


def _meaning(column: InputColumn) -> tuple[Any, ...]:
    """How a version reads a value of the column; versions that differ in it read a row differently."""
    return column.kind, column.nullable, column.date_order
