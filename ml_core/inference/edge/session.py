"""Sessions of browsers on both planes: the cookie of the console in place of the ``Authorization`` header.

Another site can make a browser send the cookie's request, but not the header ``x-mlcore-console``: for that the browser
would ask this server first (CORS), which permits nothing. So the cookie counts for a request that may change something
only beside this header. ``SameSite=Strict`` keeps the cookie from other sites as well; the header also protects from
pages of other servers of the same site.
"""

from __future__ import annotations

import logging

import anyio.to_thread
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ml_core.exceptions import AuthenticationError, MLFrameworkError, PermissionDeniedError
from ml_core.inference.edge.http import error_response, is_sane_request_id, new_request_id
from ml_core.registry.sessions import Sessions

COOKIE = "mlcore_session"
HEADER = "x-mlcore-console"
"""Its value does not matter: that it could be sent does."""

_SAFE = ("GET", "HEAD", "OPTIONS")

logger = logging.getLogger(__name__)


class SessionCookie:
    """ASGI middleware: adds the key or token of a session's cookie to a request without an ``Authorization`` header.

    A cookie that can't be opened is ignored, so that the request is answered as one without a key. A request with the
    header costs the look at the names of its headers.

    Args:
        app: The application.
        sessions: Opens cookies.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        self._app = app
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http":
            cookies = []
            for name, value in scope["headers"]:
                if name == b"authorization":
                    break
                if name == b"cookie":
                    cookies.append(value)
            else:
                if cookies and (sealed := session_of(b"; ".join(cookies), cookie_of(scope))) is not None:
                    send = _kept_nowhere(send)
                    try:
                        scope = await self._authorized(scope, sealed)
                    except MLFrameworkError as error:
                        await _refuse(error, scope, send)
                        return
        await self._app(scope, receive, send)

    async def _authorized(self, scope: Scope, sealed: str) -> Scope:
        """The scope with the key of a session.

        Raises:
            PermissionDeniedError: The request may change something and lacks the header.
            ConfigurationError, RegistryUnavailableError: The secret of the sessions can't be read.
        """
        try:
            key = self._sessions.open_at_once(sealed)
            if key is None:  # once in a process: the secret of the sessions is read
                key = await anyio.to_thread.run_sync(self._sessions.open, sealed)
        except AuthenticationError:
            return scope
        if scope["method"] not in _SAFE:
            require_header(scope)
        return {
            **scope,
            "mlcore.session": sealed,
            "headers": [*scope["headers"], (b"authorization", b"Bearer " + key.encode())],
        }


def require_header(scope: Scope) -> None:
    """Refuse a request that another site may have made a browser send.

    Raises:
        PermissionDeniedError: It lacks the header.
    """
    if not any(name == HEADER.encode() for name, _ in scope["headers"]):
        raise PermissionDeniedError(
            f"A request with a session's cookie that may change something needs the header {HEADER}.",
            remedy=f"Send the header {HEADER}: 1, or an API key in the header Authorization.",
        )


def is_secure(scope: Scope) -> bool:
    """Whether a request came by https, maybe to what ends TLS in front of the platform, which says so."""
    forwarded = dict(scope["headers"]).get(b"x-forwarded-proto", b"").partition(b",")[0].strip().lower()
    return "https" in (scope["scheme"], forwarded.decode("latin-1"))


def cookie_of(scope: Scope, name: str = COOKIE) -> str:
    """The name of a cookie. By https it is one that no other server of the domain can set."""
    return f"__Host-{name}" if is_secure(scope) else name


def session_of(header: bytes, name: str = COOKIE) -> str | None:
    """The session in a ``Cookie`` header, or None.

    Cookies of other programs of the host are beside it, in any form: ``http.cookies`` would refuse the whole header.
    """
    for cookie in header.decode("latin-1").split(";"):
        found, _, value = cookie.strip().partition("=")
        if found == name:
            return value.strip('"')
    return None


def _kept_nowhere(send: Send) -> Send:
    """What is answered to a session belongs in no cache, which knows of no cookie, and is what its type says."""

    async def send_private(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("cache-control", "no-store")
            headers.setdefault("x-content-type-options", "nosniff")
        await send(message)

    return send_private


async def _refuse(error: MLFrameworkError, scope: Scope, send: Send) -> None:
    sent = dict(scope["headers"]).get(b"x-request-id", b"")
    own = sent.decode() if is_sane_request_id(sent) else new_request_id()
    request_id = scope.get("state", {}).get("request_id", own)
    # The application around the control API adds the id of its request itself.
    added = None if "request_id" in scope.get("state", {}) else request_id.encode()
    await error_response(error, scope["path"], request_id).send(send, added)
