"""A fitted model as a person reads it: what was inferred of its columns, and how good it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from ml_core.cli.console import out, show

if TYPE_CHECKING:
    from ml_core.data.kinds import InferredColumn
    from ml_core.training.fit import FittedModel


def print_columns(columns: Sequence[InferredColumn]) -> None:
    """What was inferred for each column."""
    table = Table("column", "kind", "why", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        kind = column.kind.value if column.used and column.kind else "left out"
        table.add_row(Text(column.name), kind, Text(column.reason.removeprefix(f"{kind}: ")))
    out.print(table)


def print_metrics(fitted: FittedModel) -> None:
    """Held-out quality beside the baseline."""
    table = Table("metric", "held out", "baseline", "train", box=None, pad_edge=False, header_style="bold")
    for name, value in fitted.metrics["validation"].items():
        table.add_row(name, show(value), show(fitted.baseline.get(name)), show(fitted.metrics["train"].get(name)))
    out.print(table)


def column_row(column: InferredColumn) -> dict[str, Any]:
    """What was inferred of a column, for JSON."""
    return {"name": column.name, "kind": column.kind, "used": column.used, "reason": column.reason}
