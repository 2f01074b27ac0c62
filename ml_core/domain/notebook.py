"""What notebooks show of records, lists of records and comparisons: small HTML tables, see ``html.notebook_table``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_core.domain.html import notebook_table
from ml_core.domain.rollout import used_by

# Documents that a table can't show; each is an attribute of its record.
_DOCUMENTS = frozenset(
    {"columns", "effective_hyperparameters", "lineage", "metadata", "profile", "servable", "signature", "spec"}
)
# Of a list, what its records have for their own page.
_DETAILS = frozenset(
    {"digest", "format", "heartbeat_at", "hyperparameters", "input_digest", "parameters", "size_bytes"}
)


def fields_of(record: Any) -> dict[str, Any]:
    """Field → value of a record of the registry (a dataclass) or of a schema of the control API."""
    if dataclasses.is_dataclass(record):
        return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return dict(record)


def flattened(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as cells of a table: one for each metric, environments as text, no documents."""
    cells: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "metrics" and isinstance(value, Mapping):
            cells |= _metrics(value)
        elif name == "uses":
            cells["environments"] = ", ".join(used_by(value))
        elif name not in _DOCUMENTS:
            cells[name] = value
    return cells


def record_html(title: str, fields: Mapping[str, Any]) -> str:
    """A record: its fields one below the other, without those that are empty."""
    cells = [(name, value) for name, value in flattened(fields).items() if not _is_empty(value)]
    return notebook_table(title, ("", ""), cells)


def records_html(title: str, records: Iterable[Mapping[str, Any]]) -> str:
    """A list of records, one a row, without the columns that are empty in all."""
    rows = [flattened(fields) for fields in records]
    names = dict.fromkeys(name for row in rows for name, value in row.items() if not _is_empty(value))
    header = [name for name in names if name not in _DETAILS]
    return notebook_table(title, header, ([row.get(name) for name in header] for row in rows))


def version_comparison_html(found: Mapping[str, Any]) -> str:
    """Two versions: each metric with the better value marked, and what else differs."""
    names = (found["version1"], found["version2"])
    rows: list[Sequence[Any]] = []
    marked = []
    for split, metrics in found["metrics"].items():
        for metric, of in metrics.items():
            if of["better"] is not None:
                marked.append((len(rows), 1 + names.index(of["better"])))
            rows.append((f"{split}/{metric}", of["version1"], of["version2"], of["difference"]))
    for part in ("hyperparameters", "libraries"):
        rows += [(f"{part}: {name}", of["version1"], of["version2"], None) for name, of in found[part].items()]
    rows += [(f"columns {change}", None, found["signature"][change], None)
             for change in ("added", "removed", "changed") if found["signature"][change]]  # fmt: skip
    return notebook_table(f"Versions of {found['model_id']}", ("", *names, "difference"), rows, marked)


def run_comparison_html(found: Mapping[str, Any]) -> str:
    """Runs side by side: parameters and tags that differ, and each metric's last value with the best marked."""
    runs = [run["run_id"] for run in found["runs"]]
    rows: list[Sequence[Any]] = [
        (name, *map(values.get, runs)) for part in ("parameters", "tags") for name, values in found[part].items()
    ]
    marked = []
    for metric, of in found["metrics"].items():
        if of["best_last_run"] is not None:
            marked.append((len(rows), 1 + runs.index(of["best_last_run"])))
        rows.append((metric, *((of["runs"].get(run) or {}).get("last") for run in runs)))
    return notebook_table("Runs", ("", *runs), rows, marked)


class VersionComparison(dict[str, Any]):
    """See ``ModelRegistry.compare_versions``; a notebook shows it as a table."""

    def _repr_html_(self) -> str:
        return version_comparison_html(self)


class RunComparison(dict[str, Any]):
    """See ``compare_runs``; a notebook shows it as a table."""

    def _repr_html_(self) -> str:
        return run_comparison_html(self)


def _metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """``validation/accuracy`` → value, of a version's metrics by split or of a run's summaries."""
    cells: dict[str, Any] = {}
    for name, of in metrics.items():
        cells |= {f"{name}/{metric}": value for metric, value in of.items()} if isinstance(of, Mapping) else {
            name: getattr(of, "last_value", of)}  # fmt: skip
    return cells


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | Mapping | Sequence) and not value)
