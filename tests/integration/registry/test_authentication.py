"""Who sends a request to the control API, by the header that it sends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import ApiKey, Scope
from ml_core.exceptions import AuthenticationError, IssuerUnavailableError, PermissionDeniedError, TenantNotFoundError
from ml_core.ids import EnvironmentName, TenantId
from ml_core.models.store import LocalStore
from ml_core.registry.authentication import REMEMBERED_S, Authentication
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.feed import KeyWatch
from ml_core.registry.keys import KeyRepository
from ml_core.registry.oidc import TokenVerifier
from ml_core.registry.platform_keys import PlatformKeyRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from support.oidc_issuer import Issuer, running_issuer
from support.registry import TICKETS, new_tenant, register, superuser


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture
def authentication(db: DatabaseConnection, issuer: Issuer) -> Authentication:
    return Authentication(db, TokenVerifier(issuer.settings()))


def bearer(text: object) -> str:
    return f"Bearer {text}"


def delete(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """As the first step of a deletion leaves a tenant."""
    with superuser(db) as session:
        session.execute("UPDATE mlcore.tenants SET deleted_at = now() WHERE tenant_id = %s", (tenant_id,))


def test_a_key_enters_its_own_tenant(
    db: DatabaseConnection, authentication: Authentication, tenant_id: TenantId
) -> None:
    """With what it may do; a header is text or bytes."""
    key = KeyRepository(db, tenant_id).create("k", [Scope.READ, "promote:staging"])
    for header in (bearer(key), bearer(key).encode()):
        principal = authentication.authenticate(tenant_id, header)
        assert (principal.name, principal.tenant_id) == (f"key:{key.key_id}", tenant_id)
        assert (principal.scopes, principal.promotes) == ({Scope.READ}, {EnvironmentName("staging")})


def test_another_tenants_key_finds_what_a_tenant_that_does_not_exist_has(
    db: DatabaseConnection, authentication: Authentication, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """The same 404 but for the name, with every scope there is; without a tenant it is denied."""
    key = KeyRepository(db, other_tenant_id).create("k", [*Scope])
    told = set()
    for tenant in (tenant_id, "ghost", "No Name"):
        with pytest.raises(TenantNotFoundError) as caught:
            authentication.authenticate(tenant, bearer(key))
        told.add(str(caught.value).replace(tenant, "X"))
    assert len(told) == 1
    with pytest.raises(PermissionDeniedError):
        authentication.authenticate(None, bearer(key))


def test_what_is_no_valid_key_is_refused_whatever_the_url(
    db: DatabaseConnection, authentication: Authentication, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """Unknown, wrong and revoked keys, of this tenant, another or the platform, or of a deleted tenant: one 401."""
    gone = new_tenant(db)
    orphaned = KeyRepository(db, gone).create("k", [Scope.READ])
    delete(db, gone)
    platform = PlatformKeyRepository(db)
    ended, changed = platform.create("k", [Scope.READ]), platform.create("k", [Scope.READ])
    platform.revoke(ended.key_id)
    sent: list[object] = [ApiKey.generate(), orphaned, ended, ApiKey(changed.key_id, ApiKey.generate().secret)]
    for keys in (KeyRepository(db, tenant_id), KeyRepository(db, other_tenant_id)):
        key, revoked = keys.create("k", [Scope.READ]), keys.create("r", [Scope.READ])
        keys.revoke(revoked.key_id)
        sent += [revoked, ApiKey(key.key_id, ApiKey.generate().secret)]
    told = set()
    for text in sent:
        for tenant in (tenant_id, gone, "ghost", None):
            with pytest.raises(AuthenticationError) as caught:
                authentication.authenticate(tenant, bearer(text))
            told.add(str(caught.value))
    assert len(told) == 1


@pytest.mark.parametrize("header", [None, "", "Basic YTpi", "Bearer", "Bearer mlk_x", "Bearer a.b.c", b"Bearer \xff"])
def test_a_header_without_a_key_is_refused(
    authentication: Authentication, tenant_id: TenantId, header: str | bytes | None
) -> None:
    """Never with another error."""
    with pytest.raises(AuthenticationError):
        authentication.authenticate(tenant_id, header)


def test_an_id_that_two_tenants_have_opens_each_its_own(
    db: DatabaseConnection, authentication: Authentication, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """Ids are unique in a tenant only."""
    first, second = KeyRepository(db, tenant_id).create("k", ["read"]), ApiKey.generate()
    twin = ApiKey(first.key_id, second.secret)
    record = twin.record(other_tenant_id, frozenset({Scope.ADMIN}))
    with superuser(db) as session:
        session.execute(
            "INSERT INTO mlcore.api_keys SELECT %s, key_id, %s, %s, '{admin}', 'twin', now(), NULL, feed_generation"
            " FROM mlcore.api_keys WHERE tenant_id = %s AND key_id = %s",
            (other_tenant_id, record.salt, record.hash, tenant_id, first.key_id),
        )
    assert authentication.authenticate(tenant_id, bearer(first)).scopes == {Scope.READ}
    assert authentication.authenticate(other_tenant_id, bearer(twin)).scopes == {Scope.ADMIN}
    with pytest.raises(TenantNotFoundError):
        authentication.authenticate(tenant_id, bearer(twin))


def test_a_key_costs_one_statement(
    db: DatabaseConnection, authentication: Authentication, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """Of its tenant, or of another; an unknown one is looked for among the platform's as well. None has the secret."""
    keys = [
        KeyRepository(db, tenant_id).create("k", ["read"]),
        KeyRepository(db, other_tenant_id).create("k", ["read"]),
    ]
    sent: list[str] = []

    def note(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        if "_keys" in statement:
            sent.append(f"{statement} {parameters}")

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        for key in (*keys, ApiKey.generate()):
            sent.clear()
            with suppress(AuthenticationError, TenantNotFoundError):
                authentication.authenticate(tenant_id, bearer(key))
            assert len(sent) == (1 if key in keys else 2)
            assert key.secret not in str(sent)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def remembering(db: DatabaseConnection, clock: Clock) -> Authentication:
    return Authentication(db, clock=clock)


def test_a_key_is_remembered_until_it_has_to_be_looked_up_again(
    remembering: Authentication, clock: Clock, db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """For its own tenant only, and for no longer than the bound: whether it was revoked is not known later."""
    header = bearer(KeyRepository(db, tenant_id).create("k", [Scope.READ]))
    assert remembering.remembered(tenant_id, header) is None
    principal = remembering.authenticate(tenant_id, header)
    assert remembering.remembered(tenant_id, header) is principal
    assert remembering.remembered(tenant_id, header.encode()) is principal
    assert remembering.remembered(tenant_id, f"{header[:-1]}{'b' if header.endswith('a') else 'a'}") is None
    with pytest.raises(TenantNotFoundError):
        remembering.remembered(other_tenant_id, header)
    with pytest.raises(PermissionDeniedError):
        remembering.remembered(None, header)
    with pytest.raises(AuthenticationError):
        remembering.remembered(tenant_id, None)
    clock.now += REMEMBERED_S
    assert remembering.remembered(tenant_id, header) is None


def test_a_key_that_was_revoked_is_forgotten_at_the_next_check(
    remembering: Authentication, clock: Clock, db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """Whoever asks next: the request of another tenant's key finds that a key has changed."""
    keys = KeyRepository(db, tenant_id)
    key, other = keys.create("k", [Scope.READ]), KeyRepository(db, other_tenant_id).create("o", [Scope.READ])
    remembering.authenticate(tenant_id, bearer(key))
    keys.revoke(key.key_id)
    with pytest.raises(AuthenticationError):
        remembering.authenticate(tenant_id, bearer(key))  # which asks the registry, whatever is remembered
    clock.now += REMEMBERED_S
    remembering.authenticate(other_tenant_id, bearer(other))
    assert remembering.remembered(tenant_id, bearer(key)) is None


def test_a_key_stays_remembered_while_only_pointers_move(
    remembering: Authentication, clock: Clock, db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """Promotions move the same clock as keys, and there may be many a second."""
    header = bearer(KeyRepository(db, tenant_id).create("k", [Scope.READ]))
    other = bearer(KeyRepository(db, other_tenant_id).create("o", [Scope.READ]))
    principal = remembering.authenticate(tenant_id, header)
    EnvironmentRepository(db, tenant_id).promote(TICKETS, register(db, tenant_id).version, PRODUCTION)
    clock.now += REMEMBERED_S
    remembering.authenticate(other_tenant_id, other)
    assert remembering.remembered(tenant_id, header) is principal


def test_a_key_that_was_revoked_while_it_was_looked_up_is_not_remembered(
    remembering: Authentication, clock: Clock, db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """The lookup saw it valid, and another request has noticed the revocation before the lookup was done."""
    keys = KeyRepository(db, tenant_id)
    key, other = keys.create("k", [Scope.READ]), KeyRepository(db, other_tenant_id).create("o", [Scope.READ])
    is_revoked = False

    def revoke(_: object, __: object, statement: str, *___: object) -> None:
        nonlocal is_revoked
        if "api_keys.salt" in statement and not is_revoked:
            is_revoked = True
            keys.revoke(key.key_id)
            clock.now += REMEMBERED_S
            remembering.authenticate(other_tenant_id, bearer(other))

    sa.event.listen(sa.Engine, "after_cursor_execute", revoke)
    try:
        remembering.authenticate(tenant_id, bearer(key))
    finally:
        sa.event.remove(sa.Engine, "after_cursor_execute", revoke)
    assert is_revoked
    assert remembering.remembered(tenant_id, bearer(key)) is None
    assert remembering.remembered(other_tenant_id, bearer(other)) is not None


def test_every_change_of_keys_and_tenants_is_noticed(
    db: DatabaseConnection, tenant_id: TenantId, tmp_path: Path
) -> None:
    """And nothing else is; a restore counts as a change of all."""
    watch, keys = KeyWatch(), KeyRepository(db, tenant_id)

    def has_changed() -> bool:
        with db.serving() as connection:
            return watch.has_changed(connection)

    assert has_changed()
    assert not has_changed()
    key = keys.create("k", [Scope.READ])
    assert has_changed()
    version = register(db, tenant_id).version
    EnvironmentRepository(db, tenant_id).promote(TICKETS, version, PRODUCTION)
    assert not has_changed()
    keys.revoke(key.key_id)
    assert has_changed()
    gone = new_tenant(db)
    assert has_changed()
    TenantDeletion(db, LocalStore(tmp_path)).delete(gone)
    assert has_changed()
    with superuser(db) as session:
        session.execute("UPDATE mlcore.feed_clock SET epoch = gen_random_uuid()")
    assert has_changed()
    assert not has_changed()


@pytest.mark.parametrize("scope", [Scope.ADMIN, Scope.READ])
def test_a_key_of_the_platform_enters_everything(
    db: DatabaseConnection, authentication: Authentication, tenant_id: TenantId, scope: Scope
) -> None:
    """As a principal of no tenant, which may do what the key may; also in a tenant that does not exist yet."""
    key = PlatformKeyRepository(db).create("k", [scope])
    for tenant in (None, tenant_id, "ghost"):
        principal = authentication.authenticate(tenant, bearer(key))
        assert (principal.name, principal.tenant_id) == (f"platform-key:{key.key_id}", None)
        assert (principal.scopes, principal.is_operator) == ({scope}, False)


def test_a_token_enters_the_tenants_it_names(
    issuer: Issuer, authentication: Authentication, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """Under the name of its subject; another tenant is not found, as one that does not exist."""
    header = bearer(issuer.token(sub="ci", tenant=[tenant_id, "ghost"], scope="mlcore:train"))
    principal = authentication.authenticate(tenant_id, header)
    assert (principal.name, principal.tenant_id, principal.scopes) == ("oidc:ci", tenant_id, {Scope.TRAIN})
    told = set()
    for tenant in (other_tenant_id, "ghost", "nobody"):
        with pytest.raises(TenantNotFoundError) as caught:
            authentication.authenticate(tenant, header)
        told.add(str(caught.value).replace(tenant, "X"))
    assert len(told) == 1
    with pytest.raises(PermissionDeniedError):
        authentication.authenticate(None, header)


def test_a_token_for_a_deleted_tenant_finds_none(
    db: DatabaseConnection, issuer: Issuer, authentication: Authentication
) -> None:
    """The issuer does not know of the deletion."""
    gone = new_tenant(db)
    header = bearer(issuer.token(tenant=gone, scope="mlcore:admin"))
    assert authentication.authenticate(gone, header).tenant_id == gone
    delete(db, gone)
    with pytest.raises(TenantNotFoundError):
        authentication.authenticate(gone, header)


def test_a_token_of_the_platform_enters_everything(
    issuer: Issuer, authentication: Authentication, tenant_id: TenantId
) -> None:
    """Also a tenant that does not exist yet, or whose deletion has to be finished."""
    header = bearer(issuer.token(sub="ops", tenant="*", scope="mlcore:admin"))
    for tenant in (None, tenant_id, "ghost"):
        principal = authentication.authenticate(tenant, header)
        assert (principal.name, principal.tenant_id, principal.is_operator) == ("oidc:ops", None, False)


def test_what_a_token_changes_is_recorded_under_its_subject(
    db: DatabaseConnection, issuer: Issuer, authentication: Authentication, tenant_id: TenantId
) -> None:
    """In the audit, as for a key."""
    principal = authentication.authenticate(
        tenant_id, bearer(issuer.token(sub="Émile|7", tenant=tenant_id, scope="mlcore:admin"))
    )
    key = KeyRepository(db.acting_as(principal, "req-1"), tenant_id).create("k", [Scope.READ])
    with superuser(db) as session:
        row = session.execute(
            "SELECT principal, request_id FROM mlcore.audit WHERE tenant_id = %s AND subject->>'key_id' = %s",
            (tenant_id, key.key_id),
        ).fetchone()
    assert row == ("oidc:Émile|7", "req-1")


def test_without_an_issuer_no_token_is_accepted(db: DatabaseConnection, issuer: Issuer, tenant_id: TenantId) -> None:
    """It is a malformed key."""
    with pytest.raises(AuthenticationError, match="malformed"):
        Authentication(db).authenticate(tenant_id, bearer(issuer.token(tenant=tenant_id)))


def test_keys_work_while_the_issuer_is_away(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A token is 503 then: whether it is good can't be said."""
    with running_issuer() as issuer:
        authentication = Authentication(db, TokenVerifier(issuer.settings()))
        token = issuer.token(tenant=tenant_id)
    with pytest.raises(IssuerUnavailableError):
        authentication.authenticate(tenant_id, bearer(token))
    key = KeyRepository(db, tenant_id).create("k", [Scope.READ])
    assert authentication.authenticate(tenant_id, bearer(key)).tenant_id == tenant_id
