"""Versions and datasets: found among many, side by side, where they came from, what was measured, and drift."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time

import numpy as np
import pytest

from ml_core.cache import CacheConfig, CacheMechanism
from ml_core.domain.version import Lineage
from ml_core.ids import ModelId, TenantId
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.runs.repository import RunRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.system import MLSystem
from support.console import choose
from support.gated import PEOPLE, logistic, publish
from support.registry import register
from support.tables import measures, split_target, tickets

HOSTILE = """<img src=x onerror="window.taken=1">'"><script>window.taken=1</script>${7*7}"""
MINUS = "\N{MINUS SIGN}"
SIZES = [(1280, "light"), (390, "dark")]


def is_wide(page) -> bool:
    """Whether the page scrolls sideways."""
    return page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")


@pytest.fixture(scope="module")
def prices(db):
    """A tenant with a regressor, a classifier of two versions, of which one came of the other, and a dataset."""
    tenant = TenantId("console-versions")
    TenantRepository(db).ensure(tenant)
    system = MLSystem(db, CacheMechanism(CacheConfig()), max_memory_mb=256, tenant_id=tenant)
    random = np.random.default_rng(0)
    table = measures(400)
    table["price"] = 3 * table["m0"] - table["m1"] + random.normal(0, 0.3, 400)
    datasets = DatasetRepository(db, tenant)
    datasets.create("homes", table)
    datasets.create("homes", table.assign(m3=table["m3"] + 2, m4=HOSTILE, outcome="yes"))
    options = {"dataset": "homes@1", "target": "price", "hyperparameters": {"algorithm": "ridge"}}
    card = {"intended_use": f"To estimate {HOSTILE}", "limitations": ["New homes.", "Nowhere else."]}
    for parent, metadata in ((None, {"card": card}), ("1", None), ("2", None)):
        system.train_model("price", None, parent_version=parent, metadata=metadata, **options)
    EnvironmentRepository(db, tenant).promote("price", "2")
    system.train_model("kind", None, split_target(tickets(), "category"), None, {"algorithm": "logistic_regression"})
    return tenant


@pytest.fixture
def reader(db, prices):
    """A key of that tenant that may read and try."""
    return KeyRepository(db, prices).create("reader", ["read", "predict", "train"])


@pytest.fixture
def many(db, shop):
    """The shop with 150 further versions without bytes, newer than its own."""
    for number in range(150):
        register(db, shop.tenant, f"n{number}", model_id=PEOPLE, metrics={"validation": {"accuracy": number / 150}})
    return shop


def test_a_version_is_found_among_many(viewer, many):
    """In the list by its search, a page at a time or by a metric; for a promotion and a comparison by typing."""
    anna = viewer()
    anna.open(many.model)
    page = anna.sign_in(many.key("read", "promote"))
    table = page.get_by_role("region", name="Versions", exact=True)
    rows = table.locator("tbody tr")
    page.get_by_text("The first 50 are shown.").wait_for()
    assert rows.count() == 50
    page.get_by_role("button", name="Show more").click()
    table.get_by_role("link", name="n60", exact=True).wait_for()
    page.get_by_label("Search versions").fill("N14")
    table.get_by_role("link", name="n149").wait_for()
    table.get_by_role("link", name="n60", exact=True).wait_for(state="detached")
    assert rows.count() == 11
    page.wait_for_url(re.compile("q=N14"))
    page.get_by_label("Search versions").fill("")
    page.get_by_label("Sorted by").select_option("validation/accuracy")
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_url(re.compile("sort=validation"))
    table.locator("tbody tr:nth-child(2)").get_by_role("link", name="n149").wait_for()
    dialog = anna.dialog("Promote…")
    choose(dialog, "2")
    dialog.get_by_text("passed", exact=True).wait_for()
    dialog.get_by_role("button", name="Promote version 2").click()
    page.get_by_text("is at generation 2").wait_for()
    assert many.served() == "2"
    choose(page, "1")
    choose(page, "n7", "with")
    page.get_by_role("button", name="Compare").click()
    page.locator("#comparison thead a", has_text="n7").wait_for()


