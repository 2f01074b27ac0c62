"""Sessions of browsers: the cookie that stands for an API key, or for a token of the OpenID issuer.

The cookie holds the key itself, encrypted, with the time of its sealing: no table is needed, any process of the
platform can open it, and it opens nothing more than the key does. The key is checked at each request as if it had been
sent, so a session ends with its key. Whoever learns the secret can read stolen cookies, but can't make one for a key
that they do not have. The secret is derived from the key that binds transactions to tenants
(``ml_core.database.binding``), which each process has: where that is changed, all sessions end.
"""

from __future__ import annotations

import base64
import hmac
import zlib
from collections.abc import Callable

from cryptography.fernet import Fernet, InvalidToken

from ml_core.exceptions import AuthenticationError

SESSION_S = 8 * 3600
"""Seconds until a session ends: a working day."""
MAX_COOKIE_BYTES = 4000
"""Browsers keep 4,096 bytes of a cookie, with its name."""


class Sessions:
    """Seals texts into cookies, and opens them.

    Args:
        tenant_key: Reads the key that binds transactions to tenants, in hexadecimal digits; called at each use.
        known_key: The same key if no reading is needed, else None.
        purpose: A cookie of one purpose is none of another.
        ends_after_s: How long a cookie is opened.
    """

    def __init__(
        self,
        tenant_key: Callable[[], str],
        known_key: Callable[[], str | None],
        purpose: str = "browser session 2",
        ends_after_s: int = SESSION_S,
    ) -> None:
        self._tenant_key = tenant_key
        self._known_key = known_key
        self._purpose = f"ml-core {purpose}".encode()
        self._ends_after_s = ends_after_s

    def seal(self, text: str) -> str:
        """The value of a cookie for a key, a token or another text.

        Raises:
            AuthenticationError: The text is too long for a cookie.
            ConfigurationError, RegistryUnavailableError: The secret can't be read.
        """
        # Encryption adds a third to what is compressed by a quarter: the parts of a token are base64.
        sealed = self._fernet(self._tenant_key()).encrypt(zlib.compress(text.encode())).decode()
        if len(sealed) > MAX_COOKIE_BYTES:
            raise AuthenticationError(
                f"The token of {len(text):,} bytes does not fit into a cookie, which holds about {MAX_COOKIE_BYTES:,}.",
                remedy="Let the issuer map fewer claims into it.",
            )
        return sealed

    def open(self, sealed: str) -> str:
        """The text of a cookie. Whether the key or token in it is valid is another question.

        Raises:
            AuthenticationError: It was not sealed here, was changed, or is older than ``ends_after_s``.
            ConfigurationError, RegistryUnavailableError: The secret can't be read.
        """
        return self._opened(sealed, self._tenant_key())

    def open_at_once(self, sealed: str) -> str | None:
        """As ``open``, for an event loop: never waits. None: the secret has to be read first.

        Raises:
            AuthenticationError: As ``open``.
        """
        known = self._known_key()
        return None if known is None else self._opened(sealed, known)

    def _opened(self, sealed: str, tenant_key: str) -> str:
        try:
            if len(sealed) > MAX_COOKIE_BYTES:
                raise InvalidToken
            return zlib.decompress(self._fernet(tenant_key).decrypt(sealed.encode(), ttl=self._ends_after_s)).decode()
        except InvalidToken:
            raise AuthenticationError("The session has ended.", remedy="Sign in again.") from None

    def _fernet(self, tenant_key: str) -> Fernet:
        secret = hmac.digest(bytes.fromhex(tenant_key), self._purpose, "sha256")
        return Fernet(base64.urlsafe_b64encode(secret))
