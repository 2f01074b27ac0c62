"""What moves: changes by others, traffic and alerts, a platform that goes and returns, and the end of a session."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import ml_core
from ml_core.domain.quality import Verdict
from ml_core.domain.traffic import BUCKETS, INTERVAL_S, Interval, shown_intervals
from ml_core.ids import VersionId
from ml_core.registry.jobs import JobQueue, JobRepository
from ml_core.registry.keys import KeyRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from ml_core.registry.promotion.environments import PRODUCTION
from ml_core.registry.replicas import ReplicaReports
from ml_core.registry.verdicts import VerdictRepository
from support.console import choose
from support.gated import PEOPLE
from support.predictions import answered, write
from support.waiting import wait_until


@pytest.fixture
def operator(db):
    """A key of the platform."""
    return PlatformKeyRepository(db).create("operator", ["read"])


def settled(page):
    """Wait until the page asks nothing for a while: it has loaded what it may have missed before it listened."""
    page.evaluate("() => { window.isSame = true; }")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    for _ in range(10):
        before = len(asked)
        page.wait_for_timeout(1500)
        if len(asked) == before:
            return
    raise AssertionError(f"The page goes on asking: {asked[-5:]}")


def is_same(page):
    """Whether the page is still that which was settled."""
    return page.evaluate("() => window.isSame")


def test_a_move_by_one_browser_is_shown_in_another(viewer, shop):
    """Without a reload, and without a question before the move."""
    anna, ben = viewer(), viewer()
    for each, scopes in ((anna, ("read",)), (ben, ("read", "promote"))):
        each.open(shop.model)
        each.sign_in(shop.key(*scopes))
        each.page.get_by_text("production serves version 1").wait_for()
    settled(anna.page)
    asked = []
    anna.page.on("request", lambda request: asked.append(request.url))
    dialog = ben.dialog("Promote…")
    choose(dialog, "2")
    dialog.get_by_text("passed", exact=True).wait_for()
    assert asked == []
    dialog.get_by_role("button", name="Promote version 2").click()
    anna.page.get_by_text("production serves version 2").wait_for()
    assert is_same(anna.page)


def test_a_version_by_another_program_is_shown(viewer, shop):
    """In the list of versions and beside what is served, without a question before it."""
    anna = viewer()
    anna.open(shop.model)
    page = anna.sign_in(shop.key("read"))
    page.get_by_text("production serves version 1").wait_for()
    settled(page)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(500)
    assert asked == []
    shop.publish("4")
    page.get_by_role("region", name="Versions", exact=True).get_by_role("link", name="4", exact=True).wait_for()
    page.locator("#comparison").get_by_role("link", name="4", exact=True).wait_for()
    assert is_same(page)


def test_a_job_moves(viewer, shop):
    """Its submission, its begin, how far it is, and its end: nobody else's doing is in the audit."""
    jobs, queue = JobRepository(shop.db, shop.tenant), JobQueue(shop.db)
    anna = viewer()
    anna.open(f"{shop.path}/jobs")
    page = anna.sign_in(shop.key("read"))
    page.get_by_text("No job was submitted yet.").wait_for()
    settled(page)
    job_id = jobs.submit("train", {"model_id": PEOPLE}).job_id
    page.get_by_role("link", name=job_id).click()
    page.get_by_text("It has said nothing yet.").wait_for()
    settled(page)
    while (attempt := queue.claim("tester", 100.0, 60.0)) is not None and attempt.job_id != job_id:
        pass  # of other tests
    jobs.begin(job_id, attempt.run_id, 60.0)
    page.locator("h1 .badge", has_text="running").wait_for()
    progress = {"stage": "fit", "done": 37, "total": 100, "unit": "trees"}
    jobs.beat(job_id, attempt.run_id, 60.0, progress, ["Half of the trees are there."])
    page.get_by_text("37").first.wait_for()
    page.get_by_text("Half of the trees are there.").wait_for()
    log = page.locator(".log")
    jobs.beat(job_id, attempt.run_id, 60.0, progress, [f"Tree {n}" for n in range(200)])
    log.get_by_text("Tree 199").wait_for()
    assert log.evaluate("log => log.scrollTop + log.clientHeight >= log.scrollHeight - 1"), "it shows the end"
    log.evaluate("log => { log.scrollTop = 0; }")
    jobs.beat(job_id, attempt.run_id, 60.0, progress, ["One more."])
    log.get_by_text("One more.").wait_for()
    assert log.evaluate("log => log.scrollTop") == 0, "somebody reads there"
    jobs.fail(job_id, attempt.run_id, {"code": "training_failed", "message": "There is one class only."})
    page.locator("h1 .badge", has_text="failed").wait_for()
    assert is_same(page)


