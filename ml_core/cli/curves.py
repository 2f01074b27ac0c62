"""Learning curves and importances of a run, short enough for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ml_core.cli.console import out, print_rows, shorten

if TYPE_CHECKING:
    from ml_core.evaluation.report import RunRecord

_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 40
_MAX_NAME = 40
_MAX_COLUMNS = 8


def print_curves(record: RunRecord) -> None:
    """Each curve as a line of blocks, from its lowest to its highest value, and the largest importances as bars."""
    curves = [
        {"curve": name, "steps": len(steps), "from first to last": sparkline(values)}
        for name, (steps, values) in record.curves.items()
    ]
    if curves:
        out.print()
        print_rows(curves, ["curve", "steps", "from first to last"], empty="")
    importances = record.diagnostics.importances[:_MAX_COLUMNS] if record.diagnostics else ()
    largest = max((each.worse_by for each in importances), default=0.0)
    if largest > 0:
        metric = f"{record.diagnostics.importance_metric} worse by" if record.diagnostics else ""
        out.print()
        rows = [
            {"column": shorten(each.column, _MAX_NAME), metric: each.worse_by, "": _bar(each.worse_by / largest)}
            for each in importances
        ]
        print_rows(rows, ["column", metric, ""], empty="")


def sparkline(values: Sequence[float | None], width: int = _WIDTH) -> str:
    """Values as blocks whose height is the value, at most ``width`` of them; blank where a value is not finite."""
    step = max(1, -(-len(values) // width))
    shown = [*values[:-1:step], *values[-1:]]
    known = [value for value in shown if value is not None]
    low, span = (min(known), max(known) - min(known)) if known else (0.0, 0.0)
    top = len(_BLOCKS) - 1
    return "".join(" " if value is None else _BLOCKS[round((value - low) / (span or 1.0) * top)] for value in shown)


def _bar(share: float) -> str:
    return "█" * round(max(share, 0.0) * _WIDTH / 2)
