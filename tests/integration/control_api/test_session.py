"""The session of a browser: the cookie and its flags, requests of other sites, its end, and whose it is."""

from __future__ import annotations

import base64
import hashlib
import time
import zlib
from http.cookies import SimpleCookie

import httpx
import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.client.inprocess import InProcessTransport
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import ApiKey, Scope
from ml_core.exceptions import AuthenticationError
from ml_core.inference.edge.session import COOKIE, HEADER, session_of
from ml_core.registry.keys import KeyRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from ml_core.registry.sessions import MAX_COOKIE_BYTES, SESSION_S, Sessions
from support.inprocess_cell import ACME, Cell, make_cell
from support.replicas import replica_settings
from support.waiting import wait_until

PATH = "/api/v1/session"
OURS = {HEADER: "1"}


@pytest.fixture
def browser(address):
    """A client that keeps cookies, as a browser does, and nothing else."""
    with httpx.Client(base_url=address, trust_env=False, timeout=30) as client:
        yield client


def sessions_with(secret: str) -> Sessions:
    return Sessions(lambda: secret, lambda: secret)


def sign_in(browser, key, **headers):
    return browser.post(PATH, json={"key": str(key)}, headers={**OURS, **headers})


@pytest.mark.parametrize(("headers", "is_secure"), [({}, False), ({"x-forwarded-proto": "https, http"}, True)])
def test_the_cookie_is_out_of_reach(browser, admin_key, headers, is_secure):
    """Of scripts, of other sites, and with TLS of the plain network; the key is not in it, nor in the answer."""
    answer = sign_in(browser, f" {admin_key}\n", **headers)
    assert answer.status_code == 200, answer.text
    cookie = SimpleCookie(answer.headers["set-cookie"])[f"__Host-{COOKIE}" if is_secure else COOKIE]
    assert (cookie["httponly"], cookie["samesite"].lower(), cookie["path"]) == (True, "strict", "/")
    assert (bool(cookie["secure"]), int(cookie["max-age"])) == (is_secure, SESSION_S)
    secret = admin_key.split("_", 2)[2]  # which may have more of them
    assert secret not in cookie.value
    assert secret not in answer.text


def test_it_says_who_is_signed_in(browser, db, tenant_id, admin_key):
    """The tenant of a tenant's key, none of the platform's; and its scopes, to show what may be done."""
    sign_in(browser, admin_key)
    assert browser.get(PATH).json() == {
        "principal": f"key:{ApiKey.parse(admin_key).key_id}",
        "tenants": [tenant_id],
        "scopes": ["admin"],
    }
    one = KeyRepository(db, tenant_id).create("mover", [Scope.READ, "promote:staging"])
    assert sign_in(browser, one).json()["scopes"] == ["promote:staging", "read"]
    operator = PlatformKeyRepository(db).create("operator", [Scope.READ])
    assert sign_in(browser, operator).json()["tenants"] is None
    assert browser.get("/api/v1/tenants").status_code == 200


def test_it_acts_as_its_key_does(browser, tenant_id, other_tenant_id, admin_key):
    """In its tenant and in no other."""
    assert browser.get(f"/api/v1/tenants/{tenant_id}").status_code == 401
    sign_in(browser, admin_key)
    assert browser.get(f"/api/v1/tenants/{tenant_id}").status_code == 200
    assert browser.get(f"/api/v1/tenants/{other_tenant_id}").status_code == 404
    assert browser.get("/api/v1/tenants").status_code == 403
    bad = {"authorization": f"Bearer {ApiKey.generate()}"}
    assert browser.get(f"/api/v1/tenants/{tenant_id}", headers=bad).status_code == 401, "the header counts"


