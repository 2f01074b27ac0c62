"""``mlcore predictions``: the prediction log, labels, and what is kept."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ml_core.cli.console import answer, note, print_items, print_page, printed_as_json, say
from ml_core.cli.context import registry_connection
from ml_core.cli.options import CursorOption, LimitOption, ModelOption, OnlyModelOption, SinceOption, UntilOption, utc
from ml_core.cli.target import local, platform
from ml_core.domain.tenant_policies import PredictionPolicy

ASKS = "tenant"

app = typer.Typer(
    help="Inspect and label the logged predictions, and set what is logged.",
    no_args_is_help=True,
)

RequestArgument = Annotated[str, typer.Argument(help="The request_id of the prediction.")]
_COLUMNS = ["at", "request_id", "row", "model_id", "version", "environment", "rollout", "prediction", "label"]
_MEANINGS = {
    PredictionPolicy.NOTHING: "nothing is kept of its predictions.",
    PredictionPolicy.DIGEST: "predictions are kept with a digest of their inputs, and not the inputs.",
    PredictionPolicy.INPUTS: "predictions are kept with their inputs.",
}


@app.command("list")
def list_(
    model: OnlyModelOption = None,
    version: Annotated[str | None, typer.Option("--version", "-v", help="Only of this version.")] = None,
    environment: Annotated[str | None, typer.Option("--environment", "-e", help="Only of this environment.")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: LimitOption = 50,
    cursor: CursorOption = None,
) -> None:
    """List predicted rows, newest first, each with its label if there is one; without --since those of one day."""
    with platform() as client:
        found = client.predictions.list(
            model, version=version, environment=environment, since=utc(since), until=utc(until)
        )
        page = found.page(limit=limit, cursor=cursor)
        empty = "No such prediction was kept in this time; see --since."
        if not page.items and client.predictions.policy().policy == PredictionPolicy.NOTHING:
            name = client.tenant_id
            empty = f"{name} keeps no predictions: mlcore predictions policy digest --tenant {name} changes that."
    print_page(page, _COLUMNS, empty=empty)


@app.command("show")
def show(request_id: RequestArgument) -> None:
    """Show the logged rows of one request."""
    with platform() as client:
        rows = client.predictions.get(request_id)
    print_items(
        rows,
        ["row", "at", "model_id", "version", "prediction", "label", "latency_ms", "input_digest", "inputs"],
        shown={"inputs": lambda inputs: None if inputs is None else json.dumps(inputs)},
        empty=f"Nothing is kept of the request {request_id}. It takes a second; see mlcore predictions losses.",
    )


@app.command("label")
def label(
    request_id: RequestArgument,
    truth: Annotated[str, typer.Argument(metavar="LABEL", help="The true label: a class, or a number.")],
    model: ModelOption,
    row: Annotated[int, typer.Option(min=0, help="Which row of the request.")] = 0,
    new_class: Annotated[
        bool, typer.Option("--new-class", help="The label is a class that the model does not have.")
    ] = False,
) -> None:
    """Record the true label of a predicted row. A later label replaces an earlier one.

    A label is stored even if its prediction is not in the log yet. A key needs the scopes label and read: the label is
    checked against the classes of the model.
    """
    from ml_core.cli.truth import check_row, output_of, read_label

    with platform() as client:
        answers = client.predictions.get(request_id, model_id=model)
        check_row(row, answers)
        value = read_label(truth, output_of(client, model, answers), is_new_class=new_class)
        client.predictions.label(model, request_id, value, row=row)
        keeps_nothing = not answers and client.predictions.policy().policy == PredictionPolicy.NOTHING
        name = client.tenant_id
    recorded = {"tenant_id": name, "model_id": model, "request_id": request_id, "row": row, "label": value}
    if printed_as_json({**recorded, "prediction_kept": bool(answers)}):
        return
    say(f"Row {row} of {request_id} is {value!r}.")
    if not answers:
        why = f"{name} keeps no predictions." if keeps_nothing else "If it was just answered, it is about to be."
        say(f"No such prediction of {model} is kept yet; the label is stored. {why}")


@app.command("policy")
def policy(
    keep: Annotated[
        PredictionPolicy | None, typer.Argument(help="What to keep from now on; default: show the policy.")
    ] = None,
) -> None:
    """Show or set what is kept of a tenant's predictions: nothing, a digest of the inputs, or the inputs."""
    with platform() as client:
        found = client.predictions.policy() if keep is None else client.predictions.set_policy(keep)
        answer(found, f"{client.tenant_id}: {_MEANINGS[PredictionPolicy(found.policy)]}")


@app.command("losses")
def losses(
    days: Annotated[int, typer.Option(min=1, max=3650, help="How many days back.")] = 30,
) -> None:
    """List predictions that are missing in the log, with the reason."""
    today = datetime.now(UTC).date()
    with platform() as client:
        found = client.predictions.losses(today - timedelta(days=days), today + timedelta(days=1))
    print_items(found, ["day", "model_id", "reason", "rows"], empty="No loss was counted.")


@app.command("prune")
@local
def prune(
    keep_days: Annotated[
        int | None, typer.Option(min=1, help="Instead of MLCORE_PREDICTION_LOG_RETENTION_DAYS.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove days of the log whose retention ended, of all tenants. `mlcore gc` does so too.

    It opens the registry of this machine's settings and ignores the login.
    """
    from ml_core.registry.predictions.retention import prune as prune_log

    with registry_connection() as database:
        pruned = prune_log(database, keep_days, dry_run=dry_run)
    if printed_as_json({**dataclasses.asdict(pruned), "dry_run": dry_run}):
        return
    size_mb = sum(partition.size_bytes for partition in pruned.partitions) / 2**20
    verb = "would be removed" if dry_run else "were removed"
    say(
        f"Before {pruned.before}: {len(pruned.partitions)} days ({size_mb:,.1f} MB), {pruned.labels} labels and"
        f" {pruned.losses} counts of losses {verb}."
    )
    if pruned.busy:
        note(f"In use, left for the next run: {', '.join(map(str, pruned.busy))}.", style="")
