"""Searches for hyperparameters and predictions of datasets, from the form to their job."""

from __future__ import annotations

import re

import pytest

from ml_core.domain.job import JobKind
from ml_core.domain.job_spec import OnError, PredictJobSpec, TuneJobSpec
from ml_core.domain.tune_spec import Sampler
from ml_core.jobs.schedules import Schedules
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobRepository
from ml_core.training import spaces
from support.console import choose, open_as, refused_at
from support.gated import PEOPLE, people
from support.job_queue import empty_queue, running_queue
from support.tables import measures

SEARCH, PREDICTION = "search", "dataset-prediction"


@pytest.fixture
def tables(db, shop):
    """A table to train on in two versions, and one whose rows the model of the shop reads."""
    datasets = DatasetRepository(db, shop.tenant)
    datasets.create("m", measures(200))
    datasets.create("m", measures(120))
    datasets.create("inbox", people(60, 1)[0])
    return datasets


def test_a_search_is_reviewed_submitted_and_followed(viewer, shop, db, tables):
    """What it may cost is said before; the job is what was filled in, and its page leads to the version."""
    anna = viewer()
    page = open_as(anna, shop.key("read", "train", "promote"), f"{shop.path}/jobs")
    page.get_by_role("link", name="Search for hyperparameters").click()
    choose(page, "m@1", "Dataset")
    page.get_by_text("200 rows").wait_for()
    page.get_by_role("combobox", name="Model, which gets a new version").fill("found")
    page.get_by_label("Target", exact=True).select_option("outcome")
    page.get_by_label("Algorithm", exact=True).select_option("logistic_regression")
    page.get_by_label("Hyperparameters that are searched").fill("C=log:0.01:10")
    page.get_by_label("Trials at most", exact=True).fill("3")
    page.get_by_label("Seconds at most", exact=True).fill("60")
    page.get_by_label("The best is chosen by").select_option("f1_macro")
    page.get_by_label("Move an environment").select_option("staging")
    page.get_by_text("Options").click()
    page.get_by_label("Configurations are chosen by").select_option("random")
    page.get_by_label("Folds of the cross-validation").fill("3")
    page.get_by_label("End bad trials early").uncheck()
    page.get_by_label("Hyperparameters that are the same").fill("class_weight=balanced")
    with running_queue(db):
        dialog = anna.dialog("Review…")
        said = dialog.inner_text()
        assert f"Search for hyperparameters of found of {shop.tenant}" in said
        assert re.search(
            r"Trials at most\s+3 trials\s+Takes at most\s+1 min 0 s\s+Costs at most\s+60 core-seconds", said
        )
        assert "staging moves to it" in said
        dialog.get_by_role("button", name="Submit the job").click()
        page.wait_for_url(re.compile("jobs/job_"))
        (job,) = JobRepository(db, shop.tenant).list().items
        spec = TuneJobSpec.from_json(job.spec)
        assert (spec.model_id, spec.training.dataset, spec.promote_to) == ("found", "m@1", "staging")
        assert spec.training.hyperparameters == {"class_weight": "balanced"}
        search = spec.search
        assert (search.algorithm, list(search.space), search.sampler) == ("logistic_regression", ["C"], Sampler.RANDOM)
        assert (search.trials, search.seconds, search.folds, search.metric) == (3, 60, 3, "f1_macro")
        assert search.early_stopping is False
        page.get_by_role("heading", name="succeeded").wait_for(timeout=180_000)
    page.get_by_role("link", name="found 1").click()
    page.get_by_text("staging: stable").wait_for()


def test_a_search_that_is_wrong_is_refused_at_its_field(viewer, shop, db, tables):
    """In the API's words, the field has the focus, also inside of the options; nothing is submitted."""
    empty_queue(db)
    anna = viewer()
    page = open_as(anna, shop.key("read", "train"), f"{shop.path}/{SEARCH}?dataset=m&target=outcome&trials=0")
    review = page.get_by_role("button", name="Review…")

    def submit() -> None:
        anna.dialog("Review…").get_by_role("button", name="Submit the job").click()

    submit()
    refused_at(page, "trials").get_by_text("from 1 to 10,000").wait_for()
    assert page.get_by_role("dialog").count() == 0
    page.get_by_label("Trials at most", exact=True).fill("5")
    page.get_by_label("Hyperparameters that are searched").fill("C=1..2")
    submit()
    refused_at(page, "space").get_by_text("A space belongs to one algorithm.").wait_for()
    assert page.locator("field-problem[data-of=trials] *").count() == 0
    page.get_by_label("Hyperparameters that are searched").fill("C")
    review.click()
    refused_at(page, "space").get_by_text("“C” is not name=value.").wait_for()
    page.get_by_label("Hyperparameters that are searched").fill("")
    page.get_by_label("Algorithm", exact=True).select_option("ridge")
    page.get_by_label("Model type").select_option("classification")
    page.get_by_label("The best is chosen by").select_option("r2")
    submit()
    refused_at(page, "metric").get_by_text("does not fit classification").wait_for()
    page.get_by_label("The best is chosen by").select_option("")
    page.get_by_text("Options").click()
    page.get_by_label("Folds of the cross-validation").fill("many")
    page.get_by_text("Options").click()
    submit()
    refused_at(page, "folds").wait_for()
    page.get_by_label("Folds of the cross-validation").fill("")
    page.get_by_label("Move an environment").select_option("production")
    submit()
    page.get_by_role("dialog").get_by_text("lacks the scope 'promote'").wait_for()
    assert list(JobRepository(db, shop.tenant).list().items) == []