def test_the_choice_of_a_version_is_a_combobox(viewer, many):
    """As the ARIA pattern says: what is active is said, Escape closes the list first; nothing is taken by chance."""
    anna = viewer()
    anna.open(many.model)
    page = anna.sign_in(many.key("read", "promote"))
    dialog = anna.dialog("Promote…")
    field = dialog.get_by_role("combobox", name="Version")
    assert field.evaluate("field => field === document.activeElement")
    assert (field.get_attribute("aria-expanded"), field.get_attribute("aria-autocomplete")) == ("false", "list")

    def active() -> str | None:
        name = field.get_attribute("aria-activedescendant")
        return dialog.locator(f"[id='{name}']").get_attribute("data-name")

    page.keyboard.press("ArrowDown")
    dialog.get_by_role("option", name="n149").wait_for()
    assert (field.get_attribute("aria-expanded"), active()) == ("true", "n149")
    assert dialog.get_by_role("option").count() == 20
    dialog.get_by_text("The newest 20 are listed.").wait_for()
    page.keyboard.press("ArrowUp")
    assert active() == "n130"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert active() == "n148"
    page.keyboard.press("Escape")
    assert field.get_attribute("aria-expanded") == "false"
    dialog.get_by_role("button", name="Promote version n149").wait_for()
    field.fill("N14")
    dialog.get_by_role("option", name="n140").wait_for()
    assert active() == "n149"
    field.fill("n14")
    dialog.get_by_role("option", name="n140").wait_for()
    anna.wait_until(lambda: active() == "n14")
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Promote version n14").wait_for()
    field.fill("nothing of this name")
    dialog.get_by_text("No version has “nothing of this name” in its name.").wait_for()
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog").count() == 1
    page.keyboard.press("Tab")
    anna.wait_until(lambda: field.input_value() == "n14")
    field.fill("n3")
    page.keyboard.press("Tab")  # before the list is there
    dialog.get_by_role("button", name="Promote version n3", exact=True).wait_for()
    field.click()
    dialog.get_by_role("option", name="n148").click()
    dialog.get_by_role("button", name="Promote version n148").wait_for()
    field.fill(HOSTILE)
    dialog.get_by_text("in its name").wait_for()
    assert page.evaluate("window.taken") is None
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")


def chosen(field) -> str:
    """What a form would send."""
    return field.locator("xpath=../input[@type='hidden']").input_value()


def test_enter_takes_what_is_typed_however_late_an_answer_comes(viewer, many):
    """An answer to what was typed before takes nothing and shows nothing; a refusal is not that there is none."""
    anna = viewer()
    anna.open(many.model)
    page = anna.sign_in(many.key("read", "promote"))
    page.get_by_text("production serves version 1").wait_for()
    anna.wait_for_rest()
    dialog = anna.dialog("Promote…")
    field = dialog.get_by_role("combobox", name="Version")
    page.clock.install()
    page.clock.pause_at(time.time() + 60)
    held = []
    page.route("**/versions?name=n3&*", lambda route: held.append(route))
    field.fill("n3")
    page.keyboard.press("Enter")
    page.clock.run_for(1000)
    anna.wait_until(lambda: held)
    field.fill("n14")
    page.keyboard.press("Enter")
    with page.expect_response("**/versions?name=n3&*") as late:
        held[0].continue_()
    late.value.finished()
    assert (field.input_value(), dialog.get_by_role("option").count()) == ("n14", 0)
    page.clock.run_for(1000)
    dialog.get_by_role("button", name="Promote version n14").wait_for()

    field.fill("n5")
    page.keyboard.press("ArrowDown")  # lists at once
    dialog.get_by_role("option", name="n59").wait_for()
    page.keyboard.press("ArrowDown")
    with_active = field.get_attribute("aria-activedescendant")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(1000)
    anna.wait_for_rest()
    assert (asked, field.get_attribute("aria-activedescendant")) == ([], with_active)
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Promote version n59").wait_for()

    refusal = {"error": {"code": "quota_exceeded", "message": "Too many requests."}}
    page.route("**/versions/n6", lambda route: route.fulfill(status=429, json=refusal))
    field.fill("n6")
    page.keyboard.press("Enter")
    page.clock.run_for(1000)
    dialog.get_by_text("Too many requests.").wait_for()


def test_a_page_that_is_loaded_again_changes_no_choice(viewer, many):
    """Neither what is typed nor the place in the list, though the version that was proposed is another now."""
    anna = viewer()
    anna.open(many.model)
    page = anna.sign_in(many.key("read"))
    field = page.get_by_role("combobox", name="with", exact=True)
    field.wait_for()
    anna.wait_for_rest()

    def publish_another(version: str) -> None:
        many.publish(version)
        page.locator(f"type-ahead[name=with][value='{version}']").wait_for(state="attached")

    held = []
    page.route("**/versions?name=n3&*", lambda route: held.append(route))
    field.fill("n3")
    page.keyboard.press("Enter")
    anna.wait_until(lambda: held)
    publish_another("4")
    assert (field.input_value(), chosen(field)) == ("n3", "4")
    held[0].continue_()
    anna.wait_until(lambda: chosen(field) == "n3")

    page.reload()
    field.click()
    page.get_by_role("option", name="n149").wait_for()
    page.keyboard.press("ArrowDown")
    listed = field.get_attribute("aria-activedescendant")
    publish_another("5")
    assert field.get_attribute("aria-activedescendant") == listed
    page.keyboard.press("Enter")
    assert (field.input_value(), chosen(field)) == ("n149", "n149")

    page.reload()
    field.wait_for()
    anna.wait_for_rest()
    publish_another("6")
    assert (field.input_value(), chosen(field)) == ("6", "6")


