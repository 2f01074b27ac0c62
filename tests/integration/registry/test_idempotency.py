"""Idempotency keys: of requests that are repeated one is executed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.domain.principal import Principal
from ml_core.exceptions import (
    IdempotencyConflictError,
    InvalidRequestError,
    MLFrameworkError,
    PermissionDeniedError,
    TenantNotFoundError,
    status_of,
)
from ml_core.ids import TenantId
from ml_core.models.store import LocalStore
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.idempotency import MAX_RESPONSE_BYTES, IdempotencyRepository, Stored
from support.registry import superuser

KEY, DIGEST = "5f0c", "digest"


@pytest.fixture
def keys(db: DatabaseConnection, tenant_id: TenantId) -> IdempotencyRepository:
    return IdempotencyRepository(db, tenant_id)


def make_older(db: DatabaseConnection, tenant_id: TenantId, by: str) -> None:
    with superuser(db) as session:
        older = "created_at = created_at - %s::interval, alive_at = alive_at - %s::interval"
        session.execute(f"UPDATE mlcore.idempotency_keys SET {older} WHERE tenant_id = %s", (by, by, tenant_id))


def test_a_repeated_request_gets_the_answer_to_the_first(keys: IdempotencyRepository) -> None:
    """Status, body and headers, as often as it is sent."""
    assert keys.begin(KEY, DIGEST) is None
    keys.finish(KEY, 201, b'{"version": "1"}', {"etag": "3"})
    assert [keys.begin(KEY, DIGEST) for _ in range(2)] == [Stored(201, b'{"version": "1"}', {"etag": "3"})] * 2


def test_another_request_with_the_key_is_refused(keys: IdempotencyRepository) -> None:
    """While the first runs and afterwards."""
    keys.begin(KEY, DIGEST)
    with pytest.raises(IdempotencyConflictError, match="another request") as caught:
        keys.begin(KEY, "other")
    assert (status_of(caught.value), caught.value.code) == (409, "idempotency_conflict")
    keys.finish(KEY, 200, b"")
    with pytest.raises(IdempotencyConflictError, match="another request"):
        keys.begin(KEY, "other")


def test_a_request_that_runs_is_not_repeated(keys: IdempotencyRepository) -> None:
    """It may be sent again once the first is done."""
    keys.begin(KEY, DIGEST)
    with pytest.raises(IdempotencyConflictError, match="still running"):
        keys.begin(KEY, DIGEST)


def test_a_request_that_failed_may_be_sent_again(keys: IdempotencyRepository) -> None:
    """Its key is free, for another request too."""
    keys.begin(KEY, DIGEST)
    keys.release(KEY)
    assert keys.begin(KEY, "other") is None


def test_keys_are_the_principals_own(db: DatabaseConnection, tenant_id: TenantId, keys: IdempotencyRepository) -> None:
    """Two clients that choose the same key do not get each other's answers."""
    keys.begin(KEY, DIGEST)
    keys.finish(KEY, 200, b"mine")
    other = db.acting_as(Principal("key:1", frozenset({Scope.TRAIN})))
    assert IdempotencyRepository(other, tenant_id).begin(KEY, "other") is None


