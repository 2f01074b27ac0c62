"""API keys: their form, their hash and their scopes."""

import pytest

from ml_core.domain.api_key import ApiKey, Scope, bearer_token
from ml_core.domain.principal import Principal
from ml_core.exceptions import Action, AuthenticationError, PermissionDeniedError, TenantNotFoundError
from ml_core.ids import TenantId


def test_a_key_opens_with_its_own_secret_only():
    """What was generated matches its record; another secret does not."""
    key, other = ApiKey.generate(), ApiKey.generate()
    record = key.record(TenantId("acme"), frozenset({Scope.PREDICT}))
    assert record.matches(key.secret)
    assert not record.matches(other.secret)


def test_a_key_is_read_back_from_its_text():
    """The text that was shown is the text that is sent; generated secrets may hold underscores."""
    for _ in range(50):
        key = ApiKey.generate()
        assert ApiKey.parse(str(key)) == key


def test_neither_record_nor_repr_holds_the_secret():
    """Both may be logged or stored."""
    key = ApiKey.generate()
    record = key.record(TenantId("acme"), frozenset({Scope.READ}))
    assert key.secret not in repr(key)
    assert key.secret not in repr(record)


def test_equal_secrets_have_different_hashes():
    """The salt sees to it."""
    key = ApiKey.generate()
    first, second = (key.record(TenantId("acme"), frozenset({Scope.READ})) for _ in range(2))
    assert first.hash != second.hash


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mlk_",
        "mlk_12_34",
        "Bearer x",
        "mlk_" + "0" * 16 + "_" + "a" * 31,
        "mlk_" + "0" * 16 + "_" + "a" * 32 + "\n",
    ],
)
def test_anything_else_is_malformed(text):
    """Said as such, without repeating what may be a secret."""
    with pytest.raises(AuthenticationError, match="malformed") as caught:
        ApiKey.parse(text)
    assert len(text) < 10 or text not in str(caught.value)


def test_admin_has_every_scope():
    """Other scopes are just themselves."""
    assert Principal("key:1", frozenset({Scope.ADMIN})).allows(Scope.PROMOTE)
    assert not Principal("key:1", frozenset({Scope.PREDICT})).allows(Scope.READ)


def test_a_principal_enters_its_own_tenant_only():
    """Another is one that does not exist, and what is over all tenants is denied; the platform's own enters all."""
    principal = Principal("key:1", frozenset({Scope.ADMIN}), tenant_id=TenantId("acme"))
    principal.enter("acme")
    with pytest.raises(TenantNotFoundError, match="There is no tenant globex"):
        principal.enter("globex")
    with pytest.raises(PermissionDeniedError):
        principal.enter(None)
    for tenant_id in ("acme", None):
        Principal("oidc:robot", frozenset()).enter(tenant_id)


def test_a_missing_scope_names_the_operation_that_grants_it():
    """As data: the command line makes a command of it, a console a link."""
    with pytest.raises(PermissionDeniedError) as caught:
        Principal("key:1", frozenset(), tenant_id=TenantId("acme")).require(Scope.TRAIN)
    assert caught.value.action == Action.of("keys.create", tenant="acme", scope="train")


@pytest.mark.parametrize("header", ["Bearer abc", b"bearer  abc ", "BEARER abc"])
def test_a_bearer_is_read_from_its_header(header):
    """The scheme in any case, as HTTP says."""
    assert bearer_token(header) == "abc"


@pytest.mark.parametrize("header", [None, "", b"", "abc", "Basic YTpi", "Bearer"])
def test_another_header_is_refused(header):
    """Without repeating it."""
    with pytest.raises(AuthenticationError, match=r"no API key|not a bearer token"):
        bearer_token(header)
