"""Runs side by side: what differs in parameters and tags, and which is best in each metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.domain.run import MetricSummary, Run

_COMPARED = 2
"""Runs that must have a metric before one of them is the best."""


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """Compare runs.

    Returns:
        ``runs``: of each ``run_id``, ``model_id``, ``kind``, ``status`` and ``started_at``, in the order given;
        ``parameters`` and ``tags``: those that differ, name → run → value (a run without it is left out; objects are
        taken apart: ``hyperparameters.C``);
        ``metrics``: name → ``higher_is_better`` (None: unknown), ``runs`` (run → ``last``, ``last_step``, ``best``,
        ``points``), ``best_run`` (that of the best value ever) and ``best_last_run`` (that of the best last value).
        A best that can't be said is None: the direction is unknown, fewer than two runs have a finite value, or two
        share it. The direction of ``validation/accuracy`` is that of ``accuracy``.
    """
    parameters = {run.run_id: dict(_flat(run.parameters)) for run in runs}
    names = sorted({metric for run in runs for metric in run.metrics})
    return {
        "runs": [
            {
                "run_id": run.run_id,
                "model_id": str(run.model_id),
                "kind": run.kind,
                "status": run.status.value,
                "started_at": run.started_at,
            }
            for run in runs
        ],
        "parameters": _differing(parameters),
        "tags": _differing({run.run_id: run.tags for run in runs}),
        "metrics": {
            name: _metric(name, {run.run_id: run.metrics[name] for run in runs if name in run.metrics})
            for name in names
        },
    }


def _metric(name: str, lines: Mapping[str, MetricSummary]) -> dict[str, Any]:
    higher = HIGHER_IS_BETTER.get(name.rpartition("/")[2])
    best = {run_id: line.maximum if higher else line.minimum for run_id, line in lines.items() if higher is not None}
    last = {run_id: line.last_value for run_id, line in lines.items() if math.isfinite(line.last_value)}
    return {
        "higher_is_better": higher,
        "runs": {
            run_id: {
                "last": last.get(run_id),
                "last_step": line.last_step,
                "best": best.get(run_id),
                "points": line.points,
            }
            for run_id, line in lines.items()
        },
        "best_run": _best(best, higher),
        "best_last_run": _best(last, higher),
    }


def _best(values: Mapping[str, float | None], higher: bool | None) -> str | None:
    known = {run_id: value for run_id, value in values.items() if value is not None}
    if higher is None or len(known) < _COMPARED:
        return None
    wanted = max(known.values()) if higher else min(known.values())
    best = [run_id for run_id, value in known.items() if value == wanted]
    return best[0] if len(best) == 1 else None


def _differing(values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Name → run → value, of the names that do not have the same value in all runs."""
    names = sorted({name for of in values.values() for name in of})
    found = {name: {run_id: of[name] for run_id, of in values.items() if name in of} for name in names}
    return {name: of for name, of in found.items() if len(of) < len(values) or not _same(of.values())}


def _same(values: Iterable[Any]) -> bool:
    first, *others = values
    # 1, 1.0 and true are equal to Python; a boolean is another value than a number all the same.
    return all(other == first and isinstance(other, bool) == isinstance(first, bool) for other in others)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
