"""A real OpenID Connect issuer on the loopback interface: discovery, keys, and tokens for client credentials.

It signs with joserfc, which is another implementation than the one that verifies.
"""

from __future__ import annotations

import json
import threading
import time
import warnings
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import httpx
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from ml_core.settings import OidcSettings

AUDIENCE = "mlcore"
CLIENT = ("service", "secret")
MAKERS = {
    "RS256": lambda: RSAKey.generate_key(2048),
    "PS256": lambda: RSAKey.generate_key(2048),
    "ES256": lambda: ECKey.generate_key("P-256"),
    "ES384": lambda: ECKey.generate_key("P-384"),
    "EdDSA": lambda: OKPKey.generate_key("Ed25519"),
    "HS256": lambda: OctKey.generate_key(256),
}


class Issuer:
    """An issuer that runs between ``start`` and ``stop``, always at the same address.

    Attributes:
        claims: What its tokens say besides ``iss``, ``aud``, ``sub``, ``iat`` and ``exp``.
        keys: Each with its algorithm; the last one signs, those in ``published`` are in the JWKS.
        discovery: Replaces fields of the discovery document.
        requests: How often each path was asked.
        blocked: While it is cleared, the JWKS is not answered.
    """

    def __init__(self, algorithm: str = "ES256") -> None:
        self._port = 0
        self.claims: dict[str, Any] = {}
        self.keys: list[tuple[str, Key]] = []
        self.published: list[dict[str, Any]] = []
        self.discovery: dict[str, Any] = {}
        self.requests: Counter[str] = Counter()
        self.blocked = threading.Event()
        self.blocked.set()
        self.rotate(algorithm)
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def settings(self, **fields: Any) -> OidcSettings:
        return OidcSettings(**{"issuer": self.url, "audience": AUDIENCE, **fields})

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self.blocked.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def rotate(self, algorithm: str = "ES256", *, keep: bool = False) -> None:
        """Sign with a new key; the old ones stay published where ``keep`` says so."""
        key = MAKERS[algorithm]()
        self.keys.append((algorithm, key))
        public = {**key.as_dict(private=False), "kid": f"k{len(self.keys)}", "use": "sig"}
        self.published = [*(self.published if keep else ()), public]

    def token(self, **claims: Any) -> str:
        """An access token of the token endpoint, as a program gets one; with these claims."""
        self.claims = claims
        answer = httpx.post(f"{self.url}/token", data={"grant_type": "client_credentials"}, auth=CLIENT)
        return str(answer.raise_for_status().json()["access_token"])

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """A token of exactly these claims, signed with the last key."""
        algorithm, key = self.keys[-1]
        head = {"alg": algorithm, "kid": f"k{len(self.keys)}", "typ": "at+jwt", **header}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # EdDSA has another name now, which few issuers use
            return jwt.encode(head, claims, key, algorithms=[head["alg"]])

    def standard(self, **claims: Any) -> dict[str, Any]:
        """The claims of a token that is valid for five minutes."""
        now = int(time.time())
        own = {"iss": self.url, "aud": AUDIENCE, "sub": "robot", "iat": now, "exp": now + 300}
        return {name: value for name, value in {**own, **claims}.items() if value is not None}

    def _get(self, path: str) -> dict[str, Any] | None:
        self.requests[path] += 1
        if path == "/.well-known/openid-configuration":
            own = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks", "token_endpoint": f"{self.url}/token"}
            return {**own, **self.discovery}
        if path == "/jwks":
            assert self.blocked.wait(30)
            return {"keys": self.published}
        return None

    def _post(self, path: str, authorization: str, form: dict[str, list[str]]) -> dict[str, Any] | None:
        given = tuple(b64decode(authorization.removeprefix("Basic ")).decode().split(":"))
        if path != "/token" or given != CLIENT or form.get("grant_type") != ["client_credentials"]:
            return None
        return {"access_token": self.sign(self.standard(**self.claims)), "token_type": "Bearer", "expires_in": 300}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(issuer._get(self.path))

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                self._answer(issuer._post(self.path, self.headers["authorization"], form))

            def _answer(self, body: dict[str, Any] | None) -> None:
                content = json.dumps(body or {}).encode()
                self.send_response(404 if body is None else 200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                """Nothing on standard error."""

        return Handler


@contextmanager
def running_issuer(algorithm: str = "ES256") -> Iterator[Issuer]:
    issuer = Issuer(algorithm)
    try:
        yield issuer
    finally:
        issuer.stop()
