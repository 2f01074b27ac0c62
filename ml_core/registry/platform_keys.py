"""API keys of the platform: for operators, who act over all tenants, without the login of the database.

They have the form of tenants' keys and are stored like them, but in rows that belong to no tenant. Only a process that
has the registry's tenant key reads or writes those (``ml_core.database.binding``).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import Insert, insert

from ml_core.database.tables import platform_keys
from ml_core.domain.api_key import ApiKey, Grant, Scope, hash_secret
from ml_core.domain.principal import Principal
from ml_core.exceptions import Action, AuthenticationError, InvalidRequestError, KeyNotFoundError
from ml_core.registry.keys import KEY_ID, KeyInfo, check_key_name, key_info
from ml_core.registry.pages import Page, read_page
from ml_core.registry.records import OfPlatform

_SCOPES = frozenset({Scope.ADMIN, Scope.READ})
_OF = platform_keys.c
_INFO = (_OF.key_id, _OF.name, _OF.scopes, _OF.created_at, _OF.revoked_at)


class PlatformKeyRepository(OfPlatform):
    """The keys of the platform."""

    def create(self, name: str, scopes: Iterable[Scope | str]) -> ApiKey:
        """Create a key. The returned value is the only time that its secret is seen.

        Args:
            name: For people: who or what holds the key; 1 to 100 characters.
            scopes: ``admin``, which may change everything, or ``read``, which may change nothing.

        Raises:
            InvalidRequestError: There is no scope, or another one, or the name is empty or too long.
            PermissionDeniedError: The principal lacks the scope ``admin``.
        """
        self._db.principal.require(Scope.ADMIN)
        granted = Grant.parse(scopes)
        if granted.promotes or not granted.scopes <= _SCOPES:
            raise InvalidRequestError(
                "A key of the platform has the scope admin or read.",
                remedy="Create a key of a tenant for any other scope.",
                action=Action.of("keys.create"),
                field="scopes",
            )
        key = ApiKey.generate()
        with self._db.platform() as connection:
            connection.execute(self._insert(key, name, granted))
        return key

    def register(self, text: str, name: str) -> KeyInfo:
        """Store a key that was generated elsewhere, with the scope ``admin``. Doing so again changes nothing.

        Args:
            text: The whole key, ``mlk_<key id>_<secret>``.
            name: As for ``create``.

        Returns:
            The key as listed. A revoked one stays revoked.

        Raises:
            InvalidRequestError: It is malformed or can be guessed, another key has its id, or the name is empty or too
                long. No message repeats its secret.
            PermissionDeniedError: The principal lacks the scope ``admin``.
        """
        self._db.principal.require(Scope.ADMIN)
        key = ApiKey.adopt(text)
        new = self._insert(key, name, Grant(frozenset({Scope.ADMIN}))).on_conflict_do_nothing()
        with self._db.platform() as connection:
            connection.execute(new)
            row = connection.execute(sa.select(platform_keys).where(_OF.key_id == key.key_id)).one()
        if not hmac.compare_digest(row.hash, hash_secret(row.salt, key.secret)):
            raise InvalidRequestError(
                f"Another key of the platform has the id {key.key_id}.", remedy="Generate another key.", field="key"
            )
        return key_info(row)

    def _insert(self, key: ApiKey, name: str, granted: Grant) -> Insert:
        check_key_name(name)
        salt = secrets.token_bytes(16)
        row = {"key_id": key.key_id, "salt": salt, "hash": hash_secret(salt, key.secret), "scopes": granted.names}
        return insert(platform_keys).values(**row, name=name, created_by=self._db.principal.name)

    def list(self, *, limit: int = 100, cursor: str | None = None) -> Page[KeyInfo]:
        """A page of the keys, oldest first, revoked ones too."""
        order = (_OF.created_at, _OF.key_id)
        with self._db.platform() as connection:
            return read_page(connection, sa.select(*_INFO), order, limit=limit, cursor=cursor).map(key_info)

    def revoke(self, key_id: str) -> KeyInfo:
        """Revoke a key; its next request is refused. Revoking it again changes nothing.

        Args:
            key_id: The key's id. A whole key revokes too; its secret is neither read nor repeated.

        Raises:
            InvalidRequestError: The text is not a key id.
            KeyNotFoundError: The platform has no such key. Neither message repeats anything of it.
            PermissionDeniedError: The principal lacks the scope ``admin``.
        """
        self._db.principal.require(Scope.ADMIN)
        named = KEY_ID.fullmatch(key_id.strip())
        mine = _OF.key_id == (named and named.group(1))
        revoke = platform_keys.update().where(mine, _OF.revoked_at.is_(None))
        with self._db.platform() as connection:
            connection.execute(revoke.values(revoked_at=sa.func.now(), revoked_by=self._db.principal.name))
            row = connection.execute(sa.select(*_INFO).where(mine)).one_or_none()
        if row is None:
            missing = KeyNotFoundError if named else InvalidRequestError
            raise missing(
                "The platform has no such key.",
                remedy="A key's id is the 16 digits after mlk_: list the keys.",
                action=Action.of("platform_keys.list"),
                field="key_id",
            )
        return key_info(row)

    def authenticate(self, text: str) -> Principal:
        """Who holds a key of the platform, and what it may do.

        Args:
            text: The whole key, ``mlk_<key id>_<secret>``.

        Raises:
            AuthenticationError: It is malformed, unknown, wrong or revoked; the error does not say which.
        """
        key = ApiKey.parse(text)
        valid = sa.select(platform_keys).where(_OF.key_id == key.key_id, _OF.revoked_at.is_(None))
        with self._db.platform() as connection:
            row = connection.execute(valid).one_or_none()
        if row is None or not hmac.compare_digest(row.hash, hash_secret(row.salt, key.secret)):
            raise AuthenticationError("The API key is not valid.", remedy="Use a key that is not revoked.")
        return Principal(f"platform-key:{row.key_id}", Grant.read(row.scopes).scopes)
