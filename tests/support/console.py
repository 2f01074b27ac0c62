"""Both planes at one address, as the ingress has them, without Ray: for tests of the console."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def both_planes(db: DatabaseConnection, oidc: OidcSettings | None = None) -> Iterator[str]:
    """The address of a control API and of one replica, which follows the registry; both accept tokens of an issuer."""
    tokens = None if oidc is None else TokenVerifier(oidc)
    control = mounted(create_app(Services(db, tokens=tokens)), PREFIX)
    with running_replica(db, "console", oidc=oidc) as replica:
        edge = SessionCookie(build_app(replica.service), replica.sessions)
        with served(_ingress(control, edge)) as port:
            yield f"http://127.0.0.1:{port}"


def _ingress(control: ASGIApp, edge: ASGIApp) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (control if scope["path"].startswith(f"{PREFIX}/") else edge)(scope, receive, send)

    return app
