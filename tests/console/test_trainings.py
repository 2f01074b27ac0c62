"""Trainings with their plan, their jobs, and schedules that submit them."""

from __future__ import annotations

import re

from ml_core.api.schemas.schedules import NewDriftRule
from ml_core.domain.job_spec import TrainJobSpec
from ml_core.jobs.schedules import Schedules
from ml_core.jobs.submission import Jobs
from ml_core.models.algorithms import ALGORITHMS
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobQueue, JobRepository
from support.console import choose, open_as, refused_at, row
from support.gated import PEOPLE
from support.job_queue import empty_queue, running_queue
from support.tables import measures


def test_a_training_is_planned_submitted_and_followed(viewer, shop, db):
    """The plan says what it takes and costs; the job has the same, its progress and log, and leads to its version."""
    DatasetRepository(db, shop.tenant).create("m", measures(300))
    anna = viewer()
    page = open_as(anna, shop.key("read", "train", "promote"), f"{shop.path}/jobs")
    page.get_by_role("link", name="Train a model.").click()
    choose(page, "m", "Dataset")
    page.get_by_role("link", name="m@1").wait_for()
    page.get_by_role("combobox", name="Model, which gets a new version").fill("measured")
    page.get_by_label("Target", exact=True).select_option("outcome")
    page.get_by_label("Algorithm").select_option("logistic_regression")
    page.get_by_text("Options").click()
    page.get_by_label("Hyperparameters, one a line").fill("C=0.5\nclass_weight = balanced")
    page.get_by_label("Columns that are not used").select_option(["m10", "m11"])
    page.get_by_label("Priority").fill("7")
    page.get_by_label("Move an environment").select_option("staging")
    with running_queue(db):
        dialog = anna.dialog("Plan…")
        dialog.get_by_text("in process", exact=True).wait_for()
        said = dialog.inner_text()
        assert f"Train measured of {shop.tenant}" in said
        assert re.search(r"Takes about\s+(less than )?[\d.]+ s", said)
        assert re.search(r"Costs about\s+(less than )?[\d.]+ core-seconds", said)
        assert "staging moves to it" in said
        dialog.get_by_role("button", name="Submit the job").click()
        page.wait_for_url(re.compile("jobs/job_"))
        (job,) = JobRepository(db, shop.tenant).list().items
        spec = TrainJobSpec.from_json(job.spec)
        assert (job.priority, spec.promote_to, spec.training.dataset) == (7, "staging", "m@1")
        assert spec.training.ignore == ("m10", "m11")
        assert spec.training.hyperparameters == {
            "algorithm": "logistic_regression",
            "C": 0.5,
            "class_weight": "balanced",
        }
        page.get_by_role("heading", name="succeeded").wait_for(timeout=90_000)
    assert "core-seconds" in page.inner_text("main")
    assert "Stage: fit" in page.locator(".log").inner_text()
    page.get_by_role("link", name="measured 1").click()
    page.get_by_role("heading", name="measured 1").wait_for()
    page.get_by_text("staging: stable").wait_for()


