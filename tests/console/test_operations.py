"""What operators do: quotas, placements, and the story of a model on a platform; and what holds for these pages."""

from __future__ import annotations

import itertools
import re
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pytest

from ml_core.domain.api_key import Scope
from ml_core.domain.job import JobQuota
from ml_core.domain.job_spec import TrainJobSpec
from ml_core.domain.placement import Placement
from ml_core.domain.tenant_policies import PredictionQuota
from ml_core.ids import DatasetId, ModelId, TenantId
from ml_core.jobs.schedules import Schedules
from ml_core.registry.audit import AuditRepository
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobRepository
from ml_core.registry.keys import KeyRepository
from ml_core.registry.placements import PlacementRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.promotion.gates import GateRepository
from ml_core.registry.tenants import TenantRepository
from support.console import HOSTILE, choose, open_as, row
from support.gated import PEOPLE
from support.tables import measures, tickets


@pytest.fixture
def operator_key(db):
    """A new key of the platform with the scope admin."""
    return PlatformKeyRepository(db).create("console", [Scope.ADMIN])


def test_an_operator_changes_quotas(viewer, shop, db, operator_key):
    """Of predictions and of jobs, each in a dialog that names the tenant; the tenant sees them, and why it may not."""
    operator = viewer()
    page = open_as(operator, operator_key, f"{shop.path}/quotas")
    dialog = operator.dialog("Change the quota of predictions…")
    assert f"The quota of predictions of {shop.tenant}" in dialog.inner_text()
    dialog.get_by_label("Requests per second").fill("many")
    dialog.get_by_role("button", name=f"Change the quota of {shop.tenant}").click()
    dialog.get_by_text("requests_per_s").first.wait_for()
    dialog.get_by_label("Requests per second").fill("12.5")
    dialog.get_by_label("Weight").fill("2")
    dialog.get_by_role("button", name=f"Change the quota of {shop.tenant}").click()
    page.get_by_text(f"The quota of predictions of {shop.tenant} is changed.").wait_for()
    assert TenantRepository(db).quota(shop.tenant) == PredictionQuota(weight=2, requests_per_s=12.5)
    assert re.search(r"Rows per second\s+the platform's default", page.inner_text("main"))
    dialog = operator.dialog("Change the quota of jobs…")
    dialog.get_by_label("Jobs that wait").fill("")
    dialog.get_by_label("Core-seconds in 24 hours").fill("3600")
    dialog.get_by_role("button", name=f"Change the quota of {shop.tenant}").click()
    page.get_by_text(f"The quota of jobs of {shop.tenant} is changed.").wait_for()
    assert JobRepository(db, shop.tenant).share()[0] == JobQuota(max_queued=None, cpu_seconds_per_day=3600)

    page = open_as(viewer(), shop.key("admin"), f"{shop.path}/quotas")
    assert "12.5" in row(page, "Requests per second").inner_text()
    assert "3,600" in row(page, "Core-seconds").inner_text()
    page.get_by_text("Only a key of the platform may change this.").first.wait_for()
    refused = page.get_by_role("button", name="Change the quota of jobs…")
    assert refused.get_attribute("aria-disabled") == "true"
    refused.click(force=True)
    assert page.get_by_role("dialog").count() == 0


