"""Signing in with OpenID Connect, at a real issuer: what it gives, and everything that must not give it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_core.api import openid
from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.api.session import ATTEMPT_COOKIE
from ml_core.inference.edge.session import COOKIE, HEADER
from ml_core.registry.oidc import LEEWAY_S, TokenVerifier
from ml_core.registry.sessions import SESSION_S
from support.http_server import mounted, served
from support.oidc_issuer import CONSOLE, Answer, Issuer, running_issuer
from support.registry import new_tenant
from support.waiting import wait_until

PATH = "/api/v1/session"
BEGIN = f"{PATH}/openid"
CALLBACK = f"{BEGIN}/callback"
OURS = {HEADER: "1"}
Browser = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with running_issuer("RS256") as running:
        yield running


@pytest.fixture
def fresh(issuer: Issuer) -> Issuer:
    """The issuer, as it should be, also after another test."""
    issuer.claims, issuer.id_claims, issuer.granted, issuer.discovery = {}, {}, {}, {}
    issuer.exchange, issuer.is_public = None, False
    issuer.redirects.clear()
    return issuer


@pytest.fixture
def platforms(db, fresh) -> Iterator[Callable[..., str]]:
    """Makes platforms that sign in at the issuer; their addresses."""
    running = []

    def make(leeway_s: float = LEEWAY_S, **fields: Any) -> str:
        client, secret = CONSOLE
        given = {"client_id": client, "client_secret": secret, **fields}
        app = create_app(Services(db, tokens=TokenVerifier(fresh.settings(**given), leeway_s=leeway_s)))
        running.append(served(mounted(app)))
        address = f"http://127.0.0.1:{running[-1].__enter__()}"
        fresh.redirects.add(f"{address}{CALLBACK}")
        return address

    yield make
    for each in running:
        each.__exit__(None, None, None)


@pytest.fixture
def browsers(platforms) -> Iterator[Browser]:
    """Makes browsers of a platform, each with cookies of its own."""
    opened = []
    one = platforms()

    def make(address: str = one) -> httpx.Client:
        opened.append(httpx.Client(base_url=address, trust_env=False, timeout=30))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def browser(browsers) -> httpx.Client:
    return browsers()


def begin(browser: httpx.Client, address: str = "#/", **headers: str) -> str:
    """Where a browser is sent to."""
    answer = browser.get(BEGIN, params={"address": address}, headers=headers)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def sign_in(browser: httpx.Client, issuer: Issuer, address: str = "#/", **claims: Any) -> httpx.Response:
    """Sign in at the issuer, whose access token says this; what the browser is answered when it comes back."""
    issuer.claims = {"scope": "openid mlcore:read", **claims}
    return browser.get(issuer.log_in(begin(browser, address)))


def refused(answer: httpx.Response, *words: str, status: int = 401) -> None:
    """It is a page that says so, and begins no session."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    for word in words:
        assert word in answer.text, answer.text
    assert COOKIE not in answer.cookies
    assert "Request " in answer.text
    assert re.findall(r'<a href="([^"]+)"', answer.text) == ["/api/console/"]


def test_it_is_offered_where_it_is_configured(browser, platforms, browsers, control):
    """Whoever asks needs no key."""
    assert browser.get(f"{PATH}/methods").json() == {"openid": True}
    keys_only = browsers(platforms(client_id=None, client_secret=None))
    for other in (keys_only, control):
        assert other.get(f"{PATH}/methods").json() == {"openid": False}
        refused(other.get(BEGIN), "no sign-in with OpenID Connect", status=400)
        refused(other.get(CALLBACK), "no sign-in with OpenID Connect", status=400)


def test_it_signs_in(browser, fresh, tenant_id, other_tenant_id):
    """As whoever the issuer says, for the tenants and with the scopes of the token; the page is shown."""
    answer = sign_in(browser, fresh, f"#/t/{tenant_id}/models?q=a%20b", tenant=tenant_id)
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == f"/api/console/#/t/{tenant_id}/models?q=a%20b"
    assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == ("no-store", "no-referrer")
    assert browser.get(PATH).json() == {"principal": "oidc:ada", "tenants": [tenant_id], "scopes": ["read"]}
    assert browser.get(f"/api/v1/tenants/{tenant_id}").status_code == 200
    assert browser.get(f"/api/v1/tenants/{other_tenant_id}").status_code == 404
    assert browser.get("/api/v1/tenants").status_code == 403
    path = f"/api/v1/tenants/{tenant_id}/keys"
    assert browser.post(path, json={"name": "k", "scopes": ["read"]}).status_code == 403, "the header is missing"
    lacks = browser.post(path, json={"name": "k", "scopes": ["read"]}, headers=OURS)
    assert (lacks.status_code, lacks.json()["error"]["details"]) == (403, {"scope": "admin"})
    assert browser.delete(PATH, headers=OURS).status_code == 204
    assert browser.get(PATH).status_code == 401