def test_another_tenants_events_are_never_seen(viewer, shop, other_tenant_id):
    """Nothing is asked again when another tenant changes."""
    anna = viewer()
    anna.open(shop.path)
    page = anna.sign_in(shop.key("read"))
    page.get_by_role("heading", name="Served now").wait_for()
    settled(page)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "prediction-traffic" not in request.url else None)
    for _ in range(3):
        KeyRepository(shop.db, other_tenant_id).create("k", ["read"])
        JobRepository(shop.db, other_tenant_id).submit("train", {})
        page.wait_for_timeout(500)
    assert asked == []
    shop.environments.promote(PEOPLE, "2")
    anna.wait_until(lambda: asked)


def test_a_page_that_is_left_and_found_again_misses_nothing(viewer, shop):
    """What changed while it could not be seen is shown as soon as it can."""
    anna = viewer()
    anna.open(shop.model)
    page = anna.sign_in(shop.key("read"))
    page.get_by_text("production serves version 1").wait_for()
    settled(page)
    hide = "isHidden => { Object.defineProperty(document, 'hidden', { value: isHidden, configurable: true });"
    hide += " document.dispatchEvent(new Event('visibilitychange')); }"
    closed = []
    page.on("requestfailed", lambda request: closed.append(request.url))
    page.evaluate(hide, True)
    anna.wait_until(lambda: [url for url in closed if url.endswith("/events")])
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    shop.environments.promote(PEOPLE, "2")
    page.wait_for_timeout(1500)
    assert asked == [], "nobody looks"
    page.evaluate(hide, False)
    page.get_by_text("production serves version 2").wait_for()


def test_a_revoked_key_ends_the_page(viewer, shop):
    """The stream ends, and the page asks for a key."""
    anna = viewer()
    anna.open(shop.model)
    key = shop.key("read")
    page = anna.sign_in(key)
    page.get_by_text("production serves version 1").wait_for()
    KeyRepository(shop.db, shop.tenant).revoke(key.key_id)
    page.get_by_role("heading", name="Sign in").wait_for()


PROGRAM = """
import sys, uvicorn
from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.database.connection import DatabaseConnection
from support.http_server import mounted

app = mounted(create_app(Services(DatabaseConnection())))
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), lifespan="off", log_config=None)
"""


@contextmanager
def control_process(db, port):
    """A control API in a process of its own, which is killed when the block ends."""
    home = str(db.settings.platform.home)
    paths = os.pathsep.join([str(Path(ml_core.__file__).parents[1]), str(Path(__file__).parents[1])])
    environment = {**os.environ, **db.environment, "MLCORE_HOME": home, "PYTHONPATH": paths}
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(port)], env=environment) as process:
        try:
            wait_until(lambda: answers(port))
            yield
        finally:
            process.kill()


def answers(port):
    """Whether somebody listens at a port."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def test_a_server_that_is_killed_and_returns(viewer, shop):
    """On the same port: the page says that it is old, and goes on by itself with what it has missed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    anna = viewer()
    anna.address = f"http://127.0.0.1:{port}/api/console/"
    with control_process(shop.db, port):
        anna.open(shop.model)
        page = anna.sign_in(shop.key("read"))
        page.get_by_text("production serves version 1").wait_for()
        settled(page)
    page.get_by_text("The platform does not answer; what is shown is older.").wait_for()
    assert "production serves version 1" in page.inner_text("main")
    shop.environments.promote(PEOPLE, "2")
    with control_process(shop.db, port):
        page.get_by_text("production serves version 2").wait_for()
        page.get_by_text("The platform does not answer").wait_for(state="detached")
        assert is_same(page)
        settled(page)
        shop.environments.rollback(PEOPLE, reason="back")
        page.get_by_text("production serves version 1").wait_for()


