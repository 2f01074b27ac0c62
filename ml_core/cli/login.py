"""``mlcore login`` and ``logout``: which platform later commands ask, and with which key."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ml_core.cli.console import answer
from ml_core.cli.target import Login
from ml_core.exceptions import InvalidRequestError, PermissionDeniedError


def login(
    url: Annotated[
        str | None,
        typer.Argument(help="The platform, such as https://ml.example.com; default: the saved one."),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", "-t", help="The tenant of the key, which `--tenant` then has as default.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A model, which `--model` then has as default.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="The API key; without it, it is asked for, or read from standard input.")
    ] = None,
) -> None:
    """Save a platform's address, an API key and default names for later commands. The platform checks the key first.

    `--url`, `--key`, MLCORE_URL and MLCORE_API_KEY take precedence over what is saved.
    """
    kept = None if url else Login.load()
    if kept is not None:
        new = Login(kept.url, key or kept.key, tenant or kept.tenant, model or (kept.model if not tenant else None))
    elif url:
        new = Login(url.rstrip("/"), _asked_key() if key is None else key, tenant, model)
    else:
        raise InvalidRequestError("There is no login to change.", remedy="Give the address of a platform.", field="URL")
    _verify(new)
    path = new.save()
    who = f" for the tenant {new.tenant}" if new.tenant else ""
    document = {"url": new.url, "tenant": new.tenant, "model": new.model, "file": path}
    answer(document, f"Logged in at {new.url}{who}. It is kept in {path}.")


def logout() -> None:
    """Remove the saved address and key. Later commands use the registry of this machine. The key stays valid."""
    existed = Login.forget()
    answer({"logged_out": existed}, "Logged out." if existed else "Nobody was logged in.")


def _asked_key() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("API key", hide_input=True, err=True)).strip()
    return sys.stdin.readline().strip()


def _verify(login: Login) -> None:
    """Make one request with it."""
    from ml_core.client import MLClient

    with MLClient(login.url, api_key=login.key, tenant_id=login.tenant) as client:
        try:
            if login.tenant:
                client.models.list().page(limit=1)
            else:
                client.platform.health()
        except PermissionDeniedError as error:
            if not login.tenant:
                error.remedy = "Name the tenant that the key belongs to with --tenant."
                raise
            # The key is the tenant's; it may do something else.
