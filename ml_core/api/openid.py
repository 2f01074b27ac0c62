"""Signing in to the console with OpenID Connect: the authorization code flow with PKCE (RFC 6749, RFC 7636).

The browser is sent to the issuer, where its user signs in, and comes back with a code, which this process exchanges for
tokens. Nothing of an attempt is kept here: what has to be known when the browser comes back is in a cookie of that
browser, encrypted, so any replica of the control API can finish what another began. The cookie is the proof that the
answer is for an attempt of this browser; the issuer takes a code once only.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import logging
import secrets
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote

import anyio
import httpx
import orjson
from starlette.concurrency import run_in_threadpool

from ml_core.exceptions import AuthenticationError, IssuerUnavailableError, QuotaExceededError
from ml_core.inference.quotas import TokenBucket
from ml_core.registry.oidc import FETCH_WITHIN_S, TokenVerifier
from ml_core.registry.sessions import Sessions

logger = logging.getLogger(__name__)

ATTEMPT_S: Final = 600
"""How long somebody may take to sign in at the issuer, with a second factor that has to be found."""
EXCHANGE_WITHIN_S: Final = 5.0
# Anybody can make the platform ask the issuer to exchange a code, so that has a bound: of all browsers of a process.
EXCHANGES_PER_S: Final = 5
EXCHANGES_AT_ONCE: Final = 20
_MAX_ANSWER_BYTES = 256 * 1024
_MAX_ADDRESS_CHARACTERS = 1000
_MAX_WORDS_CHARACTERS = 200
_AGAIN = "Sign in again."


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What is known again when the browser comes back.

    Attributes:
        state: Is in the issuer's answer.
        nonce: Is in the ID token.
        verifier: PKCE's, which the issuer knows the digest of.
        address: Of the console, which is shown afterwards.
    """

    state: str
    nonce: str
    verifier: str
    address: str


class SignedIn(NamedTuple):
    """The token that a session stands for, when it expires (in seconds since 1970), and what to show."""

    token: str
    expires_at: float
    address: str


