"""``mlcore quality``: live metrics from labels, and drift; for people, and for a cron job that raises an alert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_core.cli.console import note, out, print_rows, printed_as_json, say
from ml_core.cli.options import EnvironmentOption, ModelOption
from ml_core.cli.target import platform
from ml_core.domain.quality import MAX_DAYS, Verdict

if TYPE_CHECKING:
    from ml_core.api.schemas.quality import ColumnDrift, DriftReport, QualityDay, QualityReport

ASKS = "tenant"
EXIT_ALERT = 3
_MOST_COLUMNS = 20
_DAYS = ["day", "version", "rows", "labels", "metric", "live", "interval", "held_out", "verdict"]
_COLUMNS = ["column", "kind", "verdict", "psi", "by_chance", "p_value", "missing_before", "missing_now", "unseen"]


def quality(
    model: ModelOption,
    environment: EnvironmentOption = "production",
    days: Annotated[int, typer.Option(min=1, max=MAX_DAYS, help="Days (UTC), the present one included.")] = 7,
    fail_on_alert: Annotated[
        bool, typer.Option("--fail-on-alert", help="Exit with 3 if the quality fell or a column drifted.")
    ] = False,
) -> None:
    """Show how good the live versions are by the labels that arrived, and what drifted from the training.

    The metrics of each version and day are beside those of the held-out rows. A column drifted if its distribution
    differs from that of the training by more than chance, with a correction for the number of columns.
    """
    with platform() as client:
        report = client.quality.report(model, environment, days=days)
        drifted = client.quality.drift(model, environment, days=days)
    is_alert = Verdict.ALERT in (report.verdict, drifted.verdict)
    if not printed_as_json({"quality": report, "drift": drifted, "alert": is_alert}):
        _print_quality(report)
        out.print()
        _print_drift(drifted)
        for each in dict.fromkeys([*report.notes, *drifted.notes]):
            note(each)
    if fail_on_alert and is_alert:
        raise typer.Exit(EXIT_ALERT)


def _print_quality(report: QualityReport) -> None:
    say(
        f"Quality of {report.model_id} in {report.environment}, version {report.version}: {report.verdict}.",
        style="bold",
    )
    rows = [_of_day(day, report.held_out.get(day.version, {})) for day in report.days]
    print_rows(rows, _DAYS, empty="Nothing was answered.")


def _of_day(day: QualityDay, held_out: dict[str, float]) -> dict[str, Any]:
    score = day.score
    return {
        **dict(day),
        "metric": None if score is None else score.metric,
        "live": None if score is None else score.value,
        "interval": None if day.low is None else f"{day.low:.3g}-{day.high:.3g}",
        "held_out": None if score is None else held_out.get(score.metric),
    }


def _print_drift(report: DriftReport) -> None:
    say(
        f"Drift against the training of version {report.version}, {report.sampled:,} of {report.rows:,} rows since"
        f" {report.since:%Y-%m-%d}: {report.verdict}.",
        style="bold",
    )
    print_drifted([report.prediction, *report.columns])


def print_drifted(columns: Sequence[ColumnDrift]) -> None:
    """Print the drift of columns; of many the first."""
    print_rows([_of_column(each) for each in columns[:_MOST_COLUMNS]], _COLUMNS, empty="")
    if len(columns) > _MOST_COLUMNS:
        note(f"{len(columns) - _MOST_COLUMNS} more columns: --json lists all.")


def _of_column(column: ColumnDrift) -> dict[str, Any]:
    return {
        **dict(column),
        "column": column.name,
        "by_chance": column.psi_by_chance,
        "p_value": column.adjusted_p_value,
    }
