"""The pages of one noun each: jobs that run, fail and are cancelled; datasets; keys; the audit."""

from __future__ import annotations

import re
from contextlib import closing

import pytest

from ml_core.cache import CacheConfig, CacheMechanism
from ml_core.client import MLClient
from ml_core.jobs.processes import ProcessRunner
from ml_core.registry.jobs import JobQueue, JobRepository
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.system import MLSystem
from support.job_queue import dispatching, empty_queue
from support.live import LiveModel
from support.tables import measures, split_target

TRAINING = {"target": "outcome", "hyperparameters": {"algorithm": "logistic_regression"}}


@pytest.fixture
def client(address, shop):
    """An admin's client of the same address."""
    with MLClient(address.split("/api/")[0], api_key=str(shop.key("admin")), tenant_id=shop.tenant) as asks:
        yield asks


def test_a_job_from_the_queue_to_its_version(viewer, shop, client, db):
    """What it says appears as it says it; what it made has a link; the list has it in each state."""
    client.datasets.create("m", measures(300))
    empty_queue(db)
    job = client.jobs.train("m", "m", training=TRAINING)
    anna = viewer()
    anna.open(f"{shop.path}/jobs")
    page = anna.sign_in(shop.key("read"))
    page.get_by_role("link", name="queued").click()
    page.get_by_role("link", name=job.job_id).click()
    assert page.get_by_role("button", name="Cancel…").get_attribute("aria-disabled") == "true"
    page.get_by_text("Your key lacks the scope train.").wait_for()
    with closing(ProcessRunner(db)) as runner, dispatching(db, runner):
        page.get_by_role("heading", name="succeeded").wait_for(timeout=60_000)
    assert page.locator(".log").inner_text().strip()
    page.get_by_role("link", name="m 1").click()
    page.get_by_role("heading", name="m 1").wait_for()


def test_a_job_leads_to_the_dataset_that_it_made(viewer, shop, client, db):
    """As a batch prediction does."""
    client.datasets.create("scored", measures(20))
    empty_queue(db)
    jobs, queue = JobRepository(db, shop.tenant), JobQueue(db)
    job_id = jobs.submit("predict", {"model_id": "m"}).job_id
    attempt = queue.claim("tester", 100.0, 60.0)
    jobs.begin(job_id, attempt.run_id, 60.0)
    jobs.succeed(job_id, attempt.run_id, {"dataset": "scored@1", "run_id": attempt.run_id})
    anna = viewer()
    anna.open(f"{shop.path}/jobs/{job_id}")
    page = anna.sign_in(shop.key("read"))
    page.get_by_role("link", name="scored@1").click()
    page.get_by_role("heading", name="scored@1").wait_for()


def test_a_job_is_cancelled_and_queued_again(viewer, shop, client, db):
    """Each after a second step that names it; the reason is in the audit."""
    client.datasets.create("m", measures(50))
    empty_queue(db)
    job = client.jobs.train("m", "m", training=TRAINING)
    anna = viewer()
    anna.open(f"{shop.path}/jobs/{job.job_id}")
    page = anna.sign_in(shop.key("read", "train"))
    dialog = anna.dialog("Cancel…")
    assert "Cancel train m" in dialog.inner_text()
    dialog.get_by_label("Reason").fill("The data is wrong.")
    dialog.get_by_role("button", name="Cancel the job").click()
    page.get_by_role("heading", name="cancelled").wait_for()
    (change,) = client.audit.list(action="job.cancelled")
    assert change.details == {"reason": "The data is wrong."}
    anna.dialog("Queue it again…").get_by_role("button", name="Queue it again").click()
    page.get_by_role("heading", name="queued").wait_for()
    JobRepository(db, shop.tenant).cancel(job.job_id)


