"""Two versions side by side: what differs, and which is better where that can be said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.domain.signature import InputColumn, Signature
from ml_core.domain.version import Lineage, ModelVersion


def compare(first: ModelVersion, second: ModelVersion) -> dict[str, Any]:
    """Compare two versions of a model.

    Returns:
        ``metrics``: split → metric → ``version1``, ``version2`` (None where one has none), ``difference`` (second minus
        first) and ``better`` (the name of the better version, None if equal or the direction is unknown);
        ``hyperparameters``: those that differ, both values; ``data``: two digests of one kind, and ``same`` (None: not
        known); ``signature``: columns ``added``, ``removed``, ``changed``, and ``same_output``; ``libraries``: those of
        which the two were made with different versions, both.
    """
    names = (str(first.version), str(second.version))
    return {
        "model_id": str(first.model_id),
        "version1": names[0],
        "version2": names[1],
        "metrics": {
            split: _metrics(first.metrics.get(split, {}), second.metrics.get(split, {}), names)
            for split in sorted({*first.metrics, *second.metrics})
        },
        "hyperparameters": _differing(first.hyperparameters, second.hyperparameters),
        "data": _data(first.lineage, second.lineage),
        "signature": _signatures(first.servable.signature, second.servable.signature),
        "libraries": _differing(first.lineage.libraries, second.lineage.libraries),
    }


def _data(first: Lineage, second: Lineage) -> dict[str, Any]:
    """Whether two versions saw the same data. A digest of the one kind says nothing about one of the other."""
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
    """What a value in the column means to a version; two versions that differ in it read a row differently."""
    return column.kind, column.nullable, column.date_order