def test_differences_are_said_as_better_or_worse(viewer, db, shop):
    """Against what is served, or another that is chosen; an error that grew is worse, though its number is larger."""
    for version, rmse in (("1", 2.0), ("2", 1.5), ("3", 2.5)):
        register(
            db, shop.tenant, version, model_id=ModelId("cost"), metrics={"validation": {"rmse": rmse, "mine": rmse}}
        )
    EnvironmentRepository(db, shop.tenant).promote("cost", "1")
    anna = viewer()
    anna.open(f"{shop.path}/models/cost")
    page = anna.sign_in(shop.key("read"))
    table = page.get_by_role("region", name="Versions", exact=True)

    def said(version: str) -> list[str]:
        return table.get_by_role("row", name=re.compile(rf"^{version}\s")).locator(".diff").all_inner_texts()

    anna.wait_until(lambda: said("2") == [f"{MINUS}0.5 differs", f"{MINUS}0.5 better"])
    assert (said("3"), said("1")) == (["+0.5 differs", "+0.5 worse"], [])
    choose(page, "3", "Differences to")
    page.get_by_role("button", name="Show", exact=True).click()
    anna.wait_until(lambda: said("2") == [f"{MINUS}1 differs", f"{MINUS}1 better"])
    page.wait_for_url(re.compile("against=3"))


def test_environments_have_a_timeline(viewer, shop):
    """A lane for each; its moves are read a page at a time, and the page has an address."""
    for index in range(60):
        shop.environments.promote(PEOPLE, "12"[index % 2], reason=f"move {index}")
    shop.environments.promote(PEOPLE, "1", "staging")
    anna = viewer()
    anna.open(shop.model)
    page = anna.sign_in(shop.key("read"))
    page.get_by_role("img", name="production: 50 moves, serves version 2 now").wait_for()
    page.get_by_role("img", name="staging: 1 moves, serves version 1 now").wait_for()
    assert page.locator(".timeline > li").count() == 50
    page.get_by_role("button", name="Older moves").click()
    page.get_by_text("“the first”").wait_for()
    assert page.locator(".timeline > li").count() == 11
    page.reload()
    page.get_by_text("“the first”").wait_for()
    page.get_by_role("button", name="Newest moves").click()
    page.get_by_text("“move 59”").wait_for()


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_lineage_is_a_graph(viewer, prices, reader, width, scheme):
    """Dataset, run, version, and what came of it: a list of steps whose nodes are links."""
    anna = viewer(viewport={"width": width, "height": 900}, color_scheme=scheme)
    anna.open(f"t/{prices}/models/price/versions/2")
    page = anna.sign_in(reader)
    graph = page.get_by_role("list", name="Lineage")
    steps = graph.locator("> li")
    steps.first.wait_for()
    assert steps.locator("h3").all_inner_texts() == ["Made from", "Run", "Version", "Came of it"]
    assert re.split(r"\s+", steps.nth(0).locator("ul").inner_text().strip()) == ["dataset", "homes@1", "version", "1"]
    assert "finished" in steps.nth(1).inner_text()
    assert re.search(r"environment\s+production\s+stable", steps.nth(3).inner_text())
    assert not is_wide(page)
    graph.get_by_role("link", name="version 3").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="price 3").wait_for()
    graph.get_by_text("made from 1").wait_for()
    graph.get_by_role("link", name="homes@1").click()
    page.get_by_role("heading", name="homes@1").wait_for()
    anna.open(f"t/{prices}/models/price")
    page.get_by_role("heading", name="Lineage of version 2").wait_for()
    assert graph.locator("b").all_inner_texts()[1:] == [
        "1",
        steps.nth(1).locator("b").inner_text(),
        "2",
        "production",
        "3",
    ]