@pytest.mark.parametrize("is_secure", [False, True])
def test_its_cookies_are_out_of_reach(browser, fresh, tenant_id, is_secure):
    """Of scripts, of the network, and of other sites but for coming back; no secret of the attempt is in them."""
    headers = {"x-forwarded-proto": "https"} if is_secure else {}
    prefix = "__Host-" if is_secure else ""
    fresh.claims = {"tenant": tenant_id, "exp": int(time.time()) + 100}
    answer = browser.get(BEGIN, headers=headers)
    attempt = SimpleCookie(answer.headers["set-cookie"])[prefix + ATTEMPT_COOKIE]
    assert (attempt["httponly"], attempt["samesite"], attempt["path"]) == (True, "lax", "/")
    assert (bool(attempt["secure"]), int(attempt["max-age"])) == (is_secure, openid.ATTEMPT_S)
    asked = parse_qs(urlsplit(answer.headers["location"]).query)
    assert asked["redirect_uri"][0].startswith("https://" if is_secure else "http://")
    assert asked["code_challenge_method"] == ["S256"]
    fresh.redirects.add(asked["redirect_uri"][0])
    headers["cookie"] = f"{prefix}{ATTEMPT_COOKIE}={attempt.value}"
    back = fresh.log_in(answer.headers["location"]).replace("https:", "http:")
    finished = browser.get(back, headers=headers)
    assert finished.status_code == 303, finished.text
    session, over = (SimpleCookie(each) for each in finished.headers.get_list("set-cookie"))
    session = session[prefix + COOKIE]
    assert (session["httponly"], session["samesite"], bool(session["secure"])) == (True, "strict", is_secure)
    assert 90 <= int(session["max-age"]) <= 100, "no longer than the token"
    assert over[prefix + ATTEMPT_COOKIE]["max-age"] == "0"


def test_a_session_is_no_longer_than_a_day_of_work(browser, fresh, tenant_id):
    """However long the token is."""
    answer = sign_in(browser, fresh, tenant=tenant_id, exp=int(time.time()) + 10**6)
    assert f"Max-Age={SESSION_S};" in answer.headers["set-cookie"]


def test_it_ends_with_its_token(fresh, platforms, browsers, tenant_id):
    """Also in a browser that keeps the cookie."""
    browser = browsers(platforms(leeway_s=0))
    expires_at = int(time.time()) + 5
    answer = sign_in(browser, fresh, tenant=tenant_id, exp=expires_at)
    kept = {"cookie": f"{COOKIE}={answer.cookies[COOKIE]}"}
    for path in (PATH, f"/api/v1/tenants/{tenant_id}"):
        wait_until(lambda path=path: browser.get(path, headers=kept).status_code == 401, 20)
        assert time.time() >= expires_at


def test_a_token_of_several_tenants_enters_each(browser, fresh, db, tenant_id, other_tenant_id):
    """Those that exist; of the whole platform, if it says so; a token of none signs nobody in."""
    third = new_tenant(db)
    sign_in(browser, fresh, tenant=[other_tenant_id, "ghost", tenant_id])
    assert browser.get(PATH).json()["tenants"] == sorted([tenant_id, other_tenant_id])
    asked = [browser.get(f"/api/v1/tenants/{each}").status_code for each in (tenant_id, other_tenant_id, third)]
    assert asked == [200, 200, 404]
    assert browser.get("/api/v1/tenants").status_code == 403
    sign_in(browser, fresh, tenant="*")
    assert browser.get(PATH).json()["tenants"] is None
    assert browser.get("/api/v1/tenants").status_code == 200
    browser.cookies.clear()
    for nothing in ({}, {"tenant": "ghost"}, {"tenant": []}):
        refused(sign_in(browser, fresh, **nothing), "token for ada names no tenant", "the claim tenant")