def test_another_site_changes_nothing(browser, tenant_id, admin_key):
    """What a form of another site can send is refused, whatever the browser does with the cookie; reading it can't."""
    sign_in(browser, admin_key)
    path = f"/api/v1/tenants/{tenant_id}/keys"
    body = {"name": "thief", "scopes": ["admin"]}
    for refused in (
        browser.post(path, json=body),
        browser.post(path, content=b'{"name": "thief"}', headers={"content-type": "text/plain"}),
        browser.request("DELETE", f"/api/v1/tenants/{tenant_id}"),
        browser.post(PATH, json={"key": admin_key}),
        browser.delete(PATH),
    ):
        assert refused.status_code == 403, refused.text
        assert refused.json()["error"]["code"] == "permission_denied"
        assert refused.headers["x-request-id"] == refused.json()["error"]["request_id"]
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    preflight = browser.options(path, headers={**asked, "access-control-request-headers": HEADER})
    assert not [name for name in preflight.headers if name.startswith("access-control-")]
    assert browser.post(path, json=body, headers=OURS).status_code == 201


def test_it_ends_with_its_key(browser, db, tenant_id):
    """Seconds after the key is revoked."""
    key = KeyRepository(db, tenant_id).create("leaver", [Scope.READ])
    sign_in(browser, key)
    path = f"/api/v1/tenants/{tenant_id}/models"
    assert browser.get(path).status_code == 200
    KeyRepository(db, tenant_id).revoke(key.key_id)
    wait_until(lambda: browser.get(path).status_code == 401, 5)
    assert browser.get(PATH).status_code == 401


def test_signing_out_forgets_it(browser, admin_key):
    sign_in(browser, admin_key)
    assert browser.delete(PATH, headers=OURS).status_code == 204
    assert COOKIE not in browser.cookies
    assert browser.get(PATH).status_code == 401


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"key": 1}', b'{"key": "mlk_no"}', b'{"key": "' + b"x" * 999 + b'"}']
)
def test_what_is_no_key_is_refused(browser, body):
    """And is not repeated."""
    answer = browser.post(PATH, content=body, headers={**OURS, "content-type": "application/json"})
    assert answer.status_code in (400, 401), answer.text
    assert "set-cookie" not in answer.headers
    assert "xxx" not in answer.text
    assert "mlk_no" not in answer.text


def test_it_ends_after_hours(db):
    """However often it was used."""
    sessions = sessions_with(db.tenant_key)
    fernet: Fernet = sessions._fernet(db.tenant_key)
    now, text = int(time.time()), zlib.compress(b"k")
    assert sessions.open(fernet.encrypt_at_time(text, now - SESSION_S + 60).decode()) == "k"
    with pytest.raises(AuthenticationError):
        sessions.open(fernet.encrypt_at_time(text, now - SESSION_S - 1).decode())


def test_each_process_opens_it_and_no_other_platform(db, browser, tenant_id, admin_key):
    """Replicas of the control API and of cells share the secret; a platform with another one does not know it."""
    sign_in(browser, admin_key)
    sealed = browser.cookies[COOKIE]
    transport = InProcessTransport(create_app(Services(db)), "/api")
    with httpx.Client(transport=transport, base_url="http://other", cookies={COOKIE: sealed}) as replica:
        assert replica.get(f"/api/v1/tenants/{tenant_id}").status_code == 200
    with pytest.raises(AuthenticationError):
        sessions_with("00" * 32).open(sealed)


@given(st.text(max_size=80))
def test_any_other_cookie_is_no_session(text):
    with pytest.raises(AuthenticationError):
        sessions_with("11" * 32).open(text)


@pytest.mark.parametrize("other", ['prefs={"a": 1}', "a=b c", "nothing", "n=ä", '"=";', "=", f"x{COOKIE}=no"])
def test_cookies_of_other_programs_do_not_end_it(browser, admin_key, other):
    """Programs at other ports and paths of the host set cookies that no standard permits."""
    sign_in(browser, admin_key)
    sealed = browser.cookies[COOKIE]
    browser.cookies.clear()
    for header in (f"{other}; {COOKIE}={sealed}", f"{COOKIE}={sealed}; {other}"):
        assert browser.get(PATH, headers={"cookie": header.encode()}).status_code == 200


