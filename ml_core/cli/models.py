"""``mlcore models``: list, archive, restore and delete the models of a tenant."""

from __future__ import annotations

from typing import Annotated

import typer

from ml_core.cli.console import answer, confirm, print_page
from ml_core.cli.options import ArchivedOption, CursorOption, LimitOption, ModelOption, YesOption
from ml_core.cli.target import platform

ASKS = "tenant"

app = typer.Typer(help="List, archive, restore and delete models.", no_args_is_help=True)


@app.command("list")
def list_models(
    model_type: Annotated[str | None, typer.Option("--type", help="Only of this type.")] = None,
    archived: ArchivedOption = False,
    limit: LimitOption = 1000,
    cursor: CursorOption = None,
) -> None:
    """List a tenant's models by name."""
    with platform() as client:
        page = client.models.list(model_type=model_type, include_archived=archived).page(limit=limit, cursor=cursor)
        tenant = client.tenant_id
    columns = ["model_id", "model_type", "versions", "newest_version", "created_at"]
    is_restricted = model_type is not None or cursor is not None
    empty = f"{tenant} has no model. Train one: mlcore train FILE -t {tenant}"
    print_page(page, columns, with_archived=archived, empty="No model matches." if is_restricted else empty)


@app.command("archive")
def archive(model: ModelOption) -> None:
    """Archive a model with all its versions. `mlcore gc` removes them after MLCORE_RETENTION_DAYS."""
    with platform() as client:
        client.models.archive(model)
    answer({"model_id": model, "archived": True}, f"Archived {model}.")


@app.command("restore")
def restore(model: ModelOption) -> None:
    """Restore an archived model."""
    with platform() as client:
        client.models.restore(model)
    answer({"model_id": model, "restored": True}, f"Restored {model}.")


@app.command("delete")
def delete(model: ModelOption, yes: YesOption = False) -> None:
    """Delete a model with all its versions, permanently. Its history is kept, and its version names are not reused."""
    confirm(f"This deletes every version of {model}.", model, yes=yes)
    with platform() as client:
        client.models.delete(model)
    answer({"model_id": model, "deleted": True}, f"Deleted {model}.")
