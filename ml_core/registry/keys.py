"""API keys of a tenant: made here, shown once, stored as a salted hash, revoked for good."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ml_core.database.tables import api_keys, tenants
from ml_core.domain.api_key import ApiKey, Grant, KeyRecord, Scope
from ml_core.domain.principal import Principal
from ml_core.exceptions import Action, AuthenticationError, InvalidRequestError, KeyNotFoundError
from ml_core.ids import TenantId
from ml_core.registry import journal
from ml_core.registry.journal import advance_feed
from ml_core.registry.pages import Page, read_page
from ml_core.registry.promotion.rules import check_environment
from ml_core.registry.records import OfTenant, value_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from ml_core.registry.pages import AnyRow

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


class KeyRepository(OfTenant):
    """The keys of one tenant."""

    def create(self, name: str, scopes: Iterable[Scope | str]) -> ApiKey:
        """Make a key. The returned value is the only time that its secret is seen.

        Args:
            name: For people: who or what holds the key; 1 to 100 characters.
            scopes: What it may do; at least one. ``promote:production`` lets it move this one environment, also if it
                is protected.

        Raises:
            InvalidRequestError: A scope or its environment is unknown, there is no scope, or the name is empty or too
                long.
        """
        granted = Grant.parse(scopes)
        for environment in sorted(granted.promotes):
            check_environment(self._db, self._tenant_id, environment)
        check_key_name(name)
        key = ApiKey.generate()
        record = key.record(self._tenant_id, granted.scopes)
        what = {"name": name, "scopes": granted.names}
        row = {"tenant_id": self._tenant_id, "key_id": record.key_id, "salt": record.salt, "hash": record.hash, **what}
        with journal.writing(self._db, self._tenant_id) as connection:
            journal.record(connection, self._tenant_id, "key.created", {"key_id": record.key_id}, what)
            made = api_keys.insert().values(**row, feed_generation=advance_feed())
            connection.execute(made)  # last: it locks the feed's clock
        return key

    def list(self, *, limit: int = 100, cursor: str | None = None) -> Page[KeyInfo]:
        """A page of the keys, oldest first, including revoked ones."""
        statement = sa.select(*_INFO).where(self._mine)
        order = (api_keys.c.created_at, api_keys.c.key_id)
        with self._db.tenant(self._tenant_id) as connection:
            return read_page(connection, statement, order, limit=limit, cursor=cursor).map(key_info)

    def get(self, key_id: str) -> KeyInfo:
        """A key by its id; a revoked one, too.

        Raises:
            InvalidRequestError: The text is no key id.
            KeyNotFoundError: The tenant has no such key.
        """
        key_id = self._parse(key_id)
        with self._db.tenant(self._tenant_id) as connection:
            row = connection.execute(sa.select(*_INFO).where(self._mine, api_keys.c.key_id == key_id)).one_or_none()
        return self._found(row, key_id)

    def revoke(self, key_id: str) -> KeyInfo:
        """End a key: replicas refuse it about a second later. Revoking it again changes nothing.

        Args:
            key_id: The key's id. A whole key is accepted as well; its secret is neither read nor repeated.

        Raises:
            InvalidRequestError: The text is no key id.
            KeyNotFoundError: The tenant has no such key. The message repeats only an id.
        """
        key_id = self._parse(key_id)
        mine = sa.and_(self._mine, api_keys.c.key_id == key_id)
        revoke = (
            api_keys.update()
            .where(mine, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=sa.func.now(), feed_generation=advance_feed())
            .returning(*_INFO)
        )
        with journal.writing(self._db, self._tenant_id) as connection:
            row = connection.execute(sa.select(*_INFO).where(mine).with_for_update()).one_or_none()
            if row is not None and row.revoked_at is None:
                journal.record(connection, self._tenant_id, "key.revoked", {"key_id": key_id})
                row = connection.execute(revoke).one()  # last: it locks the feed's clock
        return self._found(row, key_id)

    def authenticate(self, text: str) -> Principal:
        """Who holds a key of the tenant, and what it may do.

        Args:
            text: The whole key, ``mlk_<key id>_<secret>``.

        Raises:
            AuthenticationError: It is malformed, unknown to the tenant, wrong or revoked, or its tenant was deleted;
                the error does not say which.
        """
        key = ApiKey.parse(text)
        with self._db.tenant(self._tenant_id) as connection:
            return holder(connection, key, self._mine)

    @property
    def _mine(self) -> sa.ColumnElement[bool]:
        return api_keys.c.tenant_id == self._tenant_id

    def _parse(self, key_id: str) -> str:
        named = KEY_ID.fullmatch(key_id.strip())
        if named is None:
            raise InvalidRequestError(
                "The text is not a key id.",  # which may be a secret, so it is not repeated
                remedy="A key id is the 16 digits after mlk_. List the tenant's keys for their ids.",
                action=Action.of("keys.list", tenant=self._tenant_id),
                tenant_id=self._tenant_id,
                field="key_id",
            )
        return named.group(1)

    def _found(self, row: AnyRow | None, key_id: str) -> KeyInfo:
        if row is None:
            raise KeyNotFoundError(
                f"The tenant {self._tenant_id!s} has no key {key_id}.",
                remedy="List its keys for their ids.",
                action=Action.of("keys.list", tenant=self._tenant_id),
                tenant_id=self._tenant_id,
                field="key_id",
            )
        return key_info(row)


def holder(connection: Connection, key: ApiKey, *conditions: sa.ColumnElement[bool]) -> Principal:
    """Who holds a key that is stored, not revoked, and of a tenant that was not deleted.

    Args:
        connection: In a transaction that may read the keys.
        key: As it was sent.
        conditions: What else its row must fulfil.

    Raises:
        AuthenticationError: There is no such key; the error does not say why.
    """
    found = connection.execute(_HOLDER.where(*conditions), {"key": key.key_id})
    for row in found:  # an id is unique in its tenant only
        grant = Grant.read(row.scopes)
        record = KeyRecord(row.key_id, TenantId(row.tenant_id), row.salt, row.hash, grant.scopes)
        if record.matches(key.secret):
            return Principal(f"key:{record.key_id}", grant.scopes, grant.promotes, record.tenant_id)
    raise AuthenticationError("The API key is not valid.", remedy="Use a key that is not revoked.")


# Made once: each request of the control API executes it.
_HOLDER = (
    sa.select(*(api_keys.c[name] for name in ("tenant_id", "key_id", "salt", "hash", "scopes")))
    .join(tenants, tenants.c.tenant_id == api_keys.c.tenant_id)
    .where(api_keys.c.key_id == sa.bindparam("key"), api_keys.c.revoked_at.is_(None), tenants.c.deleted_at.is_(None))
)
_INFO = (api_keys.c.key_id, api_keys.c.name, api_keys.c.scopes, api_keys.c.created_at, api_keys.c.revoked_at)


def key_info(row: AnyRow) -> KeyInfo:
    """A key as listed, from its row; scopes of a later release are left out."""
    return value_of(KeyInfo, row, scopes=frozenset(Grant.read(row.scopes).names))


def check_key_name(name: str) -> None:
    """Refuse a key's name.

    Raises:
        InvalidRequestError: It is empty or too long.
    """
    if not name.strip() or len(name) > _MAX_NAME_LENGTH:
        raise InvalidRequestError(
            f"A key's name has 1 to {_MAX_NAME_LENGTH} characters.",
            remedy="Name the person or program that will hold the key.",
            field="name",
        )
