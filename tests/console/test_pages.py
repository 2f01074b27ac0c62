"""What holds for every page: addresses, other tenants, hostile texts, long names, a platform that is away, access."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ml_core
from ml_core.domain.api_key import Scope
from ml_core.ids import ModelId, TenantId
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.keys import KeyRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.promotion.gates import GateRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.system import MLSystem
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest
from support.console import HOSTILE, choose
from support.gated import PEOPLE, logistic, publish
from support.tables import measures, split_target, tickets

MAIN = (Path(ml_core.__file__).parent / "console/main.js").read_text()
PATTERNS = re.findall(r'^  "?([^"\n]*?)"?: \(\) => import', MAIN, re.MULTILINE)
NO_JOB = "job_0123456789abcdef"


def path_of(pattern: str, **names: str) -> str:
    """An address of a pattern."""
    return re.sub(r":(\w+)", lambda found: names.get(found[1], "1"), pattern)


def test_an_address_is_shown_after_signing_in(viewer, shop):
    """Such as one that a colleague has sent; another browser starts with no session, a reload keeps it."""
    colleague = viewer()
    page = colleague.open(f"{shop.model}?environment=staging&compare=3&with=2")
    page.get_by_role("heading", name="Sign in").wait_for()
    colleague.sign_in(shop.key("read"))
    page.get_by_text("staging serves nothing").wait_for()
    assert page.locator("#comparison thead a").all_inner_texts() == ["3", "2"]
    page.reload()
    page.get_by_text("staging serves nothing").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    page.reload()
    page.get_by_role("heading", name="Sign in").wait_for()


@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if pattern.startswith("t/")])
def test_another_tenants_address_is_not_found(viewer, shop, other_tenant_id, pattern):
    """In the words for a tenant that does not exist."""
    publish(shop.db, other_tenant_id, "1", logistic(2, 0.0))
    spy = viewer()
    spy.open()
    page = spy.sign_in(shop.key("admin"))
    said = []
    for tenant in (other_tenant_id, "nobody"):
        spy.open(path_of(pattern, tenant=tenant, model=PEOPLE, job=NO_JOB))
        page.get_by_role("heading", name="Not found").wait_for()
        page.get_by_text(f"There is no tenant {tenant}.").wait_for()
        said.append(re.sub(r"Request \w+", "", page.inner_text("main")).replace(tenant, "TENANT"))
    assert said[0] == said[1]


def test_a_wrong_key_is_refused_in_words(viewer, shop):
    """And a revoked one ends the session, wherever it is."""
    anna = viewer()
    page = anna.open(shop.path)
    page.get_by_label("API key").fill("mlk_nonsense")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("The API key is malformed.").wait_for()
    key = shop.key("read")
    anna.sign_in(key)
    page.get_by_role("heading", name=shop.tenant).wait_for()
    KeyRepository(shop.db, shop.tenant).revoke(key.key_id)
    page.get_by_role("heading", name="Sign in").wait_for()


def test_a_key_without_the_scope_is_told_so(viewer, shop):
    """In the API's words."""
    anna = viewer()
    anna.open(shop.path)
    page = anna.sign_in(shop.key("predict"))
    page.get_by_role("heading", name="You may not see this").wait_for()
    page.get_by_text("lacks the scope 'read'").wait_for()
    page.get_by_text("keys.create").wait_for()


