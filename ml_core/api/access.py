"""Who calls, and what it may reach: the caller's principal, bound to one connection and one tenant."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path, Request

from ml_core.api.events import Events
from ml_core.api.openid import ATTEMPT_S, OpenIdSignIn
from ml_core.api.turns import Turns
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.principal import Principal
from ml_core.ids import TenantId
from ml_core.registry.authentication import Authentication
from ml_core.registry.oidc import TokenVerifier
from ml_core.registry.sessions import Sessions
from ml_core.registry.tenants import TenantRepository

T = TypeVar("T")

FILES_AT_ONCE = 4
REPORTS_AT_ONCE = 2
"""Files that were received, and reports on the prediction log, that are worked on at the same time. A small file may
take minutes, such as a Parquet file of many equal rows, and so may a report on days of a million rows: they must not
take every thread from operations that take milliseconds."""


class Services:
    """What the operations work with; one value a process.

    Args:
        db: The registry.
        operator: Who acts where a request has no key. Only for an application that is called in process: over HTTP it
            is None, and a request without a key is refused.
        tokens: Verifies tokens of the OpenID issuer; None: that of the settings, if they name an issuer.
    """

    def __init__(
        self,
        db: DatabaseConnection,
        operator: Principal | None = None,
        tokens: TokenVerifier | None = None,
    ) -> None:
        self.db = db
        self.operator = operator
        self.file_work = Turns(FILES_AT_ONCE)
        self.report_work = Turns(REPORTS_AT_ONCE)
        tokens = tokens or TokenVerifier.of(db.settings.oidc)
        self.authentication = Authentication(db, tokens)
        of_browsers = functools.partial(Sessions, lambda: db.tenant_key, lambda: db.known_tenant_key)
        self.sessions = of_browsers()
        self.openid = OpenIdSignIn.of(tokens, of_browsers("openid sign-in 1", ATTEMPT_S))
        self.events = Events(db)


@dataclass(frozen=True, slots=True)
class Access:
    """What an operation of one tenant works with: the registry, on behalf of the caller, and the tenant of the path."""

    db: DatabaseConnection
    tenant_id: TenantId

    def of(self, repository: Callable[[DatabaseConnection, TenantId], T]) -> T:
        """The tenant's repository of a class, on behalf of the caller."""
        return repository(self.db, self.tenant_id)


# Asynchronous, because FastAPI takes a thread for a dependency that is not.
async def _of_platform(request: Request) -> DatabaseConnection:
    db: DatabaseConnection = request.state.db
    return db


async def _of_tenant(request: Request, tenant: Annotated[str, Path(examples=["acme"])]) -> Access:
    return Access(request.state.db, TenantId(tenant))


PlatformAccess = Annotated[DatabaseConnection, Depends(_of_platform)]
"""What an operation over all tenants works with: the registry, on behalf of the caller."""
TenantAccess = Annotated[Access, Depends(_of_tenant)]
"""What an operation of one tenant works with."""


def needs(
    scope: Scope, *, moves_pointer: bool = False, receives: tuple[str, ...] = (), answers_secret: bool = False
) -> dict[str, Any]:
    """The part of an operation's OpenAPI description that says which scope it needs; ``Operation`` enforces it.

    Args:
        scope: The scope.
        moves_pointer: Whether the operation moves a pointer of the environment in the path: ``promote:<environment>``
            will do, too, and is needed where the environment is protected.
        receives: The media types of a body that the operation receives into a file itself; none: JSON, or no body.
        answers_secret: Whether the answer holds a secret, which is not kept for a request that is repeated.
    """
    described: dict[str, Any] = {
        "security": [{"key": [scope.value]}],
        "x-scope": scope.value,
    }
    if moves_pointer:
        described["x-moves-pointer"] = True
    if answers_secret:
        described["x-answer-is-secret"] = True
    if receives:
        content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in receives}
        described["requestBody"] = {"required": True, "content": content}
    return described


def remembered_caller(request: Request) -> DatabaseConnection | None:
    """As ``caller``, if that takes no call of the database (``Authentication.remembered``); else None."""
    services: Services = request.app.state.services
    tenant, authorization = request.path_params.get("tenant"), request.headers.get("authorization")
    if authorization is None:
        return None
    principal = services.authentication.remembered(tenant, authorization)
    return None if principal is None else services.db.acting_as(principal, request.state.request_id)


def caller(request: Request) -> DatabaseConnection:
    """The registry on behalf of whoever sends a request; errors as ``acting_for``. An event loop calls it on a thread.

    Called again after a body that may take hours: its key may have been revoked meanwhile.
    """
    tenant, authorization = request.path_params.get("tenant"), request.headers.get("authorization")
    return acting_for(request.app.state.services, tenant, authorization, request.state.request_id)


def acting_for(
    services: Services, tenant: str | None, authorization: str | None, request_id: str
) -> DatabaseConnection:
    """The registry on behalf of whoever sent a request.

    Args:
        services: The process's.
        tenant: The tenant of the path; None where the path names none.
        authorization: The ``Authorization`` header.
        request_id: The request's id, for the audit.

    Raises:
        AuthenticationError: There is no key or token, or it is malformed, unknown, expired or revoked.
        TenantNotFoundError: There is no such tenant, or the key or token is for another.
        PermissionDeniedError: The key or token is for a tenant, and the operation is over all tenants.
        IssuerUnavailableError: The keys of the token's issuer can't be read.
        InvalidNameError: The tenant's name is none, and the key or token is for all tenants.
    """
    if authorization is None and services.operator is not None:
        principal = services.operator
    else:
        principal = services.authentication.authenticate(tenant, authorization)
    if tenant is not None and principal.tenant_id is None:
        TenantRepository(services.db).get(TenantId(tenant))  # of what belongs to no tenant nothing is asked
    return services.db.acting_as(principal, request_id)
