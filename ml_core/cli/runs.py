"""``mlcore runs``: what was trained, how it went, and which run is best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from ml_core.cli.console import (
    CursorOption,
    JsonOption,
    LimitOption,
    TenantOption,
    out,
    print_json,
    print_rows,
    shorten,
    show,
)
from ml_core.cli.context import existing_tenant
from ml_core.cli.version_rows import headline
from ml_core.domain.run import Run, RunStatus
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import ModelId, TenantId

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection

app = typer.Typer(help="A tenant's runs: parameters, metrics and outcome of each training.", no_args_is_help=True)

RunArgument = Annotated[str, typer.Argument(help="The run's id, from `mlcore runs list`.")]
_COLUMNS = ["run_id", "model_id", "kind", "status", "held_out", "versions", "started_at", "finished_at", "error"]
_MAX_ERROR = 60  # characters, in the table
_HELD_OUT = "validation/"


@app.command("list")
def list_(
    tenant: TenantOption,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Runs of this model only.")] = None,
    status: Annotated[RunStatus | None, typer.Option(help="Runs in this state only.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="KEY=VALUE; repeat for several.")] = None,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first."""
    from ml_core.registry.runs import RunRepository

    tags = _parse_tags(tag or [], removable=False)
    with existing_tenant(tenant) as (database, tenant_id):
        page = RunRepository(database, tenant_id).search(model, status=status, tags=tags, limit=limit, cursor=cursor)
        if model is not None and not page.items and cursor is None:
            _require_model(database, tenant_id, ModelId(model))
    if as_json:
        print_json({"items": [_row(run) for run in page.items], "next_cursor": page.next_cursor})
        return
    empty = f"{tenant_id} has no such run. Train a model: mlcore train FILE -t {tenant_id} -m NAME --target COLUMN"
    columns = [name for name in _COLUMNS if name != "error" or any(run.error for run in page.items)]
    print_rows([_short_row(run) for run in page.items], columns, as_json=False, empty=empty)
    if page.next_cursor:
        out.print(f"More: --cursor {page.next_cursor}", style="dim", soft_wrap=True)


@app.command("show")
def show_run(run_id: RunArgument, tenant: TenantOption, as_json: JsonOption = False) -> None:
    """Show a run: parameters, tags, metrics and files."""
    from ml_core.registry.runs import RunRepository

    with existing_tenant(tenant) as (database, tenant_id):
        runs = RunRepository(database, tenant_id)
        run, files = runs.get(run_id), runs.artifacts.list(run_id)
    shown = [{"name": file.name, "size_bytes": file.size_bytes, "format": file.format} for file in files]
    if as_json:
        print_json({**_row(run), "files": shown})
        return
    lines = {name: value for name, value in _row(run).items() if name not in ("metrics", "parameters", "tenant_id")}
    lines |= {f"parameter {name}": value for name, value in run.parameters.items()}
    lines = {name: value for name, value in lines.items() if value not in (None, {}, ())}
    width = max(map(len, lines))
    for name, value in lines.items():
        _print_line(name, value, width)
    metrics = [
        {"metric": name, "last": of.last_value, "step": of.last_step, "min": of.minimum, "max": of.maximum}
        for name, of in run.metrics.items()
    ]
    print_rows(metrics, ["metric", "last", "step", "min", "max"], as_json=False, empty="It logged no metric.")
    if shown:
        print_rows(shown, ["name", "size_bytes", "format"], as_json=False, empty="")