def test_what_a_training_would_be_refused_for_is_said_before(viewer, shop, db):
    """In the API's words, beside the field where it names one; nothing is submitted, and what was typed stays."""
    DatasetRepository(db, shop.tenant).create("m", measures(50))
    anna = viewer()
    page = open_as(anna, shop.key("read", "train"), f"{shop.path}/training?dataset=m&model=m&target=outcome")
    page.get_by_label("Algorithm").select_option("kmeans")
    page.get_by_label("Model type").select_option("classification")
    plan = page.get_by_role("button", name="Plan…")
    plan.click()
    page.locator("form [role=alert]", has_text="kmeans").wait_for()
    assert page.get_by_label("Algorithm").input_value() == "kmeans"
    page.get_by_label("Algorithm").select_option("ridge")
    page.get_by_label("Cores").fill("many")
    plan.click()
    refused_at(page, "cpus").get_by_text("cpus").first.wait_for()
    page.get_by_label("Cores").fill("1")
    page.get_by_label("Move an environment").select_option("production")
    dialog = anna.dialog("Plan…")
    dialog.get_by_text("Takes about").wait_for()
    assert page.locator("form[data-action] [role=alert], form[data-action] [aria-invalid]").count() == 0
    dialog.get_by_role("button", name="Submit the job").click()
    dialog.get_by_text("lacks the scope 'promote'").wait_for()
    dialog.get_by_role("button", name="Cancel").click()
    page.get_by_label("Cores").fill("64")
    anna.dialog("Plan…").get_by_text("cores; the platform gives jobs").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("Options").click()
    page.get_by_label("Hyperparameters, one a line").fill("alpha")
    plan.click()
    refused_at(page, "hyperparameters").get_by_text("“alpha” is not name=value.").wait_for()
    assert page.get_by_role("dialog").count() == 0
    assert list(JobRepository(db, shop.tenant).list().items) == []
    anna.open(f"{shop.path}/training?dataset=none")
    page.get_by_role("heading", name="Not found").wait_for()


def test_a_submission_whose_answer_is_lost_is_one_job(viewer, shop, db):
    """However often the button is pressed."""
    empty_queue(db)
    DatasetRepository(db, shop.tenant).create("m", measures(50))
    anna = viewer()
    page = open_as(anna, shop.key("read", "train"), f"{shop.path}/training?dataset=m&target=outcome")
    dialog = anna.dialog("Plan…")
    dialog.get_by_text("Takes about").wait_for()

    def lose(route):
        route.fetch()
        route.abort()

    page.route("**/jobs", lose)
    dialog.get_by_role("button", name="Submit the job").click()
    dialog.get_by_role("alert").wait_for()
    page.unroute("**/jobs")
    dialog.get_by_role("button", name="Submit the job").click()
    page.wait_for_url(re.compile("jobs/job_"))
    (job,) = JobRepository(db, shop.tenant).list().items
    JobRepository(db, shop.tenant).cancel(job.job_id)


def test_the_algorithms_that_are_offered_are_the_platforms(viewer, shop, db):
    """All of each model type, its default first."""
    DatasetRepository(db, shop.tenant).create("m", measures(50))
    page = open_as(viewer(), shop.key("read"), f"{shop.path}/training?dataset=m")
    page.get_by_label("Algorithm").wait_for()
    offered = page.evaluate(
        "() => [...document.querySelectorAll('[name=algorithm] optgroup')]"
        ".map((group) => [group.label, [...group.children].map((option) => option.value)])"
    )
    assert offered == [[kind.replace("_", " "), list(names)] for kind, names in ALGORITHMS.items()]
    for button in ("Plan…", "Schedule…"):
        assert page.get_by_role("button", name=button).get_attribute("aria-disabled") == "true"
    page.get_by_text("Your key lacks the scope train.").wait_for()


def test_a_schedule_on_drift_has_the_whole_rule_of_the_api(viewer, shop, db):
    """Every field in the API's words, with its default; what is refused is shown at its field."""
    DatasetRepository(db, shop.tenant).create("m", measures(50))
    path = f"{shop.path}/training?dataset=m&target=outcome&model={PEOPLE}"
    page = open_as(viewer(), shop.key("read", "train", "promote"), path)
    page.get_by_role("button", name="Schedule…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Only on an alert").select_option("staging")
    for name, told in NewDriftRule.model_fields.items():
        if name == "environment":
            continue
        field = dialog.get_by_label(told.description.rstrip("."), exact=True)
        kept = field.is_checked() if told.annotation is bool else float(field.input_value())
        assert (field.get_attribute("name"), kept) == (name, told.default)
    dialog.get_by_label("Days of the reports").fill("0")
    dialog.get_by_role("button", name="Create the schedule").click()
    refused_at(page, "days").wait_for()
    dialog.get_by_label("Days of the reports").fill("3")
    dialog.get_by_label("Percent of the requests").fill("5")
    dialog.get_by_label("Hours that it may take").fill("12.5")
    dialog.get_by_label("Labels that both versions").fill("50")
    dialog.get_by_label("Make the labelled rows").check()
    dialog.get_by_role("button", name="Create the schedule").click()
    page.get_by_role("heading", name="nightly active").wait_for()
    told = page.locator("dl div", has_text="Hours that it may take to be better; then it is aborted")
    assert told.locator("dd").inner_text() == "12.5"
    assert Schedules(db, shop.tenant).get("nightly").on_drift == {
        "environment": "staging",
        "days": 3,
        "canary_percent": 5,
        "canary_hours": 12.5,
        "min_labels": 50,
        "collect_labels": True,
    }
    Schedules(db, shop.tenant).delete("nightly")


