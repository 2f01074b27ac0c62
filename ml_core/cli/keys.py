"""``mlcore keys``: create, list and revoke API keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ml_core.cli.console import JsonOption, TenantOption, err, out, print_json, print_rows
from ml_core.cli.context import existing_tenant, existing_tenants
from ml_core.domain.api_key import Scope

if TYPE_CHECKING:
    from ml_core.domain.api_key import ApiKey
    from ml_core.ids import TenantId

app = typer.Typer(help="The API keys with which a tenant's programs ask for predictions.", no_args_is_help=True)


@app.command("create")
def create(
    tenant: Annotated[
        list[str],
        typer.Option("--tenant", "-t", help="The tenant, such as acme; repeat for several."),
    ],
    name: Annotated[str, typer.Option(help="What the key is for; shown in lists.")] = "unnamed",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What it may do: {', '.join(Scope)} or promote:ENVIRONMENT; repeat for several. "
            "Without it: predict and read, which is what a program needs that asks models."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key, or one for each of several tenants, and show it, this once. Only a salted hash is kept."""
    from ml_core.registry.keys import KeyRepository

    scopes = sorted(set(scope or (Scope.PREDICT, Scope.READ)))
    made: list[tuple[TenantId, ApiKey]] = []
    with existing_tenants(tenant) as (database, tenant_ids):
        try:
            for tenant_id in tenant_ids:
                key = KeyRepository(database, tenant_id).create(name, scopes)
                made.append((tenant_id, key))
        finally:  # also if a later one failed: nobody can show them again
            if made:
                _print_made(made, scopes, is_one=len(tenant_ids) == 1, as_json=as_json)


def _print_made(made: Sequence[tuple[TenantId, ApiKey]], scopes: list[str], *, is_one: bool, as_json: bool) -> None:
    if as_json:
        rows = [{"tenant_id": of, "key_id": key.key_id, "key": str(key), "scopes": scopes} for of, key in made]
        print_json(rows[0] if is_one else rows)
        return
    for of, key in made:
        out.print(str(key) if is_one else f"{of} {key}", soft_wrap=True)
    # On standard error, so that KEY=$(mlcore keys create …) holds the key alone.
    may = f"may {', '.join(scopes)}"
    if is_one:
        err.print(f"Keep it: it is shown only now. It {may} as {made[0][0]}.", style="dim")
    else:
        err.print(f"Keep them: they are shown only now. Each {may} as its tenant.", style="dim")


@app.command("list")
def list_(tenant: TenantOption, as_json: JsonOption = False) -> None:
    """List a tenant's keys, without their secrets."""
    from ml_core.registry.keys import KeyRepository
    from ml_core.registry.pages import every

    with existing_tenant(tenant) as (database, tenant_id):
        repository = KeyRepository(database, tenant_id)
        keys = list(every(lambda limit, cursor: repository.list(limit=limit, cursor=cursor)))
    rows = [
        {
            "tenant_id": tenant_id,
            "key_id": key.key_id,
            "name": key.name,
            "scopes": sorted(key.scopes),
            "created_at": key.created_at,
            "revoked_at": key.revoked_at,
        }
        for key in keys
    ]
    print_rows(
        rows,
        ["key_id", "name", "scopes", "created_at", "revoked_at"],
        as_json=as_json,
        empty=f"{tenant_id} has no key. Create one: mlcore keys create --tenant {tenant_id}",
    )


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, from `mlcore keys list`.")],
    tenant: TenantOption,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key: within about a second it opens nothing any more."""
    from ml_core.registry.keys import KeyRepository

    with existing_tenant(tenant) as (database, tenant_id):
        revoked = KeyRepository(database, tenant_id).revoke(key_id)
    if as_json:
        print_json({"tenant_id": tenant_id, "key_id": revoked.key_id, "revoked": True})
    else:
        out.print(f"Revoked {revoked.key_id} of {tenant_id}.")
