"""API keys of a tenant: made here, shown once, stored as a salted hash, revoked for good."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import api_keys, tenants
from ml_core.domain.api_key import ApiKey, Scope
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import TenantId
from ml_core.registry import journal
from ml_core.registry.clock import advance_feed
from ml_core.registry.tenants import tenant_not_found

if TYPE_CHECKING:
    from ml_core.registry.rows import AnyRow

_MAX_NAME_LENGTH = 100


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key as listed: everything but what would let somebody use it. Times are UTC."""

    key_id: str
    name: str
    scopes: frozenset[Scope]
    created_at: datetime
    revoked_at: datetime | None


class KeyRepository:
    """The keys of one tenant."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self._db = db
        self._tenant_id = tenant_id

    def create(self, name: str, scopes: Iterable[Scope]) -> ApiKey:
        """Make a key. The returned value is the only time that its secret is seen.

        Args:
            name: For people: who or what holds the key; 1 to 100 characters.
            scopes: What it may do; at least one.

        Raises:
            InvalidRequestError: A scope is unknown, there is none, or the name is empty or too long.
            TenantNotFoundError: There is no such tenant.
        """
        granted = _parse_scopes(scopes)
        if not name.strip() or len(name) > _MAX_NAME_LENGTH:
            raise InvalidRequestError(
                f"A key's name has 1 to {_MAX_NAME_LENGTH} characters.",
                remedy="Say who will hold the key.",
                field="name",
            )
        key = ApiKey.generate()
        record = key.record(self._tenant_id, granted)
        row = sa.select(
            tenants.c.tenant_id,
            sa.literal(record.key_id),
            sa.literal(record.salt),
            sa.literal(record.hash),
            sa.literal(sorted(granted), sa.ARRAY(sa.Text)),
            sa.literal(name),
            advance_feed(tenants.c.cell),
        ).where(tenants.c.tenant_id == self._tenant_id, tenants.c.deleted_at.is_(None))
        columns = ("tenant_id", "key_id", "salt", "hash", "scopes", "name", "feed_generation")
        with self._db.tenant(self._tenant_id) as connection:
            made = connection.scalar(api_keys.insert().from_select(columns, row).returning(api_keys.c.key_id))
            if made is not None:
                what = {"name": name, "scopes": sorted(granted)}
                journal.record(connection, self._tenant_id, "key.created", {"key_id": record.key_id}, what)
        if made is None:
            raise tenant_not_found(self._tenant_id)
        return key

    def list(self) -> Sequence[KeyInfo]:
        """All keys, oldest first, revoked ones too."""
        statement = sa.select(*_INFO).where(self._mine).order_by(api_keys.c.created_at, api_keys.c.key_id)
        with self._db.tenant(self._tenant_id) as connection:
            return [_info(row) for row in connection.execute(statement)]

    def revoke(self, key_id: str) -> KeyInfo:
        """End a key: replicas refuse it about a second later. Revoking it again changes nothing.

        Raises:
            InvalidRequestError: The tenant has no such key.
        """
        mine = sa.and_(self._mine, api_keys.c.key_id == key_id)
        cell = sa.select(tenants.c.cell).where(tenants.c.tenant_id == self._tenant_id).scalar_subquery()
        revoke = (
            api_keys.update()
            .where(mine, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=sa.func.now(), feed_generation=advance_feed(cell))
        )
        with self._db.tenant(self._tenant_id) as connection:
            if connection.execute(revoke).rowcount:
                journal.record(connection, self._tenant_id, "key.revoked", {"key_id": key_id})
            row = connection.execute(sa.select(*_INFO).where(mine)).one_or_none()
        if row is None:
            raise InvalidRequestError(
                f"The tenant {self._tenant_id!s} has no key {key_id[:40]!r}.",
                remedy="List its keys for the key ids: the 16 digits after mlk_.",
                tenant_id=self._tenant_id,
                field="key_id",
            )
        return _info(row)

    @property
    def _mine(self) -> sa.ColumnElement[bool]:
        return api_keys.c.tenant_id == self._tenant_id


_INFO = (api_keys.c.key_id, api_keys.c.name, api_keys.c.scopes, api_keys.c.created_at, api_keys.c.revoked_at)


def _info(row: AnyRow) -> KeyInfo:
    return KeyInfo(row.key_id, row.name, known_scopes(row.scopes), row.created_at, row.revoked_at)


def known_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """The scopes of a key that this release knows; one that a later release gave it allows nothing here."""
    return frozenset(scope for scope in Scope if scope.value in set(names))


def _parse_scopes(scopes: Iterable[Scope]) -> frozenset[Scope]:
    known = ", ".join(Scope)
    try:
        granted = frozenset(map(Scope, scopes))
    except ValueError as error:
        raise InvalidRequestError(f"{error}.", remedy=f"Scopes are: {known}.", field="scopes") from None
    if not granted:
        raise InvalidRequestError(
            "A key without a scope can do nothing.", remedy=f"Scopes are: {known}.", field="scopes"
        )
    return granted
