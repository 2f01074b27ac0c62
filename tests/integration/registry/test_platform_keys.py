"""Keys of the platform: for operators without the database's login; nothing of a tenant reaches them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, ProgrammingError

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import PLATFORM
from ml_core.domain.api_key import ApiKey, Scope
from ml_core.domain.principal import Principal
from ml_core.exceptions import (
    AuthenticationError,
    InvalidNameError,
    InvalidRequestError,
    KeyNotFoundError,
    PermissionDeniedError,
)
from ml_core.ids import TenantId
from ml_core.registry.keys import KeyRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from support.registry import superuser


@pytest.fixture
def keys(db: DatabaseConnection) -> Iterator[PlatformKeyRepository]:
    yield PlatformKeyRepository(db)
    with superuser(db) as session:
        session.execute("DELETE FROM mlcore.platform_keys")


def test_a_key_is_a_principal_over_all_tenants(
    db: DatabaseConnection, tenant_id: TenantId, keys: PlatformKeyRepository
) -> None:
    """It acts in every tenant within its scopes, under its own name, and is no operator: it signs for nobody."""
    key = keys.create("console", [Scope.ADMIN])
    assert re.fullmatch(r"mlk_[0-9a-f]{16}_[A-Za-z0-9_-]{32}", str(key))
    principal = keys.authenticate(str(key))
    expected = Principal(f"platform-key:{key.key_id}", frozenset({Scope.ADMIN}), tenant_id=None, is_operator=False)
    assert principal == expected
    assert KeyRepository(db.acting_as(principal), tenant_id).create("a", [Scope.READ])
    reader = db.acting_as(keys.authenticate(str(keys.create("reader", ["read"]))))
    assert len(KeyRepository(reader, tenant_id).list().items) == 1
    with pytest.raises(PermissionDeniedError):
        KeyRepository(reader, tenant_id).create("b", [Scope.READ])
    with pytest.raises(PermissionDeniedError):
        PlatformKeyRepository(reader).create("b", [Scope.READ])


def test_a_revoked_key_is_refused_and_stays_listed(keys: PlatformKeyRepository) -> None:
    """By its id or the whole key; twice is as once."""
    key = keys.create("console", ["admin"])
    first = keys.revoke(str(key))
    assert first.revoked_at is not None
    assert keys.revoke(key.key_id) == first
    assert list(keys.list().items) == [first]
    assert (first.name, first.scopes) == ("console", frozenset({"admin"}))
    with pytest.raises(AuthenticationError):
        keys.authenticate(str(key))


def test_a_key_of_a_set_up_is_registered_once(db: DatabaseConnection, keys: PlatformKeyRepository) -> None:
    """Two pods of a set-up may do it at the same time, and each upgrade does it again; a revoked key stays revoked."""
    key = ApiKey.generate()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: PlatformKeyRepository(db).register(str(key), "set-up"), range(2))
    assert first == second
    assert list(keys.list().items) == [first]
    assert keys.authenticate(str(key)).scopes == {Scope.ADMIN}
    revoked = keys.revoke(key.key_id)
    assert keys.register(str(key), "set-up") == revoked
    with pytest.raises(AuthenticationError):
        keys.authenticate(str(key))


@pytest.mark.parametrize("secret", ["", "Ab12" * 8, "changeme" * 4, "0123456789abcdef" * 2 + "\n", "ä" * 32])
def test_a_key_that_can_be_guessed_is_not_registered(keys: PlatformKeyRepository, secret: str) -> None:
    """Nor one without the form of a key; what was given is not repeated."""
    with pytest.raises(InvalidRequestError) as refused:
        keys.register(text := f"mlk_{'0' * 16}_{secret}", "set-up")
    assert text not in f"{refused.value} {refused.value.remedy}"
    assert not keys.list().items


def test_a_key_takes_the_id_of_no_other(keys: PlatformKeyRepository) -> None:
    """Else who knows the id of a key could replace its secret."""
    key = keys.create("console", ["read"])
    with pytest.raises(InvalidRequestError, match=f"has the id {key.key_id}"):
        keys.register(str(ApiKey(key.key_id, ApiKey.generate().secret)), "set-up")
    assert keys.authenticate(str(key)).scopes == {Scope.READ}


def test_a_key_that_is_not_one_is_refused(
    db: DatabaseConnection, tenant_id: TenantId, keys: PlatformKeyRepository
) -> None:
    """Malformed, unknown, with another secret, or of a tenant."""
    key = keys.create("console", ["admin"])
    others = (ApiKey(key.key_id, "x" * 32), ApiKey.generate(), KeyRepository(db, tenant_id).create("a", [Scope.ADMIN]))
    for text in ("mlk_", *map(str, others)):
        with pytest.raises(AuthenticationError):
            keys.authenticate(text)
    for text, error in (("x", InvalidRequestError), ("0" * 16, KeyNotFoundError)):
        with pytest.raises(error, match="no such key"):
            keys.revoke(text)


@pytest.mark.parametrize("scopes", [[], ["predict"], ["promote:production"], ["admin", "train"], ["none"]])
def test_only_two_scopes_are_given(keys: PlatformKeyRepository, scopes: list[str]) -> None:
    """What else a key may do is a tenant's business."""
    with pytest.raises(InvalidRequestError):
        keys.create("console", scopes)