def test_injected_html_is_text(viewer, shop):
    """In every text that somebody else can write: columns, categories, classes, reasons, names of settings, notes."""
    rows = pd.DataFrame({HOSTILE: np.arange(60.0), "kind": [f"{HOSTILE}{index % 3}" for index in range(60)]})
    target = pd.Series(np.where(rows["kind"].str.endswith("1"), HOSTILE, "b"), name="t")
    request = TrainingRequest(
        ModelId("hostile"), None, (rows, target), hyperparameters={"algorithm": "logistic_regression"}
    )
    publish(
        shop.db,
        shop.tenant,
        "1",
        fit_model(request),
        metrics={"validation": {HOSTILE[:40]: 0.5}},
        hyperparameters={HOSTILE: HOSTILE},
    )
    EnvironmentRepository(shop.db, shop.tenant).promote("hostile", "1", reason=HOSTILE)
    settings = {"metric": HOSTILE[:40], "value": 0.1, "higher_is_better": True}
    GateRepository(shop.db, shop.tenant).set("hostile", "production", "g", "min_metric", settings)
    anna = viewer()
    anna.open(f"{shop.path}/models/hostile")
    page = anna.sign_in(shop.key("admin"))
    page.get_by_text(f"“{HOSTILE}”").wait_for()
    dialog = anna.dialog("Promote…")
    dialog.get_by_text("passed", exact=True).wait_for()
    page.keyboard.press("Escape")
    anna.open(f"{shop.path}/models/hostile/versions/1")
    page.get_by_label(HOSTILE).fill("3")
    page.get_by_label("kind").fill(f"{HOSTILE}1")
    page.get_by_role("button", name="Predict").click()
    page.locator(".prediction b").wait_for()
    assert page.locator(".prediction b").inner_text() == HOSTILE
    assert page.get_by_text(HOSTILE).count() > 5
    anna.open(f"{shop.path}/models?{'q'}=%3Cimg%20src%3Dx%20onerror%3D%22window.taken%3D1%22%3E")
    page.get_by_text("Nothing has “<img").wait_for()
    anna.open(f"{shop.path}/{HOSTILE.replace('/', '')}")
    page.get_by_role("heading", name="Not found").wait_for()
    assert page.evaluate("window.taken") is None
    assert page.locator("img[src=x], main script").count() == 0


def test_the_longest_names_fit(db, viewer):
    """On a phone, without a page that scrolls sideways."""
    tenant, model, version = TenantId("t" + "x" * 39), ModelId("m" + "y" * 79), "v" + "+z" * 31 + "1"
    TenantRepository(db).ensure(tenant)
    if not list(EnvironmentRepository(db, tenant).list().items):
        publish(db, tenant, version, dataclasses.replace(logistic(2, 0.0), model_id=model))
        EnvironmentRepository(db, tenant).promote(model, version)
    phone = viewer(viewport={"width": 390, "height": 800})
    phone.open()
    page = phone.sign_in(KeyRepository(db, tenant).create("phone", [Scope.ADMIN]))
    for path in (f"t/{tenant}", f"t/{tenant}/models", f"t/{tenant}/models/{model}"):
        phone.open(path)
        page.get_by_text(version).filter(visible=True).first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    page.get_by_role("region", name="Versions", exact=True).get_by_role("link", name=version).click()
    page.get_by_role("heading", name=f"{model} {version}").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_change_by_somebody_else_appears(viewer, shop):
    """Without a reload, and what is typed or unfolded meanwhile stays."""
    anna = viewer()
    anna.open(shop.model)
    page = anna.sign_in(shop.key("read"))
    page.get_by_text("production serves version 1").wait_for()
    choose(page, "1", "with")
    shop.environments.promote(PEOPLE, "2", reason="from elsewhere")
    page.get_by_text("production serves version 2").wait_for()
    page.get_by_text("“from elsewhere”").wait_for()
    assert page.get_by_role("combobox", name="with", exact=True).input_value() == "1"
    anna.open(f"{shop.path}/models")
    page.get_by_role("link", name=PEOPLE).wait_for()
    shop.publish("1", ModelId("later"))
    page.get_by_role("link", name="later").wait_for()