def test_a_client_may_have_no_secret(fresh, platforms, browsers, tenant_id):
    """Then PKCE alone binds the code to the browser that asked for it."""
    fresh.is_public = True
    assert sign_in(browsers(platforms(client_secret=None)), fresh, tenant=tenant_id).status_code == 303


def test_an_id_token_does_where_it_is_for_the_platform(fresh, platforms, browsers, tenant_id):
    """Many issuers have access tokens for themselves only."""
    own = browsers(platforms(audience=CONSOLE[0]))
    for opaque in ("ya29.opaque", fresh.sign(fresh.standard(aud="another program"))):
        fresh.granted = {"access_token": opaque}
        fresh.id_claims = {"tenant": tenant_id, "scope": "mlcore:read"}
        assert sign_in(own, fresh).status_code == 303
        assert own.get(PATH).json()["tenants"] == [tenant_id]


# Refusals.


def test_a_code_works_once(browser, browsers, fresh, tenant_id):
    """Also for the browser that has it, and for one that has its cookie."""
    fresh.claims = {"tenant": tenant_id}
    place = begin(browser)
    kept = {"cookie": f"{ATTEMPT_COOKIE}={browser.cookies[ATTEMPT_COOKIE]}"}
    back = fresh.log_in(place)
    assert browser.get(back).status_code == 303
    refused(browser.get(back), "is over")
    refused(browsers().get(back, headers=kept), "Code not valid (invalid_grant)")


def test_another_browser_s_answer_is_refused(browser, browsers, fresh, tenant_id):
    """Somebody could sign another in as themselves with it: without a cookie, and with one of another attempt."""
    fresh.claims = {"tenant": tenant_id}
    back = fresh.log_in(begin(browser))
    stranger = browsers()
    asked = fresh.exchanges
    refused(stranger.get(back), "not begun in this browser")
    begin(stranger)
    refused(stranger.get(back), "not begun in this browser")
    begin(stranger)
    refused(stranger.get(re.sub("state=[^&]*", "state=", back)), "not begun in this browser")
    begin(stranger)
    refused(stranger.get(CALLBACK), "not begun in this browser")
    assert fresh.exchanges == asked, "the issuer is not asked"
    assert browser.get(back).status_code == 303


def test_a_code_of_another_attempt_is_refused(browser, browsers, fresh, tenant_id):
    """A stolen code, given back with a state of one's own: the issuer knows for which browser it was made."""
    fresh.claims = {"tenant": tenant_id}
    stolen = parse_qs(urlsplit(fresh.log_in(begin(browser))).query)["code"][0]
    thief = browsers()
    own = parse_qs(urlsplit(begin(thief)).query)["state"][0]
    refused(thief.get(CALLBACK, params={"code": stolen, "state": own}), "Code not valid (invalid_grant)")


@pytest.mark.parametrize("sealed", ["", "x", "gAAAAA", "x" * 5000])
def test_what_was_not_sealed_here_begins_nothing(browser, fresh, sealed):
    """A cookie that anybody can write; a session's cookie is none of an attempt."""
    place = begin(browser)
    browser.cookies.clear()
    back = fresh.log_in(place)
    refused(browser.get(back, headers={"cookie": f"{ATTEMPT_COOKIE}={sealed}"}), "not begun in this browser")


def test_the_cookie_of_one_purpose_is_none_of_another(browser, fresh, tenant_id):
    """Neither is a session an attempt, nor an attempt a session."""
    sign_in(browser, fresh, tenant=tenant_id)
    session = browser.cookies[COOKIE]
    back = fresh.log_in(begin(browser))
    attempt = browser.cookies[ATTEMPT_COOKIE]
    browser.cookies.clear()
    refused(browser.get(back, headers={"cookie": f"{ATTEMPT_COOKIE}={session}"}), "not begun in this browser")
    assert browser.get(PATH, headers={"cookie": f"{COOKIE}={attempt}"}).status_code == 401