@pytest.mark.parametrize("name", ["", " ", "x" * 101])
def test_a_key_has_a_name(keys: PlatformKeyRepository, name: str) -> None:
    """Of 1 to 100 characters."""
    with pytest.raises(InvalidRequestError):
        keys.create(name, ["read"])


def test_no_tenant_can_have_the_name_of_the_platform() -> None:
    """Else its transactions would be the platform's."""
    with pytest.raises(InvalidNameError):
        TenantId(PLATFORM)


def test_a_tenants_principal_reaches_no_key(
    db: DatabaseConnection, tenant_id: TenantId, keys: PlatformKeyRepository
) -> None:
    """Whatever its scopes are."""
    stranger = PlatformKeyRepository(db.acting_as(Principal("key:1", frozenset(Scope), tenant_id=tenant_id)))
    for refused in (
        lambda: stranger.create("a", ["admin"]),
        lambda: stranger.register(str(ApiKey.generate()), "a"),
        stranger.list,
        lambda: stranger.revoke("0" * 16),
    ):
        with pytest.raises(PermissionDeniedError):
            refused()


ROW = "('0123456789abcdef', '', sha256(''), ARRAY['admin'], 'forged', 'root')"
FORGED = f"INSERT INTO mlcore.platform_keys (key_id, salt, hash, scopes, name, created_by) VALUES {ROW}"


def test_sql_in_a_tenants_transaction_neither_lists_nor_forges_a_key(
    db: DatabaseConnection, tenant_id: TenantId, keys: PlatformKeyRepository
) -> None:
    """It can't enter the platform: the settings can be copied, the seal can't be made."""
    key = keys.create("console", ["admin"])
    with db.platform() as connection:
        names = ("app.tenant_id", "app.by", "app.seal")
        stolen = {name: connection.scalar(sa.select(sa.func.current_setting(name))) for name in names}
    with db.tenant(tenant_id) as connection:
        for setting in ({}, stolen, {"app.tenant_id": PLATFORM}):
            for name, value in setting.items():
                connection.execute(sa.select(sa.func.set_config(name, value, True)))
            assert connection.scalar(sa.text("SELECT count(*) FROM mlcore.platform_keys")) == 0
            for revive in ("revoked_at = NULL", "revoked_at = now()"):
                assert connection.execute(sa.text(f"UPDATE mlcore.platform_keys SET {revive}")).rowcount == 0
            for statement in (
                FORGED,
                "SELECT mlcore.enter('*', '', '')",
                "UPDATE mlcore.platform_keys SET scopes = ARRAY['admin']",
                "DELETE FROM mlcore.platform_keys",
                "SELECT mlcore.erase('platform_keys', '{}')",
            ):
                with pytest.raises(DBAPIError), connection.begin_nested():
                    connection.execute(sa.text(statement))
    assert keys.authenticate(str(key))


def test_the_serving_plane_sees_no_key(db: DatabaseConnection, keys: PlatformKeyRepository) -> None:
    """Nor may it ask."""
    keys.create("console", ["admin"])
    with pytest.raises(ProgrammingError, match="permission denied"), db.serving() as connection:
        connection.execute(sa.text("SELECT 1 FROM mlcore.platform_keys"))
