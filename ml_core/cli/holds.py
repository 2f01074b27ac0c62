"""``mlcore holds``: keep versions from being deleted, and let them go again."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from ml_core.cli.console import AsKeyOption, JsonOption, ModelOption, TenantOption, out, print_json, print_rows
from ml_core.cli.context import existing_tenant
from ml_core.ids import HoldName, ModelId, VersionId

app = typer.Typer(help="Holds: why a version may not be deleted or collected.", no_args_is_help=True)

VersionOption = Annotated[str, typer.Option("--version", "-v", help="The version.")]
NameOption = Annotated[str, typer.Option("--name", help="The hold, such as legal.")]


@app.command("place")
def place(
    tenant: TenantOption,
    model: ModelOption,
    version: VersionOption,
    name: NameOption,
    reason: Annotated[str, typer.Option("--reason", help="Why the version is kept.")],
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a version, with its bytes, until the hold is released."""
    from ml_core.registry.collection.holds import HoldRepository

    key = (ModelId(model), VersionId(version), HoldName(name))
    with existing_tenant(tenant, as_key) as (database, tenant_id):
        hold = HoldRepository(database, tenant_id).place(*key, reason)
    if as_json:
        print_json(dataclasses.asdict(hold))
    else:
        out.print(f"Version {hold.version} of {tenant_id}/{hold.model_id} is held: {hold.name}.")


@app.command("release")
def release(
    tenant: TenantOption,
    model: ModelOption,
    version: VersionOption,
    name: NameOption,
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a hold. The version itself stays as it is."""
    from ml_core.registry.collection.holds import HoldRepository

    key = (ModelId(model), VersionId(version), HoldName(name))
    with existing_tenant(tenant, as_key) as (database, tenant_id):
        HoldRepository(database, tenant_id).release(*key)
    if as_json:
        print_json({"tenant_id": tenant_id, "model_id": key[0], "version": key[1], "name": key[2], "released": True})
    else:
        out.print(f"Released {key[2]} on version {key[1]} of {tenant_id}/{key[0]}.")


@app.command("list")
def list_(
    tenant: TenantOption,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only those of this model.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List a tenant's holds."""
    from ml_core.registry.collection.holds import HoldRepository
    from ml_core.registry.missing import require_model
    from ml_core.registry.pages import every

    model_id = None if model is None else ModelId(model)
    with existing_tenant(tenant) as (database, tenant_id):
        if model_id is not None:
            require_model(database, tenant_id, model_id)
        repository = HoldRepository(database, tenant_id)
        holds = list(every(lambda limit, cursor: repository.list(model_id, limit=limit, cursor=cursor)))
    columns = ["model_id", "version", "name", "reason", "created_at", "created_by"]
    rows = [dataclasses.asdict(hold) for hold in holds]
    what = tenant_id if model_id is None else f"{tenant_id}/{model_id}"
    names = f"--tenant {tenant_id} --model {model_id or 'MODEL'} --version VERSION"
    empty = f"{what} has no hold. Place one: mlcore holds place {names} --name legal --reason WHY"
    print_rows(rows, columns, as_json=as_json, empty=empty)