def test_an_attempt_ends_after_minutes(browser, fresh, tenant_id, monkeypatch):
    """Whoever comes back later begins again."""
    fresh.claims = {"tenant": tenant_id}
    back = fresh.log_in(begin(browser))
    kept = {"cookie": f"{ATTEMPT_COOKIE}={browser.cookies[ATTEMPT_COOKIE]}"}
    now, later = time.time, openid.ATTEMPT_S + 2
    monkeypatch.setattr(time, "time", lambda: now() + later)
    refused(browser.get(back, headers=kept), "more than 10 minutes")
    later = 0
    assert browser.get(back, headers=kept).status_code == 303


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"nonce": "n" * 43}, "of another attempt"),
        ({"nonce": None}, "of another attempt"),
        ({"nonce": ["x"]}, "of another attempt"),
        ({"aud": "another"}, "another audience"),
        ({"aud": [CONSOLE[0], "another"], "azp": "another"}, "another client"),
        ({"iss": "https://login.example"}, "another issuer"),
        ({"exp": 1_000_000_000}, "has expired"),
        ({"exp": None}, "lacks the claim exp"),
        ({"sub": None}, "lacks the claim sub"),
    ],
)
def test_an_id_token_of_something_else_is_refused(browser, fresh, tenant_id, wrong, words):
    """Although the issuer signed it, and the access token is good."""
    fresh.id_claims = wrong
    refused(sign_in(browser, fresh, tenant=tenant_id), words)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"aud": "another"}, "another audience"),
        ({"iss": "https://login.example"}, "another issuer"),
        ({"exp": 1_000_000_000}, "has expired"),
        ({"sub": "a\nb"}, "subject"),
        ({"padding": "".join(map(chr, range(0x100, 0x900)))}, "does not fit into a cookie"),
    ],
)
def test_an_access_token_of_something_else_is_refused(browser, fresh, tenant_id, wrong, words):
    """In words that say what to change at the issuer."""
    refused(sign_in(browser, fresh, tenant=tenant_id, **wrong), words)


def test_tokens_that_another_signed_are_refused(browser, fresh, tenant_id):
    """Whoever answers in place of the issuer has no key of it."""
    with running_issuer("RS256") as forger:
        forged = forger.sign(fresh.standard(tenant=tenant_id))
        fresh.granted = {"access_token": forged}
        refused(sign_in(browser, fresh, tenant=tenant_id), "not valid")
        fresh.granted = {"id_token": forged}
        refused(sign_in(browser, fresh, tenant=tenant_id), "not valid")


def test_the_issuer_s_refusal_is_shown_as_text(browser, fresh):
    """In one line, and no HTML of it."""
    place = begin(browser)
    back = fresh.log_in(place, answer="no")
    answer = browser.get(back)
    refused(answer, "does not sign you in: The user &lt;b&gt;refused&lt;/b&gt;. Really (access_denied).")
    refused(browser.get(back), "is over")
    state = parse_qs(urlsplit(begin(browser)).query)["state"][0]
    long = browser.get(CALLBACK, params={"state": state, "error": "x" * 5000})
    refused(long, "x" * 200)
    assert "x" * 201 not in long.text


def test_words_of_nobody_are_not_shown(browser):
    """A link with an error in it, that somebody sends around, says nothing."""
    answer = browser.get(CALLBACK, params={"error": "Call 0123 and say your key", "state": "x"})
    refused(answer, "not begun in this browser")
    assert "0123" not in answer.text


@pytest.mark.parametrize(
    ("exchange", "words", "status"),
    [
        (Answer.of(400, {"error": "invalid_grant"}), "invalid_grant", 401),
        (Answer.of(401, {"error": "invalid_client"}), "check the client at the issuer", 401),
        (Answer.of(200, {"error": 7}), "sign you in: 7.", 401),
        (Answer(302, location="http://127.0.0.1:9/"), "does not answer", 503),
        (Answer(307, b"{}", location="/token"), "token_endpoint", 503),
        (Answer(500, b"<html>"), "does not answer", 503),
        (Answer(200, b""), "does not answer", 503),
        (Answer(200, b"[]"), "does not answer", 503),
        (Answer(200, b"{}"), "token_endpoint", 503),
        (Answer.of(200, {"access_token": "x", "id_token": 7}), "token_endpoint", 503),
        (Answer.of(500, {"access_token": "a.b.c", "id_token": "a.b.c"}), "token_endpoint", 503),
        (Answer.of(200, {"access_token": "x", "id_token": "a.b.c"}), "malformed", 401),
        (Answer.of(200, {"access_token": "x" * 10**6, "id_token": "x"}), "does not answer", 503),
        (Answer(200, b"[" * 100_000), "does not answer", 503),
    ],
    ids=lambda value: None,
)
def test_an_issuer_that_answers_anything_is_no_error_of_ours(browser, fresh, tenant_id, exchange, words, status):
    """Redirects are not followed, and no answer is read without a bound."""
    fresh.exchange = exchange
    answer = sign_in(browser, fresh, tenant=tenant_id)
    refused(answer, words, status=status)
    assert ("retry-after" in answer.headers) == (status == 503)


