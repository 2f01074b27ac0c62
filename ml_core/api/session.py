"""The session of a browser: signing in with a key, and out. It is the console's, and not in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response, status
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool

from ml_core.api.access import Services
from ml_core.api.bodies import read_json
from ml_core.api.schemas.base import Input, Schema
from ml_core.domain.api_key import Grant
from ml_core.domain.principal import Principal
from ml_core.inference.edge.session import cookie_of, is_secure, require_header
from ml_core.registry.sessions import SESSION_S

router = APIRouter(prefix="/v1/session", include_in_schema=False)


class SignIn(Input):
    """The key of whoever signs in."""

    key: str = Field(max_length=200)


class Session(Schema):
    """Who is signed in, and what the key may do."""

    principal: str
    tenant_id: str | None = Field(description="Null: a key of the platform.")
    scopes: list[str]


@router.post("")
async def sign_in(request: Request, response: Response) -> Session:
    """Begin a session: the cookie holds the key, encrypted; no script can read it."""
    require_header(request.scope)
    services: Services = request.app.state.services
    key = _parsed(await request.json() if await read_json(request) else {}).key.strip()
    principal = await run_in_threadpool(services.authentication.holder, f"Bearer {key}")
    sealed = await run_in_threadpool(services.sessions.seal, key)
    response.set_cookie(cookie_of(request.scope), sealed, max_age=SESSION_S, **_attributes(request))
    return _shown(principal)


@router.get("")
async def get_session(request: Request) -> Session:
    """Who is signed in."""
    services: Services = request.app.state.services
    authorization = request.headers.get("authorization")
    if authorization is None and services.operator is not None:
        return _shown(services.operator)
    return _shown(await run_in_threadpool(services.authentication.holder, authorization))


@router.delete("", status_code=status.HTTP_204_NO_CONTENT)
async def sign_out(request: Request, response: Response) -> None:
    """End the session in this browser. To end all of a key, revoke the key."""
    require_header(request.scope)
    response.delete_cookie(cookie_of(request.scope), **_attributes(request))


def _parsed(body: Any) -> SignIn:
    try:
        return SignIn.model_validate(body)
    except ValidationError as error:
        found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_input=False)]
        raise RequestValidationError(found) from None  # the input may be a key


def _attributes(request: Request) -> dict[str, Any]:
    """Of the cookie. Its path is that of both planes, since predictions are tried in the console."""
    return {"path": "/", "httponly": True, "samesite": "strict", "secure": is_secure(request.scope)}


def _shown(principal: Principal) -> Session:
    scopes = Grant(principal.scopes, principal.promotes).names
    return Session(principal=principal.name, tenant_id=principal.tenant_id, scopes=scopes)
