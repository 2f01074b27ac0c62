"""A real OpenID Connect issuer on the loopback interface.

It has discovery, keys, tokens for client credentials, and the authorization code flow with a page to log in at, as
strict as the standards ask: registered redirects, PKCE, and codes that are exchanged once, by the client that they were
made for. It signs with joserfc, which is another implementation than the one that verifies.
"""

from __future__ import annotations

import hashlib
import html
import json
import secrets
import threading
import time
import warnings
from base64 import b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from ml_core.settings import OidcSettings

AUDIENCE = "mlcore"
CLIENT = ("service", "secret")
CONSOLE = ("console app", "s%3A:cr+t é")
"""The client of the console, and its secret: both have to be encoded."""
MAKERS = {
    "RS256": lambda: RSAKey.generate_key(2048),
    "PS256": lambda: RSAKey.generate_key(2048),
    "ES256": lambda: ECKey.generate_key("P-256"),
    "ES384": lambda: ECKey.generate_key("P-384"),
    "EdDSA": lambda: OKPKey.generate_key("Ed25519"),
    "HS256": lambda: OctKey.generate_key(256),
}
LOGIN = """\
<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Log in</title></head><body><h1>The issuer</h1>
<form method="post" action="{action}"><label>User <input name="user"></label>
<button name="answer" value="yes">Log in</button><button name="answer" value="no">Refuse</button></form></body></html>
"""


@dataclass(frozen=True)
class Answer:
    """What it answers over HTTP.

    Attributes:
        pause_s: Seconds between one byte and the next.
    """

    status: int
    body: bytes = b""
    kind: str = "application/json"
    location: str | None = None
    pause_s: float = 0

    @classmethod
    def of(cls, status: int, document: dict[str, Any]) -> Answer:
        return cls(status, json.dumps(document).encode())