def test_of_requests_at_once_one_is_executed(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Eight clients send the same request together: one goes on, the others hear that it runs."""
    outcomes: list[object] = []
    together = threading.Barrier(8)

    def send() -> None:
        together.wait(timeout=30)
        try:
            outcomes.append(IdempotencyRepository(db, tenant_id).begin(KEY, DIGEST))
        except MLFrameworkError as error:
            outcomes.append(type(error))

    for _ in range(5):
        outcomes.clear()
        run_together(send)
        assert sorted(outcomes, key=str) == [IdempotencyConflictError] * 7 + [None]
        make_older(db, tenant_id, "1 hour")  # the next round takes over a claim of a dead request


def test_who_was_taken_over_neither_stores_nor_releases(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A request that gave no sign of life for a minute does not overwrite the answer to its successor."""
    hung, successor = IdempotencyRepository(db, tenant_id), IdempotencyRepository(db, tenant_id)
    hung.begin(KEY, DIGEST)
    make_older(db, tenant_id, "40 seconds")
    with pytest.raises(IdempotencyConflictError):
        successor.begin(KEY, DIGEST)
    make_older(db, tenant_id, "30 seconds")
    assert successor.begin(KEY, DIGEST) is None
    hung.beat(KEY)
    hung.finish(KEY, 500, b"late")
    successor.finish(KEY, 200, b"right")
    third = IdempotencyRepository(db, tenant_id)
    assert third.begin(KEY, DIGEST) == Stored(200, b"right", {})


def test_a_request_that_beats_is_not_taken_over(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """However long it takes."""
    first, other = IdempotencyRepository(db, tenant_id), IdempotencyRepository(db, tenant_id)
    first.begin(KEY, DIGEST)
    for _ in range(5):
        with superuser(db) as session:
            session.execute("UPDATE mlcore.idempotency_keys SET alive_at = alive_at - '1 hour'::interval")
        first.beat(KEY)
        with pytest.raises(IdempotencyConflictError, match="still running"):
            other.begin(KEY, DIGEST)


def test_an_answer_is_kept_for_a_day(db: DatabaseConnection, tenant_id: TenantId, keys: IdempotencyRepository) -> None:
    """Then its key may be used for anything, and is removed by the next claims or by ``prune``."""
    for key in ("a", "b", "c"):
        keys.begin(key, DIGEST)
        keys.finish(key, 200, b"")
    make_older(db, tenant_id, "25 hours")
    assert keys.begin("a", "other") is None
    with db.tenant(tenant_id) as connection:
        assert connection.scalars(sa.text("SELECT key FROM mlcore.idempotency_keys")).all() == ["a"]
    assert keys.prune() == 0
    make_older(db, tenant_id, "25 hours")
    assert keys.prune() == 1


def test_claims_at_once_remove_old_keys_without_a_deadlock(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Each skips what another is removing, and takes over old keys meanwhile."""
    errors: list[BaseException] = []

    def claim(numbers: list[int]) -> None:
        keys = IdempotencyRepository(db, tenant_id)
        try:
            for number in numbers:
                keys.begin(str(number), DIGEST)
        except Exception as error:  # noqa: BLE001 - shown below
            errors.append(error)

    claim(list(range(80)))
    make_older(db, tenant_id, "25 hours")
    numbers = iter([list(range(n, 80, 4))[:: 1 if n % 2 else -1] for n in range(4)])
    run_together(lambda: claim(next(numbers)), 4)
    assert errors == []
    assert IdempotencyRepository(db, tenant_id).prune() == 0


def test_an_answer_that_is_too_large_is_not_executed_again(keys: IdempotencyRepository) -> None:
    """It is not kept, and the repeated request is told so."""
    for key, extra in (("fits", 0), ("large", 1)):
        keys.begin(key, DIGEST)
        keys.finish(key, 200, b"x" * (MAX_RESPONSE_BYTES + extra))
    stored = keys.begin("fits", DIGEST)
    assert stored is not None
    assert len(stored.body) == MAX_RESPONSE_BYTES
    with pytest.raises(IdempotencyConflictError, match="with status 200; its answer was not kept"):
        keys.begin("large", DIGEST)


def test_who_may_change_nothing_claims_nothing(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Else a key that may only read could fill the table."""
    reader = db.acting_as(Principal("key:1", frozenset({Scope.READ, Scope.PREDICT})))
    with pytest.raises(PermissionDeniedError, match="without one"):
        IdempotencyRepository(reader, tenant_id).begin(KEY, DIGEST)


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_a_key_that_can_not_be_stored_is_refused(keys: IdempotencyRepository, key: str) -> None:
    """Before anything is executed."""
    with pytest.raises(InvalidRequestError, match="1 to 200 characters"):
        keys.begin(key, DIGEST)


def test_a_request_that_deletes_its_tenant_ends(
    db: DatabaseConnection, tenant_id: TenantId, keys: IdempotencyRepository, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """There is nothing left to store the answer with."""
    keys.begin(KEY, DIGEST)
    TenantDeletion(db, LocalStore(tmp_path_factory.mktemp("store"))).delete(tenant_id)
    keys.finish(KEY, 200, b"")
    with pytest.raises(TenantNotFoundError):
        keys.begin(KEY, DIGEST)


@pytest.fixture
def platform_keys(db: DatabaseConnection) -> Iterator[IdempotencyRepository]:
    keys = IdempotencyRepository(db, None)
    yield keys
    with superuser(db) as session:
        session.execute("DELETE FROM mlcore.idempotency_keys WHERE tenant_id = '*'")


def test_requests_of_the_platform_have_keys_as_well(
    db: DatabaseConnection, tenant_id: TenantId, platform_keys: IdempotencyRepository
) -> None:
    """Such as the creation of a tenant; no tenant's principal reaches them, by SQL neither."""
    platform_keys.begin(KEY, DIGEST)
    platform_keys.finish(KEY, 201, b"created")
    assert platform_keys.begin(KEY, DIGEST) == Stored(201, b"created", {})
    stranger = db.acting_as(Principal("key:1", frozenset(Scope), tenant_id=tenant_id))
    with pytest.raises(PermissionDeniedError):
        IdempotencyRepository(stranger, None).begin(KEY, DIGEST)
    with db.tenant(tenant_id) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM mlcore.idempotency_keys")) == 0


def run_together(action: object, count: int = 8) -> None:
    threads = [threading.Thread(target=action) for _ in range(count)]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
