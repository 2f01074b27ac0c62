"""For tests of the console: both planes at one address, as the ingress has them, without Ray; and what people do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from ml_core.api.access import Services
from ml_core.api.app import PREFIX, create_app
from ml_core.database.connection import DatabaseConnection
from ml_core.inference.edge.app import build_app
from ml_core.inference.edge.session import SessionCookie
from ml_core.registry.oidc import TokenVerifier
from ml_core.settings import OidcSettings
from support.http_server import mounted, served
from support.replicas import running_replica

HOSTILE = """<img src=x onerror="window.taken=1">'"><script>window.taken=1</script>${7*7}{{7*7}}"""
"""A text that would do something as HTML, or in a template."""


@contextmanager
def both_planes(db: DatabaseConnection, oidc: OidcSettings | None = None) -> Iterator[str]:
    """The address of a control API and of one replica, which follows the registry; both accept tokens of an issuer."""
    tokens = None if oidc is None else TokenVerifier(oidc)
    control = mounted(create_app(Services(db, tokens=tokens)), PREFIX)
    with running_replica(db, "console", oidc=oidc) as replica:
        edge = SessionCookie(build_app(replica.service), replica.sessions)
        with served(_ingress(control, edge)) as port:
            yield f"http://127.0.0.1:{port}"


def open_as(viewer: Any, key: object, path: str) -> Any:
    """The page of an address, of what is behind the #, after signing in."""
    viewer.open(path)
    return viewer.sign_in(key)


def row(page: Any, name: str) -> Any:
    """The row of a table that begins so."""
    return page.get_by_role("row", name=re.compile(f"^{re.escape(name)}"))


def _ingress(control: ASGIApp, edge: ASGIApp) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (control if scope["path"].startswith(f"{PREFIX}/") else edge)(scope, receive, send)

    return app


def choose(where: Any, version: str, label: str = "Version") -> None:
    """Choose a version, in a page or a dialog, by typing its name."""
    field = where.get_by_role("combobox", name=label, exact=True)
    field.fill(version)
    field.press("Enter")
    field.locator(f"xpath=../input[@type='hidden'][@value='{version}']").wait_for(state="attached")


def refused_at(page: Any, name: str) -> Any:
    """What is shown beside a field of this name that was refused, which then has the focus."""
    problem = page.locator(f"field-problem[data-of={name}] [role=alert]")
    problem.wait_for()
    page.locator("[aria-invalid]:focus").wait_for()
    return problem
