"""Signing in with OpenID Connect in a browser, at an issuer of another site, and what a token may do in the console."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ml_core.inference.edge.session import COOKIE
from support.console import both_planes
from support.gated import PEOPLE
from support.oidc_issuer import CONSOLE, Issuer, running_issuer

if TYPE_CHECKING:
    from playwright.sync_api import Page

WITH_OPENID = "Sign in with OpenID Connect"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    """At another site than the console: browsers go by the name, and leave the port out."""
    with running_issuer("RS256", host="localhost") as running:
        yield running


@pytest.fixture(scope="module")
def address(db, issuer) -> Iterator[str]:
    """Where the console is, with a client of the issuer."""
    client, secret = CONSOLE
    with both_planes(db, issuer.settings(client_id=client, client_secret=secret)) as url:
        issuer.redirects.add(f"{url}/api/v1/session/openid/callback")
        yield f"{url}/api/console/"


@pytest.fixture
def logs_in(viewer, issuer) -> Callable[..., Page]:
    """Somebody who signs in at the issuer, whose token says this, to see an address."""

    def make(path: str, answer: str = "Log in", options: dict[str, Any] | None = None, **claims: Any) -> Page:
        issuer.claims = claims
        page = viewer(**options or {}).open(path)
        page.get_by_role("link", name=WITH_OPENID).click()
        page.wait_for_url(re.compile(rf"^{issuer.url}/"))
        page.get_by_label("User").fill("ada")
        page.get_by_role("button", name=answer).click()
        return page

    return make


def test_somebody_signs_in_at_the_issuer(logs_in, shop, address):
    """And sees the page that was asked for, with a cookie that no script and no other site can use; then signs out."""
    page = logs_in(f"{shop.model}?environment=staging", tenant=shop.tenant, scope="mlcore:read mlcore:predict")
    page.get_by_text("staging serves nothing").wait_for()
    assert page.url == f"{address}#/{shop.model}?environment=staging"
    page.get_by_text("oidc:ada", exact=True).wait_for()
    (cookie,) = page.context.cookies(address)
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (COOKIE, True, "Strict")
    page.reload()
    page.get_by_text("staging serves nothing").wait_for()
    page.locator("[title*='our token lacks the scope promote']").first.wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name=WITH_OPENID).wait_for()
    assert page.context.cookies(address) == []


def test_predictions_are_tried_with_a_token(logs_in, shop):
    """The prediction plane takes the session as the control API does: also one of the whole platform."""
    for tenant in (shop.tenant, "*"):
        path = f"{shop.model}/versions/1"
        page = logs_in(path, tenant=tenant, scope="mlcore:read mlcore:predict")
        page.get_by_role("heading", name=f"{PEOPLE} 1").wait_for()
        page.get_by_role("button", name="Predict").click()
        page.locator(".prediction b").wait_for()


def test_a_token_for_several_tenants_chooses_one(logs_in, shop, other_tenant_id):
    """And is told of a third one that there is none."""
    page = logs_in("", tenant=[shop.tenant, other_tenant_id, "ghost"], scope="mlcore:read")
    page.get_by_role("heading", name="Your tenants").wait_for()
    names = page.get_by_role("main").get_by_role("link").all_inner_texts()
    assert names == sorted([shop.tenant, other_tenant_id])
    page.get_by_role("link", name=shop.tenant).click()
    page.get_by_role("heading", name=shop.tenant).wait_for()
    page.get_by_role("link", name="Your tenants").click()
    page.get_by_role("heading", name="Your tenants").wait_for()
    page.goto(re.sub("#.*", "#/t/ghost", page.url))
    page.get_by_text("There is no tenant ghost.").wait_for()


def test_the_issuer_s_refusal_is_read(logs_in, shop):
    """In its words, with a way back, where a key will do as well."""
    page = logs_in(shop.path, answer="Refuse")
    page.get_by_role("heading", name="Not signed in").wait_for()
    page.get_by_text("The user <b>refused</b>.").wait_for()
    page.get_by_role("link", name="Back to the console").click()
    page.get_by_label("API key").fill(str(shop.key("read")))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name=shop.tenant).wait_for()


def test_the_keyboard_suffices(viewer, issuer, shop):
    """The form for keys has the focus; the way to the issuer is one step before it."""
    issuer.claims = {"tenant": shop.tenant, "scope": "mlcore:read"}
    page = viewer().open(shop.path)
    page.get_by_role("link", name=WITH_OPENID).wait_for()
    assert page.evaluate("document.activeElement.name") == "key"
    page.keyboard.type("mlk_")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.textContent") == WITH_OPENID
    page.keyboard.press("Enter")
    page.get_by_label("User").press_sequentially("ada")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=shop.tenant).wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_its_pages_are_accessible(logs_in, viewer, shop, other_tenant_id, scheme, width):
    """The form with both ways, the choice of a tenant, and a refusal."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}

    def check(page: Page) -> None:
        found = axe.run(page).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    page = viewer(**options).open(shop.path)
    page.get_by_role("link", name=WITH_OPENID).wait_for()
    check(page)
    page = logs_in("", options=options, tenant=[shop.tenant, other_tenant_id], scope="mlcore:read")
    page.get_by_role("heading", name="Your tenants").wait_for()
    check(page)
    page = logs_in("", options=options, answer="Refuse")
    page.get_by_role("heading", name="Not signed in").wait_for()
    check(page)