def test_a_dataset_is_predicted_into_another(viewer, shop, db, tables):
    """By a version that is found by typing; the job's page leads to the predictions."""
    anna = viewer()
    page = open_as(anna, shop.key("read", "train"), f"{shop.model}/versions/2")
    page.get_by_role("link", name="Predict a dataset with it").click()
    assert page.get_by_role("combobox", name="Version that predicts").input_value() == "2"
    choose(page, "inbox", "Dataset")
    page.get_by_role("combobox", name="Dataset that gets").fill("answers")
    page.get_by_label("The probability of each class").check()
    page.get_by_label("Columns to repeat").select_option(["height"])
    page.get_by_label("A row that does not fit").select_option("null")
    with running_queue(db):
        dialog = anna.dialog("Review…")
        said = dialog.inner_text()
        assert f"Predict inbox of {shop.tenant}" in said
        assert "inbox@1 60 rows" in said
        assert f"{PEOPLE}, version 2" in said
        dialog.get_by_role("button", name="Submit the job").click()
        page.wait_for_url(re.compile("jobs/job_"))
        (job,) = JobRepository(db, shop.tenant).list().items
        assert PredictJobSpec.from_json(job.spec) == PredictJobSpec(
            PEOPLE, "inbox@1", "answers", "2", proba=True, keep=("height",), on_error=OnError.NULL
        )
        page.get_by_role("heading", name="succeeded").wait_for(timeout=180_000)
    page.get_by_role("link", name="answers@1").click()
    page.get_by_role("heading", name="answers@1").wait_for()
    page.get_by_role("row", name=re.compile("^height")).wait_for()


def test_a_prediction_that_is_wrong_is_refused_at_its_field(viewer, shop, db, tables):
    """Or above the buttons, where the API names none."""
    empty_queue(db)
    anna = viewer()
    page = open_as(anna, shop.key("read", "train"), f"{shop.path}/{PREDICTION}?dataset=inbox&model={PEOPLE}")
    page.get_by_role("button", name="Review…").click()
    assert page.get_by_role("dialog").count() == 0
    assert page.locator(":focus").get_attribute("required") is not None
    page.get_by_role("combobox", name="Dataset that gets").fill("No name")
    anna.dialog("Review…").get_by_role("button", name="Submit the job").click()
    refused_at(page, "output").get_by_text("No name").first.wait_for()
    page.get_by_role("combobox", name="Dataset that gets").fill("answers")
    choose(page, "1", "Version that predicts, whatever environments serve")
    page.get_by_label("Environment whose version predicts").select_option("staging")
    anna.dialog("Review…").get_by_role("button", name="Submit the job").click()
    refused_at(page, "environment").get_by_text("has a version and an environment").wait_for()
    page.get_by_label("Environment whose version predicts").select_option("")
    choose(page, "m", "Dataset")
    dialog = anna.dialog("Review…")
    dialog.get_by_role("button", name="Submit the job").click()
    dialog.get_by_role("alert").get_by_text("height").first.wait_for()
    page.keyboard.press("Escape")
    assert list(JobRepository(db, shop.tenant).list().items) == []