def test_an_issuer_that_is_away_is_said_to_be(fresh, browser, tenant_id, platforms, browsers):
    """Before, and between: what was read of it stays in use. A platform that never read anything can't begin."""
    fresh.claims = {"tenant": tenant_id}
    new = browsers(platforms())
    back = fresh.log_in(begin(browser))
    fresh.stop()
    try:
        refused(new.get(BEGIN), "can&#x27;t be read", status=503)
        begin(browsers())
        refused(browser.get(back), "does not answer", status=503)
    finally:
        fresh.start()


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_slow_issuer_keeps_nobody_waiting(fresh, browser, browsers, tenant_id, monkeypatch, is_silent):
    """It has seconds for all of its answer, not for each byte; other requests go on meanwhile."""
    monkeypatch.setattr(openid, "EXCHANGE_WITHIN_S", 1)
    back = fresh.log_in(begin(browser))
    asked = fresh.exchanges
    if is_silent:
        fresh.blocked.clear()
    else:
        fresh.exchange = Answer(200, b" " * 200, pause_s=0.1)
    try:
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(browser.get, back)
            wait_until(lambda: fresh.exchanges > asked)
            assert browsers().get(f"{PATH}/methods").status_code == 200
            assert not waiting.done()
            refused(waiting.result(15), "does not answer", status=503)
    finally:
        fresh.blocked.set()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("authorization_endpoint", None),
        ("authorization_endpoint", "http://login.example/authorize"),
        ("authorization_endpoint", "javascript:alert(1)"),
        ("token_endpoint", None),
        ("token_endpoint", "http://login.example/token"),
        ("token_endpoint", "https://[::1/"),
        ("token_endpoint", 7),
    ],
)
def test_endpoints_are_protected_addresses(fresh, platforms, browsers, field, value):
    """No secret is sent to another, and no browser; tokens of programs are accepted all the same."""
    fresh.discovery = {field: value}
    one = browsers(platforms())
    answer = one.get(BEGIN)
    if field == "token_endpoint":
        answer = one.get(fresh.log_in(answer.headers["location"]))
    refused(answer, f"{field} of the OpenID issuer can&#x27;t be used", status=503)
    header = {"authorization": f"Bearer {fresh.token(tenant='*', scope='mlcore:read')}"}
    assert one.get("/api/v1/tenants", headers=header).status_code == 200


def test_many_at_once_wait(browsers, fresh, tenant_id):
    """The issuer is asked by one process so often at most, by however many browsers."""
    fresh.exchange = Answer.of(400, {"error": "invalid_grant"})
    asked, one = fresh.exchanges, browsers()
    found = []
    while 429 not in found and len(found) < 500:
        state = parse_qs(urlsplit(begin(one)).query)["state"][0]
        answer = one.get(CALLBACK, params={"state": state, "code": "x"})
        found.append(answer.status_code)
    refused(answer, "Too many people", status=429)
    assert int(answer.headers["retry-after"]) == 1
    assert set(found) == {401, 429}
    assert fresh.exchanges - asked == len(found) - 1 >= openid.EXCHANGES_AT_ONCE


def test_a_flood_keeps_nobody_out_for_longer_than_it_lasts(platforms, browsers, fresh, tenant_id, monkeypatch):
    """Whoever was refused meanwhile has spent neither the code nor the attempt, and is signed in by loading the page
    again after the pause that it was told."""
    monkeypatch.setattr(openid, "EXCHANGES_PER_S", 0.1)
    monkeypatch.setattr(openid, "EXCHANGES_AT_ONCE", 3)
    address = platforms()
    browser, flooding = browsers(address), browsers(address)
    fresh.claims = {"scope": "openid mlcore:read", "tenant": tenant_id}
    back = fresh.log_in(begin(browser))
    status = 401
    while status == 401:
        state = parse_qs(urlsplit(begin(flooding)).query)["state"][0]
        status = flooding.get(CALLBACK, params={"state": state, "code": "x"}).status_code
    assert status == 429
    answer = browser.get(back)
    refused(answer, "Too many people sign in at the same time. Load this page again in a moment.", status=429)
    pause_s = int(answer.headers["retry-after"])
    assert 1 <= pause_s <= 1 / openid.EXCHANGES_PER_S
    later = {**vars(time), "monotonic_ns": lambda: time.monotonic_ns() + pause_s * 10**9}
    monkeypatch.setattr(openid, "time", SimpleNamespace(**later))
    assert browser.get(back).status_code == 303
    assert browser.get(PATH).json()["principal"] == "oidc:ada"


