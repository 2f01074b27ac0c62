"""Tokens of an OpenID Connect issuer: which are believed, what they allow, and when the issuer is away."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import pytest
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import RSAKey

from ml_core.domain.api_key import Scope
from ml_core.exceptions import (
    AuthenticationError,
    IssuerUnavailableError,
    PermissionDeniedError,
    TenantNotFoundError,
)
from ml_core.ids import EnvironmentName
from ml_core.registry import oidc
from ml_core.registry.oidc import TokenVerifier
from support.oidc_issuer import Issuer, running_issuer
from support.stored import DEADLINE_S
from support.waiting import wait_until

DISCOVERY = "/.well-known/openid-configuration"


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(issuer: Issuer, clock: Clock) -> TokenVerifier:
    return TokenVerifier(issuer.settings(), clock=clock)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "EdDSA"])
def test_a_token_of_the_issuer_is_believed(algorithm: str) -> None:
    """Of each asymmetric algorithm; its claims say who it is, for which tenant, and what it may do."""
    with running_issuer(algorithm) as issuer:
        token = issuer.token(sub="ci@acme", tenant="acme", scope="openid mlcore:read mlcore:promote:staging")
        principal = TokenVerifier(issuer.settings()).verify(token).principal("acme")
    assert (principal.name, principal.tenant_id, principal.scopes) == ("oidc:ci@acme", "acme", {Scope.READ})
    assert principal.promotes == {EnvironmentName("staging")}
    assert not principal.is_operator


def test_a_token_may_be_for_several_tenants(issuer: Issuer, verifier: TokenVerifier) -> None:
    """Each is entered by its own URL; any other is one that does not exist; what is over all of them is denied."""
    identity = verifier.verify(issuer.token(tenant=["acme", "globex", "No Name"], scope=["mlcore:admin"]))
    assert [identity.principal(tenant).tenant_id for tenant in ("acme", "globex")] == ["acme", "globex"]
    for other in ("initech", "No Name", "*", ""):
        with pytest.raises(TenantNotFoundError):
            identity.principal(other)
    with pytest.raises(PermissionDeniedError):
        identity.principal(None)


@pytest.mark.parametrize("claims", [{}, {"tenant": None}, {"tenant": 7}, {"tenant": {"acme": 1}}, {"tenant": []}])
def test_a_token_without_a_tenant_enters_none(issuer: Issuer, verifier: TokenVerifier, claims: dict[str, Any]) -> None:
    """Above all not every tenant."""
    identity = verifier.verify(issuer.token(scope="mlcore:admin", **claims))
    with pytest.raises(TenantNotFoundError):
        identity.principal("acme")
    with pytest.raises(PermissionDeniedError):
        identity.principal(None)


@pytest.mark.parametrize("tenant", ["*", ["acme", "*"]])
def test_a_star_is_the_whole_platform(issuer: Issuer, verifier: TokenVerifier, tenant: object) -> None:
    """Such a principal belongs to no tenant, and may do what its scopes say."""
    identity = verifier.verify(issuer.token(tenant=tenant, scope="mlcore:read"))
    for entered in (None, "acme"):
        principal = identity.principal(entered)
        assert (principal.tenant_id, principal.scopes, principal.is_operator) == (None, {Scope.READ}, False)


@pytest.mark.parametrize("scope", ["admin predict", "mlcore:fly", ["mlcore:read predict"], "MLCORE:admin", 7, None])
def test_what_is_no_scope_of_the_platform_allows_nothing(issuer: Issuer, verifier: TokenVerifier, scope: Any) -> None:
    """Without the prefix it is a scope of another program."""
    principal = verifier.verify(issuer.token(tenant="acme", scope=scope)).principal("acme")
    assert not any(principal.allows(each) for each in Scope)


def test_claims_are_named_by_settings(issuer: Issuer) -> None:
    """A name with dots is one claim."""
    settings = issuer.settings(tenant_claim="https://acme.example/tenant", scope_claim="roles")
    token = issuer.token(**{"https://acme.example/tenant": "acme", "roles": ["mlcore:train", "viewer"]})
    principal = TokenVerifier(settings).verify(token).principal("acme")
    assert principal.scopes == {Scope.TRAIN}


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": 1_000_000_000}, "has expired"),
        ({"exp": None}, "lacks the claim exp"),
        ({"exp": 1e999}, "not valid"),
        ({"nbf": 9_000_000_000, "exp": 9_000_000_100}, "not valid yet"),
        ({"iat": 9_000_000_000, "exp": 9_000_000_100}, "not valid yet"),
        ({"aud": "another"}, "another audience"),
        ({"aud": None}, "lacks the claim aud"),
        ({"iss": "https://login.example"}, "another issuer"),
        ({"iss": None}, "lacks the claim iss"),
        ({"sub": None}, "lacks the claim sub"),
        ({"sub": 7}, "not valid"),
        ({"sub": "a\nb"}, "subject"),
        ({"sub": "s" * 256}, "subject"),
    ],
)
def test_a_token_for_something_else_is_refused(
    issuer: Issuer, verifier: TokenVerifier, claims: dict[str, Any], reason: str
) -> None:
    """Although the issuer signed it; the error says why."""
    with pytest.raises(AuthenticationError, match=reason):
        verifier.verify(issuer.sign(issuer.standard(tenant="acme", scope="mlcore:admin", **claims)))


def test_an_audience_among_others_is_enough(issuer: Issuer, verifier: TokenVerifier) -> None:
    """Also for clocks that differ by less than the leeway."""
    now = int(time.time())
    assert verifier.verify(issuer.token(aud=["other", "mlcore"], nbf=now + 10, exp=now - 10)).name == "oidc:robot"


def test_no_algorithm_is_chosen_by_the_token(verifier: TokenVerifier, issuer: Issuer) -> None:
    """Neither none, nor a MAC keyed with the public key, nor another algorithm than the key's."""
    claims = issuer.standard(tenant="*", scope="mlcore:admin")
    head = {"kid": "k1", "typ": "JWT"}
    public = json.dumps(issuer.published[0])
    signed = f"{part({**head, 'alg': 'HS256'})}.{part(claims)}"
    pem = issuer.keys[0][1].as_pem(private=False)
    forged = [f"{part({**head, 'alg': alg})}.{part(claims)}." for alg in ("none", "None", "")]
    for secret in (public.encode(), pem, b""):
        mac = base64.urlsafe_b64encode(hmac.new(secret, signed.encode(), hashlib.sha256).digest()).decode()
        forged.append(f"{signed}.{mac.rstrip('=')}")
    genuine = issuer.sign(claims)
    _, body, signature = genuine.split(".")
    forged.append(f"{part({**head, 'alg': 'ES384'})}.{body}.{signature}")
    forged.append(f"{part({**head, 'alg': 'ES256'})}.{part({**claims, 'sub': 'root'})}.{signature}")
    for token in forged:
        with pytest.raises(AuthenticationError):
            verifier.verify(token)
    assert verifier.verify(genuine).is_platform_wide


