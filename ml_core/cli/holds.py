"""``mlcore holds``: keep versions from being deleted, and let them go again."""

from __future__ import annotations

from typing import Annotated

import typer

from ml_core.cli.console import answer, print_page
from ml_core.cli.options import CursorOption, LimitOption, ModelOption, OnlyModelOption, VersionOption
from ml_core.cli.target import platform

ASKS = "tenant"

app = typer.Typer(help="Place and release holds, which keep versions from being deleted.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The hold, such as legal.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why the version is kept.")]


@app.command("place")
def place(name: NameArgument, version: VersionOption, reason: ReasonOption, model: ModelOption) -> None:
    """Place a hold: the version and its bytes are kept until it is released."""
    with platform() as client:
        hold = client.holds.place(model, version, name, reason)
    answer(hold, f"Version {hold.version} of {hold.model_id} is held: {hold.name}.")


@app.command("release")
def release(name: NameArgument, version: VersionOption, model: ModelOption) -> None:
    """Release a hold. The version does not change."""
    with platform() as client:
        client.holds.release(model, version, name)
    released = {"model_id": model, "version": version, "name": name, "released": True}
    answer(released, f"Released {name} on version {version} of {model}.")


@app.command("list")
def list_(model: OnlyModelOption = None, limit: LimitOption = 100, cursor: CursorOption = None) -> None:
    """List a tenant's holds."""
    with platform() as client:
        page = client.holds.list(model).page(limit=limit, cursor=cursor)
    columns = ["model_id", "version", "name", "reason", "created_at", "created_by"]
    print_page(page, columns, empty="There is no hold. Place one with mlcore holds place.")
