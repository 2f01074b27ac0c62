"""``mlcore environments``: which there are, which are protected, and what one served when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_core.cli.console import answer, print_items, print_page, printed_as_json, say
from ml_core.cli.options import CursorOption, EnvironmentOption, LimitOption, ModelOption
from ml_core.cli.target import platform

if TYPE_CHECKING:
    from ml_core.api.schemas.environments import Move

ASKS = "tenant"

app = typer.Typer(help="Show the history of environments, and protect them.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The environment, such as production.")]


@app.command("list")
def list_() -> None:
    """List the environments, and which of them are protected."""
    with platform() as client:
        policies = client.environments.policies()
    columns = ["environment", "is_protected", "updated_at", "updated_by"]
    print_items(policies, columns, empty="There is no environment. Set MLCORE_ENVIRONMENTS.")


@app.command("history")
def history(
    model: ModelOption,
    environment: EnvironmentOption = "production",
    limit: LimitOption = 50,
    cursor: CursorOption = None,
) -> None:
    """Show each move of what an environment serves, newest first: who, when and why."""
    with platform() as client:
        page = client.environments.history(model, environment).page(limit=limit, cursor=cursor)
    print_page(
        page,
        ["generation", "at", "action", "version", "canary", "shadow", "actor", "why"],
        empty=f"{environment} of {model} {'never served anything' if cursor is None else 'has no such move'}.",
        shown={"canary": canary_words, "why": _reason},
    )


@app.command("protect")
def protect(environment: NameArgument) -> None:
    """Let only admins and keys of the environment's own scope change what it serves."""
    with platform() as client:
        policy = client.environments.protect(environment)
        name = client.tenant_id
    if printed_as_json(policy):
        return
    say(f"{environment} of {name} is protected: moving it takes the scope promote:{environment}, or admin.")
    say(
        "This machine's own user stays an admin. A key for others: "
        f"mlcore keys create --tenant {name} --scope promote:{environment}; they give it with --key.",
        style="dim",
    )


@app.command("unprotect")
def unprotect(environment: NameArgument) -> None:
    """Let every key that may promote change what it serves."""
    with platform() as client:
        policy = client.environments.unprotect(environment)
        answer(policy, f"{environment} of {client.tenant_id} is not protected: moving it takes the scope promote.")


def canary_words(canary: Any) -> str | None:
    """A canary as a cell of a table."""
    return None if canary is None else f"{canary.version} for {canary.percent} %"


def _reason(move: Move) -> str | None:
    """An override is shown beside the reason."""
    overridden = f"overridden: {move.override_reason}" if move.override_reason is not None else ""
    return "; ".join(text for text in (move.reason, overridden) if text) or None