def test_a_job_says_when_its_stage_ends(viewer, shop, db):
    """As its process has said."""
    empty_queue(db)
    DatasetRepository(db, shop.tenant).create("m", measures(50))
    Jobs(db, shop.tenant).train("m", {"dataset": "m", "target": "outcome"}, cpus=0.5)
    attempt = JobQueue(db).claim("d1", 1, 60)
    jobs = JobRepository(db, shop.tenant)
    jobs.begin(attempt.job_id, attempt.run_id, 60)
    progress = {"stage": "fit", "elapsed_s": 40.0, "done": 5, "total": 20, "unit": "rounds", "eta_s": 125.0}
    jobs.beat(attempt.job_id, attempt.run_id, 60, progress)
    page = open_as(viewer(), shop.key("read", "train"), f"{shop.path}/jobs/{attempt.job_id}")
    page.get_by_text("about 2 min 5 s left").wait_for()
    page.get_by_text("20 core-seconds").wait_for()
    page.get_by_role("heading", name="Plan").wait_for()
    page.get_by_text("Takes about").wait_for()
    reader = open_as(viewer(), shop.key("read"), f"{shop.path}/jobs")
    reader.get_by_text("about 2 min 5 s left").wait_for()
    reader.get_by_role("link", name=attempt.job_id).click()
    reader.get_by_role("heading", name="train m").wait_for()
    assert reader.get_by_role("heading", name="Plan").count() == 0
    empty_queue(db)


