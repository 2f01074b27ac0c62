"""``mlcore environments``: which there are, which are protected, and what one served when."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_core.cli.console import (
    AsKeyOption,
    JsonOption,
    LimitOption,
    ModelOption,
    TenantOption,
    err,
    out,
    print_json,
    print_rows,
)
from ml_core.cli.context import existing_tenant
from ml_core.ids import EnvironmentName, ModelId

if TYPE_CHECKING:
    from ml_core.registry.promotion.pointers import Move

app = typer.Typer(help="The environments that versions are promoted to.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The environment, such as production.")]
EnvironmentOption = Annotated[str, typer.Option("--environment", "-e", help="The environment.")]


@app.command("list")
def list_(tenant: TenantOption, as_json: JsonOption = False) -> None:
    """List the environments, and which of them are protected."""
    from ml_core.registry.promotion.environments import EnvironmentRepository

    with existing_tenant(tenant) as (database, tenant_id):
        policies = EnvironmentRepository(database, tenant_id).policies()
    columns = ["environment", "is_protected", "updated_at", "updated_by"]
    rows = [{"tenant_id": tenant_id, **dataclasses.asdict(policy)} for policy in policies]
    print_rows(rows, columns, as_json=as_json, empty="There is no environment. Set MLCORE_ENVIRONMENTS.")


@app.command("history")
def history(
    tenant: TenantOption,
    model: ModelOption,
    environment: EnvironmentOption = "production",
    before: Annotated[
        int | None, typer.Option(min=1, help="Only generations before this one: the last of the page before.")
    ] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Show each move of what an environment serves, newest first: who, when and why."""
    from ml_core.registry.missing import require_model
    from ml_core.registry.pages import encode_cursor
    from ml_core.registry.promotion.environments import EnvironmentRepository

    model_id, name = ModelId(model), EnvironmentName(environment)
    with existing_tenant(tenant) as (database, tenant_id):
        cursor = None if before is None else encode_cursor([before])
        entries = EnvironmentRepository(database, tenant_id).history(model_id, name, limit=limit, cursor=cursor).items
        if not entries:
            require_model(database, tenant_id, model_id)
    of = {"tenant_id": tenant_id, "model_id": model_id, "environment": name}
    rows = [of | dataclasses.asdict(entry) for entry in entries]
    print_rows(
        rows if as_json else [_shown(entry) for entry in entries],
        ["generation", "at", "action", "version", "canary", "shadow", "actor", "reason"],
        as_json=as_json,
        empty=f"{name} of {tenant_id}/{model_id} {'never served anything' if before is None else 'has no such move'}.",
    )
    if not as_json and len(entries) == limit and entries[-1].generation > 1:
        err.print(f"More: --before {entries[-1].generation}", style="dim")


@app.command("protect")
def protect(
    environment: NameArgument, tenant: TenantOption, as_key: AsKeyOption = None, as_json: JsonOption = False
) -> None:
    """Let only admins and keys of the environment's own scope change what it serves."""
    _set(environment, tenant, as_key, protected=True, as_json=as_json)


@app.command("unprotect")
def unprotect(
    environment: NameArgument, tenant: TenantOption, as_key: AsKeyOption = None, as_json: JsonOption = False
) -> None:
    """Let every key that may promote change what it serves."""
    _set(environment, tenant, as_key, protected=False, as_json=as_json)


def _set(environment: str, tenant: str, as_key: str | None, *, protected: bool, as_json: bool) -> None:
    from ml_core.registry.promotion.environments import EnvironmentRepository

    name = EnvironmentName(environment)
    with existing_tenant(tenant, as_key) as (database, tenant_id):
        environments = EnvironmentRepository(database, tenant_id)
        policy = environments.protect(name) if protected else environments.unprotect(name)
    if as_json:
        print_json({"tenant_id": tenant_id, **dataclasses.asdict(policy)})
    elif protected:
        out.print(f"{name} of {tenant_id} is protected: moving it takes the scope promote:{name}, or admin.")
        out.print(
            "This machine's own user stays an admin. A key for others: "
            f"mlcore keys create --tenant {tenant_id} --scope promote:{name}; they give it with --as-key.",
            style="dim",
            soft_wrap=True,
        )
    else:
        out.print(f"{name} of {tenant_id} is not protected: moving it takes the scope promote.")


def _shown(entry: Move) -> Mapping[str, Any]:
    """A move as a person reads it: an override is shown beside the reason."""
    canary = entry.canary and f"{entry.canary.version} for {entry.canary.percent} %"
    overridden = f"overridden: {entry.override_reason}" if entry.override_reason is not None else ""
    reason = "; ".join(text for text in (entry.reason, overridden) if text)
    return {**dataclasses.asdict(entry), "canary": canary, "reason": reason or None}