def test_an_operator_places_a_tenant(viewer, shop, db, operator_key):
    """The dialog names it and says what happens; until its cell has replicas it moves, and the shared one serves."""
    placements = PlacementRepository(db)
    operator = viewer()
    page = open_as(operator, operator_key, shop.path)
    page.get_by_text("Served by the shared cell").wait_for()
    page.get_by_role("button", name="Place…").dblclick()
    dialog = page.get_by_role("dialog")
    operator.wait_for_rest()
    assert page.locator("dialog").count() == 1
    said = dialog.inner_text()
    assert f"Where {shop.tenant} is served" in said
    assert f"The address stays /t/{shop.tenant}, and no request fails" in said
    dialog.get_by_label("Replicas without load").fill("3")
    dialog.get_by_role("button", name=f"Move {shop.tenant}").click()
    dialog.get_by_text("max_replicas is 1").wait_for()
    dialog.get_by_label("Replicas under load").fill("4")
    dialog.get_by_role("button", name=f"Move {shop.tenant}").click()
    page.get_by_text("is to be served by a cell of its own with 3 to 4 replicas").wait_for()
    placed = placements.get(shop.tenant)
    assert (placed.is_dedicated, placed.min_replicas, placed.max_replicas) == (True, 3, 4)

    page.get_by_role("link", name="Placements").click()
    page.get_by_label("Tenant", exact=True).fill("nobody-here")
    page.get_by_role("button", name="Place…").first.click()
    page.get_by_text("There is no tenant nobody-here.").wait_for()
    listed = row(page, shop.tenant)
    assert "moves" in listed.inner_text()
    assert "none is alive" in listed.inner_text()
    listed.get_by_role("button", name="Place…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=f"Move {shop.tenant}").click()
    page.get_by_text(f"{shop.tenant} is to be served by the shared cell.").wait_for()
    assert not placements.get(shop.tenant).is_dedicated
    changes = AuditRepository(db, shop.tenant).list(action="placement.set").items
    assert len(changes) == 2


def test_an_operator_bounds_the_shared_cell(viewer, shop, db, operator_key):
    """Wanted beside what is seen; who may only read is told so."""
    placements = PlacementRepository(db)
    before = placements.shared()
    operator = viewer()
    page = open_as(operator, operator_key, "placements")
    page.get_by_text(re.compile(r"\d live replica")).wait_for()
    try:
        dialog = operator.dialog("Change the bounds…")
        dialog.get_by_label("Replicas without load").fill("2")
        dialog.get_by_label("Replicas under load").fill("6")
        dialog.get_by_role("button", name="Change the shared cell").click()
        page.get_by_text("The shared cell is to have 2 to 6 replicas").wait_for()
        assert placements.shared() == Placement(min_replicas=2, max_replicas=6)
    finally:
        placements.set_shared(before)
    reader = viewer()
    page = open_as(reader, PlatformKeyRepository(db).create("reader", [Scope.READ]), "placements")
    page.get_by_text("Your key lacks the scope admin.").wait_for()
    assert page.get_by_role("button", name="Change the bounds…").get_attribute("aria-disabled") == "true"
    page.get_by_label("Tenant", exact=True).fill(shop.tenant)
    page.get_by_label("Tenant", exact=True).press("Enter")
    assert page.get_by_role("dialog").count() == 0
    page = open_as(viewer(), shop.key("admin"), "placements")
    page.get_by_role("heading", name="You may not see this").wait_for()


def test_an_operator_learns_how_to_try_a_version(viewer, shop, operator_key):
    """The prediction plane takes no key of the platform; the page says what to do, and leads there."""
    page = open_as(viewer(), operator_key, f"{shop.model}/versions/1")
    page.get_by_text("The prediction plane takes keys of tenants only.").wait_for()
    page.locator("try-it").get_by_role("link", name=shop.tenant).click()
    page.get_by_role("button", name="Create a key…").wait_for()


def test_a_dialog_is_closed_with_its_page(viewer, shop):
    """When somebody goes back, opens another address, or the session ends."""
    anna = viewer()
    key = shop.key("read", "promote")
    page = open_as(anna, key, f"{shop.path}/models")
    page.get_by_role("link", name=PEOPLE, exact=True).click()
    anna.dialog("Promote…").wait_for()
    page.go_back()
    page.get_by_role("heading", name="Models").wait_for()
    assert page.get_by_role("dialog").count() == 0
    page.go_forward()
    anna.dialog("Promote…").wait_for()
    anna.open(f"{shop.path}/jobs")
    page.get_by_role("heading", name="Jobs").wait_for()
    assert page.get_by_role("dialog").count() == 0
    anna.open(shop.model)
    anna.dialog("Promote…").wait_for()
    KeyRepository(shop.db, shop.tenant).revoke(key.key_id)
    page.get_by_role("heading", name="Sign in").wait_for()
    assert page.get_by_role("dialog").count() == 0


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("models/people/predictions?since=nonsense", "'since'"),
        ("models/people/predictions?until=2026-13-45T99:00", "'until'"),
        ("jobs?state=nonsense", "'state'"),
        ("jobs?schedule=No%20such", "schedule"),
        ("training?dataset=%3Cb%3E", "dataset"),
    ],
)
def test_nonsense_in_an_address_is_refused_in_the_apis_words(viewer, shop, path, said):
    """And not as a fault of the console."""
    page = open_as(viewer(), shop.key("read"), f"{shop.path}/{path}")
    page.locator(".problem", has_text=said).first.wait_for()
    assert "The console failed" not in page.inner_text("main")