def test_a_schedule_from_its_creation_to_its_deletion(viewer, shop, db):
    """Due in the reader's zone; each change after a step that names it; the jobs that it submitted are listed."""
    empty_queue(db)
    DatasetRepository(db, shop.tenant).create("m", measures(50))
    anna = viewer()
    page = open_as(anna, shop.key("read", "train"), f"{shop.path}/schedules")
    page.get_by_role("link", name="a training", exact=True).click()
    choose(page, "m", "Dataset")
    page.get_by_label("Target", exact=True).select_option("outcome")
    dialog = anna.dialog("Schedule…")
    assert dialog.get_by_label("Time zone").input_value() == "Europe/Berlin"
    dialog.get_by_label("Minute, hour").fill("61 * * * *")
    dialog.get_by_role("button", name="Create the schedule").click()
    dialog.get_by_text("bad minute").wait_for()
    dialog.get_by_label("Minute, hour").fill("30 2 * * *")
    dialog.get_by_role("button", name="Create the schedule").click()
    page.get_by_role("heading", name="nightly active").wait_for()
    own = Schedules(db, shop.tenant)
    made = own.get("nightly")
    assert (made.cron, made.timezone, made.spec["training"]["dataset"]) == ("30 2 * * *", "Europe/Berlin", "m")
    due = page.locator("when-time[exact]")
    assert re.search(r"2:30\sAM GMT\+[12], in \d+ (hour|minute)", due.inner_text())
    assert due.locator("time").get_attribute("title").startswith(f"{made.next_at:%Y-%m-%d %H:%M}")
    page.get_by_text("It has submitted no job yet.").wait_for()

    dialog = anna.dialog("Run now…")
    assert f"Run now: nightly of {shop.tenant}" in dialog.inner_text()
    dialog.get_by_role("button", name="Run now nightly").click()
    page.get_by_text("is queued.").wait_for()
    (job,) = JobRepository(db, shop.tenant).list(schedule="nightly").items
    page.get_by_role("link", name=job.job_id).wait_for()
    anna.dialog("Pause…").get_by_role("button", name="Pause nightly").click()
    page.get_by_role("heading", name="nightly paused").wait_for()
    page.get_by_text("not active").wait_for()
    anna.dialog("Resume…").get_by_role("button", name="Resume nightly").click()
    page.get_by_role("heading", name="nightly active").wait_for()
    page.get_by_role("link", name="Schedules").first.click()
    assert "train m" in row(page, "nightly").inner_text()
    row(page, "nightly").get_by_role("link", name=job.job_id).wait_for()
    anna.open(f"{shop.path}/jobs?schedule=nightly&state=queued")
    page.get_by_role("link", name=job.job_id).wait_for()
    anna.open(f"{shop.path}/jobs?schedule=other")
    page.get_by_text("No job was submitted yet.").wait_for()
    JobRepository(db, shop.tenant).cancel(job.job_id)

    anna.open(f"{shop.path}/schedules/nightly")
    anna.dialog("Delete…").get_by_role("button", name="Delete nightly").click()
    page.get_by_text("There is no schedule.").wait_for()
    assert list(own.list().items) == []


def test_a_schedule_on_an_alert(viewer, shop, db):
    """It says which rule it follows; a key without rights on the environment is refused in the API's words."""
    DatasetRepository(db, shop.tenant).create("m", measures(50))
    anna = viewer()
    page = open_as(anna, shop.key("read", "train"), f"{shop.path}/training?dataset=m@1&target=outcome")
    dialog = anna.dialog("Schedule…")
    assert "Each job reads m@1" in dialog.inner_text()
    dialog.get_by_label("Only on an alert").select_option("production")
    dialog.get_by_role("button", name="Create the schedule").click()
    dialog.get_by_text("production serves: it lacks the scope").wait_for()
    page.keyboard.press("Escape")
    other = viewer()
    page = open_as(other, shop.key("read", "train", "promote"), f"{shop.path}/training?dataset=m&target=outcome")
    dialog = other.dialog("Schedule…")
    dialog.get_by_label("Only on an alert").select_option("production")
    dialog.get_by_role("button", name="Create the schedule").click()
    page.get_by_text("Only on an alert in").wait_for()
    page.locator("dl div", has_text="Percent of the requests").get_by_text("20", exact=True).wait_for()
    reader = viewer()
    page = open_as(reader, shop.key("read"), f"{shop.path}/schedules/nightly")
    page.get_by_text("Your key lacks the scope train.").wait_for()
    assert page.get_by_role("button", name="Delete…").get_attribute("aria-disabled") == "true"


def test_the_keyboard_trains_a_model(viewer, shop, db):
    """From the list of datasets to the job."""
    empty_queue(db)
    DatasetRepository(db, shop.tenant).create("m", measures(50))
    page = open_as(viewer(), shop.key("read", "train"), f"{shop.path}/training")

    def reach(name: str, property_: str = "textContent") -> None:
        for _ in range(60):
            found = page.evaluate(f"(document.activeElement.{property_} ?? '').trim()")
            if found == name:
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {name!r}")

    page.get_by_role("combobox", name="Dataset").wait_for()
    reach("combobox", "role")
    page.keyboard.type("m")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="m@1").wait_for()
    reach("target", "name")
    page.keyboard.type("outcome")
    reach("Plan…")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_text("Takes about").wait_for()
    reach("Submit the job")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("jobs/job_"))
    empty_queue(db)
