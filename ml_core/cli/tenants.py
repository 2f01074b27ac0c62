"""``mlcore tenants``: create, list, set what their versions keep and what they may ask, delete."""

from __future__ import annotations

from typing import Annotated

import typer

from ml_core.api.schemas.tenants import PredictionQuota
from ml_core.cli.console import confirm, print_page, print_rows, printed_as_json, say
from ml_core.cli.options import CursorOption, LimitOption, YesOption
from ml_core.cli.target import platform
from ml_core.domain.tenant_policies import SelfTestRows

ASKS = "platform"

app = typer.Typer(help="Create, list and delete tenants, which are isolated from each other.", no_args_is_help=True)


@app.command("create")
def create(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="TENANT...", help="1 to 40 of a-z, 0-9, '-' and '_', beginning with a letter; one or several."
        ),
    ],
) -> None:
    """Create tenants: all of them, or none if a name is invalid or taken. Create keys with `mlcore keys create`."""
    with platform(of_tenant=False) as client:
        made = client.tenants.create(list(dict.fromkeys(names)))
    if printed_as_json(made if len(made) > 1 else made[0]):
        return
    for tenant in made:
        say(f"Created tenant {tenant.tenant_id}.")


@app.command("list")
def list_(
    deleted: Annotated[
        bool, typer.Option("--deleted", help="List deleted tenants, whose names can't be used again.")
    ] = False,
    limit: LimitOption = 1000,
    cursor: CursorOption = None,
) -> None:
    """List the tenants."""
    with platform(of_tenant=False) as client:
        page = client.tenants.list(deleted=deleted).page(limit=limit, cursor=cursor)
    print_page(
        page,
        ["tenant_id", "cell", "self_test_rows", "created_at", *(["deleted_at"] if deleted else [])],
        empty="No tenant was deleted." if deleted else "There is no tenant yet. Create one: mlcore tenants create acme",
    )


@app.command("self-test-rows")
def self_test_rows(
    tenant: Annotated[str, typer.Argument(help="The tenant.")],
    keep: Annotated[
        SelfTestRows | None, typer.Argument(help="What versions trained from now on keep; default: show the setting.")
    ] = None,
) -> None:
    """Show or set the rows that versions keep as their self-test: training rows or synthetic rows."""
    with platform(tenant) as client:
        found = client.tenants.get(tenant) if keep is None else client.tenants.update(tenant, self_test_rows=keep)
    if printed_as_json(found):
        return
    meanings = {
        SelfTestRows.TRAINING: "each version keeps a few rows of its training data as its self-test.",
        SelfTestRows.SYNTHETIC: "versions keep synthetic rows as their self-test, no row of training.",
    }
    say(f"{tenant}: {meanings[found.self_test_rows]}")
    if keep is SelfTestRows.SYNTHETIC:
        say("Existing versions keep theirs; mlcore versions delete removes them.", style="dim")


@app.command("quota")
def quota(
    tenant: Annotated[str, typer.Argument(help="The tenant.")],
    requests_per_s: Annotated[float | None, typer.Option(help="Requests per second; more is 429.")] = None,
    rows_per_s: Annotated[float | None, typer.Option(help="Rows per second; more is 429.")] = None,
    burst_s: Annotated[float | None, typer.Option(help="Seconds of both rates that may be used at once.")] = None,
    weight: Annotated[
        float | None, typer.Option(help="Share of processor time compared with tenants that wait for it as well.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Set what no option names to the platform's default.")] = False,
) -> None:
    """Show or set what a tenant may ask of all replicas together. What no option names stays as it is."""
    options = {"requests_per_s": requests_per_s, "rows_per_s": rows_per_s, "burst_s": burst_s, "weight": weight}
    given = {name: value for name, value in options.items() if value is not None}
    with platform(tenant) as client:
        found = client.tenants.quota(tenant)
        if given or reset:
            kept = PredictionQuota() if reset else found
            found = client.tenants.set_quota(tenant, PredictionQuota(**{**kept.model_dump(), **given}))
    if printed_as_json(found):
        return
    rates = [
        f"the platform's default of {name}" if rate is None else f"{rate:,g} {name}"
        for name, rate in (("requests/s", found.requests_per_s), ("rows/s", found.rows_per_s))
    ]
    say(f"{tenant}: {' and '.join(rates)}, bursts of {found.burst_s:g} s, weight {found.weight:g}.")


@app.command("delete")
def delete(tenant: Annotated[str, typer.Argument(help="The tenant.")], yes: YesOption = False) -> None:
    """Delete a tenant with all its data, permanently. Its name can't be used again."""
    confirm(f"This deletes every model, dataset, run and key of {tenant}.", tenant, yes=yes)
    with platform(of_tenant=False) as client:
        report = client.tenants.delete(tenant)
    if printed_as_json(report):
        return
    rows = [{"table": table, "rows": count} for table, count in report.rows.items()]
    print_rows(rows, ["table", "rows"], empty="No row was left.")
    say(
        f"Deleted tenant {tenant}: {sum(report.rows.values()):,} rows; {report.artifacts.count:,} files with "
        f"{report.artifacts.bytes:,} bytes of the artifact store; {report.checkpoints.count:,} checkpoints with "
        f"{report.checkpoints.bytes:,} bytes."
    )
    say(
        f"Its name stays taken, with the note that {report.deleted_by} deleted it on {report.deleted_at:%Y-%m-%d}. "
        f"Out of reach: {'; '.join(report.not_reached)}.",
        style="dim",
    )