class OpenIdSignIn:
    """Signs people in as one client of one issuer. For one event loop.

    Args:
        tokens: Verifies the issuer's tokens; its settings must name a client.
        attempts: Seals what a browser keeps for us.
    """

    def __init__(self, tokens: TokenVerifier, attempts: Sessions) -> None:
        self._tokens = tokens
        self._settings = tokens.settings
        self._attempts = attempts
        self._exchanges = TokenBucket(EXCHANGES_PER_S, EXCHANGES_AT_ONCE)

    @classmethod
    def of(cls, tokens: TokenVerifier | None, attempts: Sessions) -> Self | None:
        """None where the settings name no client."""
        return None if tokens is None or tokens.settings.client_id is None else cls(tokens, attempts)

    async def begin(self, redirect_uri: str, address: str) -> tuple[str, str]:
        """Begin an attempt.

        Args:
            redirect_uri: Where the issuer sends the browser back to.
            address: What is shown afterwards; one that is too long for a cookie is forgotten.

        Returns:
            Where to send the browser, and what it keeps for ``finish`` meanwhile.

        Raises:
            IssuerUnavailableError: The discovery document can't be read, or names no such address.
            ConfigurationError, RegistryUnavailableError: The secret of the cookie can't be read.
        """
        endpoint = (await self._tokens.endpoints()).authorization
        if endpoint is None:
            raise _unusable("authorization_endpoint")
        kept = address if len(address) <= _MAX_ADDRESS_CHARACTERS else ""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        attempt = _Attempt(state, nonce, verifier, kept)
        challenge = hashlib.sha256(attempt.verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": self._settings.client_scopes,
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": base64.urlsafe_b64encode(challenge).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        sealed = await run_in_threadpool(self._attempts.seal, orjson.dumps(asdict(attempt)).decode())
        return str(httpx.URL(endpoint).copy_merge_params(asked)), sealed

    async def finish(self, sealed: str | None, answer: Mapping[str, str], redirect_uri: str) -> SignedIn:
        """Finish an attempt: whoever signed in has a token that this platform accepts.

        Args:
            sealed: What the browser kept; None: nothing.
            answer: What the issuer sent with the browser.
            redirect_uri: As for ``begin``.

        Raises:
            AuthenticationError: The answer is for no attempt of this browser, or the issuer or we refuse it; says why.
            IssuerUnavailableError: The issuer can't be reached, is too slow, or does not answer as the protocol says.
            QuotaExceededError: Too many sign in at the same time.
            ConfigurationError, RegistryUnavailableError: The secret of the cookie can't be read.
        """
        attempt = await self._begun(sealed, answer.get("state", ""))
        if "error" in answer:
            raise _refused(answer)
        granted = await self._exchange(answer.get("code", ""), attempt.verifier, redirect_uri)
        await self._tokens.check_id_token(granted["id_token"], attempt.nonce)
        token, expires_at = await self._usable(granted)
        return SignedIn(token, expires_at, attempt.address)

    async def _begun(self, sealed: str | None, state: str) -> _Attempt:
        attempt: _Attempt | None = None
        with suppress(AuthenticationError):
            attempt = _Attempt(**orjson.loads(await run_in_threadpool(self._attempts.open, sealed or "")))
        if attempt is None or not hmac.compare_digest(attempt.state.encode(), state.encode()):
            raise AuthenticationError(
                "This attempt to sign in was not begun in this browser, is over, or took more than "
                f"{ATTEMPT_S // 60} minutes.",
                remedy=_AGAIN,
            )
        return attempt

    async def _usable(self, granted: Mapping[str, str]) -> tuple[str, float]:
        """The token that the platform accepts, and when it expires: the access token.

        Or the ID token, if its audience is that of the settings: many issuers have access tokens for themselves only.
        """
        token = granted["access_token"]
        try:
            identity = await self._tokens.verify_async(token, FETCH_WITHIN_S)
        except AuthenticationError as error:
            if self._settings.audience != self._settings.client_id:
                raise AuthenticationError(
                    f"The issuer's access token is not accepted. {error.message}",
                    remedy=f"Let the issuer give the client {self._settings.client_id} access tokens that are JWTs "
                    f"with the audience {self._settings.audience}.",
                ) from error
            token = granted["id_token"]
            identity = await self._tokens.verify_async(token, FETCH_WITHIN_S)
        return token, identity.expires_at

    async def _exchange(self, code: str, verifier: str, redirect_uri: str) -> Mapping[str, str]:
        """The issuer's tokens for a code."""
        self._take_turn()
        endpoint = (await self._tokens.endpoints()).token
        if endpoint is None:
            raise _unusable("token_endpoint")
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
        try:
            # Of the whole exchange: the timeouts of httpx are for each part of it.
            with anyio.fail_after(EXCHANGE_WITHIN_S):
                status, granted = await self._post(endpoint, {**form, "code_verifier": verifier})
        except (httpx.HTTPError, ValueError, TimeoutError) as error:
            logger.warning("The token endpoint %s can't be used: %s: %s", endpoint, type(error).__name__, error)
            raise IssuerUnavailableError(
                "The OpenID issuer does not answer, or not as its protocol says.", remedy=_AGAIN, retry_after_s=5
            ) from error
        if "error" in granted:
            raise _refused(granted)
        if status != httpx.codes.OK or not all(
            isinstance(granted.get(name), str) for name in ("access_token", "id_token")
        ):
            logger.warning("The token endpoint %s answered %d without both tokens.", endpoint, status)
            raise _unusable("token_endpoint")
        return granted

    def _take_turn(self) -> None:
        wait_ns = self._exchanges.take(1, time.monotonic_ns())
        if wait_ns:
            raise QuotaExceededError(
                "Too many people sign in at the same time.",
                remedy="Load this page again in a moment.",
                quota="sign_in",
                limit=EXCHANGES_PER_S,
                retry_after_s=wait_ns / 1e9,
            )

    async def _post(self, url: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        client_id, secret = quote(self._settings.client_id or "", safe=""), self._settings.client_secret
        # RFC 6749, section 2.3.1: both are encoded before they become a user and a password.
        auth = None if secret is None else httpx.BasicAuth(client_id, quote(secret, safe=""))
        if auth is None:
            form = {**form, "client_id": self._settings.client_id or ""}
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        body = bytearray()
        # A redirect is not followed: it would carry the code, and the client's secret, elsewhere.
        async with (
            httpx.AsyncClient(verify=self._tls, timeout=EXCHANGE_WITHIN_S) as client,
            client.stream("POST", url, data=form, headers=headers, auth=auth) as response,
        ):
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _MAX_ANSWER_BYTES:
                    raise ValueError("its answer is too large")
        document = orjson.loads(body)
        if not isinstance(document, dict):
            raise ValueError("its answer is no JSON object")
        return response.status_code, document

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx.create_ssl_context()  # reads the certificates of all authorities


def _refused(answer: Mapping[str, Any]) -> AuthenticationError:
    """In the issuer's words, of which no more than a line is shown."""
    code, words = (_line(answer.get(name) or "") for name in ("error", "error_description"))
    said = f"{words.rstrip('.')} ({code})" if words else code
    return AuthenticationError(
        f"The OpenID issuer does not sign you in: {said}.",
        remedy="Sign in again, or ask the operator to check the client at the issuer.",
    )


def _line(value: object) -> str:
    text = "".join(each if each.isprintable() else " " for each in str(value)[:_MAX_WORDS_CHARACTERS])
    return " ".join(text.split())


def _unusable(name: str) -> IssuerUnavailableError:
    return IssuerUnavailableError(
        f"Nobody can sign in: the {name} of the OpenID issuer can't be used.",
        remedy="Let the operator check the issuer, which needs the authorization code flow with ID tokens.",
        retry_after_s=round(FETCH_WITHIN_S),
    )