def test_keys_that_do_not_sign_tokens_are_passed_over(issuer: Issuer, clock: Clock) -> None:
    """Secret, weak, private, malformed and encryption keys, and those of unknown kinds, beside one that is used."""
    with pytest.warns(SecurityWarning):
        weak = RSAKey.generate_key(1024).as_dict(private=False)
    _, key = issuer.keys[0]
    own = issuer.published[0]
    issuer.published += [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
        {**weak, "kid": "weak"},
        {**key.as_dict(private=True), "kid": "private"},
        {**own, "kid": "encrypts", "use": "enc"},
        {**own, "kid": "other", "alg": "ES384"},
        {**own, "kid": "broken", "x": "AA"},
        {**own, "kid": 7},
        {"kty": ["EC"], "crv": {}, "kid": "odd"},
        {},
        None,  # type: ignore[list-item]
    ]
    verifier = TokenVerifier(issuer.settings(), clock=clock)
    verifier.verify(issuer.token())
    assert verifier.describe() == {"keys": 2, "age_s": 0, "failed": False}  # by its id, and as the only one
    for kid in ("secret", "weak", "private", "encrypts", "other", "broken", "odd"):
        with pytest.raises(AuthenticationError, match="does not publish"):
            verifier.verify(issuer.sign(issuer.standard(), kid=kid))


def test_the_only_key_need_not_be_named(issuer: Issuer, verifier: TokenVerifier) -> None:
    """One of several must be."""
    claims = issuer.standard()
    algorithm, key = issuer.keys[0]
    unnamed = jwt.encode({"alg": algorithm}, claims, key)
    assert verifier.verify(unnamed).name == "oidc:robot"
    issuer.rotate(keep=True)
    with pytest.raises(AuthenticationError, match="does not publish"):
        TokenVerifier(issuer.settings()).verify(unnamed)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "..",
        "a.b.c",
        "eyJ.eyJ.x",
        f"{part({'alg': 'ES256', 'kid': 7})}.e30.x",
        f"{part({'alg': 'ES256', 'kid': 'k1', 'crit': ['x'], 'x': 1})}.e30.x",
        f"{part({'alg': 'ES256', 'kid': 'k1', 'typ': 'logout+jwt'})}.e30.x",
        f"{part({'alg': 'ES256', 'kid': 'k1', 'typ': ['JWT']})}.e30.x",
        f"{part([1])}.e30.x",
        base64.urlsafe_b64encode(b"[" * 8000).decode() + ".e30.x",
        "é.ü.\udcff",
        "e" * oidc.MAX_TOKEN_BYTES + ".e30.x",
    ],
    ids=range(12),
)
def test_what_is_no_token_is_refused_without_asking_the_issuer(
    issuer: Issuer, verifier: TokenVerifier, token: str
) -> None:
    """Whatever a client sends is 401 and nothing else, and costs no request."""
    with pytest.raises(AuthenticationError):
        verifier.verify(token)
    assert not issuer.requests