def test_another_site_begins_nothing(browser, tenant_id):
    """It could sign somebody in as another of the issuer's users, who looks at the console then."""
    for site in ("cross-site", "same-site"):
        refused(browser.get(BEGIN, headers={"sec-fetch-site": site}), "Another site", status=403)
    for own in ("same-origin", "none"):
        assert begin(browser, **{"sec-fetch-site": own})


ELSEWHERE = (
    "https://evil.example/",
    "//evil.example",
    "/\\evil.example",
    "#//evil.example",
    "javascript:alert(1)",
    "#/x\r\nset-cookie: a=b",
    "#/\x00\x7f",
    "?next=//evil.example",
    "../../evil",
    "@evil.example",
    "#/t/ä/€",
    "#" * 50,
    "#/" + "x" * 5000,
)


@pytest.mark.parametrize("address", ELSEWHERE)
def test_it_leads_to_the_console_only(browser, fresh, tenant_id, address):
    """Whatever the address says: it is all behind the #."""
    answer = sign_in(browser, fresh, address, tenant=tenant_id)
    assert answer.status_code == 303, answer.text
    place = answer.headers["location"]
    assert re.fullmatch(r"/api/console/#/[\x21-\x7e]{0,4000}", place)
    assert "\\" not in place
    assert [name for name in answer.headers if name == "a"] == []
    assert {cookie.split("=")[0] for cookie in answer.headers.get_list("set-cookie")} == {COOKIE, ATTEMPT_COOKIE}


def test_any_address_and_answer_is_read(browsers, fresh, tenant_id):
    """None is an error of the platform, and none gives a session."""
    one = browsers()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.text(max_size=50), st.dictionaries(st.sampled_from(["code", "state", "error", "iss"]), st.text()))
    def read(address: str, answer: dict[str, str]) -> None:
        begin(one, address)
        refused(one.get(CALLBACK, params=answer))

    read()


@pytest.mark.parametrize("host", ["evil.example", "evil.example/x?", "[", "a b", "@", ""])
def test_another_host_is_no_redirect_of_ours(browser, fresh, host):
    """The issuer sends nobody to an address that is not registered there."""
    answer = browser.get(BEGIN, headers={"host": host})
    if answer.status_code == 303:
        asked = httpx.get(answer.headers["location"])
        sent = parse_qs(urlsplit(answer.headers["location"]).query)["redirect_uri"][0]
        assert (asked.status_code == 400) == (sent not in fresh.redirects)
    else:
        assert answer.status_code == 400


def test_nothing_is_kept_of_an_attempt(db, fresh, tenant_id, platforms, browsers):
    """Another process of the platform finishes what one began."""
    fresh.claims = {"tenant": tenant_id}
    first, second = browsers(platforms()), browsers(platforms())
    place = begin(first)
    kept = {"cookie": f"{ATTEMPT_COOKIE}={first.cookies[ATTEMPT_COOKIE]}"}
    back = fresh.log_in(place)
    # As an ingress has it: the same host leads to either.
    there = urlsplit(back)
    answer = second.get(f"{there.path}?{there.query}", headers={**kept, "host": there.netloc})
    assert answer.status_code == 303, answer.text
    assert second.get(PATH, headers={"cookie": f"{COOKIE}={answer.cookies[COOKIE]}"}).status_code == 200


def test_no_secret_is_in_what_a_browser_gets(browser, fresh, tenant_id, caplog):
    """Neither the client's secret, nor PKCE's verifier, nor a token; nor in the log."""
    secrets = []
    exchange = Issuer._tokens_for

    def watched(self, form, client):
        secrets.extend([form["code_verifier"], CONSOLE[1]])
        answer = exchange(self, form, client)
        secrets.extend(json.loads(answer.body)[name] for name in ("access_token", "id_token"))
        return answer

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Issuer, "_tokens_for", watched)
        place = begin(browser)
        answer = sign_in(browser, fresh, tenant=tenant_id)
    assert len(secrets) == 4
    seen = f"{place}{answer.headers}{answer.text}{browser.get(PATH).text}{caplog.text}"
    assert not [secret for secret in secrets if secret in seen]