def test_a_platform_that_is_away_comes_back(viewer, shop):
    """What was seen stays and is said to be old; the page goes on by itself, also one that was opened meanwhile."""
    anna = viewer()
    anna.open(shop.model)
    page = anna.sign_in(shop.key("read"))
    page.get_by_text("production serves version 1").wait_for()
    anna.context.set_offline(True)
    shop.environments.promote(PEOPLE, "2")  # a stream that is open stays so, and says it
    page.get_by_text("The platform does not answer; what is shown is older.").wait_for()
    assert "production serves version 1" in page.inner_text("main")
    anna.context.set_offline(False)
    page.get_by_text("production serves version 2").wait_for()
    page.get_by_text("The platform does not answer").wait_for(state="detached")
    answer = {"status": 503, "json": {"error": {"code": "not_ready", "message": "No replica is available. Try again."}}}
    page.route("**/api/v1/**", lambda route: route.fulfill(**answer))
    anna.open(shop.path)
    page.get_by_text("No replica is available. Try again.").wait_for()
    page.unroute("**/api/v1/**")
    page.get_by_role("heading", name=shop.tenant).wait_for()


def test_a_list_stays_while_the_platform_is_away(viewer, shop):
    """With the message above it; and a search that was typed before the list was left is in no other address."""
    anna = viewer()
    anna.open(f"{shop.path}/models")
    page = anna.sign_in(shop.key("read"))
    page.get_by_role("link", name=PEOPLE).wait_for()
    anna.context.set_offline(True)
    shop.publish("1", ModelId("later"))
    page.get_by_role("alert").get_by_text("The platform does not answer.").wait_for()
    assert page.get_by_role("link", name=PEOPLE).is_visible()
    anna.context.set_offline(False)
    page.get_by_role("link", name="later").wait_for()
    assert page.get_by_role("alert").count() == 0
    held = []
    page.route("**/pages/jobs.js", lambda request: held.append(request))
    page.get_by_label("Search models").evaluate(
        """(field, address) => {
            field.value = "x";
            field.dispatchEvent(new Event("input", { bubbles: true }));
            location.hash = address;
        }""",
        f"#/{shop.path}/jobs",
    )
    page.wait_for_timeout(500)
    assert page.url.endswith("/jobs")
    assert page.get_by_label("Search models").is_visible()
    for request in held:
        request.continue_()
    page.get_by_text("No job was submitted yet.").wait_for()


def test_a_page_that_was_never_opened_waits_for_the_platform(viewer, shop):
    """Its file can't be read; the address is shown as soon as it can."""
    anna = viewer()
    anna.open(shop.path)
    page = anna.sign_in(shop.key("read"))
    page.get_by_role("heading", name=shop.tenant).wait_for()
    anna.context.set_offline(True)
    page.get_by_role("link", name="Models").click()
    page.get_by_role("heading", name="The platform is away").wait_for()
    anna.context.set_offline(False)
    page.get_by_role("link", name=PEOPLE).wait_for()


@pytest.mark.parametrize("status", [408, 429])
def test_a_busy_platform_is_asked_again(viewer, shop, status):
    """Whoever looks during an overload need not load the page again."""
    anna = viewer()
    anna.open(shop.model)
    page = anna.sign_in(shop.key("read"))
    page.get_by_text("production serves version 1").wait_for()
    answer = {"status": status, "json": {"error": {"code": "busy", "message": "Too many requests. Wait."}}}
    page.route("**/api/v1/**", lambda route: route.fulfill(**answer))
    shop.publish("4")
    page.get_by_text("what is shown is older").wait_for()
    assert "production serves version 1" in page.inner_text("main")
    page.unroute("**/api/v1/**")
    page.get_by_text("what is shown is older").wait_for(state="detached")


