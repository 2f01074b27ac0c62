"""Two versions side by side: what differs, and which is better where that can be said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.domain.signature import Signature
from ml_core.domain.version import ModelVersion


def compare(first: ModelVersion, second: ModelVersion) -> dict[str, Any]:
    """Compare two versions of a model.

    Returns:
        ``metrics``: split → metric → ``version1``, ``version2`` (None where one has none), ``difference`` (second minus
        first) and ``better`` (the name of the better version, None if equal or the direction is unknown);
        ``hyperparameters``: those that differ, both values; ``data``: both dataset digests and ``same``;
        ``signature``: columns ``added``, ``removed``, ``changed``, and ``same_output``.
    """
    names = (str(first.version), str(second.version))
    digests = (first.lineage.dataset_digest, second.lineage.dataset_digest)
    return {
        "model_id": str(first.model_id),
        "version1": names[0],
        "version2": names[1],
        "metrics": {
            split: _metrics(first.metrics.get(split, {}), second.metrics.get(split, {}), names)
            for split in sorted({*first.metrics, *second.metrics})
        },
        "hyperparameters": _differing(first.hyperparameters, second.hyperparameters),
        "data": {
            "version1": digests[0],
            "version2": digests[1],
            "same": None not in digests and digests[0] == digests[1],
        },
        "signature": _signatures(first.servable.signature, second.servable.signature),
    }


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
        "changed": [
            name
            for name in new
            if name in old and (new[name].kind, new[name].nullable) != (old[name].kind, old[name].nullable)
        ],
        "same_output": first.output == second.output,
    }
