"""The report of a training as a person reads it: the inferred columns and the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ml_core.cli.console import out, show

if TYPE_CHECKING:
    from ml_core.domain.training_report import ReportedColumn, TrainingReport


def print_columns(columns: Sequence[ReportedColumn]) -> None:
    """The inferred kind of each column."""
    table = Table("column", "kind", "why", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        kind = column.kind.value if column.used and column.kind else "left out"
        table.add_row(Text(column.name), kind, Text(column.reason.removeprefix(f"{kind}: ")))
    out.print(table)


def print_metrics(report: TrainingReport) -> None:
    """Held-out quality beside the baseline."""
    table = Table("metric", "held out", "baseline", "train", box=None, pad_edge=False, header_style="bold")
    for name, value in report.metrics["validation"].items():
        table.add_row(name, show(value), show(report.baseline.get(name)), show(report.metrics["train"].get(name)))
    out.print(table)