def test_an_address_that_was_left_is_not_shown(viewer, shop):
    """Also if it was left before it was known who is signed in: one page is shown, and asks for one."""
    anna = viewer()
    page = anna.open(shop.path)
    anna.sign_in(shop.key("read"))
    held = []
    page.route("**/v1/session", lambda route: held.append(route))
    page.reload(wait_until="commit")
    for count, noun in enumerate(("jobs", "audit", "models"), 1):
        anna.wait_until(lambda count=count: len(held) == count)
        page.evaluate("address => { location.hash = address }", f"#/{shop.path}/{noun}")
    anna.wait_until(lambda: len(held) == 4)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/events") else None)
    for route in held:
        route.continue_()
    page.get_by_role("link", name=PEOPLE).wait_for()
    anna.wait_until(lambda: asked)
    page.wait_for_timeout(1000)
    assert len(asked) == 1


def test_an_address_names_no_other_folder(viewer, shop):
    """A browser would resolve two dots in the path of a request."""
    anna = viewer()
    anna.open(f"{shop.path}/models/%2e%2e")
    page = anna.sign_in(shop.key("read"))
    page.get_by_text("There is no such page.").wait_for()


def test_lists_are_searched_and_paged_by_the_api(db, viewer):
    """The search is in the address; further rows come a page at a time."""
    existing = {tenant.tenant_id for tenant in TenantRepository(db).list(limit=1000, name="paged-").items}
    for index in range(60):
        if f"paged-{index:02}" not in existing:
            TenantRepository(db).create(f"paged-{index:02}")
    operator = viewer()
    operator.open()
    page = operator.sign_in(PlatformKeyRepository(db).create("console", [Scope.READ]))
    search = page.get_by_label("Search tenants")
    search.fill("paged-")
    page.wait_for_url(re.compile(r"q=paged-"))
    page.get_by_role("link", name="paged-49").wait_for()
    rows = page.get_by_role("region", name="Tenants").locator("tbody tr")
    page.get_by_text("The first 50 are shown.").wait_for()
    assert rows.count() == 50
    page.get_by_role("button", name="Show more").click()
    page.get_by_text("paged-59").wait_for()
    assert rows.count() == 60
    search.fill("PAGED-59")
    page.get_by_role("link", name="paged-58").wait_for(state="detached")
    page.reload()
    page.get_by_role("link", name="paged-59").click()
    page.get_by_text("No environment serves a version.").wait_for()
    assert operator.page.url.endswith("#/t/paged-59")


def test_rows_of_two_searches_are_never_mixed(db, viewer):
    """Who asks for more while a search is on its way gets more of what is searched for."""
    for index in range(60):
        for start in ("first", "second"):
            TenantRepository(db).ensure(f"{start}-{index:02}")
    operator = viewer()
    operator.open("?q=first-")
    page = operator.sign_in(PlatformKeyRepository(db).create("console", [Scope.READ]))
    rows = page.get_by_role("region", name="Tenants").locator("tbody tr")
    page.get_by_role("link", name="first-49").wait_for()
    held = []
    page.route("**/v1/tenants?*name=second-*", lambda route: route.continue_() if held else held.append(route))
    page.get_by_label("Search tenants").fill("second-")
    operator.wait_until(lambda: held)
    page.get_by_role("button", name="Show more").click()
    page.get_by_role("link", name="second-59").wait_for()
    assert rows.count() == 60
    assert page.get_by_role("link", name="first-00").count() == 0
    held[0].continue_()


def test_operators_see_what_fails(db, viewer, shop):
    """A version that no replica could load, with the reason, and where."""
    from support.replicas import damage

    damage(db, shop.tenant, PEOPLE, "2")
    shop.environments.promote(PEOPLE, "2")
    operator = viewer()
    operator.open()
    page = operator.sign_in(PlatformKeyRepository(db).create("console", [Scope.READ]))
    failed = page.locator("p.problem", has_text=f"{shop.tenant}/{PEOPLE}").first
    failed.wait_for()
    assert "Version 1 answers meanwhile." in failed.inner_text()
    failed.get_by_role("link").click()
    page.get_by_text("could not load version 2").wait_for()
    shop.environments.promote(PEOPLE, "1")


