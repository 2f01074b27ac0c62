"""Requests that a client may repeat: the first is executed, the others get its answer.

A request claims its key before it does anything and stores its answer when it is done. Each is a transaction of its
own, so that others see the claim while the request runs. A request that takes long calls ``beat`` every
``BEAT_EVERY_S``. One whose process died leaves a claim without an answer: ``TAKE_OVER_AFTER`` its last beat, the next
request with the key takes it over; so it does if the process was suspended for so long. Answers are kept for
``KEPT_FOR``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Connection

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import PLATFORM, idempotency_keys
from ml_core.domain.api_key import Scope
from ml_core.exceptions import IdempotencyConflictError, InvalidRequestError, PermissionDeniedError, TenantNotFoundError
from ml_core.ids import TenantId
from ml_core.registry import journal
from ml_core.registry.journal import erase

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

MAX_KEY_LENGTH: Final = 200
MAX_RESPONSE_BYTES: Final = 2**20
BEAT_EVERY_S: Final = 10.0
TAKE_OVER_AFTER: Final = timedelta(minutes=1)
"""Six beats: the registry may be unavailable for some of them, and the process may be busy."""
KEPT_FOR: Final = timedelta(hours=24)
_PRUNED_BY_A_CLAIM: Final = 20
"""Old keys that a claim removes: more than the one that it adds, so that they never pile up."""
_PRUNED_AT_ONCE: Final = 1_000

_OF = idempotency_keys.c


@dataclass(frozen=True, slots=True)
class Stored:
    """The answer to the first request with a key."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class IdempotencyRepository:
    """The keys of the connection's principal in one tenant. An instance finishes or releases what it claimed itself.

    Args:
        db: The registry.
        tenant_id: The tenant; None: requests of the platform's own, such as the creation of a tenant.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: str | None) -> None:
        self._db = db
        self._tenant_id = None if tenant_id is None else TenantId(tenant_id)
        self._claims: dict[str, datetime] = {}

    def begin(self, key: str, request_digest: str) -> Stored | None:
        """Claim a key for a request.

        Args:
            key: The client's, 1 to 200 characters.
            request_digest: Of the method, the path and the body.

        Returns:
            None: the key is claimed, so execute the request, then call ``finish`` or ``release``. Otherwise the answer
            to repeat.

        Raises:
            IdempotencyConflictError: The key was used for another request, its first request is still running, or its
                answer was not kept.
            InvalidRequestError: The key has no character or too many.
            PermissionDeniedError: The principal may change nothing, or belongs to another tenant.
        """
        principal = self._db.principal
        if principal.changes_nothing:
            raise PermissionDeniedError(
                f"{principal.name} may change nothing, so none of its requests needs an idempotency key.",
                remedy="Send the request without one.",
            )
        if not 1 <= len(key) <= MAX_KEY_LENGTH:
            raise InvalidRequestError(
                f"An idempotency key has 1 to {MAX_KEY_LENGTH} characters.",
                remedy="Send a new UUID with each new request.",
                field="Idempotency-Key",
            )
        row = {"tenant_id": self._owner, "principal": principal.name, "key": key}
        new = insert(idempotency_keys).values(**row, request_digest=request_digest)
        claim = new.on_conflict_do_nothing().returning(_OF.created_at)
        age, silence = sa.func.now() - _OF.created_at, sa.func.now() - _OF.alive_at
        found = sa.select(idempotency_keys, age.label("age"), silence.label("silence")).where(self._is(key))
        found = found.with_for_update()
        with self._writing() as connection:
            claimed_at = connection.scalar(claim)
            if claimed_at is None:
                first = connection.execute(found).one_or_none()  # None: another session removed it meanwhile
                if first is not None:
                    if stored := _answer(first, key, request_digest):
                        return stored
                    self._remove(connection, key, first.created_at)
                claimed_at = connection.scalar(claim)
                if claimed_at is None:
                    raise _running(key)
            _prune(connection, self._owner, _PRUNED_BY_A_CLAIM)
        self._claims[key] = claimed_at
        return None

    def beat(self, key: str) -> None:
        """Say that a request that this instance began still runs. Called by another thread than the request's.

        Raises:
            TenantNotFoundError: The tenant was deleted.
        """
        if claimed_at := self._claims.get(key):
            mine = sa.and_(self._is(key), _OF.created_at == claimed_at)
            with self._writing() as connection:
                connection.execute(idempotency_keys.update().where(mine).values(alive_at=sa.func.now()))

    def finish(self, key: str, status: int, body: bytes | None, headers: Mapping[str, str] | None = None) -> None:
        """Store the answer to a request that this instance began, unless its claim was taken over meanwhile.

        An answer over ``MAX_RESPONSE_BYTES``, or None, is not kept: a repeated request is then refused, and not
        executed again.
        """
        claimed_at = self._claims.pop(key, None)
        kept = body if body is not None and len(body) <= MAX_RESPONSE_BYTES else None
        values = {"status": status, "response": kept, "headers": dict(headers or {})}
        mine = sa.and_(self._is(key), _OF.created_at == claimed_at)
        with contextlib.suppress(TenantNotFoundError), self._writing() as connection:  # the request may have deleted it
            connection.execute(idempotency_keys.update().where(mine).values(**values))

    def release(self, key: str) -> None:
        """Give up a claim of this instance: its request failed in a way that may not occur again."""
        with contextlib.suppress(TenantNotFoundError), self._writing() as connection:
            if claimed_at := self._claims.pop(key, None):
                self._remove(connection, key, claimed_at)

    def prune(self) -> int:
        """Remove the tenant's keys, of all principals, that are older than ``KEPT_FOR``.

        Returns:
            How many there were.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``admin``.
        """
        self._db.principal.require(Scope.ADMIN)
        total = 0
        while True:
            with self._writing() as connection:
                removed = _prune(connection, self._owner, _PRUNED_AT_ONCE)
            total += removed
            if removed < _PRUNED_AT_ONCE:
                return total

    @property
    def _owner(self) -> str:
        return PLATFORM if self._tenant_id is None else self._tenant_id

    def _writing(self) -> AbstractContextManager[Connection]:
        return self._db.platform() if self._tenant_id is None else journal.writing(self._db, self._tenant_id)

    def _remove(self, connection: Connection, key: str, claimed_at: datetime) -> None:
        """Remove this claim of a key, and not one that was made since."""
        mine = {"principal": self._db.principal.name, "key": key, "created_at": claimed_at.isoformat()}
        erase(connection, idempotency_keys, **mine)

    def _is(self, key: str) -> sa.ColumnElement[bool]:
        return sa.and_(_OF.tenant_id == self._owner, _OF.principal == self._db.principal.name, _OF.key == key)


def count_old(connection: Connection, tenant_id: str) -> int:
    """How many keys of a tenant ``prune`` would remove."""
    return connection.scalar(sa.select(sa.func.count()).select_from(idempotency_keys).where(_old(tenant_id))) or 0


def _answer(row: AnyRow, key: str, request_digest: str) -> Stored | None:
    """What a row answers; None if it may be replaced."""
    if row.age >= KEPT_FOR:
        return None
    if row.request_digest != request_digest:
        raise other_request(key)
    if row.status is None:
        if row.silence < TAKE_OVER_AFTER:
            raise _running(key)
        return None
    if row.response is None:
        raise IdempotencyConflictError(
            f"The request with the idempotency key {key!r} is done, with status {row.status}; its answer was not kept.",
            remedy="Read what it changed.",
            key=key,
        )
    return Stored(row.status, bytes(row.response), row.headers)


def other_request(key: str) -> IdempotencyConflictError:
    """The error for a key that came with two requests."""
    return IdempotencyConflictError(
        f"The idempotency key {key!r} was used for another request.",
        remedy="Send a new key with each new request, and the same key only with the same request.",
        key=key,
    )


def _running(key: str) -> IdempotencyConflictError:
    return IdempotencyConflictError(
        f"The first request with the idempotency key {key!r} is still running.",
        remedy="Wait a moment, then send it again.",
        details={"retry_after_s": 1},
        key=key,
    )


def _old(tenant_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(_OF.tenant_id == tenant_id, _OF.created_at < sa.func.now() - KEPT_FOR)


def _prune(connection: Connection, tenant_id: str, most: int) -> int:
    # Rows that another session is removing are skipped: two that waited for each other's would be a deadlock.
    old = sa.select(_OF.created_at).where(_old(tenant_id)).order_by(_OF.created_at).limit(most)
    moments = [moment.isoformat() for moment in connection.scalars(old.with_for_update(skip_locked=True))]
    return erase(connection, idempotency_keys, created_at=moments) if moments else 0
