"""``mlcore tenants``: create, list, set what their versions keep, delete."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from ml_core.cli.console import AsKeyOption, JsonOption, out, print_json, print_rows
from ml_core.cli.context import existing_tenant, registry_connection
from ml_core.domain.tenant_policies import SelfTestRows
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import TenantId

app = typer.Typer(help="The customers whose data and models are kept apart.", no_args_is_help=True)


@app.command("create")
def create(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="TENANT...", help="1 to 40 of a-z, 0-9, '-' and '_', beginning with a letter; one or several."
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Create tenants: all of them, or none if a name can't be taken. Give them keys with `mlcore keys create`."""
    from ml_core.registry.tenants import TenantRepository

    tenant_ids = list(dict.fromkeys(map(TenantId, names)))
    with registry_connection() as database:
        tenants = TenantRepository(database)
        for tenant_id in tenant_ids:
            tenants.require_new(tenant_id)
        for tenant_id in tenant_ids:
            tenants.create(tenant_id)
            if not as_json:
                out.print(f"Created tenant {tenant_id}.")
    if as_json:
        made = [{"tenant_id": tenant_id} for tenant_id in tenant_ids]
        print_json(made if len(made) > 1 else made[0])


@app.command("list")
def list_(
    deleted: Annotated[
        bool, typer.Option("--deleted", help="Those that were deleted, whose names stay taken.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the tenants."""
    from ml_core.registry.pages import every
    from ml_core.registry.tenants import TenantRepository

    with registry_connection() as database:
        repository = TenantRepository(database)
        tenants = list(every(lambda limit, cursor: repository.list(limit=limit, cursor=cursor, deleted=deleted)))
    none_yet = "There is no tenant yet. Create one: mlcore tenants create acme"
    print_rows(
        [dataclasses.asdict(tenant) for tenant in tenants],
        ["tenant_id", "cell", "self_test_rows", "created_at", *(["deleted_at"] if deleted else [])],
        as_json=as_json,
        empty="No tenant was deleted." if deleted else none_yet,
    )


@app.command("self-test-rows")
def self_test_rows(
    tenant: Annotated[str, typer.Argument(help="The tenant.")],
    keep: Annotated[
        SelfTestRows | None, typer.Argument(help="What versions keep that are trained from now on; none shows it.")
    ] = None,
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show or set which rows a tenant's versions keep as their self-test: rows of training, or synthetic ones."""
    from ml_core.registry.tenants import TenantRepository

    with existing_tenant(tenant, as_key) as (database, tenant_id):
        tenants = TenantRepository(database)
        if keep is not None:
            tenants.update(tenant_id, self_test_rows=keep)
        found = tenants.get(tenant_id).self_test_rows
    if as_json:
        print_json({"tenant_id": tenant_id, "self_test_rows": found.value})
        return
    meanings = {
        SelfTestRows.TRAINING: "each version keeps a few rows of its training data as its self-test.",
        SelfTestRows.SYNTHETIC: "versions keep synthetic rows as their self-test, no row of training.",
    }
    out.print(f"{tenant_id}: {meanings[found]}")
    if keep is SelfTestRows.SYNTHETIC:
        out.print("Versions that are there keep theirs: mlcore versions delete removes them.", style="dim")


@app.command("delete")
def delete(
    tenant: Annotated[str, typer.Argument(help="The tenant.")],
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a tenant with everything: every row and every byte. It can't be undone, and the name stays taken."""
    from ml_core.models.store import platform_store
    from ml_core.registry.collection.tenant_deletion import TenantDeletion

    tenant_id = TenantId(tenant)
    if as_json and not yes:
        raise InvalidRequestError(
            "With --json nothing is asked, so nothing was deleted.", remedy="Say it with --yes.", field="--yes"
        )
    if not yes:
        typed = typer.prompt(f"This deletes every model, dataset, run and key of {tenant_id}. Type its name", err=True)
        if typed.strip() != tenant_id:
            raise InvalidRequestError(
                "That is not the tenant's name; nothing was deleted.", remedy="Type it, or use --yes.", field="tenant"
            )
    with registry_connection() as database:
        report = TenantDeletion(database, platform_store(database.settings)).delete(tenant_id)
    if as_json:
        print_json(report)
        return
    rows = [{"table": table, "rows": count} for table, count in report.rows.items()]
    print_rows(rows, ["table", "rows"], as_json=False, empty="No row was left.")
    out.print(
        f"Deleted tenant {tenant_id}: {sum(report.rows.values()):,} rows; {report.artifacts.count:,} files with "
        f"{report.artifacts.bytes:,} bytes of the artifact store; {report.checkpoints.count:,} checkpoints with "
        f"{report.checkpoints.bytes:,} bytes.",
        soft_wrap=True,
    )
    out.print(
        f"Its name stays taken, with the note that {report.deleted_by} deleted it on {report.deleted_at:%Y-%m-%d}. "
        f"Out of reach: {'; '.join(report.not_reached)}.",
        soft_wrap=True,
        style="dim",
    )