def test_a_file_becomes_a_dataset(viewer, shop, tmp_path):
    """With its columns and what they hold; a file that is no table is refused in the API's words."""
    anna = viewer()
    anna.open(f"{shop.path}/datasets")
    page = anna.sign_in(shop.key("read", "train"))
    page.get_by_text("There is no dataset.").wait_for()
    good, bad = tmp_path / "rows.csv", tmp_path / "bad.csv"
    measures(200).to_csv(good, index=False)
    bad.write_bytes(b"a,b\n1\n1,2,3\n")
    dialog = anna.dialog("Upload a file…")
    dialog.get_by_label("Name").fill("rows")
    dialog.get_by_label("CSV or Parquet file").set_input_files(bad)
    dialog.get_by_role("button", name="Upload").click()
    dialog.get_by_role("alert").wait_for()
    dialog.get_by_label("CSV or Parquet file").set_input_files(good)
    dialog.get_by_role("button", name="Upload").click()
    page.get_by_role("heading", name="rows@1").wait_for()
    row = page.get_by_role("row", name=re.compile("^outcome"))
    assert re.search(r"yes\s+\d+", row.inner_text())
    with page.expect_download() as started:
        page.get_by_role("link", name="Download the Parquet file").click()
    assert started.value.path().read_bytes()[:4] == b"PAR1"
    page.get_by_role("link", name="Datasets").first.click()
    page.get_by_label("Search datasets").fill("ROW")
    page.get_by_role("link", name="rows").wait_for()


def test_an_upload_that_is_cancelled_ends(viewer, shop, client, tmp_path):
    """It makes no dataset, and leads nowhere."""
    file = tmp_path / "rows.csv"
    measures(200).to_csv(file, index=False)
    anna = viewer()
    anna.open(f"{shop.path}/datasets")
    page = anna.sign_in(shop.key("read", "train"))
    cut = []
    page.route("**/versions", lambda _: None)  # it is on its way
    page.on("requestfailed", lambda request: cut.append(request.url))
    dialog = anna.dialog("Upload a file…")
    dialog.get_by_label("Name").fill("rows")
    dialog.get_by_label("CSV or Parquet file").set_input_files(file)
    with page.expect_request("**/versions"):
        dialog.get_by_role("button", name="Upload").click()
    dialog.get_by_role("button", name="Cancel").click()
    dialog.wait_for(state="detached")
    anna.wait_until(lambda: [url for url in cut if url.endswith("/datasets/rows/versions")])
    assert list(client.datasets.list()) == []
    assert page.url.endswith("/datasets")


def test_a_key_is_shown_also_if_the_platform_goes_away(viewer, shop):
    """Right after it was made: the secret is in no other answer."""
    anna = viewer()
    anna.open(f"{shop.path}/keys")
    page = anna.sign_in(shop.key("admin"))
    dialog = anna.dialog("Create a key…")
    dialog.get_by_label("Name").fill("web")
    dialog.get_by_label("read", exact=True).check()
    page.route("**/api/v1/**", lambda route: route.abort() if route.request.method == "GET" else route.fallback())
    dialog.get_by_role("button", name="Create").click()
    page.get_by_text("It is shown only now.").wait_for()


def test_a_key_is_shown_once_and_revoked(viewer, shop):
    """It works until then; the dialog names what is revoked."""
    anna = viewer()
    anna.open(f"{shop.path}/keys")
    page = anna.sign_in(shop.key("admin"))
    dialog = anna.dialog("Create a key…")
    dialog.get_by_label("Name").fill("web <shop>")
    dialog.get_by_role("button", name="Create").click()
    dialog.get_by_role("alert").wait_for()  # it has no scope
    dialog.get_by_label("read", exact=True).check()
    dialog.get_by_label("promote:staging").check()
    dialog.get_by_role("button", name="Create").click()
    page.get_by_text("It is shown only now.").wait_for()
    key = page.locator("dialog pre").inner_text()
    page.get_by_role("button", name="I have kept it").click()
    other = viewer()
    other.open(shop.path)
    other.sign_in(key)
    other.page.get_by_role("heading", name=shop.tenant).wait_for()
    page.get_by_role("row", name=re.compile("web <shop>")).get_by_role("button", name="Revoke…").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke web <shop>").click()
    page.get_by_text("The key web <shop> is revoked.").wait_for()
    other.page.get_by_role("heading", name="Sign in").wait_for()


