"""API keys of a tenant: made here, shown once, stored as a salted hash, revoked for good."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import api_keys, tenants
from ml_core.domain.api_key import ApiKey, Grant, Scope, hash_secret
from ml_core.domain.principal import Principal
from ml_core.exceptions import AuthenticationError, InvalidRequestError
from ml_core.ids import TenantId
from ml_core.registry import journal
from ml_core.registry.clock import advance_feed
from ml_core.registry.promotion.environment_names import check_environment

if TYPE_CHECKING:
    from ml_core.registry.versions.rows import AnyRow

_MAX_NAME_LENGTH = 100
KEY_ID = re.compile(r"(?:mlk_)?([0-9a-f]{16})(?:_.*)?", re.DOTALL)
"""A key's id, also in front of its secret."""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key as listed: everything but what would let somebody use it. Times are UTC."""

    key_id: str
    name: str
    scopes: frozenset[str]
    created_at: datetime
    revoked_at: datetime | None


class KeyRepository:
    """The keys of one tenant."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._db = db
        self._tenant_id = tenant_id

    def create(self, name: str, scopes: Iterable[Scope | str]) -> ApiKey:
        """Make a key. The returned value is the only time that its secret is seen.

        Args:
            name: For people: who or what holds the key; 1 to 100 characters.
            scopes: What it may do; at least one. ``promote:production`` lets it move this one environment, also if it
                is protected.

        Raises:
            InvalidRequestError: A scope or its environment is unknown, there is no scope, or the name is empty or too
                long.
            TenantNotFoundError: There is no such tenant.
        """
        granted = Grant.parse(scopes)
        for environment in sorted(granted.promotes):
            check_environment(self._db, self._tenant_id, environment)
        if not name.strip() or len(name) > _MAX_NAME_LENGTH:
            raise InvalidRequestError(
                f"A key's name has 1 to {_MAX_NAME_LENGTH} characters.",
                remedy="Say who will hold the key.",
                field="name",
            )
        key = ApiKey.generate()
        record = key.record(self._tenant_id, granted.scopes)
        row = sa.select(
            tenants.c.tenant_id,
            sa.literal(record.key_id),
            sa.literal(record.salt),
            sa.literal(record.hash),
            sa.literal(granted.names, sa.ARRAY(sa.Text)),
            sa.literal(name),
            advance_feed(tenants.c.cell),
        ).where(tenants.c.tenant_id == self._tenant_id)
        columns = ("tenant_id", "key_id", "salt", "hash", "scopes", "name", "feed_generation")
        what = {"name": name, "scopes": granted.names}
        with journal.writing(self._db, self._tenant_id) as connection:
            journal.record(connection, self._tenant_id, "key.created", {"key_id": record.key_id}, what)
            connection.execute(api_keys.insert().from_select(columns, row))  # last: it locks the feed's clock
        return key

    def list(self) -> Sequence[KeyInfo]:
        """All keys, oldest first, revoked ones too."""
        statement = sa.select(*_INFO).where(self._mine).order_by(api_keys.c.created_at, api_keys.c.key_id)
        with self._db.tenant(self._tenant_id) as connection:
            return [_info(row) for row in connection.execute(statement)]

    def revoke(self, key_id: str) -> KeyInfo:
        """End a key: replicas refuse it about a second later. Revoking it again changes nothing.

        Args:
            key_id: The key's id. A whole key revokes too; its secret is neither read nor repeated.

        Raises:
            InvalidRequestError: The tenant has no such key. The message repeats only an id.
        """
        named = KEY_ID.fullmatch(key_id.strip())
        if named is None:
            raise InvalidRequestError(
                "That is not a key id.",
                remedy="A key id is the 16 digits after mlk_: mlcore keys list "
                f"--tenant {self._tenant_id!s} shows those that there are.",
                tenant_id=self._tenant_id,
                field="key_id",
            )
        key_id = named.group(1)
        mine = sa.and_(self._mine, api_keys.c.key_id == key_id)
        cell = sa.select(tenants.c.cell).where(tenants.c.tenant_id == self._tenant_id).scalar_subquery()
        revoke = (
            api_keys.update()
            .where(mine, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=sa.func.now(), feed_generation=advance_feed(cell))
            .returning(*_INFO)
        )
        with journal.writing(self._db, self._tenant_id) as connection:
            row = connection.execute(sa.select(*_INFO).where(mine).with_for_update()).one_or_none()
            if row is not None and row.revoked_at is None:
                journal.record(connection, self._tenant_id, "key.revoked", {"key_id": key_id})
                row = connection.execute(revoke).one()  # last: it locks the feed's clock
        if row is None:
            raise InvalidRequestError(
                f"The tenant {self._tenant_id!s} has no key {key_id}.",
                remedy=f"List its keys for their ids: mlcore keys list --tenant {self._tenant_id!s}",
                tenant_id=self._tenant_id,
                field="key_id",
            )
        return _info(row)

    def authenticate(self, text: str) -> Principal:
        """Who holds a key of the tenant, and what it may do.

        Args:
            text: The whole key, ``mlk_<key id>_<secret>``.

        Raises:
            AuthenticationError: It is malformed, unknown to the tenant, wrong or revoked, or its tenant was deleted;
                the error does not say which.
        """
        key = ApiKey.parse(text)
        living = sa.exists().where(tenants.c.tenant_id == api_keys.c.tenant_id, tenants.c.deleted_at.is_(None))
        is_valid = sa.and_(api_keys.c.revoked_at.is_(None), living)
        stored = sa.select(api_keys).where(self._mine, api_keys.c.key_id == key.key_id, is_valid)
        with self._db.tenant(self._tenant_id) as connection:
            row = connection.execute(stored).one_or_none()
        granted = None if row is None else Grant.read(row.scopes)
        if row is None or granted is None or not hmac.compare_digest(row.hash, hash_secret(row.salt, key.secret)):
            raise AuthenticationError(
                "The API key is not valid.", remedy="Use a key of this tenant that is not revoked."
            )
        return Principal(f"key:{row.key_id}", granted.scopes, granted.promotes, self._tenant_id)

    @property
    def _mine(self) -> sa.ColumnElement[bool]:
        return api_keys.c.tenant_id == self._tenant_id


_INFO = (api_keys.c.key_id, api_keys.c.name, api_keys.c.scopes, api_keys.c.created_at, api_keys.c.revoked_at)


def _info(row: AnyRow) -> KeyInfo:
    return KeyInfo(row.key_id, row.name, frozenset(Grant.read(row.scopes).names), row.created_at, row.revoked_at)


def known_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """The scopes of a key that this release knows; one that a later release gave it allows nothing here."""
    return Grant.read(names).scopes