def test_a_long_list_stays_long_when_it_is_read_again(viewer, db, operator_key):
    """Longer than what the API answers at once; what is asked for while it is read is not lost."""
    names = [f"t{index:04}" for index in range(2200)]
    asked = []

    def answer(route):
        query = {name: values[0] for name, values in parse_qs(urlsplit(route.request.url).query).items()}
        limit, start = int(query["limit"]), int(query.get("cursor", 0))
        asked.append(limit)
        items = [{"tenant_id": name, "cell": "shared", "created_at": "2026-01-01T00:00:00Z"} for name in names]
        end = start + limit
        route.fulfill(json={"items": items[start:end], "next_cursor": str(end) if end < len(names) else None})

    operator = viewer()
    page = open_as(operator, operator_key, "")
    page.route("**/v1/tenants?*", answer)
    page.reload()
    rows = page.get_by_role("region", name="Tenants").locator("tbody tr")
    for count in range(50, 1101, 50):
        page.get_by_text(f"The first {count} are shown.").wait_for()
        page.get_by_role("button", name="Show more").click()
    page.get_by_text("The first 1150 are shown.").wait_for()
    asked.clear()
    operator.wait_until(lambda: (1000, 150) in itertools.pairwise(asked))
    operator.wait_until(lambda: rows.count() == 1150)
    assert max(asked) <= 1000


def test_injected_html_is_text(viewer, shop, db, operator_key):
    """In each field and in what the API says of it."""
    rows = measures(60).rename(columns={"m0": HOSTILE, "outcome": f"{HOSTILE}2"})
    DatasetRepository(db, shop.tenant).create("h", rows)
    anna = viewer()
    page = open_as(anna, shop.key("admin"), f"{shop.path}/training?dataset=h&model={HOSTILE[:12]}")
    page.get_by_label("Target", exact=True).select_option(f"{HOSTILE}2")
    page.get_by_text("Options").click()
    page.get_by_label("Hyperparameters, one a line").fill(f"C={HOSTILE}")
    page.get_by_role("button", name="Plan…").click()
    page.locator("form [role=alert]", has_text=HOSTILE[:12]).wait_for()
    page.get_by_role("combobox", name="Model, which").fill("h")
    page.get_by_label("Hyperparameters, one a line").fill("")
    dialog = anna.dialog("Schedule…")
    for label in ("Name", "Minute, hour", "Time zone"):
        dialog.get_by_label(label).fill(HOSTILE)
    dialog.get_by_role("button", name="Create the schedule").click()
    dialog.get_by_role("alert").wait_for()
    page.keyboard.press("Escape")
    page.get_by_label("Hyperparameters, one a line").fill(HOSTILE.replace("=", ""))
    page.get_by_role("button", name="Plan…").click()
    page.get_by_text("is not name=value").wait_for()
    for path in (
        f"schedules/{HOSTILE.replace('/', '')}",
        f"jobs?schedule={HOSTILE}",
        f"training?dataset={HOSTILE}",
        f"search?dataset={HOSTILE}",
    ):
        anna.open(f"{shop.path}/{path}")
        page.locator(".problem").first.wait_for()
    operator = viewer()
    page_of_operator = open_as(operator, operator_key, f"{shop.path}/quotas")
    dialog = operator.dialog("Change the quota of jobs…")
    dialog.get_by_label("Jobs that wait").fill(HOSTILE)
    dialog.get_by_role("button", name="Change the quota of").click()
    dialog.get_by_role("alert").wait_for()
    operator.open("placements")
    page_of_operator.get_by_label("Tenant", exact=True).fill(HOSTILE)
    page_of_operator.get_by_role("button", name="Place…").first.click()
    page_of_operator.locator("#notice p").wait_for()
    for each in (page, page_of_operator):
        assert each.evaluate("window.taken") is None
        assert each.locator("img[src=x], main script, dialog script, #notice script").count() == 0


