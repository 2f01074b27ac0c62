"""Sessions of browsers on both planes: the cookie of the console in place of the ``Authorization`` header.

Another site can make a browser send the cookie's request, but not the header ``x-mlcore-console``: for that the browser
would ask this server first (CORS), which permits nothing. So the cookie counts for a request that may change something
only beside this header. ``SameSite=Strict`` keeps the cookie from other sites as well; the header also protects from
pages of other servers of the same site.
"""

from __future__ import annotations

import logging
from http.cookies import CookieError, SimpleCookie

import anyio.to_thread
from starlette.types import ASGIApp, Receive, Scope, Send

from ml_core.exceptions import AuthenticationError, MLFrameworkError, PermissionDeniedError
from ml_core.inference.edge.http import error_response, is_sane_request_id, new_request_id
from ml_core.registry.sessions import Sessions

COOKIE = "mlcore_session"
HEADER = "x-mlcore-console"
"""Its value does not matter: that it could be sent does."""

_SAFE = ("GET", "HEAD", "OPTIONS")

logger = logging.getLogger(__name__)


class SessionCookie:
    """ASGI middleware: adds the key of a session's cookie to a request without an ``Authorization`` header.

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
                if cookies and (sealed := session_of(b"; ".join(cookies))) is not None:
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
            # On a thread, because the secret may have to be read first.
            key = await anyio.to_thread.run_sync(self._sessions.open, sealed)
        except AuthenticationError:
            return scope
        if scope["method"] not in _SAFE:
            require_header(scope)
        return {**scope, "headers": [*scope["headers"], (b"authorization", b"Bearer " + key.encode())]}


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


def session_of(header: bytes) -> str | None:
    """The session in a ``Cookie`` header, or None."""
    try:
        found = SimpleCookie(header.decode("latin-1")).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value


async def _refuse(error: MLFrameworkError, scope: Scope, send: Send) -> None:
    sent = dict(scope["headers"]).get(b"x-request-id", b"")
    own = sent.decode() if is_sane_request_id(sent) else new_request_id()
    request_id = scope.get("state", {}).get("request_id", own)
    # The application around the control API adds the id of its request itself.
    added = None if "request_id" in scope.get("state", {}) else request_id.encode()
    await error_response(error, scope["path"], request_id).send(send, added)
