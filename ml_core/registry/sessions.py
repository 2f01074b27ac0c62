"""Sessions of browsers: the cookie that stands for an API key.

The cookie holds the key itself, encrypted, with the time of its sealing: no table is needed, any process of the
platform can open it, and it opens nothing more than the key does. The key is checked at each request as if it had been
sent, so a session ends with its key. Whoever learns the secret can read stolen cookies, but can't make one for a key
that they do not have. The secret is derived from the key that binds transactions to tenants
(``ml_core.database.binding``), which each process has: where that is changed, all sessions end.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable

from cryptography.fernet import Fernet, InvalidToken

from ml_core.exceptions import AuthenticationError

SESSION_S = 8 * 3600
"""Seconds until a session ends: a working day."""

_PURPOSE = b"ml-core browser session 1"


class Sessions:
    """Seals keys into cookies, and opens them.

    Args:
        tenant_key: Reads the key that binds transactions to tenants, in hexadecimal digits; called at each use.
    """

    def __init__(self, tenant_key: Callable[[], str]) -> None:
        self._tenant_key = tenant_key

    def seal(self, key: str) -> str:
        """The value of a cookie for a key.

        Raises:
            ConfigurationError, RegistryUnavailableError: The secret can't be read.
        """
        return self._fernet.encrypt(key.encode()).decode()

    def open(self, sealed: str) -> str:
        """The key of a cookie. Whether the key is valid is another question.

        Raises:
            AuthenticationError: It was not sealed here, was changed, or is older than ``SESSION_S``.
            ConfigurationError, RegistryUnavailableError: The secret can't be read.
        """
        try:
            return self._fernet.decrypt(sealed.encode(), ttl=SESSION_S).decode()
        except InvalidToken:
            raise AuthenticationError("The session has ended.", remedy="Sign in again.") from None

    @property
    def _fernet(self) -> Fernet:
        secret = hmac.digest(bytes.fromhex(self._tenant_key()), _PURPOSE, "sha256")
        return Fernet(base64.urlsafe_b64encode(secret))
