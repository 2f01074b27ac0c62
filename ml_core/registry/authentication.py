"""Who sends a request to the control API: the holder of a key of a tenant or of the platform, or of an OIDC token.

The prediction plane decides in the same way from its assignment (``ml_core.inference.service``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import tenants
from ml_core.domain.api_key import ApiKey, bearer_token
from ml_core.domain.principal import Principal, refuse_tenant
from ml_core.exceptions import AuthenticationError
from ml_core.registry.feed import KeyWatch
from ml_core.registry.keys import holder
from ml_core.registry.oidc import TokenVerifier
from ml_core.registry.platform_keys import PlatformKeyRepository

REMEMBERED_S = 1.0
"""Longest time in seconds for which a key is accepted after its revocation; about that of the prediction plane."""
_REMEMBERED_KEYS = 10_000
"""As many as the prediction plane remembers. Further keys are looked up at each request."""


class Authentication:
    """Reads who sends a request from its ``Authorization`` header.

    It needs the login of the serving plane, since whose a key is shows only when it is found.

    Args:
        db: The platform's own connection; ``acting_as`` the principal that was found, it does the request's work.
        tokens: Verifies tokens of the OpenID issuer; None: none is accepted.
        clock: Monotonic, in seconds.
    """

    def __init__(
        self,
        db: DatabaseConnection,
        tokens: TokenVerifier | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._tokens = tokens
        self._clock = clock
        self._keys = KeyWatch()
        self._checking = threading.Lock()
        self._valid_until = clock()
        self._holders: dict[str, Principal] = {}

    def remembered(self, tenant_id: str | None, authorization: str | bytes | None) -> Principal | None:
        """The holder of a tenant's key that was authenticated before, entered into the tenant of the URL. Never waits.

        Args:
            tenant_id: As for ``authenticate``.
            authorization: As for ``authenticate``.

        Returns:
            None: ask ``authenticate``.

        Raises:
            AuthenticationError, TenantNotFoundError, PermissionDeniedError: As ``authenticate``.
        """
        if self._clock() >= self._valid_until:
            return None
        principal = self._holders.get(bearer_token(authorization))
        if principal is not None:
            principal.enter(tenant_id)
        return principal

    def authenticate(self, tenant_id: str | None, authorization: str | bytes | None) -> Principal:
        """Who sends a request, entered into the tenant of its URL. The registry is asked, whatever is remembered.

        A key of a tenant on a tenant's URL costs one statement, and so does a token of some tenants; an unknown key, or
        a key of the platform there, costs two. It may wait ``FETCH_WITHIN_S`` for the issuer's keys, so an event loop
        calls it on a thread.

        Args:
            tenant_id: The tenant in the URL; None: the request is about what is over all tenants.
            authorization: The header.

        Raises:
            AuthenticationError: There is no header, or its key or token is malformed, unknown, wrong, revoked or
                expired, or of a tenant that was deleted.
            TenantNotFoundError: The key or token is valid, and for another tenant. Whether there is a tenant of this
                name is not said.
            PermissionDeniedError: The key or token is for one tenant, and ``tenant_id`` is None.
            IssuerUnavailableError: The issuer's keys can't be read.
        """
        text = bearer_token(authorization)
        if self._tokens is not None and is_token(text):
            principal = self._tokens.verify(text).principal(tenant_id)
            if principal.tenant_id is not None:
                self._require_tenant(principal.name, principal.tenant_id)
            return principal
        principal = self._holder(text, is_platforms=tenant_id is None)
        principal.enter(tenant_id)
        return principal

    def principals(self, authorization: str | bytes | None) -> list[Principal]:
        """Who holds a key or token, wherever it may act: once for each tenant, or once for the whole platform.

        The registry is asked.

        Args:
            authorization: The header.

        Raises:
            AuthenticationError: There is no header, or its key or token is malformed, unknown, wrong, revoked or
                expired, or of no tenant that exists.
            IssuerUnavailableError: The issuer's keys can't be read.
        """
        text = bearer_token(authorization)
        if self._tokens is None or not is_token(text):
            return [self._holder(text, is_platforms=False)]
        identity = self._tokens.verify(text)
        if identity.is_platform_wide:
            return [identity.principal(None)]
        exist = sa.select(tenants.c.tenant_id).where(
            tenants.c.tenant_id.in_(sorted(identity.tenants)), tenants.c.deleted_at.is_(None)
        )
        with self._db.serving() as connection:
            found = connection.scalars(exist.order_by(tenants.c.tenant_id)).all()
        if not found:
            raise AuthenticationError(
                f"The issuer's token for {identity.name.removeprefix('oidc:')} names no tenant of this platform.",
                remedy=f"Let the issuer put the tenant into the claim {self._tokens.settings.tenant_claim}.",
            )
        return [identity.principal(tenant_id) for tenant_id in found]

    def _holder(self, text: str, *, is_platforms: bool) -> Principal:
        """Who holds a key; where it probably is one of the platform, these are looked up first."""
        # Keys of tenants and of the platform have one form.
        first, second = self._of_tenant, PlatformKeyRepository(self._db).authenticate
        if is_platforms:
            first, second = second, first
        try:
            return first(text)
        except AuthenticationError:
            return second(text)

    def _of_tenant(self, text: str) -> Principal:
        key = ApiKey.parse(text)
        self._forget_if_changed()
        holders = self._holders  # before the key is read: a change that the read misses replaces this dictionary
        with self._db.serving() as connection:
            principal = holder(connection, key)
        if len(holders) < _REMEMBERED_KEYS:
            holders[text] = principal
        return principal

    def _forget_if_changed(self) -> None:
        """Forget all holders if any key or tenant has changed, and extend the time for which they are remembered."""
        now = self._clock()
        # Where another thread checks, nobody waits for it: the registry may hang.
        if now < self._valid_until or not self._checking.acquire(blocking=False):
            return
        try:
            with self._db.serving() as connection:
                if self._keys.has_changed(connection):
                    self._holders = {}
            self._valid_until = now + REMEMBERED_S
        finally:
            self._checking.release()

    def _require_tenant(self, name: str, tenant_id: str) -> None:
        """Refuse a token's tenant that does not exist: the issuer does not know which do."""
        exists = sa.exists().where(tenants.c.tenant_id == tenant_id, tenants.c.deleted_at.is_(None))
        with self._db.serving() as connection:
            if not connection.scalar(sa.select(exists)):
                refuse_tenant(name, tenant_id)


def is_token(text: str) -> bool:
    """Whether a bearer's text is meant as a JWT: three parts with dots between them, and no key has a dot."""
    return text.count(".") == 2