def test_a_token_of_another_type_is_refused(issuer: Issuer, verifier: TokenVerifier) -> None:
    """A logout token has issuer, audience and subject too."""
    with pytest.raises(AuthenticationError, match="no access token"):
        verifier.verify(issuer.sign(issuer.standard(), typ="logout+jwt"))


def test_a_verified_token_is_remembered(issuer: Issuer, verifier: TokenVerifier) -> None:
    """By its digest, until it expires; the issuer is asked once."""
    token = issuer.token(tenant="acme")
    assert verifier.remembered(token) is None
    identity = verifier.verify(token)
    assert verifier.remembered(token) is identity
    assert verifier.verify(token) is identity
    assert verifier.remembered(token[:-1]) is None
    assert issuer.requests == {DISCOVERY: 1, "/jwks": 1}
    assert token not in repr(vars(verifier))


def test_a_remembered_token_expires(issuer: Issuer) -> None:
    """At its own time."""
    verifier = TokenVerifier(issuer.settings(), leeway_s=0)
    token = issuer.token(exp=int(time.time()) + 2)
    verifier.verify(token)
    wait_until(lambda: verifier.remembered(token) is None)
    with pytest.raises(AuthenticationError, match="expired"):
        verifier.verify(token)


def test_few_tokens_are_remembered(issuer: Issuer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of valid ones costs no memory beyond the bound."""
    monkeypatch.setattr(oidc, "_REMEMBERED_TOKENS", 3)
    for number in range(10):
        verifier.verify(issuer.token(sub=f"s{number}"))
        assert verifier._keys is not None
        assert len(verifier._keys.identities) <= 3


def test_a_new_key_is_read_when_a_token_names_it(issuer: Issuer, verifier: TokenVerifier, clock: Clock) -> None:
    """And what the old one signed ends with it, remembered or not."""
    old = issuer.token()
    verifier.verify(old)
    issuer.rotate("RS256")
    clock.now += 11
    new = issuer.token()
    assert verifier.verify(new).name == "oidc:robot"
    assert verifier.remembered(old) is None
    with pytest.raises(AuthenticationError, match="does not publish"):
        verifier.verify(old)


def test_unknown_keys_ask_the_issuer_once_in_a_while(issuer: Issuer, verifier: TokenVerifier, clock: Clock) -> None:
    """However many tokens name them, and although each names another."""
    verifier.verify(issuer.token())
    for number in range(50):
        with pytest.raises(AuthenticationError, match="does not publish"):
            verifier.verify(issuer.sign(issuer.standard(), kid=f"x{number}"))
    assert issuer.requests["/jwks"] == 1
    clock.now += 11
    for number in range(50):
        with pytest.raises(AuthenticationError, match="does not publish"):
            verifier.verify(issuer.sign(issuer.standard(), kid=f"x{number}"))
    assert issuer.requests["/jwks"] == 2


def test_many_first_tokens_ask_the_issuer_once(issuer: Issuer, verifier: TokenVerifier) -> None:
    """They wait for the same answer."""
    tokens = [issuer.token(sub=f"s{number}") for number in range(16)]
    issuer.blocked.clear()
    with ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(verifier.verify, token) for token in tokens]
        wait_until(lambda: issuer.requests["/jwks"])
        issuer.blocked.set()
        assert {each.result().name for each in waiting} == {f"oidc:s{number}" for number in range(16)}
    assert issuer.requests == {DISCOVERY: 1, "/jwks": 1}


def test_few_threads_wait_for_the_issuer(issuer: Issuer, verifier: TokenVerifier) -> None:
    """The others are free for requests with keys."""
    token = issuer.token()
    issuer.blocked.clear()
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(verifier.verify, token) for _ in range(40)]
        refused = list(itertools.islice(as_completed(waiting, DEADLINE_S), 40 - oidc._MAX_WAITING_THREADS))
        issuer.blocked.set()
    assert {type(each.exception()) for each in refused} == {IssuerUnavailableError}
    assert all(each.exception() is None for each in waiting if each not in refused)


def test_the_last_keys_stay_in_use_while_the_issuer_is_away(
    issuer: Issuer, verifier: TokenVerifier, clock: Clock
) -> None:
    """Known tokens and new ones of known keys are accepted; of an unknown key nobody can tell: 503, not 401."""
    known, new = issuer.token(sub="known"), issuer.token(sub="new")
    verifier.verify(known)
    issuer.rotate()
    rotated = issuer.token()
    issuer.stop()
    clock.now += 3_600
    assert verifier.verify(known).name == "oidc:known"
    assert verifier.verify(new).name == "oidc:new"
    with pytest.raises(IssuerUnavailableError) as caught:
        verifier.verify(rotated)
    assert caught.value.retry_after_s >= 1
    assert verifier.describe()["failed"]
    issuer.start()
    clock.now += 11
    assert verifier.verify(rotated).name == "oidc:robot"
    assert not verifier.describe()["failed"]


def test_an_issuer_that_was_never_reached_is_unavailable(issuer: Issuer, verifier: TokenVerifier, clock: Clock) -> None:
    """A good token is not called bad because of that; between two attempts nobody waits."""
    token = issuer.token()
    issuer.stop()
    for _ in range(3):
        with pytest.raises(IssuerUnavailableError):
            verifier.verify(token)
    issuer.start()
    with pytest.raises(IssuerUnavailableError):
        verifier.verify(token)
    clock.now += 11
    verifier.verify(token)


def test_keys_are_read_again_in_the_background(issuer: Issuer, verifier: TokenVerifier, clock: Clock) -> None:
    """No request waits for that, and a key that the issuer withdrew ends also what is remembered of it."""
    token = issuer.token()
    verifier.verify(token)
    issuer.rotate()
    issuer.blocked.clear()
    clock.now += 301
    assert verifier.remembered(token) is not None
    wait_until(lambda: issuer.requests["/jwks"] == 2)
    assert verifier.verify(token).name == "oidc:robot"
    issuer.blocked.set()
    wait_until(lambda: verifier.remembered(token) is None)


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://login.example"},
        {"jwks_uri": None},
        {"jwks_uri": "http://login.example/jwks"},
        {"jwks_uri": "file:///etc/passwd"},
        {"padding": "x" * 2**20},
    ],
    ids=["another issuer", "no address", "unprotected", "a file", "too large"],
)
def test_a_discovery_document_that_can_not_be_trusted_is_not(
    issuer: Issuer, verifier: TokenVerifier, discovery: dict[str, Any]
) -> None:
    """No key is read from where it points to."""
    issuer.discovery = discovery
    with pytest.raises(IssuerUnavailableError):
        verifier.verify(issuer.token())
    assert issuer.requests["/jwks"] == 0


def test_the_event_loop_goes_on_while_keys_are_read(issuer: Issuer, verifier: TokenVerifier) -> None:
    """A request waits for the issuer no longer than it may, and only a few do so at a time."""
    token = issuer.token()
    issuer.blocked.clear()

    async def ask() -> tuple[float, list[BaseException | object]]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        patient = asyncio.create_task(verifier.verify_async(token, 30))
        hasty = [asyncio.create_task(verifier.verify_async(token, 0.05)) for _ in range(100)]
        refused = await asyncio.gather(*hasty, return_exceptions=True)
        took = loop.time() - began
        issuer.blocked.set()
        return took, [*refused, await patient]

    took, (*refused, answered) = asyncio.run(ask())
    assert took < 2
    assert {type(error) for error in refused} == {IssuerUnavailableError}
    assert isinstance(answered, oidc.Identity)
    assert issuer.requests["/jwks"] == 1


def test_many_threads_share_a_verifier(issuer: Issuer, clock: Clock) -> None:
    """While keys change under them, each token is accepted or refused for its own reason."""
    verifier = TokenVerifier(issuer.settings(), clock=clock)
    tokens = [issuer.token(sub=f"s{number}") for number in range(20)]
    stop = threading.Event()

    def rotate() -> None:
        for _ in range(100):  # each key stays, and the issuer's document may have 1 MiB
            if stop.is_set():
                return
            issuer.rotate(keep=True)
            clock.now += 11

    with ThreadPoolExecutor(9) as pool:
        rotating = pool.submit(rotate)
        try:
            found = list(pool.map(lambda token: verifier.verify(token).name, tokens * 20))
        finally:
            stop.set()
        rotating.result(DEADLINE_S)
    assert found == [f"oidc:s{number}" for number in range(20)] * 20