def test_the_keyboard_suffices(viewer, shop):
    """From the key to a promotion; a dialog gives the focus back."""
    anna = viewer()
    page = anna.open(shop.model)
    page.get_by_label("API key").wait_for()
    page.keyboard.type(str(shop.key("read", "promote")))
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Promote…").wait_for()
    press_until(page, "Promote…")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_text("not passed", exact=True).wait_for()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent.trim()") == "Promote…"
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("combobox", name="Version").wait_for()
    page.keyboard.press("ArrowDown")
    page.get_by_role("option", name=re.compile("^2 ")).wait_for()
    page.keyboard.press("ArrowDown")  # from 3, which does not pass, to 2
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Promote version 2").wait_for()
    page.get_by_role("dialog").get_by_text("passed", exact=True).wait_for()
    press_until(page, "Promote version 2")
    page.keyboard.press("Enter")
    page.get_by_text("is at generation 2").wait_for()


def press_until(page, text: str) -> None:
    """Press Tab until the element with this text has the focus."""
    for _ in range(60):
        if page.evaluate("document.activeElement.textContent.trim()") == text:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {text!r}")


@pytest.fixture(scope="module")
def trained(db):
    """A tenant with everything that a page of a version shows."""
    from ml_core.cache import CacheConfig, CacheMechanism

    tenant = TenantId("console-trained")
    TenantRepository(db).ensure(tenant)
    system = MLSystem(db, CacheMechanism(CacheConfig()), max_memory_mb=256, tenant_id=tenant)
    data = split_target(tickets().rename(columns={"minutes_open": f"minutes_open_{'x' * 60}"}), "category")
    for algorithm in ("logistic_regression", "random_forest"):
        version = system.train_model("tickets", None, data, None, {"algorithm": algorithm})["version"]
        EnvironmentRepository(db, tenant).promote("tickets", version)
    DatasetRepository(db, tenant).create("m", measures())
    return tenant


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_is_accessible(db, viewer, trained, scheme, width):
    """Axe finds nothing: roles, names, contrast, order of headings. No page scrolls sideways."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    someone = viewer(color_scheme=scheme, viewport={"width": width, "height": 900})
    page = someone.open()
    found = {}

    def check(name: str) -> None:
        someone.wait_for_rest()
        answer = axe.run(page)
        found[name] = [
            (each["id"], [node["html"][:200] for node in each["nodes"]]) for each in answer.response["violations"]
        ]
        found[name] += ["too wide"] * (page.evaluate("document.documentElement.scrollWidth") > width)

    page.get_by_label("API key").wait_for()
    check("sign in")
    someone.sign_in(PlatformKeyRepository(db).create("console", [Scope.ADMIN]))
    for pattern in PATTERNS:
        someone.open(path_of(pattern, tenant=trained, model="tickets", version="2", dataset="m", job=NO_JOB))
        page.locator("h1").wait_for()
        page.get_by_text("Loading…").wait_for(state="detached")
        check(pattern)
    someone.open(f"t/{trained}/models/tickets")
    someone.dialog("Promote…").get_by_text("The environment has no gates.").wait_for()
    check("dialog")
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_a_version_shows_what_is_known_of_it(db, viewer, trained):
    """Quality beside the baseline, confusion, importances, and a form that its example fills in."""
    someone = viewer()
    someone.open(f"t/{trained}/models/tickets/versions/2")
    page = someone.sign_in(KeyRepository(db, trained).create("reader", [Scope.READ, Scope.PREDICT]))
    page.get_by_role("region", name="Confusion matrix").wait_for()
    assert page.get_by_role("table", name="Importances").locator("th").first.inner_text() == "subject"
    assert page.get_by_label("subject").input_value()
    page.get_by_role("button", name="Predict").click()
    assert page.locator(".prediction b").inner_text() in {"account", "billing", "bug"}
    with page.expect_download() as started:
        page.get_by_role("link", name="Download the artifact").click()
    assert started.value.path().stat().st_size > 1000
