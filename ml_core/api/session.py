"""The session of a browser: signing in with a key or with OpenID Connect, and out.

It is the console's, and not in the OpenAPI document. Browsers come to the addresses of OpenID Connect as to a page, so
an error is a page there.
"""

from __future__ import annotations

import html
import time
from collections.abc import Awaitable
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool

from ml_core.api.access import Services
from ml_core.api.bodies import read_json
from ml_core.api.errors import on_error
from ml_core.api.openid import ATTEMPT_S, OpenIdSignIn
from ml_core.api.schemas.base import Input, Schema
from ml_core.domain.api_key import Grant
from ml_core.domain.principal import Principal
from ml_core.exceptions import InvalidRequestError, MLFrameworkError, PermissionDeniedError
from ml_core.inference.edge.session import COOKIE, cookie_of, is_secure, require_header
from ml_core.registry.sessions import SESSION_S

router = APIRouter(prefix="/v1/session", include_in_schema=False)

ATTEMPT_COOKIE = "mlcore_openid"
PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types html",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
"""Of each page: everything comes from this server, nothing is inline, and only ``html.js`` may write HTML (Trusted
Types)."""
# A code may be in the address, and a session in the answer.
_PRIVATE = {**PAGE_HEADERS, "cache-control": "no-store"}
_REFUSAL = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Not signed in &ndash; ML Core</title>
<link rel="icon" href="{console}icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{console}style.css">
</head>
<body>
<main>
<section class="sign-in">
<h1>Not signed in</h1>
<div class="problem" role="alert">
<p>{message}</p>
<p class="quiet">Request {request_id}</p>
</div>
<p><a href="{console}">Back to the console</a></p>
</section>
</main>
</body>
</html>
"""


class SignIn(Input):
    """The key of whoever signs in."""

    key: str = Field(max_length=200)


class Session(Schema):
    """Who is signed in, and what the key or token may do."""

    principal: str
    tenants: list[str] | None = Field(description="Those that it may act in; null: all, and the platform.")
    scopes: list[str]


class Methods(Schema):
    """How one can sign in, besides by a key."""

    openid: bool


@router.get("/methods")
async def get_methods(request: Request) -> Methods:
    """How one can sign in."""
    return Methods(openid=request.app.state.services.openid is not None)


@router.post("")
async def sign_in(request: Request, response: Response) -> Session:
    """Begin a session: the cookie holds the key, encrypted; no script can read it."""
    require_header(request.scope)
    services: Services = request.app.state.services
    key = _parsed(await request.json() if await read_json(request) else {}).key.strip()
    principals = await run_in_threadpool(services.authentication.principals, f"Bearer {key}")
    await _begin_session(request, response, key, SESSION_S)
    return _shown(principals)


@router.get("")
async def get_session(request: Request) -> Session:
    """Who is signed in."""
    services: Services = request.app.state.services
    authorization = request.headers.get("authorization")
    if authorization is None and services.operator is not None:
        return _shown([services.operator])
    return _shown(await run_in_threadpool(services.authentication.principals, authorization))


@router.delete("", status_code=status.HTTP_204_NO_CONTENT)
async def sign_out(request: Request, response: Response) -> None:
    """End the session in this browser. To end all of a key, revoke the key."""
    require_header(request.scope)
    response.delete_cookie(cookie_of(request.scope), **_attributes(request, "strict"))


@router.get("/openid")
async def go_to_issuer(request: Request, address: str = "") -> Response:
    """Send a browser to the OpenID issuer to sign in; ``address`` of the console is shown afterwards."""
    return await _or_page(request, _to_issuer(request, address))


@router.get("/openid/callback")
async def come_from_issuer(request: Request) -> Response:
    """Where the issuer sends the browser back to: begins a session."""
    response = await _or_page(request, _from_issuer(request))
    # An attempt is over, however it ended, unless it has to wait for its turn: its code was not used.
    if response.status_code != status.HTTP_429_TOO_MANY_REQUESTS:
        response.delete_cookie(cookie_of(request.scope, ATTEMPT_COOKIE), **_attributes(request, "lax"))
    return response


async def _to_issuer(request: Request, address: str) -> Response:
    # Else another site could sign somebody in as somebody else: the issuer need not ask who has been there before.
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise PermissionDeniedError("Another site began to sign you in.", remedy="Sign in from the console.")
    location, sealed = await _openid(request).begin(_redirect_uri(request), address)
    response = RedirectResponse(location, status.HTTP_303_SEE_OTHER, _PRIVATE)
    # A browser comes back by a link of another site, with which it sends no cookie that is strict. Lax ones it sends
    # only where the link replaces the page.
    name = cookie_of(request.scope, ATTEMPT_COOKIE)
    response.set_cookie(name, sealed, max_age=ATTEMPT_S, **_attributes(request, "lax"))
    return response


async def _from_issuer(request: Request) -> Response:
    services: Services = request.app.state.services
    sealed = request.cookies.get(cookie_of(request.scope, ATTEMPT_COOKIE))
    found = await _openid(request).finish(sealed, request.query_params, _redirect_uri(request))
    await run_in_threadpool(services.authentication.principals, f"Bearer {found.token}")
    # All behind the # is the console's, whatever it is: it leads to no other page. The response encodes it.
    place = f"{_console(request)}#/{found.address.lstrip('#/')}"
    response = RedirectResponse(place, status.HTTP_303_SEE_OTHER, _PRIVATE)
    await _begin_session(request, response, found.token, min(SESSION_S, int(found.expires_at - time.time())))
    return response


async def _or_page(request: Request, answer: Awaitable[Response]) -> Response:
    """An answer, or the error in its place as a page."""
    try:
        return await answer
    except MLFrameworkError as error:
        refused = on_error(request, error)
        said = orjson.loads(refused.body)["error"]
        shown = {"message": said["message"], "request_id": said["request_id"], "console": _console(request)}
        page = _REFUSAL.format_map({name: html.escape(text) for name, text in shown.items()})
        after = {name: value for name, value in refused.headers.items() if name == "retry-after"}
        return HTMLResponse(page, refused.status_code, {**_PRIVATE, **after})


def _openid(request: Request) -> OpenIdSignIn:
    openid: OpenIdSignIn | None = request.app.state.services.openid
    if openid is None:
        raise InvalidRequestError(
            "This platform has no sign-in with OpenID Connect.",
            remedy="Sign in with an API key, or let the operator set MLCORE_OIDC_CLIENT_ID.",
        )
    return openid


def _redirect_uri(request: Request) -> str:
    """The callback's address, as the browser knows it. One that is not registered at the issuer is refused there."""
    base = request.base_url.replace(scheme="https" if is_secure(request.scope) else "http")
    return f"{base}v1/session/openid/callback"


def _console(request: Request) -> str:
    return f"{request.scope.get('root_path', '')}/console/"


async def _begin_session(request: Request, response: Response, text: str, lasts_s: int) -> None:
    """Give a browser the cookie with a key or token."""
    sealed = await run_in_threadpool(request.app.state.services.sessions.seal, text)
    response.set_cookie(cookie_of(request.scope, COOKIE), sealed, max_age=lasts_s, **_attributes(request, "strict"))


def _parsed(body: Any) -> SignIn:
    try:
        return SignIn.model_validate(body)
    except ValidationError as error:
        found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors(include_input=False)]
        raise RequestValidationError(found) from None  # the input may be a key


def _attributes(request: Request, same_site: str) -> dict[str, Any]:
    """Of a cookie. Its path is that of both planes, since predictions are tried in the console."""
    return {"path": "/", "httponly": True, "samesite": same_site, "secure": is_secure(request.scope)}


def _shown(principals: list[Principal]) -> Session:
    one = principals[0]
    tenants = None if one.tenant_id is None else [str(each.tenant_id) for each in principals]
    return Session(principal=one.name, tenants=tenants, scopes=Grant(one.scopes, one.promotes).names)
