"""``mlcore placements``: which cell serves a tenant, and the bounds of cells."""

from __future__ import annotations

from typing import Annotated

import typer

from ml_core.api.schemas.placements import Bounds, NewPlacement, Placement
from ml_core.cli.console import answer, print_page, printed_as_json, say
from ml_core.cli.options import CursorOption, LimitOption
from ml_core.cli.target import platform
from ml_core.domain.placement import SHARED_CELL

ASKS = "platform"

app = typer.Typer(help="Give tenants cells of their own, and set the bounds of cells.", no_args_is_help=True)

TenantArgument = Annotated[str, typer.Argument(help="The tenant.")]
MinOption = Annotated[
    int | None,
    typer.Option("--min", help="Replicas without load; 0: none after 15 minutes without requests; default: 1."),
]
MaxOption = Annotated[int | None, typer.Option("--max", help="Replicas under load at most; default: as --min or 1.")]
TargetOption = Annotated[
    int | None, typer.Option("--target-ongoing", help="Concurrent requests per replica to aim at; default: 32.")
]


@app.command("set")
def set_(
    tenant: TenantArgument,
    dedicated: Annotated[bool, typer.Option("--dedicated/--shared", help="A cell of its own, or the shared cell.")],
    min_replicas: MinOption = None,
    max_replicas: MaxOption = None,
    target_ongoing: TargetOption = None,
) -> None:
    """Set where a tenant is served. It keeps its URL while it moves, which takes about half a minute."""
    wanted = NewPlacement(is_dedicated=dedicated, **_bounds(min_replicas, max_replicas, target_ongoing))
    with platform(of_tenant=False) as client:
        _print(client.placements.set(tenant, wanted))


@app.command("show")
def show(tenant: TenantArgument) -> None:
    """Show where a tenant is served."""
    with platform(of_tenant=False) as client:
        _print(client.placements.get(tenant))


@app.command("list")
def list_(limit: LimitOption = 100, cursor: CursorOption = None) -> None:
    """List the placements that were set. All other tenants are in the shared cell."""
    with platform(of_tenant=False) as client:
        page = client.placements.list().page(limit=limit, cursor=cursor)
    columns = ["tenant_id", "is_dedicated", "cell", "min_replicas", "max_replicas", "target_ongoing", "updated_by"]
    print_page(page, columns, empty="All tenants are in the shared cell.")


@app.command("shared-cell")
def shared_cell(
    min_replicas: Annotated[int | None, typer.Option("--min", help="Replicas without load; default: 1.")] = None,
    max_replicas: MaxOption = None,
    target_ongoing: TargetOption = None,
) -> None:
    """Show the bounds of the shared cell, or set them."""
    given = _bounds(min_replicas, max_replicas, target_ongoing)
    with platform(of_tenant=False) as client:
        found = client.placements.set_shared_cell(Bounds(**given)) if given else client.placements.shared_cell()
    answer(found, f"The shared cell has {_described(found)}.")


def _bounds(min_replicas: int | None, max_replicas: int | None, target_ongoing: int | None) -> dict[str, int]:
    most = min_replicas or None if max_replicas is None else max_replicas
    given = {"min_replicas": min_replicas, "max_replicas": most, "target_ongoing": target_ongoing}
    return {name: value for name, value in given.items() if value is not None}


def _print(placed: Placement) -> None:
    if printed_as_json(placed):
        return
    if placed.is_dedicated:
        say(f"{placed.tenant_id}: a dedicated cell with {_described(placed)}.")
    else:
        say(f"{placed.tenant_id}: the shared cell.")
    if placed.is_dedicated == (placed.cell == SHARED_CELL):
        why = "It moves, or is not asked" if placed.is_dedicated and not placed.min_replicas else "It moves"
        say(f"{why}; {placed.cell} serves it meanwhile.", style="dim")


def _described(bounds: Bounds) -> str:
    if bounds.min_replicas == bounds.max_replicas:
        return f"replicas: {bounds.min_replicas}"
    return f"{bounds.min_replicas} to {bounds.max_replicas} replicas, {bounds.target_ongoing} concurrent requests each"
