"""``mlcore holds``: keep versions from being deleted, and let them go again."""

from __future__ import annotations

from typing import Annotated

import typer

from ml_core.cli.console import out, print_json, print_page
from ml_core.cli.options import CursorOption, JsonOption, LimitOption, ModelOption, TenantOption
from ml_core.cli.target import given, platform

ASKS_PLATFORM = True

app = typer.Typer(help="Holds: why a version may not be deleted or collected.", no_args_is_help=True)

VersionOption = Annotated[str, typer.Option("--version", "-v", help="The version.")]
NameOption = Annotated[str, typer.Option("--name", help="The hold, such as legal.")]


@app.command("place")
def place(
    version: VersionOption,
    name: NameOption,
    reason: Annotated[str, typer.Option("--reason", help="Why the version is kept.")],
    tenant: TenantOption = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a version, with its bytes, until the hold is released."""
    model_id = given("model", model, "--model")
    with platform(tenant) as client:
        hold = client.holds.place(model_id, version, name, reason)
    if as_json:
        print_json(hold)
    else:
        out.print(f"Version {hold.version} of {hold.model_id} is held: {hold.name}.")


@app.command("release")
def release(
    version: VersionOption,
    name: NameOption,
    tenant: TenantOption = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a hold. The version itself stays as it is."""
    model_id = given("model", model, "--model")
    with platform(tenant) as client:
        client.holds.release(model_id, version, name)
    if as_json:
        print_json({"model_id": model_id, "version": version, "name": name, "released": True})
    else:
        out.print(f"Released {name} on version {version} of {model_id}.")


@app.command("list")
def list_(
    tenant: TenantOption = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only those of this model.")] = None,
    limit: LimitOption = 100,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a tenant's holds."""
    with platform(tenant) as client:
        page = client.holds.list(model).page(limit=limit, cursor=cursor)
    columns = ["model_id", "version", "name", "reason", "created_at", "created_by"]
    print_page(page, columns, as_json=as_json, empty="There is no hold. Place one with mlcore holds place.")
