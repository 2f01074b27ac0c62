"""Tokens of an OpenID Connect issuer, verified with the keys that the issuer publishes.

No request sends its token to the issuer. The discovery document and keys (JWKS) are read by a thread: when the first
token arrives, when a token names an unknown key, and every five minutes. While the issuer can't be reached the last
keys stay in use. What the claims mean is described in ``docs/authentication.md``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import httpx
import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ml_core.domain.api_key import Grant, Scope
from ml_core.domain.principal import Principal, refuse_tenant
from ml_core.exceptions import AuthenticationError, IssuerUnavailableError
from ml_core.ids import EnvironmentName, TenantId
from ml_core.settings import OidcSettings, is_protected_url

logger = logging.getLogger(__name__)

SCOPE_PREFIX: Final = "mlcore:"
"""What the platform's scopes begin with in a token: a scope ``admin`` of another program must not count here."""
EVERY_TENANT: Final = "*"

MAX_TOKEN_BYTES: Final = 16 * 1024
FETCH_WITHIN_S: Final = 5.0
"""How long a request waits for the issuer's keys at most."""
LEEWAY_S: Final = 30.0
"""By how much the issuer's clock may differ: hosts that are synchronised by NTP differ by far less."""
# A key is published long before it signs (Keycloak, Entra: a day), so a regular rotation makes no request wait.
_REFRESH_AFTER_S = 300.0
# Tokens with unknown keys cost the issuer two requests in this time at most, however many arrive.
_PAUSE_S = 10.0
_CONNECT_TIMEOUT_S = 3.0
_MAX_DOCUMENT_BYTES = 2**20
_MAX_WAITING = 64
_MAX_WAITING_THREADS = 16  # of the 20 that answer requests of the control API
_REMEMBERED_TOKENS = 10_000
_MAX_SUBJECT_CHARACTERS = 255  # OpenID Connect Core 1.0, section 2
_MIN_RSA_BITS = 2048  # RFC 7518, section 3.3
_TYPES = ("jwt", "at+jwt", "application/at+jwt")  # RFC 9068; a logout token, for example, is of another type
# By type and curve of the key. Symmetric algorithms and ``none`` are not among them, so a token can't choose them.
_ALGORITHMS: Final[Mapping[tuple[object, object], tuple[str, ...]]] = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
_REMEDY = "Request a new token from the issuer."
_SIGN_IN_AGAIN = "Sign in again."


@dataclass(frozen=True, slots=True)
class Identity:
    """What a verified token says of its holder.

    Attributes:
        name: ``oidc:<subject>``.
        scopes: What the holder may do.
        promotes: Environments that the holder may move although they are protected.
        tenants: The tenants that it may act in.
        is_platform_wide: Whether it may act in every tenant, and in what is over all of them.
        expires_at: In seconds since 1970.
    """

    name: str
    scopes: frozenset[Scope]
    promotes: frozenset[EnvironmentName]
    tenants: frozenset[str]
    is_platform_wide: bool
    expires_at: float

    def principal(self, tenant_id: str | None) -> Principal:
        """The holder, acting in a tenant. Whether the tenant exists is not checked.

        Args:
            tenant_id: The tenant; None: what is over all tenants.

        Raises:
            TenantNotFoundError: The token is not for this tenant.
            PermissionDeniedError: The token is for some tenants, and None was asked for.
        """
        if self.is_platform_wide:
            return Principal(self.name, self.scopes, self.promotes)
        if tenant_id is None or tenant_id not in self.tenants:
            refuse_tenant(self.name, tenant_id)
        return Principal(self.name, self.scopes, self.promotes, TenantId(tenant_id))


class Endpoints(NamedTuple):
    """Addresses of the discovery document, for signing in; None where it has none that is protected."""

    authorization: str | None
    token: str | None


class _Key(NamedTuple):
    public: Any
    algorithms: tuple[str, ...]


class _Keys(NamedTuple):
    """The issuer's keys, and the tokens that they verified: forgotten with them, so that a withdrawn key ends both."""

    document: Mapping[str, Any]
    by_id: Mapping[str | None, _Key]
    identities: dict[bytes, Identity]


