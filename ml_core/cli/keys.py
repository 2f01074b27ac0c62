"""``mlcore keys``: create, list and revoke API keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ml_core.cli.console import err, out, print_json, print_page
from ml_core.cli.options import CursorOption, JsonOption, LimitOption, TenantOption
from ml_core.cli.target import given, platform
from ml_core.domain.api_key import Scope

if TYPE_CHECKING:
    from ml_core.api.schemas.keys import CreatedKey

ASKS_PLATFORM = True

app = typer.Typer(help="The API keys with which a tenant's programs ask for predictions.", no_args_is_help=True)


@app.command("create")
def create(
    tenant: Annotated[
        list[str] | None,
        typer.Option(
            "--tenant", "-t", help="The tenant, such as acme; repeat for several; default: that of `mlcore login`."
        ),
    ] = None,
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
    scopes = sorted(set(scope or (Scope.PREDICT, Scope.READ)))
    names = list(dict.fromkeys(tenant or [given("tenant", None, "--tenant")]))
    made: list[tuple[str, CreatedKey]] = []
    with platform(names[0]) as client:
        of = {each: client.for_tenant(each) for each in names}
        for each in names[1:]:
            of[each].tenants.get(each)  # all of them exist, or no key is made
        try:
            for each in names:
                made.append((each, of[each].keys.create(scopes, name=name)))  # noqa: PERF401 - one may fail
        finally:  # also if a later one failed: nobody can show them again
            if made:
                _print_made(made, is_one=len(names) == 1, as_json=as_json)


def _print_made(made: list[tuple[str, CreatedKey]], *, is_one: bool, as_json: bool) -> None:
    if as_json:
        rows = [{"tenant_id": of, **key.model_dump()} for of, key in made]
        print_json(rows[0] if is_one else rows)
        return
    for of, key in made:
        out.print(key.key if is_one else f"{of} {key.key}", soft_wrap=True)
    # On standard error, so that KEY=$(mlcore keys create …) holds the key alone.
    may = f"may {', '.join(made[0][1].scopes)}"
    if is_one:
        err.print(f"Keep it: it is shown only now. It {may} as {made[0][0]}.", style="dim")
    else:
        err.print(f"Keep them: they are shown only now. Each {may} as its tenant.", style="dim")


@app.command("list")
def list_(
    tenant: TenantOption = None, limit: LimitOption = 100, cursor: CursorOption = None, as_json: JsonOption = False
) -> None:
    """List a tenant's keys, without their secrets."""
    with platform(tenant) as client:
        page = client.keys.list().page(limit=limit, cursor=cursor)
        empty = f"{client.tenant_id} has no keys. Create one: mlcore keys create --tenant {client.tenant_id}"
    print_page(page, ["key_id", "name", "scopes", "created_at", "revoked_at"], as_json=as_json, empty=empty)


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, from `mlcore keys list`.")],
    tenant: TenantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key: within about a second it opens nothing any more."""
    with platform(tenant) as client:
        revoked = client.keys.revoke(key_id)
        name = client.tenant_id
    if as_json:
        print_json(revoked)
    else:
        out.print(f"Revoked {revoked.key_id} of {name}.")