class Issuer:
    """An issuer that runs between ``start`` and ``stop``, always at the same address.

    Attributes:
        claims: What its tokens say besides ``iss``, ``aud``, ``sub``, ``iat`` and ``exp``.
        id_claims: What its ID tokens say besides the same and ``nonce``; None leaves one out.
        keys: Each with its algorithm; the last one signs, those in ``published`` are in the JWKS.
        discovery: Replaces fields of the discovery document; None leaves one out.
        redirects: Where the client of the console may be sent back to.
        is_public: Whether that client has no secret.
        granted: Replaces fields of the answer to a code; None leaves one out.
        exchange: Answers codes in place of the issuer, to answer what it must not.
        exchanges: How many codes it was given.
        requests: How often each path was read.
        blocked: While it is cleared, the JWKS and codes are not answered.
    """

    def __init__(self, algorithm: str = "ES256", host: str = "127.0.0.1") -> None:
        self._host = host
        self._port = 0
        self._codes: dict[str, dict[str, str]] = {}
        self.claims: dict[str, Any] = {}
        self.id_claims: dict[str, Any] = {}
        self.keys: list[tuple[str, Key]] = []
        self.published: list[dict[str, Any]] = []
        self.discovery: dict[str, Any] = {}
        self.redirects: set[str] = set()
        self.is_public = False
        self.granted: dict[str, Any] = {}
        self.exchange: Answer | None = None
        self.exchanges = 0
        self.requests: Counter[str] = Counter()
        self.blocked = threading.Event()
        self.blocked.set()
        self.rotate(algorithm)
        self.start()

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

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

    def log_in(self, address: str, user: str = "ada", answer: str = "yes") -> str:
        """Log in at the page where a browser was sent; returns where it is sent back to."""
        assert "<form" in httpx.get(address).raise_for_status().text
        sent = httpx.post(address, data={"user": user, "answer": answer})
        assert sent.status_code == 303, sent.text
        return sent.headers["location"]

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
        return present({**own, **claims})

    def _get(self, path: str, query: dict[str, str]) -> Answer:
        self.requests[path] += 1
        if path == "/.well-known/openid-configuration":
            own = {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/jwks",
                "authorization_endpoint": f"{self.url}/authorize?realm=one",
                "token_endpoint": f"{self.url}/token",
            }
            return Answer.of(200, present({**own, **self.discovery}))
        if path == "/jwks":
            assert self.blocked.wait(30)
            return Answer.of(200, {"keys": self.published})
        if path == "/authorize":
            faulty = self._fault(query)
            if faulty:  # the browser is not sent back: nobody knows whose address that is
                return Answer(400, faulty.encode(), "text/plain")
            action = html.escape(f"/authorize?{urlencode(query)}")
            return Answer(200, LOGIN.format(action=action).encode(), "text/html")
        return Answer(404)

    def _fault(self, query: dict[str, str]) -> str | None:
        """What an attempt to sign in lacks."""
        wanted = {"realm": "one", "response_type": "code", "client_id": CONSOLE[0], "code_challenge_method": "S256"}
        wrong = [name for name, value in wanted.items() if query.get(name) != value]
        wrong += [name for name in ("state", "nonce", "code_challenge") if len(query.get(name, "")) < 43]
        wrong += ["scope"] * ("openid" not in query.get("scope", "").split())
        wrong += ["redirect_uri"] * (query.get("redirect_uri") not in self.redirects)
        return f"Wrong: {', '.join(wrong)}" if wrong else None

    def _post(self, path: str, query: dict[str, str], authorization: str, form: dict[str, str]) -> Answer:
        if path == "/authorize":
            if form["answer"] != "yes":
                refused = {"error": "access_denied", "error_description": "The user <b>refused</b>.\nReally"}
                return back(query, refused)
            code = secrets.token_urlsafe(16)
            self._codes[code] = {**query, "sub": form["user"]}
            return back(query, {"code": code})
        if path != "/token":
            return Answer(404)
        given = tuple(b64decode(authorization.removeprefix("Basic ")).decode().split(":"))
        if form.get("grant_type") == "authorization_code":
            self.exchanges += 1
            return self.exchange or self._tokens_for(form, tuple(map(unquote, given)))
        if given != CLIENT or form.get("grant_type") != "client_credentials":
            return Answer(404)
        token = self.sign(self.standard(**self.claims))
        return Answer.of(200, {"access_token": token, "token_type": "Bearer", "expires_in": 300})

    def _tokens_for(self, form: dict[str, str], client: tuple[str, ...]) -> Answer:
        assert self.blocked.wait(30)
        if self.is_public:
            client = (form["client_id"], CONSOLE[1]) if client == ("",) else ()
        if client != CONSOLE:
            return Answer.of(401, {"error": "invalid_client"})
        begun = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        proof = urlsafe_b64encode(digest).decode().rstrip("=")
        if begun is None or (form["redirect_uri"], proof) != (begun["redirect_uri"], begun["code_challenge"]):
            return Answer.of(400, {"error": "invalid_grant", "error_description": "Code not valid"})
        mine = {"aud": CONSOLE[0], "sub": begun["sub"], "nonce": begun["nonce"]}
        tokens = {
            "access_token": self.sign(self.standard(**{"sub": begun["sub"], **self.claims})),
            "id_token": self.sign(self.standard(**{**mine, **self.id_claims}), typ="JWT"),
        }
        return Answer.of(200, present({**tokens, "token_type": "Bearer", "expires_in": 300, **self.granted}))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(issuer._get(*self._asked()))

            def do_POST(self) -> None:
                form = dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
                self._answer(issuer._post(*self._asked(), self.headers.get("authorization", ""), form))

            def _asked(self) -> tuple[str, dict[str, str]]:
                parts = urlsplit(self.path)
                query = parse_qs(parts.query)
                assert all(len(values) == 1 for values in query.values())
                return parts.path, {name: values[0] for name, values in query.items()}

            def _answer(self, answer: Answer) -> None:
                self.send_response(answer.status)
                self.send_header("content-type", answer.kind)
                self.send_header("content-length", str(len(answer.body)))
                if answer.location is not None:
                    self.send_header("location", answer.location)
                step = 1 if answer.pause_s else max(1, len(answer.body))
                with suppress(ConnectionError):  # nobody waits any more
                    self.end_headers()
                    for begin in range(0, len(answer.body), step):
                        self.wfile.write(answer.body[begin : begin + step])
                        time.sleep(answer.pause_s)

            def log_message(self, *arguments: object) -> None:
                """Nothing on standard error."""

        return Handler


def present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def back(query: dict[str, str], answer: dict[str, str]) -> Answer:
    """Send a browser back to where it came from."""
    return Answer(303, location=f"{query['redirect_uri']}?{urlencode({**answer, 'state': query['state']})}")


@contextmanager
def running_issuer(algorithm: str = "ES256", host: str = "127.0.0.1") -> Iterator[Issuer]:
    issuer = Issuer(algorithm, host)
    try:
        yield issuer
    finally:
        issuer.stop()
