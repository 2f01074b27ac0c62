"""``mlcore keys``: create, list and revoke API keys of tenants and of the platform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ml_core.cli.console import answer, note, print_page, printed_as_json, say
from ml_core.cli.options import CursorOption, LimitOption, TenantOption, require_one_owner
from ml_core.cli.target import platform, tenant_name
from ml_core.domain.api_key import Scope

if TYPE_CHECKING:
    from ml_core.api.schemas.keys import CreatedKey

ASKS = "tenant"

app = typer.Typer(help="Create, list and revoke API keys of a tenant or of the platform.", no_args_is_help=True)

PlatformOption = Annotated[
    bool,
    typer.Option("--platform", help="A key of the platform, which is valid in all tenants, instead of a tenant's."),
]


@app.command("create")
def create(
    tenant: Annotated[
        list[str] | None,
        typer.Option(
            "--tenant", "-t", help="The tenant, such as acme; repeat for several; default: that of `mlcore login`."
        ),
    ] = None,
    of_platform: PlatformOption = False,
    name: Annotated[str, typer.Option(help="What the key is for; shown in lists.")] = "unnamed",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What it may do: {', '.join(Scope)} or promote:ENVIRONMENT; repeat for several. Without it: predict, "
            "which is what a program needs that asks models. The scope read shows all data of the tenant. With "
            "--platform: admin or read."
        ),
    ] = None,
) -> None:
    """Create a key, or one for each of several tenants. It is shown only once: only a salted hash is stored."""
    require_one_owner(tenant, of_platform=of_platform)
    if of_platform:
        with platform(of_tenant=False) as client:
            _print_made([(None, client.platform_keys.create(scope or [], name=name))], is_one=True)
        return
    scopes = sorted(set(scope or [Scope.PREDICT]))
    names = list(dict.fromkeys(tenant or [tenant_name()]))
    made: list[tuple[str | None, CreatedKey]] = []
    with platform(names[0]) as client:
        of = {each: client.for_tenant(each) for each in names}
        for each in names[1:]:
            of[each].tenants.get(each)  # all of them exist, or no key is made
        try:
            for each in names:
                made.append((each, of[each].keys.create(scopes, name=name)))  # noqa: PERF401 - one may fail
        finally:  # also if a later one failed: nobody can show them again
            if made:
                _print_made(made, is_one=len(names) == 1)


def _print_made(made: Sequence[tuple[str | None, CreatedKey]], *, is_one: bool) -> None:
    """Show new keys: tenant and key; None: the platform."""
    rows = [{**({"tenant_id": of} if of else {}), **key.model_dump()} for of, key in made]
    if printed_as_json(rows[0] if is_one else rows):
        return
    for of, key in made:
        say(key.key if is_one else f"{of} {key.key}")
    # On standard error, so that KEY=$(mlcore keys create …) holds the key alone.
    scopes = ", ".join(made[0][1].scopes)
    if is_one:
        note(f"Keep it: it is shown only now. Its scopes in {made[0][0] or 'all tenants'}: {scopes}.")
    else:
        note(f"Keep them: they are shown only now. Their scopes, each in its tenant: {scopes}.")


@app.command("list")
def list_(
    tenant: TenantOption = None,
    of_platform: PlatformOption = False,
    limit: LimitOption = 100,
    cursor: CursorOption = None,
) -> None:
    """List the keys of a tenant or of the platform, without their secrets."""
    require_one_owner(tenant, of_platform=of_platform)
    with platform(tenant, of_tenant=not of_platform) as client:
        found = client.platform_keys.list() if of_platform else client.keys.list()
        page = found.page(limit=limit, cursor=cursor)
        option = "--platform --scope admin" if of_platform else f"--tenant {client.tenant_id}"
        owner = "The platform" if of_platform else client.tenant_id
    columns = ["key_id", "name", "scopes", "created_at", "revoked_at"]
    print_page(page, columns, empty=f"{owner} has no keys. Create one: mlcore keys create {option}")


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, from `mlcore keys list`.")],
    tenant: TenantOption = None,
    of_platform: PlatformOption = False,
) -> None:
    """Revoke a key: it stops working within about a second."""
    require_one_owner(tenant, of_platform=of_platform)
    with platform(tenant, of_tenant=not of_platform) as client:
        revoked = client.platform_keys.revoke(key_id) if of_platform else client.keys.revoke(key_id)
        owner = "the platform" if of_platform else client.tenant_id
    answer(revoked, f"Revoked {revoked.key_id} of {owner}.")