def test_no_server_of_the_domain_gives_it_another_session(browser, admin_key):
    """By https only the name counts that browsers take from this server alone: a sibling can't sign somebody in."""
    sign_in(browser, admin_key)
    cookie = {"cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
    browser.cookies.clear()
    assert browser.get(PATH, headers=cookie).status_code == 200
    assert browser.get(PATH, headers={**cookie, "x-forwarded-proto": "https"}).status_code == 401


def test_no_cache_keeps_what_it_is_answered(browser, tenant_id, admin_key):
    """Of the browser, which the next may use, or in between: whose it is depends on the cookie. Files may be kept."""
    sign_in(browser, admin_key)
    for path in (PATH, f"/api/v1/tenants/{tenant_id}", f"/api/v1/tenants/{tenant_id}/models/none/versions"):
        answer = browser.get(path)
        assert answer.headers["cache-control"] == "no-store", path
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert browser.get("/api/console/main.js").headers["cache-control"] == "no-cache"


def test_another_secret_ends_it():
    """At once, in processes that have opened sessions before."""
    secret = "11" * 32
    sessions = Sessions(lambda: secret, lambda: secret)
    sealed = sessions.seal("k")
    assert sessions.open(sealed) == sessions.open_at_once(sealed) == "k"
    secret = "22" * 32
    for opened in (sessions.open, sessions.open_at_once):
        with pytest.raises(AuthenticationError):
            opened(sealed)


def test_it_is_opened_without_a_thread_once_the_secret_is_known(db):
    """The threads of the control API may all be busy for seconds. After another secret was seen, it is read again."""
    process = DatabaseConnection(settings=replica_settings(db))
    sessions = Sessions(lambda: process.tenant_key, lambda: process.known_tenant_key)
    sealed = sessions_with(db.tenant_key).seal("k")
    assert sessions.open_at_once(sealed) is None
    assert sessions.open(sealed) == "k"
    assert sessions.open_at_once(sealed) == "k"
    process._tenant_key.forget()
    assert sessions.open_at_once(sealed) is None
    process.close()


@given(st.integers(0, 4500))
def test_whatever_fits_is_opened(length):
    """Tokens have thousands of characters, and browsers drop a cookie of more than 4,096 bytes."""
    sessions = sessions_with("11" * 32)
    token = base64.urlsafe_b64encode(hashlib.shake_256(b"signature").digest(length)).decode()[:length]
    try:
        sealed = sessions.seal(token)
    except AuthenticationError:
        assert length > 3700
    else:
        assert len(sealed) <= MAX_COOKIE_BYTES
        assert sessions.open(sealed) == token


@given(st.binary(max_size=80))
def test_any_cookie_header_is_read(header):
    """Never an error: the browser sends what other programs of this host have set."""
    assert session_of(header) is None or COOKIE.encode() in header


def test_predictions_are_tried_with_it(tmp_path):
    """The prediction plane takes the cookie as the control API does."""
    pytest.importorskip("numpy")
    from ml_core.inference.edge.session import SessionCookie
    from ml_core.models.store import LocalStore
    from ml_core.settings import ServingSettings

    cell: Cell = make_cell(LocalStore(tmp_path), ServingSettings())
    key, sessions = cell.key(ACME, Scope.PREDICT), sessions_with("11" * 32)
    transport = InProcessTransport(SessionCookie(cell.app, sessions))
    with httpx.Client(transport=transport, base_url="http://cell", cookies={COOKIE: sessions.seal(key)}) as browser:
        path = f"/t/{ACME}/models/none/predict"
        assert browser.post(path, json={"rows": [{}]}).status_code == 403
        assert browser.post(path, json={"rows": [{}]}, headers=OURS).status_code == 404
        assert browser.post("/t/globex/models/none/predict", json={"rows": [{}]}, headers=OURS).status_code == 404
        browser.cookies.clear()
        assert browser.post(path, json={"rows": [{}]}, headers=OURS).status_code == 401