@app.command("compare")
def compare(
    run_ids: Annotated[list[str], typer.Argument(help="Two or more ids, from `mlcore runs list`.")],
    tenant: TenantOption,
    as_json: JsonOption = False,
) -> None:
    """Compare runs: parameters that differ, and which run is best in each metric."""
    from ml_core.registry.runs import RunRepository

    with existing_tenant(tenant) as (database, tenant_id):
        found = RunRepository(database, tenant_id).compare(run_ids)
    if as_json:
        print_json(found)
        return
    names = [run["run_id"] for run in found["runs"]]
    rows: list[dict[str, Any]] = [
        {"what": what, **{name: values.get(name) for name in names}, "best": None}
        for part in ("parameters", "tags")
        for what, values in found[part].items()
    ]
    for metric, of in found["metrics"].items():
        last = {name: of["runs"].get(name, {}).get("last") for name in names}
        rows.append({"what": metric, **last, "best": of["best_last_run"]})
    # A table's header shows no underscore, so the ids are shown without their prefix.
    columns = {name: name.removeprefix("run_") for name in names}
    shown = [{columns.get(key, key): value for key, value in row.items()} for row in rows]
    empty = "They do not differ, and logged no metric."
    print_rows(shown, ["what", *columns.values(), "best"], as_json=False, empty=empty)


@app.command("tag")
def tag(
    run_id: RunArgument,
    tags: Annotated[list[str], typer.Argument(help="KEY=VALUE sets a tag, KEY= removes it.")],
    tenant: TenantOption,
    as_json: JsonOption = False,
) -> None:
    """Set or remove tags of a run."""
    from ml_core.registry.runs import RunRepository

    with existing_tenant(tenant) as (database, tenant_id):
        found = RunRepository(database, tenant_id).tag(run_id, _parse_tags(tags, removable=True))
    if as_json:
        print_json({"run_id": run_id, "tags": found})
    else:
        shown = ", ".join(f"{key}={value}" for key, value in found.items())
        out.print(Text(f"{run_id}: {shown or 'no tags'}"), soft_wrap=True)


def _parse_tags(tags: list[str], *, removable: bool) -> dict[str, Any]:
    parsed: dict[str, str | None] = {}
    for text in tags:
        key, sign, value = text.partition("=")
        if not (key and sign and (value or removable)):
            raise InvalidRequestError(f"{text!r} is not a tag.", remedy="Write KEY=VALUE.", field="tags")
        parsed[key] = value or None
    return parsed


def _row(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "model_id": str(run.model_id),
        "kind": run.kind,
        "status": run.status.value,
        "started_at": run.started_at,
        "heartbeat_at": run.heartbeat_at,
        "finished_at": run.finished_at,
        "created_by": run.created_by,
        "parent_run_id": run.parent_run_id,
        "error": run.error,
        "tags": dict(run.tags),
        "parameters": dict(run.parameters),
        "metrics": dict(run.metrics),
        "versions": run.versions,
    }


def _short_row(run: Run) -> dict[str, Any]:
    """As the table shows it: the metric that people ask for first, and the beginning of an error."""
    held_out = {
        name.removeprefix(_HELD_OUT): of.last_value for name, of in run.metrics.items() if name.startswith(_HELD_OUT)
    }
    error = None if run.error is None else run.error.strip().partition("\n")[0]
    return {
        **_row(run),
        "held_out": headline(held_out),
        "versions": ", ".join(run.versions) or None,
        "error": error and shorten(error, _MAX_ERROR),
    }


def _require_model(database: DatabaseConnection, tenant_id: TenantId, model_id: ModelId) -> None:
    """Refuse a model that has neither a run nor a version: most often a typo.

    Raises:
        ModelNotFoundError: Names the nearest model that there is.
    """
    from ml_core.registry.missing import require_model
    from ml_core.registry.runs import RunRepository

    if not RunRepository(database, tenant_id).search(model_id, limit=1).items:
        require_model(database, tenant_id, model_id)


def _print_line(name: str, value: Any, width: int = 0) -> None:
    if isinstance(value, Mapping):
        value = ", ".join(f"{key}={show(part)}" for key, part in value.items()) or None
    if isinstance(value, tuple):
        value = ", ".join(value)
    out.print(Text(f"{name.replace('_', ' '):{width}}  ", style="bold") + Text(show(value)), soft_wrap=True)
