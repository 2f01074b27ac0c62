"""``mlcore history``: what was predicted, what turned out to be true, and what is kept of it."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_core.cli.console import (
    CursorOption,
    JsonOption,
    LimitOption,
    ModelOption,
    TenantOption,
    err,
    out,
    print_json,
    print_rows,
)
from ml_core.cli.context import existing_tenant, registry_connection
from ml_core.domain.tenant_policies import HistoryPolicy
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection
    from ml_core.domain.prediction_record import PredictionRecord
    from ml_core.registry.history.repository import HistoryFilter

app = typer.Typer(
    help="Predictions that were answered over HTTP: find them, label them, and say what is kept.", no_args_is_help=True
)

SinceOption = Annotated[datetime | None, typer.Option(help="Only at or after this moment, UTC; else the last day.")]
UntilOption = Annotated[datetime | None, typer.Option(help="Only before this moment, UTC.")]
RequestArgument = Annotated[str, typer.Argument(help="The request_id of the answer.")]
_COLUMNS = ["at", "request_id", "row", "model_id", "version", "environment", "rollout", "prediction", "label"]


@app.command("list")
def list_(
    tenant: TenantOption,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only of this model.")] = None,
    version: Annotated[str | None, typer.Option("--version", "-v", help="Only by this version.")] = None,
    environment: Annotated[
        str | None, typer.Option("--environment", "-e", help="Only asked of this environment.")
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
) -> None:
    """List predicted rows, newest first, each with its label if there is one."""
    from ml_core.registry.history.repository import HistoryFilter, HistoryRepository

    wanted = HistoryFilter(
        model_id=None if model is None else ModelId(model),
        version=None if version is None else VersionId(version),
        environment=None if environment is None else EnvironmentName(environment),
        since=_utc(since),
        until=_utc(until),
    )
    with existing_tenant(tenant) as (database, tenant_id):
        repository = HistoryRepository(database, tenant_id)
        page = repository.query(wanted, with_feedback=True, limit=limit, cursor=cursor)
        if not page.items and cursor is None:
            _refuse_typos(database, tenant_id, wanted)
        policy = repository.policy()
    if as_json:
        print_json({"items": [dataclasses.asdict(record) for record in page.items], "next_cursor": page.next_cursor})
        return
    nothing = f"{tenant_id} keeps no predictions: mlcore history policy digest --tenant {tenant_id} changes that."
    empty = nothing if policy is HistoryPolicy.NOTHING else "No such prediction was kept in this time; see --since."
    print_rows([_row(record) for record in page.items], _COLUMNS, as_json=False, empty=empty)
    if page.next_cursor:
        err.print(f"More: --cursor {page.next_cursor}", style="dim")


@app.command("show")
def show(request_id: RequestArgument, tenant: TenantOption, as_json: JsonOption = False) -> None:
    """Show all that is kept of one request, row by row."""
    from ml_core.registry.history.repository import HistoryFilter, HistoryRepository

    with existing_tenant(tenant) as (database, tenant_id):
        wanted = HistoryFilter(request_id=request_id)
        page = HistoryRepository(database, tenant_id).query(wanted, with_feedback=True, limit=1000)
    rows = [dataclasses.asdict(record) for record in reversed(page.items)]
    shown = [{**row, "inputs": None if row["inputs"] is None else json.dumps(row["inputs"])} for row in rows]
    print_rows(
        rows if as_json else shown,
        ["row", "at", "model_id", "version", "prediction", "label", "latency_ms", "input_digest", "inputs"],
        as_json=as_json,
        empty=f"Nothing is kept of the request {request_id}. It takes a second to arrive; see mlcore history losses.",
    )


@app.command("feedback")
def feedback(
    request_id: RequestArgument,
    label: Annotated[str, typer.Argument(help="The truth: a class, or a number as JSON writes it.")],
    tenant: TenantOption,
    model: ModelOption,
    row: Annotated[int, typer.Option(min=0, help="Which row of the request.")] = 0,
    new_class: Annotated[
        bool, typer.Option("--new-class", help="The truth is a class that the model does not know.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Record the true label of a predicted row. A later label replaces an earlier one.

    A label is kept also if its prediction is not in the history: they join when it arrives.
    """
    from ml_core.cli.truth import check_row, find_answer, output_of, read_label
    from ml_core.registry.history.repository import HistoryRepository

    model_id = ModelId(model)
    with existing_tenant(tenant) as (database, tenant_id):
        answer = find_answer(database, tenant_id, model_id, request_id)
        check_row(row, answer)
        value = read_label(label, output_of(database, tenant_id, model_id, answer), is_new_class=new_class)
        history = HistoryRepository(database, tenant_id)
        history.add_feedback(model_id, request_id, row, value)
        keeps_nothing = answer is None and history.policy() is HistoryPolicy.NOTHING
    if as_json:
        recorded = {"tenant_id": tenant_id, "model_id": model, "request_id": request_id, "row": row, "label": value}
        print_json({**recorded, "prediction_kept": answer is not None})
        return
    out.print(f"Row {row} of {request_id} is {value!r}.", markup=False, soft_wrap=True)
    if answer is None:
        why = f"{tenant_id} keeps no predictions." if keeps_nothing else "If it was just answered, it is about to be."
        out.print(f"No such prediction of {model} is kept yet; the label is stored. {why}", soft_wrap=True)


