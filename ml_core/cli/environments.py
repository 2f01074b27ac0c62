"""``mlcore environments``: which there are, which are protected, and what one served when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_core.cli.console import out, print_json, print_page, print_rows
from ml_core.cli.options import CursorOption, EnvironmentOption, JsonOption, LimitOption, ModelOption, TenantOption
from ml_core.cli.target import given, platform

if TYPE_CHECKING:
    from ml_core.api.schemas.environments import Move

ASKS_PLATFORM = True

app = typer.Typer(help="The environments that versions are promoted to.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The environment, such as production.")]


@app.command("list")
def list_(tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """List the environments, and which of them are protected."""
    with platform(tenant) as client:
        policies = client.environments.policies()
    rows = [policy.model_dump(mode="json" if as_json else "python") for policy in policies]
    columns = ["environment", "is_protected", "updated_at", "updated_by"]
    print_rows(rows, columns, as_json=as_json, empty="There is no environment. Set MLCORE_ENVIRONMENTS.")


@app.command("history")
def history(
    tenant: TenantOption = None,
    model: ModelOption = None,
    environment: EnvironmentOption = "production",
    limit: LimitOption = 50,
    cursor: CursorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show each move of what an environment serves, newest first: who, when and why."""
    model_id = given("model", model, "--model")
    with platform(tenant) as client:
        page = client.environments.history(model_id, environment).page(limit=limit, cursor=cursor)
    print_page(
        page,
        ["generation", "at", "action", "version", "canary", "shadow", "actor", "why"],
        as_json=as_json,
        empty=f"{environment} of {model_id} {'never served anything' if cursor is None else 'has no such move'}.",
        shown={"canary": _canary, "why": _reason},
    )


@app.command("protect")
def protect(environment: NameArgument, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """Let only admins and keys of the environment's own scope change what it serves."""
    with platform(tenant) as client:
        policy = client.environments.protect(environment)
        name = client.tenant_id
    if as_json:
        print_json(policy)
        return
    out.print(f"{environment} of {name} is protected: moving it takes the scope promote:{environment}, or admin.")
    out.print(
        "This machine's own user stays an admin. A key for others: "
        f"mlcore keys create --tenant {name} --scope promote:{environment}; they give it with --key.",
        style="dim",
        soft_wrap=True,
    )


@app.command("unprotect")
def unprotect(environment: NameArgument, tenant: TenantOption = None, as_json: JsonOption = False) -> None:
    """Let every key that may promote change what it serves."""
    with platform(tenant) as client:
        policy = client.environments.unprotect(environment)
        name = client.tenant_id
    if as_json:
        print_json(policy)
    else:
        out.print(f"{environment} of {name} is not protected: moving it takes the scope promote.")


def _canary(canary: Any) -> str | None:
    return None if canary is None else f"{canary.version} for {canary.percent} %"


def _reason(move: Move) -> str | None:
    """An override is shown beside the reason."""
    overridden = f"overridden: {move.override_reason}" if move.override_reason is not None else ""
    return "; ".join(text for text in (move.reason, overridden) if text) or None