def test_the_audit_is_searched(viewer, shop):
    """By action, who, and model; the search is in the address."""
    anna = viewer()
    anna.open(f"{shop.path}/audit")
    page = anna.sign_in(shop.key("read"))
    rows = page.get_by_role("region", name="Changes").locator("tbody tr")
    rows.nth(5).wait_for()
    page.get_by_label("Action").fill("environment.")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url(re.compile(r"audit\?action=environment"))
    page.get_by_text("version registered").first.wait_for(state="detached")
    rows.first.wait_for()  # the list is read
    assert rows.count() == 1
    page.get_by_text("Details").click()
    page.get_by_text("the first").wait_for()
    page.get_by_label("Action").fill("nonsense")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("alert").wait_for()


def test_what_was_predicted_and_how_good_it_was(viewer, shop, db):
    """The rows of the log with their labels, quality by day, and drift by column; a label is added here."""
    system = MLSystem(db, CacheMechanism(CacheConfig()), max_memory_mb=256, tenant_id=shop.tenant)
    system.train_model("m", None, split_target(measures(300), "outcome"), None, {"algorithm": "logistic_regression"})
    EnvironmentRepository(db, shop.tenant).promote("m", "1")
    live = LiveModel(db, system, "m")
    live.keep()
    rows = measures(60, seed=5)
    live.ask(rows.drop(columns=["outcome"]), rows["outcome"])
    live.ask(rows.drop(columns=["outcome"])[:2])
    anna = viewer()
    anna.open(f"{shop.path}/models/m")
    page = anna.sign_in(shop.key("read", "label"))
    page.get_by_role("link", name="Predictions, quality and drift").click()
    page.get_by_role("region", name="Quality").get_by_text("accuracy").wait_for()
    page.get_by_role("region", name="Drift").get_by_role("row", name=re.compile("^m0")).wait_for()
    listed = page.get_by_role("region", name="Rows").locator("tbody tr")
    listed.nth(49).wait_for()
    page.get_by_text("The first 50 are shown.").wait_for()
    unlabelled = listed.filter(has=page.get_by_role("button", name="Label…"))
    unlabelled.first.wait_for()
    request = unlabelled.first.locator("code").inner_text()
    unlabelled.first.get_by_role("button").click()
    page.get_by_role("dialog").get_by_label("The truth").fill("yes")
    page.get_by_role("dialog").get_by_role("button", name="Label", exact=True).click()
    page.get_by_text("The label is recorded.").wait_for()
    page.get_by_label("request").fill(request)
    page.get_by_role("button", name="Search").click()
    page.wait_for_url(re.compile(f"request_id={request}"))
    page.get_by_text("The first 50 are shown.").wait_for(state="detached")
    listed.get_by_text(request).wait_for()
    assert listed.count() == 1
    assert listed.first.locator("td").nth(2).inner_text().startswith("yes")
    page.get_by_label("since").fill("2026-01-31T10:00")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url(re.compile("since=2026-01-31T09%3A00%3A00"))  # the time is the same in another zone
    assert page.get_by_label("since").input_value() == "2026-01-31T10:00"
    listed.first.get_by_text("Inputs").click()
    listed.first.get_by_text('"m0":').wait_for()


def test_a_blank_label_is_no_zero(viewer, shop):
    """The API refuses it; it must not become a number that counts."""
    anna = viewer()
    anna.open(f"{shop.model}/predictions")
    page = anna.sign_in(shop.key("read", "label"))
    row = {"request_id": "r1", "row": 0, "at": "2026-01-01T00:00:00Z", "prediction": 1.5, "probabilities": None}
    row |= {"label": None, "version": "1", "rollout": "stable", "latency_ms": 1.0, "inputs": None}
    page.route("**/predictions?*", lambda route: route.fulfill(json={"items": [row], "next_cursor": None}))
    page.reload()
    dialog = anna.dialog("Label…")
    sent = []
    page.route("**/labels", lambda route: (sent.append(route.request.post_data_json["label"]), route.abort()))
    for count, text in enumerate((" ", "2"), 1):
        dialog.get_by_label("The truth").fill(text)
        dialog.get_by_role("button", name="Label", exact=True).click()
        anna.wait_until(lambda count=count: len(sent) == count)
        dialog.get_by_role("alert").wait_for()
    assert sent == [" ", 2]