@app.command("policy")
def policy(
    tenant: TenantOption,
    keep: Annotated[HistoryPolicy | None, typer.Argument(help="What to keep from now on; none shows it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show or set what is kept of a tenant's predictions: nothing, a digest of the inputs, or the inputs."""
    from ml_core.registry.history.repository import HistoryRepository

    with existing_tenant(tenant) as (database, tenant_id):
        repository = HistoryRepository(database, tenant_id)
        if keep is not None:
            repository.set_policy(keep)
        found = repository.policy()
    if as_json:
        print_json({"tenant_id": tenant_id, "policy": found.value})
    else:
        out.print(f"{tenant_id}: {_MEANINGS[found]}")


@app.command("losses")
def losses(
    tenant: TenantOption,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How many days back.")] = 30,
    as_json: JsonOption = False,
) -> None:
    """List predictions that were answered and are missing in the history, and why."""
    from ml_core.registry.history.repository import HistoryRepository

    today = datetime.now(UTC).date()
    with existing_tenant(tenant) as (database, tenant_id):
        found = HistoryRepository(database, tenant_id).losses(today - timedelta(days=days), today + timedelta(days=1))
    rows = [{"day": loss.day, "model_id": loss.model_id, "reason": loss.reason, "rows": loss.rows} for loss in found]
    print_rows(rows, ["day", "model_id", "reason", "rows"], as_json=as_json, empty="No loss was counted.")


@app.command("prune")
def prune(
    keep_days: Annotated[int | None, typer.Option(min=1, help="Instead of MLCORE_HISTORY_RETENTION_DAYS.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove days that are over the retention, of all tenants, with their bytes. `mlcore gc` does so too."""
    from ml_core.registry.history.retention import prune as prune_history

    with registry_connection() as database:
        pruned = prune_history(database, keep_days, dry_run=dry_run)
    if as_json:
        print_json({**dataclasses.asdict(pruned), "dry_run": dry_run})
        return
    size_mb = sum(partition.size_bytes for partition in pruned.partitions) / 2**20
    verb = "would go" if dry_run else "went"
    out.print(
        f"Before {pruned.before}: {len(pruned.partitions)} days ({size_mb:,.1f} MB), {pruned.labels} labels and"
        f" {pruned.losses} notes of losses {verb}."
    )
    if pruned.busy:
        err.print(f"In use, so left for the next run: {', '.join(map(str, pruned.busy))}.")


_MEANINGS = {
    HistoryPolicy.NOTHING: "nothing is kept of its predictions.",
    HistoryPolicy.DIGEST: "predictions are kept with a digest of their inputs, and not the inputs.",
    HistoryPolicy.INPUTS: "predictions are kept with their inputs.",
}


def _row(record: PredictionRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _COLUMNS}


def _refuse_typos(database: DatabaseConnection, tenant_id: TenantId, wanted: HistoryFilter) -> None:
    """Say of a list that is empty which of its words names nothing.

    Raises:
        ModelNotFoundError: There is no such model.
        InvalidRequestError: There is no such environment.
    """
    from ml_core.registry.missing import require_model
    from ml_core.registry.promotion.rules import check_environment

    if wanted.environment is not None:
        check_environment(database, tenant_id, wanted.environment)
    if wanted.model_id is not None:
        require_model(database, tenant_id, wanted.model_id)


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
