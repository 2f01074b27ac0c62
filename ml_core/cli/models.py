"""``mlcore models``: what a tenant has, and the end of a whole model."""

from __future__ import annotations

from typing import Annotated

import typer

from ml_core.cli.console import confirm, out, print_json, print_page
from ml_core.cli.options import (
    ArchivedOption,
    CursorOption,
    JsonOption,
    LimitOption,
    ModelOption,
    TenantOption,
    YesOption,
)
from ml_core.cli.target import given, platform

ASKS_PLATFORM = True

app = typer.Typer(help="A tenant's models.", no_args_is_help=True)


@app.command("list")
def list_models(
    tenant: TenantOption = None,
    model_type: Annotated[str | None, typer.Option("--type", help="Only of this type.")] = None,
    archived: ArchivedOption = False,
    limit: LimitOption = 1000,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a tenant's models by name."""
    with platform(tenant) as client:
        page = client.models.list(model_type=model_type, include_archived=archived).page(limit=limit, cursor=cursor)
        tenant = client.tenant_id
    columns = ["model_id", "model_type", "versions", "newest_version", "created_at"]
    is_restricted = model_type is not None or cursor is not None
    print_page(
        page,
        [*columns, *(["archived_at"] if archived else [])],
        as_json=as_json,
        empty="No model matches."
        if is_restricted
        else f"{tenant} has no model. Train one: mlcore train FILE -t {tenant}",
    )


@app.command("archive")
def archive(tenant: TenantOption = None, model: ModelOption = None, as_json: JsonOption = False) -> None:
    """Hide a model with all its versions. `mlcore gc` collects them after MLCORE_RETENTION_DAYS."""
    name = given("model", model, "--model")
    with platform(tenant) as client:
        client.models.archive(name)
    _report("archived", name, as_json=as_json)


@app.command("restore")
def restore(tenant: TenantOption = None, model: ModelOption = None, as_json: JsonOption = False) -> None:
    """Show an archived model again."""
    name = given("model", model, "--model")
    with platform(tenant) as client:
        client.models.restore(name)
    _report("restored", name, as_json=as_json)


@app.command("delete")
def delete(
    tenant: TenantOption = None,
    model: ModelOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a model with all its versions, permanently. Its moves stay recorded, and its versions' names taken."""
    name = given("model", model, "--model")
    confirm(f"This deletes every version of {name}.", name, yes=yes, as_json=as_json)
    with platform(tenant) as client:
        client.models.delete(name)
    _report("deleted", name, as_json=as_json)


def _report(done: str, model_id: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"model_id": model_id, done: True})
    else:
        out.print(f"{done.capitalize()} {model_id}.")
