"""API keys: ``mlk_<key id>_<secret>``, shown once and stored as a salted hash."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

from ml_core.exceptions import AuthenticationError, InvalidRequestError
from ml_core.ids import EnvironmentName, TenantId

_SCHEME = "bearer "
_KEY = re.compile(r"mlk_([0-9a-f]{16})_([A-Za-z0-9_-]{32})")
_LEAST_DIFFERENT = 8  # 32 random hexadecimal digits have fewer different ones once in 28 million


class Scope(StrEnum):
    """A permission. In addition, ``promote:<environment>`` permits moves of one environment, protected or not."""

    PREDICT = "predict"
    READ = "read"
    LABEL = "label"
    TRAIN = "train"
    PROMOTE = "promote"
    APPROVE = "approve"
    ADMIN = "admin"


_PROMOTES = f"{Scope.PROMOTE.value}:"


@dataclass(frozen=True, slots=True)
class Grant:
    """The scopes of a key or token, and the protected environments that it may move."""

    scopes: frozenset[Scope]
    promotes: frozenset[EnvironmentName] = frozenset()

    @classmethod
    def parse(cls, names: Iterable[str]) -> Self:
        """Parse a list of scope names that a caller supplied.

        Raises:
            InvalidRequestError: A scope is unknown, or the list is empty.
        """
        known = f"Scopes are: {', '.join(Scope)} and promote:ENVIRONMENT."
        texts = [str(name) for name in names]
        unknown = [text for text in texts if not text.startswith(_PROMOTES) and text not in list(Scope)]
        if unknown:
            raise InvalidRequestError(f"The scope {unknown[0][:40]!r} is unknown.", remedy=known, field="scopes")
        if not texts:
            raise InvalidRequestError("A key needs at least one scope.", remedy=known, field="scopes")
        promotes = (EnvironmentName(text.removeprefix(_PROMOTES)) for text in texts if text.startswith(_PROMOTES))
        return cls(frozenset(scope for scope in Scope if scope.value in texts), frozenset(promotes))

    @classmethod
    def read(cls, names: Iterable[str]) -> Self:
        """The grant of a stored key or a token; unknown names are ignored."""
        # Stored keys and tokens may come from a newer release or from an issuer that serves other programs.
        texts = set(names)
        environments = (text.removeprefix(_PROMOTES) for text in texts if text.startswith(_PROMOTES))
        promotes = frozenset(EnvironmentName(e) for e in environments if EnvironmentName.pattern.fullmatch(e))
        return cls(frozenset(scope for scope in Scope if scope.value in texts), promotes)

    @property
    def names(self) -> list[str]:
        """The names of the scopes, sorted."""
        return sorted([*self.scopes, *(f"{_PROMOTES}{environment}" for environment in self.promotes)])


class KeyRef(NamedTuple):
    """The identity of a key: key ids are unique within a tenant."""

    # Not unique across tenants: creating a key must not reveal which ids other tenants use.
    tenant_id: str
    key_id: str


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """The stored form of a key, without its secret."""

    key_id: str
    tenant_id: TenantId
    salt: bytes
    hash: bytes
    scopes: frozenset[Scope]

    @property
    def ref(self) -> KeyRef:
        """The identity of the key."""
        return KeyRef(self.tenant_id, self.key_id)

    def matches(self, secret: str) -> bool:
        """Whether a secret belongs to this key; compares in constant time."""
        return hmac.compare_digest(self.hash, hash_secret(self.salt, secret))


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key with its secret, as its holder sends it."""

    key_id: str
    secret: str

    def __str__(self) -> str:
        return f"mlk_{self.key_id}_{self.secret}"

    def __repr__(self) -> str:
        return f"ApiKey(mlk_{self.key_id}_…)"

    @classmethod
    def generate(cls) -> ApiKey:
        """Generate a random key."""
        return cls(secrets.token_hex(8), secrets.token_urlsafe(24))  # 24 bytes: 192 bits, see hash_secret

    @classmethod
    def parse(cls, text: str) -> ApiKey:
        """Parse a key that a client sent.

        Raises:
            AuthenticationError: The text does not have the form ``mlk_<key id>_<secret>``.
        """
        match = _KEY.fullmatch(text)
        if match is None:
            raise AuthenticationError("The API key is malformed.", remedy="Send it in full: mlk_<key id>_<secret>.")
        return cls(*match.groups())

    @classmethod
    def adopt(cls, text: str) -> ApiKey:
        """Parse a key that was generated elsewhere and is to become valid.

        Raises:
            InvalidRequestError: It is malformed, or its secret is a repetition that can be guessed. The message does
                not repeat it.
        """
        match = _KEY.fullmatch(text)
        if match is None or len(set(match[2])) < _LEAST_DIFFERENT:
            raise InvalidRequestError(
                "The text is not a key, or its secret can be guessed.",
                remedy="Generate it: mlk_, 16 random hexadecimal digits, _, and 32 random letters or digits.",
                field="key",
            )
        return cls(*match.groups())

    def record(self, tenant_id: TenantId, scopes: frozenset[Scope]) -> KeyRecord:
        """The form of this key to store, with a new salt."""
        salt = secrets.token_bytes(16)
        return KeyRecord(self.key_id, tenant_id, salt, hash_secret(salt, self.secret), scopes)


def bearer_token(authorization: bytes | str | None) -> str:
    """The key or token of an ``Authorization`` header.

    Raises:
        AuthenticationError: The header is missing or has another scheme.
    """
    if not authorization:
        raise AuthenticationError("The request has no API key.", remedy="Send it as 'Authorization: Bearer mlk_…'.")
    text = authorization if isinstance(authorization, str) else authorization.decode("latin-1")
    if text[: len(_SCHEME)].lower() != _SCHEME:
        raise AuthenticationError("The Authorization header is not a bearer token.", remedy="Send 'Bearer mlk_…'.")
    return text[len(_SCHEME) :].strip()


def hash_secret(salt: bytes, secret: str) -> bytes:
    """SHA-256 of salt and secret, 32 bytes."""
    # One round is enough for 192 random bits. A slow password hash protects guessable secrets and would cost every
    # request.
    return hashlib.sha256(salt + secret.encode()).digest()