def test_the_longest_names_fit(viewer, db, operator_key):
    """On a phone: no page and no dialog scrolls sideways."""
    tenant = TenantId("o" + "x" * 39)
    TenantRepository(db).ensure(tenant)
    dataset, model, schedule = DatasetId("d" + "y" * 79), ModelId("m" + "z" * 79), "s" + "w" * 39
    datasets = DatasetRepository(db, tenant)
    column = "c" * 80
    datasets.create(dataset, pd.DataFrame({column: np.arange(50.0), "label": ["a", "b"] * 25}))
    own = Schedules(db, tenant)
    if not own.list().items:
        training = {"dataset": str(dataset), "target": "label", "ignore": []}
        own.create(schedule, "0 3 * * *", TrainJobSpec.from_json({"model_id": model, "training": training}))
    PlacementRepository(db).set(tenant, Placement(is_dedicated=True, max_replicas=1000))
    phone = viewer(viewport={"width": 390, "height": 800})
    page = open_as(phone, operator_key, "placements")
    dialogs = {
        "placements": ("Change the bounds…", "Place…"),
        f"t/{tenant}": ("Place…",),
        f"t/{tenant}/quotas": ("Change the quota of jobs…",),
        f"t/{tenant}/schedules": (),
        f"t/{tenant}/schedules/{schedule}": ("Delete…",),
        f"t/{tenant}/training": (),
        f"t/{tenant}/training?dataset={dataset}&model={model}&target=label": ("Plan…", "For each tenant…", "Schedule…"),
        f"t/{tenant}/search?dataset={dataset}&model={model}&target=label": ("Review…", "Schedule…"),
        f"t/{tenant}/dataset-prediction?dataset={dataset}&model={model}&output={dataset}": ("Review…", "Schedule…"),
        f"t/{tenant}/datasets/{dataset}": ("Archive…", "Delete…"),
    }
    try:
        for path, buttons in dialogs.items():
            phone.open(path)
            page.locator("h1").wait_for()
            page.get_by_text("Loading…").wait_for(state="detached")
            phone.wait_for_rest()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
            for button in buttons:
                page.get_by_role("button", name=button, exact=True).last.click()
                dialog = page.get_by_role("dialog")
                dialog.wait_for()
                phone.wait_for_rest()
                assert dialog.evaluate("each => each.scrollWidth <= each.clientWidth"), (path, button)
                page.keyboard.press("Escape")
    finally:
        PlacementRepository(db).set(tenant, Placement())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_with_content_and_dialogs_are_accessible(viewer, shop, db, operator_key, scheme, width):
    """Axe finds nothing."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    DatasetRepository(db, shop.tenant).create("m", measures(50))
    spec = TrainJobSpec.from_json({"model_id": "m", "training": {"dataset": "m", "target": "outcome"}})
    Schedules(db, shop.tenant).create("nightly", "0 3 * * *", spec)
    PlacementRepository(db).set(shop.tenant, Placement(is_dedicated=True, max_replicas=2))
    someone = viewer(color_scheme=scheme, viewport={"width": width, "height": 900})
    page = open_as(someone, operator_key, "")
    found = {}

    def check(name: str) -> None:
        someone.wait_for_rest()
        violations = axe.run(page).response["violations"]
        found[name] = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in violations]
        found[name] += ["too wide"] * (page.evaluate("document.documentElement.scrollWidth") > width)

    form = f"{shop.path}/training?dataset=m&target=outcome"
    for path, buttons in {
        "placements": ("Change the bounds…", "Place…"),
        f"{shop.path}/quotas": ("Change the quota of predictions…",),
        f"{shop.path}/schedules": (),
        f"{shop.path}/schedules/nightly": ("Run now…",),
        f"{shop.path}/training": (),
        form: ("Plan…", "Schedule…"),
        f"{shop.path}/search?dataset=m&target=outcome&trials=0&model_type=clustering&seed=1": ("Review…", "Schedule…"),
        f"{shop.path}/dataset-prediction?dataset=m&model=people&output=answers": ("Review…",),
        f"{shop.model}?environment=staging": ("Set a gate…", "Protect…"),
        f"{shop.model}/versions/1": ("Tags and notes…", "Hold…"),
        f"{shop.path}/models": ("Register a file…",),
        f"{shop.path}/versions": (),
        f"{shop.path}/datasets/m": ("Delete…",),
        "batches": (),
    }.items():
        someone.open(path)
        page.get_by_text("Loading…").wait_for(state="detached")
        if path == form:
            page.get_by_text("Options").click()
        check(path)
        for button in buttons:
            page.get_by_role("button", name=button, exact=True).last.click()
            page.get_by_role("dialog").wait_for()
            check(f"{path}: {button}")
            page.keyboard.press("Escape")
    PlacementRepository(db).set(shop.tenant, Placement())
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_the_story_of_a_model(viewer_of_platform, platform, tmp_path):
    """From a file to an answer: upload, train twice, compare, promote behind a gate, canary, roll back, try it."""
    tenant = TenantId("story")
    TenantRepository(platform.db).ensure(tenant)
    key = KeyRepository(platform.db, tenant).create("anna", ["read", "train", "promote", "predict"])
    environments = EnvironmentRepository(platform.db, tenant)
    file = tmp_path / "tickets.csv"
    tickets().to_csv(file, index=False)
    anna = viewer_of_platform()
    page = open_as(anna, key, f"t/{tenant}/datasets")

    dialog = anna.dialog("Upload a file…")
    dialog.get_by_label("Name").fill("tickets")
    dialog.get_by_label("CSV or Parquet file").set_input_files(file)
    dialog.get_by_role("button", name="Upload").click()
    page.get_by_role("heading", name="tickets@1").wait_for()
    for version, algorithm in (("1", "random_forest"), ("2", "logistic_regression")):
        anna.open(f"t/{tenant}/datasets/tickets")
        page.get_by_role("link", name="Train a model on it").click()
        page.get_by_label("Target", exact=True).select_option("category")
        page.get_by_label("Algorithm").select_option(algorithm)
        dialog = anna.dialog("Plan…")
        dialog.get_by_text("Takes about").wait_for()
        dialog.get_by_role("button", name="Submit the job").click()
        page.get_by_role("heading", name="succeeded").wait_for(timeout=180_000)
        page.get_by_role("link", name=f"tickets {version}").wait_for()

    settings = {"metric": "accuracy", "value": 0.9}
    GateRepository(platform.db, tenant).set(ModelId("tickets"), "production", "accurate", "min_metric", settings)
    page.goto(f"{anna.address}#/t/{tenant}/models/tickets?compare=1&with=2")
    page.locator("#comparison tr", has_text="accuracy validation").first.wait_for()
    for generation, move, version in ((1, "Promote", "1"), (2, "Promote", "2"), (3, "Start canary", "1")):
        dialog = anna.dialog(f"{move}…")
        choose(dialog, version)
        dialog.get_by_text("passed", exact=True).wait_for()
        dialog.get_by_role("button", name=f"{move} version {version}").click()
        page.get_by_text(f"is at generation {generation}").wait_for()
    assert environments.get(ModelId("tickets")).canary.version == "1"
    anna.dialog("Abort canary…").get_by_role("button", name="Abort canary").click()
    page.get_by_text("is at generation 4").wait_for()
    dialog = anna.dialog("Roll back…")
    dialog.locator("dd", has_text="version 1").wait_for()
    dialog.get_by_role("button", name="Roll back").click()
    page.get_by_text("is at generation 5").wait_for()
    assert environments.get(ModelId("tickets")).version == "1"
    page.get_by_text("2 of 2 live replicas have loaded it.").wait_for(timeout=60_000)

    anna.open(f"t/{tenant}/models/tickets/versions/1")
    page.get_by_label("subject").fill("The invoice shows the wrong amount")
    page.get_by_role("button", name="Predict").click()
    page.locator(".prediction b").wait_for()
    assert page.locator(".prediction b").inner_text() == "billing"


def test_a_tenant_moves_into_a_cell_of_its_own_and_back(viewer_of_platform, platform):
    """The page shows the replicas that live, and which cell serves, as the control loop goes on."""
    tenant = TenantId("moving")
    TenantRepository(platform.db).ensure(tenant)
    operator = viewer_of_platform()
    page = open_as(operator, PlatformKeyRepository(platform.db).create("console", [Scope.ADMIN]), f"t/{tenant}")
    operator.dialog("Place…").get_by_role("button", name=f"Move {tenant}").click()
    page.get_by_text("is to be served by a cell of its own with 1 replica").wait_for()
    page.get_by_role("link", name="Placements").click()
    listed = row(page, tenant)
    listed.get_by_text("1 live replica").wait_for(timeout=180_000)
    listed.get_by_text("moves").wait_for(state="detached", timeout=180_000)
    assert f"t-{tenant}" in listed.inner_text()
    page.get_by_role("link", name=tenant).click()
    page.get_by_text("Served by a cell of its own").wait_for()
    operator.dialog("Place…").get_by_role("button", name=f"Move {tenant}").click()
    page.get_by_text("is to be served by the shared cell.").wait_for()
    page.get_by_text("Served by the shared cell").wait_for(timeout=180_000)
    page.get_by_role("link", name="Placements").click()
    listed.get_by_text("none is alive").wait_for(timeout=180_000)
