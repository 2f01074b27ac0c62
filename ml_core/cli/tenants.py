"""``mlcore tenants``: create and list."""

from __future__ import annotations

from typing import Annotated

import typer

from ml_core.cli.console import JsonOption, out, print_json, print_rows
from ml_core.cli.context import registry_connection
from ml_core.ids import TenantId

app = typer.Typer(help="The customers whose data and models are kept apart.", no_args_is_help=True)


@app.command("create")
def create(
    tenant: Annotated[str, typer.Argument(help="1 to 40 of a-z, 0-9, '-' and '_', beginning with a letter.")],
    as_json: JsonOption = False,
) -> None:
    """Create a tenant. Give it a key with `mlcore keys create`."""
    from ml_core.registry.tenants import TenantRepository

    tenant_id = TenantId(tenant)
    with registry_connection() as database:
        TenantRepository(database).create(tenant_id)
    if as_json:
        print_json({"tenant_id": tenant_id})
    else:
        out.print(f"Created tenant {tenant_id}.")


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the tenants."""
    from ml_core.registry.tenants import TenantRepository

    with registry_connection() as database:
        tenants = TenantRepository(database).list()
    rows = [{"tenant_id": t.tenant_id, "cell": t.cell, "created_at": t.created_at} for t in tenants]
    print_rows(
        rows,
        ["tenant_id", "cell", "created_at"],
        as_json=as_json,
        empty="There is no tenant yet. Create one: mlcore tenants create acme",
    )
