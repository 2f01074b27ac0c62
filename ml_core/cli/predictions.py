"""``mlcore predictions``: the prediction log, labels, and what is kept."""

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
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.ids import EnvironmentName, ModelId, TenantId

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection
    from ml_core.domain.prediction_record import PredictionRecord

app = typer.Typer(
    help="The prediction log: find predictions that were answered over HTTP, label them, and set what is kept.",
    no_args_is_help=True,
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
    from ml_core.registry.predictions import PredictionRepository

    with existing_tenant(tenant) as (database, tenant_id):
        repository = PredictionRepository(database, tenant_id)
        page = repository.list(
            model,
            version=version,
            environment=environment,
            since=_utc(since),
            until=_utc(until),
            with_labels=True,
            limit=limit,
            cursor=cursor,
        )
        if not page.items and cursor is None:
            _refuse_typos(database, tenant_id, model, environment)
        policy = repository.policy()
    if as_json:
        print_json({"items": [dataclasses.asdict(record) for record in page.items], "next_cursor": page.next_cursor})
        return
    nothing = f"{tenant_id} keeps no predictions: mlcore predictions policy digest --tenant {tenant_id} changes that."
    empty = nothing if policy is PredictionPolicy.NOTHING else "No such prediction was kept in this time; see --since."
    print_rows([_row(record) for record in page.items], _COLUMNS, as_json=False, empty=empty)
    if page.next_cursor:
        err.print(f"More: --cursor {page.next_cursor}", style="dim")


@app.command("show")
def show(request_id: RequestArgument, tenant: TenantOption, as_json: JsonOption = False) -> None:
    """Show what is kept of one request, row by row."""
    from ml_core.registry.predictions import PredictionRepository

    with existing_tenant(tenant) as (database, tenant_id):
        rows = [dataclasses.asdict(record) for record in PredictionRepository(database, tenant_id).get(request_id)]
    shown = [{**row, "inputs": None if row["inputs"] is None else json.dumps(row["inputs"])} for row in rows]
    print_rows(
        rows if as_json else shown,
        ["row", "at", "model_id", "version", "prediction", "label", "latency_ms", "input_digest", "inputs"],
        as_json=as_json,
        empty=f"Nothing is kept of the request {request_id}. It takes a second; see mlcore predictions losses.",
    )


@app.command("label")
def label(
    request_id: RequestArgument,
    truth: Annotated[
        str, typer.Argument(metavar="LABEL", help="The true label: a class, or a number as JSON writes it.")
    ],
    tenant: TenantOption,
    model: ModelOption,
    row: Annotated[int, typer.Option(min=0, help="Which row of the request.")] = 0,
    new_class: Annotated[
        bool, typer.Option("--new-class", help="The label is a class that the model does not know.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Record the true label of a predicted row. A later label replaces an earlier one.

    A label is stored also if its prediction is not in the log yet; they are joined when it arrives.
    """
    from ml_core.cli.truth import check_row, find_answer, output_of, read_label
    from ml_core.registry.predictions import PredictionRepository

    model_id = ModelId(model)
    with existing_tenant(tenant) as (database, tenant_id):
        answer = find_answer(database, tenant_id, model_id, request_id)
        check_row(row, answer)
        value = read_label(truth, output_of(database, tenant_id, model_id, answer), is_new_class=new_class)
        predictions = PredictionRepository(database, tenant_id)
        predictions.add_label(model_id, request_id, row, value)
        keeps_nothing = answer is None and predictions.policy() is PredictionPolicy.NOTHING
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
    keep: Annotated[
        PredictionPolicy | None, typer.Argument(help="What to keep from now on; left out: show it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show or set what is kept of a tenant's predictions: nothing, a digest of the inputs, or the inputs."""
    from ml_core.registry.predictions import PredictionRepository

    with existing_tenant(tenant) as (database, tenant_id):
        repository = PredictionRepository(database, tenant_id)
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
    """List predictions that were answered and are missing in the log, and why."""
    from ml_core.registry.predictions import PredictionRepository

    today = datetime.now(UTC).date()
    with existing_tenant(tenant) as (database, tenant_id):
        found = PredictionRepository(database, tenant_id).losses(
            today - timedelta(days=days), today + timedelta(days=1)
        )
    rows = [{"day": loss.day, "model_id": loss.model_id, "reason": loss.reason, "rows": loss.rows} for loss in found]
    print_rows(rows, ["day", "model_id", "reason", "rows"], as_json=as_json, empty="No loss was counted.")


@app.command("prune")
def prune(
    keep_days: Annotated[
        int | None, typer.Option(min=1, help="Instead of MLCORE_PREDICTION_LOG_RETENTION_DAYS.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove days whose retention ended, of all tenants, with their bytes. `mlcore gc` does so too."""
    from ml_core.registry.predictions.retention import prune as prune_log

    with registry_connection() as database:
        pruned = prune_log(database, keep_days, dry_run=dry_run)
    if as_json:
        print_json({**dataclasses.asdict(pruned), "dry_run": dry_run})
        return
    size_mb = sum(partition.size_bytes for partition in pruned.partitions) / 2**20
    verb = "would be removed" if dry_run else "were removed"
    out.print(
        f"Before {pruned.before}: {len(pruned.partitions)} days ({size_mb:,.1f} MB), {pruned.labels} labels and"
        f" {pruned.losses} counts of losses {verb}."
    )
    if pruned.busy:
        err.print(f"In use, left for the next run: {', '.join(map(str, pruned.busy))}.")


_MEANINGS = {
    PredictionPolicy.NOTHING: "nothing is kept of its predictions.",
    PredictionPolicy.DIGEST: "predictions are kept with a digest of their inputs, and not the inputs.",
    PredictionPolicy.INPUTS: "predictions are kept with their inputs.",
}


def _row(record: PredictionRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _COLUMNS}


def _refuse_typos(
    database: DatabaseConnection, tenant_id: TenantId, model: str | None, environment: str | None
) -> None:
    """Refuse a model or environment that does not exist: an empty list would hide the typo.

    Raises:
        ModelNotFoundError: There is no such model.
        InvalidRequestError: There is no such environment.
    """
    from ml_core.registry.missing import require_model
    from ml_core.registry.promotion.rules import check_environment

    if environment is not None:
        check_environment(database, tenant_id, EnvironmentName(environment))
    if model is not None:
        require_model(database, tenant_id, ModelId(model))


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)