def test_many_children_are_counted(viewer, db, shop):
    """The first are named, and the others lead to the list."""
    for number in range(20):
        register(db, shop.tenant, f"child{number}", model_id=PEOPLE, lineage=Lineage(parent_version="1"))
    anna = viewer()
    anna.open(f"{shop.model}/versions/1")
    page = anna.sign_in(shop.key("read"))
    graph = page.get_by_role("list", name="Lineage")
    graph.get_by_text("14 further versions").wait_for()
    assert graph.get_by_role("link", name=re.compile("version child")).count() == 6


def test_a_regressor_shows_its_residuals(viewer, prices, reader):
    """As charts with their numbers; intervals, the card with whatever is in it, where it is served, in which form."""
    anna = viewer()
    anna.open(f"t/{prices}/models/price/versions/1")
    page = anna.sign_in(reader)
    page.get_by_role("img", name="Residuals by prediction").wait_for()
    assert page.get_by_role("img", name="Residuals by prediction").locator("circle").count() > 3
    assert page.get_by_role("img", name="Histogram of residuals").locator("rect").count() == 20
    page.get_by_text("The numbers").first.click()
    numbers = page.get_by_role("table", name="Residuals by prediction").locator("tbody tr")
    rows = [int(row.locator("td").last.inner_text()) for row in numbers.all()]
    assert sum(rows) == 80
    page.get_by_role("region", name="Intervals").get_by_text("90 %").first.wait_for()
    assert page.get_by_text(f"To estimate {HOSTILE}").count() == 1
    assert page.get_by_role("heading", name="intended use").count() == 1
    page.get_by_text("No environment serves it.").wait_for()
    assert page.get_by_text(re.compile("The (compiled|original) form answers")).count() == 1
    assert page.evaluate("window.taken") is None
    page.goto(f"{anna.address}#/t/{prices}/models/price/versions/2")
    page.get_by_text("1 of 1 live replica has loaded it.").wait_for()


def test_a_classifier_shows_its_calibration(viewer, prices, reader):
    """A dot for each bin of probability, with the numbers."""
    anna = viewer()
    anna.open(f"t/{prices}/models/kind/versions/1")
    page = anna.sign_in(reader)
    curve = page.get_by_role("img", name="Calibration curve")
    curve.wait_for()
    assert curve.locator("circle").count() > 0
    page.get_by_role("region", name="Confusion matrix").wait_for()
    page.get_by_role("table", name="Importances").wait_for()


@pytest.mark.skipif(shutil.which("curl") is None, reason="There is no curl.")
def test_the_command_does_what_the_form_did(viewer, prices, reader):
    """It is one line of a shell for whatever was typed; only the key is missing."""
    anna = viewer()
    anna.open(f"t/{prices}/models/kind/versions/1")
    page = anna.sign_in(reader)
    page.get_by_label("subject").fill("""It's "broken" $HOME `id` \\ \n ${7*7} <b>&</b> ü""")
    page.get_by_label("priority").fill("")
    page.get_by_role("button", name="Predict").click()
    page.get_by_role("table", name="Contributions of the columns").wait_for()
    command = page.locator(".command").inner_text().replace("mlk_…", str(reader))
    answered = json.loads(subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=60).stdout)
    assert answered["predictions"] == [page.locator(".prediction b").inner_text()]
    assert answered["version"] == "1"


@pytest.mark.parametrize("content", ["5", "{}", '{"calibration": "abc", "importances": [1]}', "[[", '{"intervals": 7}'])
def test_diagnostics_of_somebody_else_do_no_harm(viewer, db, shop, content):
    """A program may keep any file of this name with its run: the page shows the rest."""
    runs = RunRepository(db, shop.tenant)
    run = runs.start(PEOPLE)
    runs.artifacts.log(run, "diagnostics.json", content.encode())
    publish(db, shop.tenant, "odd", logistic(2, 0.0), lineage=Lineage(run_id=run))
    anna = viewer()
    anna.open(f"{shop.model}/versions/odd")
    page = anna.sign_in(shop.key("read"))
    page.get_by_role("heading", name="Signature").wait_for()