def test_without_a_stream_the_page_goes_on(viewer, shop):
    """As where too many are open: it is loaded in an interval."""
    anna = viewer()
    refusal = {"error": {"code": "queue_full", "message": "The tenant has 32 event streams."}}
    anna.page.route("**/events", lambda route: route.fulfill(status=429, json=refusal))
    anna.open(shop.model)
    page = anna.sign_in(shop.key("read"))
    page.get_by_text("production serves version 1").wait_for()
    shop.environments.promote(PEOPLE, "2")
    page.get_by_text("production serves version 2").wait_for()
    assert page.get_by_text("The platform does not answer").count() == 0


def test_traffic_and_alerts_of_the_platform(viewer, shop, operator):
    """Requests, errors and latency of each cell, and which tenants have alerts."""
    latency = [0] * BUCKETS
    latency[4] = 40
    intervals = shown_intervals(datetime.now(UTC))
    intervals += [intervals[-1] + timedelta(seconds=INTERVAL_S * number) for number in range(1, 10)]  # while this runs
    ReplicaReports(shop.db, "busy").add_traffic([Interval(at, 40, 5, 5, latency) for at in intervals])
    VerdictRepository(shop.db, shop.tenant).set(PEOPLE, PRODUCTION, VersionId("1"), Verdict.ALERT, Verdict.ALERT)
    anna = viewer()
    anna.open()
    page = anna.sign_in(operator)
    charts = page.locator("traffic-charts line-chart")
    charts.first.locator(".legend").wait_for()
    assert [each.get_attribute("label") for each in charts.all()] == [
        "shared: Requests per second",
        "shared: Latency in ms",
    ]
    assert " ".join(charts.first.locator(".legend").inner_text().split()) == "requests 5 refused 0.5 errors 0.5"
    row = page.get_by_role("region", name="Alerts").get_by_role("row", name=shop.tenant)
    assert row.inner_text().split() == [shop.tenant, "1", "1"]
    page.get_by_role("link", name=shop.tenant).first.click()
    page.get_by_role("heading", name=shop.tenant).wait_for()


def test_traffic_and_alerts_of_a_tenant(viewer, shop):
    """From its log, and from the verdicts: one request, however many models it has."""
    at = shown_intervals(datetime.now(UTC))[-3].timestamp() + 1
    rows = [{"text": "hello", "amount": 1.5, "is_paying": True, "opened": "2026-02-01"}]
    write(shop.db, *(answered(shop.tenant, rows, request_id=f"r{n}", at=at, latency_ms=7.0) for n in range(20)))
    VerdictRepository(shop.db, shop.tenant).set(PEOPLE, PRODUCTION, VersionId("1"), Verdict.OK, Verdict.ALERT)
    anna = viewer()
    asked = []
    anna.page.on("request", lambda request: asked.append(request.url))
    anna.open(shop.path)
    page = anna.sign_in(shop.key("read"))
    page.get_by_text("alert of drift").wait_for()
    charts = page.locator("traffic-charts line-chart")
    charts.nth(1).locator(".legend").wait_for()
    charts.first.locator("summary").click()
    charts.first.locator("tbody td").get_by_text("2", exact=True).first.wait_for()
    assert charts.nth(1).locator(".legend li").count() == 2
    assert charts.first.locator(".legend li").count() == 1, "errors are not known"
    latency = charts.nth(1).locator("path.curve").first.get_attribute("d")
    assert "m-2 0a2" in latency, "an interval between others without a request is a dot"
    assert "v-6" not in latency, "a time without a request is not marked"
    page.get_by_text("the metric mlcore_tenant_requests_total").wait_for()
    served = page.get_by_role("region", name="Served now").get_by_role("row", name=PEOPLE)
    assert served.locator(".badge").all_inner_texts() == ["ok", "alert"]
    assert not [url for url in asked if re.search(r"/models/[^/]+/(quality|drift)", url)]


@pytest.mark.parametrize("width", [390, 1280])
def test_charts_fit_their_page(viewer, shop, width):
    """Nothing scrolls sideways but tables."""
    at = shown_intervals(datetime.now(UTC))[-3].timestamp() + 1
    write(shop.db, answered(shop.tenant, at=at))
    anna = viewer(viewport={"width": width, "height": 900})
    anna.open(shop.path)
    page = anna.sign_in(shop.key("read"))
    page.locator("traffic-charts .legend").first.wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
