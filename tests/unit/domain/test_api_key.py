"""API keys: their form, their hash and their scopes."""

import pytest

from ml_core.domain.api_key import ApiKey, Scope
from ml_core.exceptions import AuthenticationError
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
    key = ApiKey.generate()
    assert key.record(TenantId("a"), frozenset({Scope.ADMIN})).allows(Scope.PROMOTE)
    assert not key.record(TenantId("a"), frozenset({Scope.PREDICT})).allows(Scope.READ)