@pytest.mark.parametrize(
    ("path", "filled"),
    [
        (
            f"{SEARCH}?dataset=m%401&model=found&target=outcome&algorithm=ridge&space=alpha%3Dlog%3A1%3A2&trials=7&ignore=m1%0Am2&sampler=grid&early_stopping=no",
            {
                "dataset": "m@1",
                "model": "found",
                "target": "outcome",
                "algorithm": "ridge",
                "space": "alpha=log:1:2",
                "trials": "7",
                "ignore": ["m1", "m2"],
                "sampler": "grid",
                "early_stopping": False,
            },
        ),
        (
            f"{PREDICTION}?dataset=inbox&model={PEOPLE}&version=3&output=answers&keep=height&proba=yes&on_error=null",
            {
                "dataset": "inbox",
                "model": str(PEOPLE),
                "version": "3",
                "output": "answers",
                "keep": ["height"],
                "proba": True,
                "on_error": "null",
            },
        ),
    ],
)
def test_the_address_of_a_form_has_what_is_filled_in(viewer, shop, tables, path, filled):
    """A colleague who opens it sees the same; a reader sees why it can't be submitted."""
    anna = viewer()
    page = open_as(anna, shop.key("read", "train"), f"{shop.path}/{path.split('?')[0]}")
    read = (
        "() => Object.fromEntries([...document.querySelector('form[data-action]').elements].filter((each) => each.name)"
        ".map((each) => [each.name, each.multiple ? [...each.selectedOptions].map((one) => one.value)"
        " : each.type === 'checkbox' ? each.checked : each.value]))"
    )
    page.get_by_role("combobox", name="Dataset", exact=True).wait_for()
    for name in ("dataset", "model"):
        label = {"dataset": "Dataset"}.get(name, "Model, which gets a new version" if "search" in path else "Model")
        value = filled[name]
        if label.startswith("Model,"):
            page.get_by_role("combobox", name=label).fill(value)
        else:
            choose(page, value, label)
    page.get_by_text("Options").click()
    for name, value in filled.items():
        control = page.locator(f"form[data-action] [name={name}]:not(type-ahead)")
        if isinstance(value, bool):
            control.set_checked(value)
        elif control.evaluate("each => each.tagName") == "SELECT":
            control.select_option(value)
        elif name == "version":
            choose(page, value, "Version that predicts, whatever environments serve")
        elif name == "output":
            page.get_by_role("combobox", name="Dataset that gets").fill(value)
        elif control.get_attribute("type") != "hidden":
            control.fill(value)
    assert page.evaluate(read).items() >= filled.items()
    address = page.url.split("#/")[1]
    colleague = viewer()
    other = open_as(colleague, shop.key("read"), address)
    other.get_by_text("Your key lacks the scope train.").wait_for()
    assert other.evaluate(read).items() >= filled.items()
    for button in ("Review…", "Schedule…"):
        assert other.get_by_role("button", name=button).get_attribute("aria-disabled") == "true"
    other.get_by_role("button", name="Review…").click(force=True)
    colleague.wait_for_rest()
    assert other.get_by_role("dialog").count() == 0


def test_searches_and_predictions_are_scheduled(viewer, shop, db, tables):
    """With the newest version of the dataset each time; what is wrong with the job is shown at its field."""
    anna = viewer()
    path = f"{shop.path}/{PREDICTION}?dataset=inbox&model={PEOPLE}&output=answers&environment=staging"
    page = open_as(anna, shop.key("read", "train"), path)
    dialog = anna.dialog("Schedule…")
    assert "the newest version of inbox" in dialog.inner_text()
    assert dialog.get_by_label("Only on an alert").count() == 0
    dialog.get_by_role("button", name="Create the schedule").click()
    dialog.get_by_role("alert").get_by_text("staging").first.wait_for()
    page.keyboard.press("Escape")
    page.get_by_label("Environment whose version predicts").select_option("production")
    dialog = anna.dialog("Schedule…")
    dialog.get_by_label("Name", exact=True).fill("answers")
    dialog.get_by_role("button", name="Create the schedule").click()
    page.get_by_role("heading", name="answers active").wait_for()
    anna.open(f"{shop.path}/{SEARCH}?dataset=m&target=outcome&model=m&trials=0")
    dialog = anna.dialog("Schedule…")
    dialog.get_by_role("button", name="Create the schedule").click()
    refused_at(page, "trials").wait_for()
    page.get_by_label("Trials at most", exact=True).fill("4")
    anna.dialog("Schedule…").get_by_role("button", name="Create the schedule").click()
    page.get_by_role("heading", name="nightly active").wait_for()
    own = Schedules(db, shop.tenant)
    assert {each.name: each.kind for each in own.list().items} == {
        "answers": JobKind.PREDICT,
        "nightly": JobKind.TUNE,
    }
    assert own.get("answers").spec["dataset"] == "inbox"
    for name in ("answers", "nightly"):
        own.delete(name)


def test_the_metrics_and_samplers_that_are_offered_are_the_platforms(viewer, shop):
    """Each of them, and no other."""
    page = open_as(viewer(), shop.key("read"), f"{shop.path}/{SEARCH}")
    page.get_by_label("The best is chosen by").wait_for()
    offered = page.evaluate(
        "() => ['metric', 'sampler'].map((name) => [...document.querySelector(`[name=${name}]`).options]"
        ".map((option) => option.value).filter(Boolean))"
    )
    metrics = list(dict.fromkeys(metric for of in spaces._METRICS.values() for metric in of))
    assert offered == [metrics, [each for each in Sampler if each is not Sampler.OPTUNA]]
