"""``mlcore runs``: what was trained, with which parameters and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_core.cli.console import answer, pairs, print_fields, print_page, print_rows, printed_as_json, shorten, step
from ml_core.cli.curves import print_curves
from ml_core.cli.options import (
    AscendingOption,
    CursorOption,
    LimitOption,
    OnlyModelOption,
    json_or_text,
    tags_to_set,
    wanted_tags,
)
from ml_core.cli.target import platform
from ml_core.cli.training_options import pairs_of
from ml_core.cli.versions import headline
from ml_core.domain.run import RunStatus

if TYPE_CHECKING:
    from ml_core.api.schemas.runs import Run

ASKS = "tenant"

app = typer.Typer(help="List, inspect and compare runs, the records of trainings.", no_args_is_help=True)

RunArgument = Annotated[str, typer.Argument(help="The run's id, from `mlcore runs list`.")]
_COLUMNS = [
    "run_id",
    "model_id",
    "kind",
    "status",
    "held_out",
    "cross_validated",
    "versions",
    "started_at",
    "finished_at",
    "error",
]
_MAX_ERROR = 60  # characters, in the table
_HELD_OUT, _CROSS_VALIDATED = "validation/", "cv/"


@app.command("list")
def list_(
    model: OnlyModelOption = None,
    status: Annotated[RunStatus | None, typer.Option(help="Only in this state.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="KEY=VALUE; repeat for several.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, such as hyperparameters.C=0.5; repeat for several."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="A range of the last value, such as 'validation/accuracy>=0.8'; repeat for several."),
    ] = None,
    parent: Annotated[
        str | None, typer.Option(help="Only the parts of this run, such as the trials of a search.")
    ] = None,
    sort: Annotated[str, typer.Option(help="started, or a metric such as validation/accuracy.")] = "started",
    ascending: AscendingOption = None,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
) -> None:
    """List runs, newest or best first."""
    wanted = {name: json_or_text(text) for name, text in pairs_of(parameter, "--parameter", "hyperparameters.C=0.5")}
    with platform() as client:
        found = client.runs.list(
            model,
            status=status,
            tags=wanted_tags(tag),
            parameters=wanted,
            metrics=metric or (),
            parent_run_id=parent,
            sort=sort,
            descending=None if ascending is None else not ascending,
        )
        page = found.page(limit=limit, cursor=cursor)
    is_seen = {"error": any(run.error for run in page.items), "cross_validated": any(map(_cross_validated, page.items))}
    print_page(
        page,
        [name for name in _COLUMNS if is_seen.get(name, True)],
        empty="No run matches. Train a model with mlcore train.",
        shown={"held_out": _held_out, "cross_validated": _cross_validated, "error": _first_line},
    )


@app.command("show")
def show_run(run_id: RunArgument) -> None:
    """Show a run: parameters, tags, metrics and files."""
    with platform() as client:
        record, files = client.run_record(run_id), client.runs.files(run_id)
    run = record.run
    if printed_as_json({**run.model_dump(mode="json"), "files": files}):
        return
    lines = {name: value for name, value in run if name not in ("metrics", "parameters")}
    lines |= {f"parameter {name}": value for name, value in run.parameters.items()}
    print_fields(
        (name, pairs(value) if isinstance(value, Mapping) else value)
        for name, value in lines.items()
        if value not in (None, {}, [])
    )
    metrics = [
        {"metric": name, "last": of.last_value, "step": of.last_step, "min": of.minimum, "max": of.maximum}
        for name, of in run.metrics.items()
    ]
    print_rows(metrics, ["metric", "last", "step", "min", "max"], empty="It logged no metric.")
    if files:
        print_rows([dict(file) for file in files], ["name", "size_bytes", "format"], empty="")
    print_curves(record)


@app.command("report")
def report(
    run_id: RunArgument,
    output: Annotated[
        Path | None, typer.Option(help="An HTML file that does not exist yet; by default named after the run.")
    ] = None,
) -> None:
    """Write an HTML report of a run: curves, importances, confusion matrix or residuals, calibration, trials."""
    with platform() as client, step(f"Reporting {run_id}"):
        file = client.report_run(run_id, output or f"{run_id}.html")
    answer({"run_id": run_id, "file": file}, f"Wrote the report of {run_id} to {file}.")


@app.command("compare")
def compare(
    run_ids: Annotated[list[str], typer.Argument(help="Two or more ids, from `mlcore runs list`.")],
) -> None:
    """Compare runs: parameters that differ, and which run is best in each metric."""
    with platform() as client:
        found = client.runs.compare(run_ids)
    if printed_as_json(found):
        return
    names = [run.run_id for run in found.runs]
    rows: list[dict[str, Any]] = [
        {"what": what, **{name: values.get(name) for name in names}, "best": None}
        for part in (found.parameters, found.tags)
        for what, values in part.items()
    ]
    for metric, of in found.metrics.items():
        last = {name: of.runs[name].last if name in of.runs else None for name in names}
        rows.append({"what": metric, **last, "best": of.best_last_run})
    # A table's header shows no underscore, so the ids are shown without their prefix.
    columns = {name: name.removeprefix("run_") for name in names}
    shown = [{columns.get(key, key): value for key, value in row.items()} for row in rows]
    empty = "They do not differ, and logged no metric."
    print_rows(shown, ["what", *columns.values(), "best"], empty=empty)


@app.command("tag")
def tag(
    run_id: RunArgument,
    tags: Annotated[list[str], typer.Argument(help="KEY=VALUE sets a tag, KEY= removes it.")],
) -> None:
    """Set or remove tags of a run."""
    with platform() as client:
        run = client.runs.tag(run_id, tags_to_set(tags))
    answer(run, f"{run_id}: {pairs(run.tags) if run.tags else 'no tags'}")


def _held_out(run: Run) -> str | None:
    """The metric on the held-out rows that people ask for first."""
    return _headline(run, _HELD_OUT)


def _cross_validated(run: Run) -> str | None:
    """The same of a trial of a search, and the best of a search."""
    return _headline(run, _CROSS_VALIDATED)


def _headline(run: Run, part: str) -> str | None:
    return headline(
        {name.removeprefix(part): of.last_value for name, of in run.metrics.items() if name.startswith(part)}
    )


def _first_line(error: str | None) -> str | None:
    return error and shorten(error.strip().partition("\n")[0], _MAX_ERROR)