class TokenVerifier:
    """Verifies the tokens of one issuer; one for each process. Any number of threads and an event loop may share it.

    Args:
        settings: Must name an issuer.
        leeway_s: By how much the issuer's clock may differ, in seconds.
        clock: Paces the reading of keys, in seconds; not the clock that tokens expire by.

    Attributes:
        settings: As given.
    """

    def __init__(
        self, settings: OidcSettings, *, leeway_s: float = LEEWAY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._issuer = settings.issuer or ""
        self.settings = settings
        self._leeway_s = leeway_s
        self._clock = clock
        self._keys: _Keys | None = None
        self._endpoints: Endpoints | None = None
        self._has_failed = False
        self._fetched_at: float | None = None
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "mlcore-oidc")  # starts with the first fetch
        self._fetching: Future[None] | None = None
        self._not_before = float("-inf")
        self._waiting = 0
        self._waiting_threads = threading.BoundedSemaphore(_MAX_WAITING_THREADS)

    @classmethod
    def of(cls, settings: OidcSettings) -> Self | None:
        """The verifier of the settings; None where they name no issuer."""
        return None if settings.issuer is None else cls(settings)

    def remembered(self, token: str) -> Identity | None:
        """The holder of a token that was verified before and has not expired. Never waits."""
        keys = self._keys
        if keys is None or len(token) > MAX_TOKEN_BYTES:
            return None
        identity = keys.identities.get(_digest(token))
        if identity is None or time.time() >= identity.expires_at + self._leeway_s:
            return None
        self._refresh_if_old()
        return identity

    def verify(self, token: str) -> Identity:
        """The holder of a token. Waits up to ``FETCH_WITHIN_S`` where the issuer's keys have to be read first.

        Raises:
            AuthenticationError: The token is malformed, expired, or not for this platform; says why.
            IssuerUnavailableError: The issuer's keys can't be read, or too many requests wait for them.
        """
        identity = self.remembered(token)
        if identity is not None:
            return identity
        key_id = _key_id(token)
        fetching = self._fetch_for(key_id)
        if fetching is not None:
            if not self._waiting_threads.acquire(blocking=False):
                raise _unavailable()
            try:
                concurrent.futures.wait([fetching], FETCH_WITHIN_S)
            finally:
                self._waiting_threads.release()
        return self._check(token, key_id)

    async def verify_async(self, token: str, within_s: float) -> Identity:
        """As ``verify``, without holding up the event loop.

        Args:
            token: The token.
            within_s: Seconds to wait for the issuer's keys at most.

        Raises:
            AuthenticationError: The token is malformed, expired, or not for this platform; says why.
            IssuerUnavailableError: The issuer's keys can't be read, or too many requests wait for them.
        """
        key_id = _key_id(token)
        await self._wait(self._fetch_for(key_id), within_s)
        return self._check(token, key_id)

    async def check_id_token(self, token: str, nonce: str) -> None:
        """Check that an ID token is for the client of the settings, and belongs to one attempt to sign in.

        Args:
            token: The ID token.
            nonce: What the attempt sent to the issuer.

        Raises:
            AuthenticationError: The token is malformed, expired, or for another client or attempt; says why.
            IssuerUnavailableError: The issuer's keys can't be read, or too many requests wait for them.
        """
        key_id = _key_id(token)
        await self._wait(self._fetch_for(key_id), FETCH_WITHIN_S)
        _, claims = self._claims(token, key_id, self.settings.client_id)
        if claims.get("azp", self.settings.client_id) != self.settings.client_id:
            raise AuthenticationError("The ID token is for another client.", remedy=_SIGN_IN_AGAIN)
        if claims.get("nonce") != nonce:
            raise AuthenticationError("The ID token is of another attempt to sign in.", remedy=_SIGN_IN_AGAIN)

    async def endpoints(self) -> Endpoints:
        """Where people sign in. Waits up to ``FETCH_WITHIN_S``, until the discovery document was read once.

        Raises:
            IssuerUnavailableError: It can't be read, or too many requests wait for it.
        """
        if self._endpoints is None:
            await self._wait(self._fetch_soon(), FETCH_WITHIN_S)
        if self._endpoints is None:
            raise _unavailable()
        self._refresh_if_old()
        return self._endpoints

    def describe(self) -> dict[str, Any]:
        """For health: how many keys are in use, how old they are, and whether the last attempt to read them failed."""
        keys, fetched_at = self._keys, self._fetched_at
        return {
            "keys": len(keys.by_id) if keys else 0,
            "age_s": None if fetched_at is None else round(self._clock() - fetched_at),
            "failed": self._has_failed,
        }

    # The issuer's keys.

    def _fetch_for(self, key_id: str | None) -> Future[None] | None:
        """The fetch to wait for before a token of this key is checked; None: there is none."""
        keys = self._keys
        if keys is None or key_id not in keys.by_id:
            return self._fetch_soon()
        self._refresh_if_old()
        return None

    async def _wait(self, fetching: Future[None] | None, within_s: float) -> None:
        if fetching is None:
            return
        if self._waiting >= _MAX_WAITING:
            raise _unavailable()
        self._waiting += 1
        try:
            # ``wait`` cancels nothing when the time is over: others wait for the same fetch.
            await asyncio.wait([asyncio.wrap_future(fetching)], timeout=min(within_s, FETCH_WITHIN_S))
        finally:
            self._waiting -= 1

    def _refresh_if_old(self) -> None:
        if self._fetched_at is not None and self._clock() - self._fetched_at > _REFRESH_AFTER_S:
            self._fetch_soon()

    def _fetch_soon(self) -> Future[None] | None:
        """The running fetch, or a new one; None within the pause after the last."""
        with self._lock:
            if self._fetching is None and self._clock() >= self._not_before:
                self._fetching = self._thread.submit(self._fetch)
            return self._fetching

    def _fetch(self) -> None:
        try:
            endpoints, document, by_id = _read_keys(self._issuer)
        except Exception as error:  # noqa: BLE001 - whatever the issuer answers, the last keys stay in use
            logger.warning("The keys of the issuer %s can't be read: %s: %s", self._issuer, type(error).__name__, error)
            self._has_failed = True
        else:
            known = self._keys
            if known is None or known.document != document:
                self._keys = _Keys(document, by_id, {})
            self._endpoints, self._has_failed, self._fetched_at = endpoints, False, self._clock()
        with self._lock:
            self._fetching, self._not_before = None, self._clock() + _PAUSE_S

    # Tokens.

    def _check(self, token: str, key_id: str | None) -> Identity:
        keys, claims = self._claims(token, key_id, self.settings.audience)
        identity = self._identity(claims)
        if len(keys.identities) >= _REMEMBERED_TOKENS:
            keys.identities.clear()  # costs the next request of each token a verification
        keys.identities[_digest(token)] = identity
        return identity

    def _claims(self, token: str, key_id: str | None, audience: str | None) -> tuple[_Keys, dict[str, Any]]:
        """What a token claims, and the keys that verified it."""
        keys = self._keys
        key = keys.by_id.get(key_id) if keys else None
        if keys is None or key is None:
            if keys is None or self._has_failed or self._fetching is not None:
                raise _unavailable()
            raise AuthenticationError(
                "The token is signed with a key that the issuer does not publish.", remedy=_REMEDY
            )
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.public,
                algorithms=key.algorithms,
                issuer=self._issuer,
                audience=audience,
                leeway=self._leeway_s,
                options={"require": ["iss", "aud", "exp", "sub"]},
            )
            claims["exp"] = float(claims["exp"])
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
            raise AuthenticationError(_reason(error), remedy=_REMEDY) from error
        return keys, claims

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        subject = claims["sub"]
        if not 0 < len(subject) <= _MAX_SUBJECT_CHARACTERS or not subject.isprintable():
            raise AuthenticationError("The token's subject can't be written to the audit.", remedy=_REMEDY)
        scopes = claims.get(self.settings.scope_claim)
        names = _strings(scopes.split() if isinstance(scopes, str) else scopes)
        grant = Grant.read(name.removeprefix(SCOPE_PREFIX) for name in names if name.startswith(SCOPE_PREFIX))
        tenants = claims.get(self.settings.tenant_claim)
        named = _strings([tenants] if isinstance(tenants, str) else tenants)
        return Identity(
            f"oidc:{subject}",
            grant.scopes,
            grant.promotes,
            frozenset(name for name in named if TenantId.pattern.fullmatch(name)),
            EVERY_TENANT in named,
            claims["exp"],
        )


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _key_id(token: str) -> str | None:
    """The key that a token names, before anything of it is believed.

    Raises:
        AuthenticationError: The token is too long, malformed, or of a type that is no access token.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise AuthenticationError(f"The token is over {MAX_TOKEN_BYTES:,} bytes.", remedy="Map fewer claims into it.")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise AuthenticationError("The token is malformed.", remedy=_REMEDY) from error
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise AuthenticationError("The token is no access token.", remedy=_REMEDY)
    key_id: str | None = header.get("kid")
    return key_id


def _reason(error: Exception) -> str:
    """Why a token is refused. All but the last are found after its signature was verified."""
    match error:
        case jwt.ExpiredSignatureError():
            return "The token has expired."
        case jwt.ImmatureSignatureError():
            return "The token is not valid yet."
        case jwt.InvalidAudienceError():
            return "The token is for another audience."
        case jwt.InvalidIssuerError():
            return "The token is of another issuer."
        case jwt.MissingRequiredClaimError():
            return f"The token lacks the claim {error.claim}."
        case _:
            return "The token is not valid."


def _strings(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _unavailable() -> IssuerUnavailableError:
    return IssuerUnavailableError(
        "The keys of the OpenID issuer can't be read.",
        remedy="Try again; if it lasts, check MLCORE_OIDC_ISSUER and that the issuer can be reached.",
        retry_after_s=round(_PAUSE_S),
    )


def _read_keys(issuer: str) -> tuple[Endpoints, Mapping[str, Any], Mapping[str | None, _Key]]:
    """Where people sign in; the issuer's JWKS, as sent and by the keys' ids."""
    deadline = time.monotonic() + FETCH_WITHIN_S
    with httpx.Client(timeout=_CONNECT_TIMEOUT_S) as client:
        discovery = _get(client, f"{issuer.rstrip('/')}/.well-known/openid-configuration", deadline)
        if discovery.get("issuer") != issuer:
            raise ValueError(f"the discovery document is of the issuer {str(discovery.get('issuer'))[:200]!r}")
        names = ("jwks_uri", "authorization_endpoint", "token_endpoint")
        jwks_uri, *endpoints = (_protected(discovery.get(name)) for name in names)
        if jwks_uri is None:
            raise ValueError("jwks_uri is no https address")
        document = _get(client, jwks_uri, deadline)
    listed = document.get("keys")
    by_id: dict[str | None, _Key] = {}
    for each in listed if isinstance(listed, list) else ():
        key = _key(each) if isinstance(each, dict) and isinstance(each.get("kid", ""), str) else None
        if key is not None:
            by_id[each.get("kid")] = key
    if len(by_id) == 1:
        by_id[None] = next(iter(by_id.values()))  # a token need not name the only key
    return Endpoints(*endpoints), document, by_id


def _protected(url: object) -> str | None:
    try:
        return str(httpx.URL(url)) if isinstance(url, str) and is_protected_url(url) else None
    except httpx.InvalidURL:
        return None


def _get(client: httpx.Client, url: str, deadline: float) -> dict[str, Any]:
    body = bytearray()
    with client.stream("GET", url, headers={"accept": "application/json"}) as response:
        response.raise_for_status()  # of a redirect, too: none is followed
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > _MAX_DOCUMENT_BYTES or time.monotonic() > deadline:
                raise ValueError(f"{url} is too large or too slow")
    document = orjson.loads(body)
    if not isinstance(document, dict):
        raise ValueError(f"{url} is no JSON object")
    return document


def _key(jwk: dict[str, Any]) -> _Key | None:
    """A key that signs tokens; None: it is for something else, too weak, or of a kind that is not accepted."""
    try:
        algorithms = _ALGORITHMS.get((jwk.get("kty"), jwk.get("crv")), ())
        if "alg" in jwk:
            algorithms = tuple(name for name in algorithms if name == jwk["alg"])
        if not algorithms or jwk.get("use", "sig") != "sig" or "d" in jwk:
            return None
        public = jwt.PyJWK(jwk, algorithms[0]).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(public, RSAPublicKey) and public.key_size < _MIN_RSA_BITS:
        return None
    return _Key(public, algorithms)