def test_two_versions_of_a_dataset_are_compared(viewer, prices, reader):
    """Which columns drifted and how; another version is chosen by its number, also one that is not there."""
    anna = viewer()
    anna.open(f"t/{prices}/datasets/homes")
    page = anna.sign_in(reader)
    page.get_by_role("heading", name="homes@2").wait_for()
    drift = page.get_by_role("region", name="Drift")
    rows = drift.locator("tbody tr")
    rows.nth(10).wait_for()
    assert [rows.nth(index).locator("td").first.inner_text() for index in (0, 1)] == ["m3", "outcome"]
    assert rows.nth(0).locator(".badge").inner_text() == "alert"
    assert rows.nth(0).locator("svg rect").count() > 10
    assert re.search(r"no \d+\s% → 0\s%", rows.nth(1).inner_text())
    page.get_by_text("It was a number and is a category now.").wait_for()
    page.get_by_text("Of another type or kind: m4").wait_for()
    assert page.get_by_text(HOSTILE).count() > 0
    assert page.evaluate("window.taken") is None
    page.get_by_label("Compared with version").fill("2")
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("is the very table of").wait_for()
    page.wait_for_url(re.compile("with=2"))
    page.get_by_label("Compared with version").fill("9")
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("alert").wait_for()
    page.get_by_role("region", name="Versions").get_by_role("link", name="homes@1").click()
    page.get_by_role("heading", name="homes@1").wait_for()


def test_many_columns_are_searched(viewer, db, shop):
    """A page at a time; names may be anything."""
    columns = {f"column {number}": np.arange(30.0) + number for number in range(120)}
    DatasetRepository(db, shop.tenant).create("wide", {**columns, HOSTILE: np.arange(30.0)})
    anna = viewer()
    anna.open(f"{shop.path}/datasets/wide")
    page = anna.sign_in(shop.key("read"))
    rows = page.get_by_role("region", name="Columns").locator("tbody tr")
    rows.nth(49).wait_for()
    page.get_by_role("button", name="Show more").click()
    rows.nth(99).wait_for()
    page.get_by_label("Search columns").fill("IMG")
    page.get_by_text(HOSTILE).wait_for()
    assert rows.count() == 1
    assert page.evaluate("window.taken") is None


def test_an_upload_says_how_far_it_is(viewer, shop, tmp_path):
    """Bytes that were sent, while they are sent."""
    file = tmp_path / "rows.csv"
    measures(8_000).to_csv(file, index=False)
    anna = viewer()
    anna.open(f"{shop.path}/datasets")
    page = anna.sign_in(shop.key("read", "train"))
    dialog = anna.dialog("Upload a file…")
    dialog.get_by_label("Name").fill("rows")
    dialog.get_by_label("CSV or Parquet file").set_input_files(file)
    slow = anna.context.new_cdp_session(page)
    speed = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 300_000}
    slow.send("Network.emulateNetworkConditions", speed)
    dialog.get_by_role("button", name="Upload").click()
    seen = set()

    def is_under_way() -> bool:
        bar = dialog.get_by_role("progressbar", name="Sent")
        seen.add(float(bar.get_attribute("value") or 0) if bar.count() else 0.0)
        return len(seen) > 3

    anna.wait_until(is_under_way)
    dialog.get_by_text(re.compile(r"kB of .* sent, \d+")).wait_for()
    slow.send("Network.emulateNetworkConditions", {**speed, "uploadThroughput": -1})
    page.get_by_role("heading", name="rows@1").wait_for()


@pytest.mark.parametrize(("width", "scheme"), [*SIZES, (1280, "dark"), (390, "light")])
def test_these_pages_are_accessible(viewer, prices, reader, many, width, scheme):
    """Axe finds nothing in versions, a comparison, drift and an open list of versions; none scrolls sideways."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    anna = viewer(viewport={"width": width, "height": 900}, color_scheme=scheme)
    found = {}

    def check(page, name: str) -> None:
        anna.wait_for_rest()
        violations = axe.run(page).response["violations"]
        found[name] = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in violations]
        found[name] += ["too wide"] * is_wide(page)

    anna.open(f"t/{prices}/models/price/versions/2")
    page = anna.sign_in(reader)
    page.get_by_role("list", name="Lineage").wait_for()
    for each in page.get_by_text("The numbers").all():
        each.click()
    check(page, "regressor")
    anna.open(f"t/{prices}/models/kind/versions/1")
    page.get_by_role("img", name="Calibration curve").wait_for()
    check(page, "classifier")
    anna.open(f"t/{prices}/models/price")
    page.get_by_role("region", name="Versions side by side").wait_for()
    check(page, "model")
    anna.open(f"t/{prices}/datasets/homes")
    page.get_by_role("region", name="Drift").wait_for()
    check(page, "drift")
    other = viewer(viewport={"width": width, "height": 900}, color_scheme=scheme)
    other.open(many.model)
    other.sign_in(many.key("read", "promote"))
    dialog = other.dialog("Promote…")
    dialog.get_by_role("combobox", name="Version").click()
    dialog.get_by_role("option", name="n149").wait_for()
    check(other.page, "choice")
    assert {name: faults for name, faults in found.items() if faults} == {}
