"""``mlcore jobs`` against a platform without replicas, whose dispatcher runs beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ml_core.database.connection import DatabaseConnection
from support.job_queue import running_queue
from support.tables import measures

OVER_HTTP = True


@pytest.fixture
def dispatched(registry: DatabaseConnection) -> Iterator[None]:
    """A dispatcher runs."""
    with running_queue(registry):
        yield


@pytest.fixture
def submit(mlcore: Callable, tenant: str, tmp_path) -> Callable:
    """Submits a training on a small dataset."""
    measures(200).to_csv(tmp_path / "m.csv", index=False)
    assert mlcore("datasets", "create", "m", tmp_path / "m.csv", "-t", tenant).code == 0

    def call(*options: object):
        training = ("--dataset", "m", "--target", "outcome", "-p", "algorithm=logistic_regression")
        return mlcore("jobs", "submit", "train", "-t", tenant, "-m", "m", *training, *options)

    return call


def test_a_job_is_submitted_and_waited_for(mlcore: Callable, tenant: str, submit: Callable, dispatched: None) -> None:
    """The id is printed; the result is the version."""
    submitted = submit("--json")
    assert submitted.code == 0, submitted.err
    job = submitted.json
    said = mlcore("jobs", "wait", job["job_id"], "-t", tenant)
    assert (said.code, "m@1" in said.out) == (0, True), said.err
    assert said.err.strip() == f"{job['job_id']} is succeeded."
    (row,) = mlcore("jobs", "list", "-t", tenant, "--json").json["items"]
    assert (row["state"], row["result"]["version"]) == ("succeeded", "1")
    assert "m@1" in mlcore("jobs", "list", "-t", tenant).out
    shown = mlcore("jobs", "show", job["job_id"], "-t", tenant).out
    assert all(text in shown for text in ("succeeded", "worse by", "█"))
    for options in ((), ("-f",)):
        log = mlcore("jobs", "logs", job["job_id"], "-t", tenant, *options).out
        assert "Attempt 1 of 3 begins" in log
        assert "Stage: register." in log


def test_rows_are_predicted(mlcore: Callable, tenant: str, submit: Callable, dispatched: None, tmp_path: Path) -> None:
    """Of a dataset or of files, by the version that a job made; the result is a dataset."""
    assert submit("--wait").code == 0
    options = ("-t", tenant, "-m", "m", "--dataset", "m@1", "--output", "answers")
    said = mlcore("jobs", "submit", "predict", *options, "--keep", "m0", "--keep", "m1", "--proba", "--wait")
    assert (said.code, "answers@1" in said.out) == (0, True), said.err
    shown = mlcore("datasets", "show", "answers@1", "-t", tenant)
    assert "prediction, m@1, m, 1" in shown.out, shown.out
    for part in (0, 1):
        measures(20, seed=part).to_parquet(tmp_path / f"inbox{part}.parquet")
    from_files = ("jobs", "submit", "predict", tmp_path / "inbox*.parquet", "-t", tenant, "-m", "m")
    said = mlcore(*from_files, "--output", "x" * 80, "--wait", "--json")
    assert said.code == 0, said.err
    assert said.json["result"]["dataset"] == f"{'x' * 80}@1"
    rows = mlcore("datasets", "show", f"{'x' * 75}-rows@1", "-t", tenant, "--json")
    assert rows.json["row_count"] == 40, rows.err
    nothing = mlcore("jobs", "submit", "predict", "-t", tenant, "-m", "m", "--output", "answers")
    assert (nothing.code, "Give a FILE, or --dataset NAME." in nothing.err) == (1, True), nothing.err
    unknown = mlcore(*from_files[:-1], "nobody", "--output", "unknown")
    assert (unknown.code, "nobody" in unknown.err) == (1, True), unknown.err
    both = mlcore(*from_files, "--output", "unknown", "-v", "1", "-e", "staging")
    assert (both.code, "Give one of them." in both.err) == (1, True), both.err
    stored = mlcore("datasets", "list", "-t", tenant, "--json").json["items"]
    assert "unknown-rows" not in [each["dataset_id"] for each in stored], "it was sent for nothing"
    wrong = mlcore("jobs", "submit", "predict", *options, "--keep", "m99")
    assert (wrong.code, "has no column 'm99'" in wrong.err) == (1, True), wrong.err


def test_a_job_that_waits_is_cancelled_and_retried(mlcore: Callable, tenant: str, submit: Callable) -> None:
    """Waiting for a cancelled job is an error that says what to do."""
    said = submit()
    job_id = said.out.split()[1].rstrip(".")
    assert mlcore(*said.out.partition(" mlcore ")[2].split()).out.split()[:3] == ["job", "id", job_id], said.out
    assert mlcore("jobs", "cancel", job_id, "-t", tenant).out.strip() == f"{job_id} is cancelled."
    waited = mlcore("jobs", "wait", job_id, "-t", tenant)
    assert waited.code == 1
    assert f"The job {job_id} was cancelled." in waited.err, waited.err
    assert mlcore("jobs", "retry", job_id, "-t", tenant).out.strip() == f"{job_id} is queued."
    again = mlcore("jobs", "retry", job_id, "-t", tenant)
    assert (again.code, "is queued and can't retry" in again.err) == (1, True)
    mlcore("jobs", "cancel", job_id, "-t", tenant)


def test_a_plan_is_shown(mlcore: Callable, tenant: str, submit: Callable) -> None:
    """As a table with reasons, or as JSON; what is missing follows."""
    options = ("train", "-t", tenant, "-m", "m", "--dataset", "m", "--target", "outcome", "--cpus", "4")
    said = mlcore("jobs", "plan", *options, "-p", "algorithm=random_forest")
    assert said.out.startswith("The strategy is forest_by_trees."), said.err
    assert "for a job on Ray" not in said.out
    assert "one_task" in said.out
    assert "3 are missing" in said.out
    found = mlcore("jobs", "plan", *options, "-p", "algorithm=naive_bayes", "--json").json
    assert found["strategy"] == "exact_merge"


def test_a_search_is_submitted(mlcore: Callable, tenant: str, submit: Callable) -> None:
    """Ranges, choices and durations as people write them; a mistake in one is refused with its name."""
    submit()  # the dataset
    call = ("jobs", "submit", "tune", "-t", tenant, "-m", "m", "--dataset", "m", "--target", "outcome")
    space = ("--algorithm", "decision_tree", "--space", "max_depth=2..12", "--space", "criterion=gini,entropy")
    job = mlcore(*call, *space, "--space", "ccp_alpha=log:0.001:0.3", "--timeout", "10m", "--folds", "3", "--json").json
    assert job["spec"]["search"]["space"] == {
        "max_depth": {"low": 2, "high": 12},
        "criterion": {"choices": ["gini", "entropy"]},
        "ccp_alpha": {"low": 0.001, "high": 0.3, "log": True},
    }
    assert (job["spec"]["search"]["seconds"], job["spec"]["search"]["folds"]) == (600, 3)
    for options, said in (
        ((*space, "--space", "max_dept=2..3"), "Did you mean max_depth"),
        ((*space, "--space", "ccp_alpha"), "not of the form name=value"),
        ((*space, "--space", "ccp_alpha=0.3..0.1"), "empty range"),
        (("--timeout", "soon"), "Write it like 90s, 10m or 2h"),
    ):
        refused = mlcore(*call, *options)
        assert (refused.code, said in refused.err) == (1, True), refused.err


def test_bad_input_is_refused_at_once(mlcore: Callable, tenant: str, submit: Callable) -> None:
    """With the command that helps, and nothing is queued."""
    gone = mlcore("jobs", "submit", "train", "-t", tenant, "-m", "m", "--dataset", "gone", "--target", "x")
    assert gone.code == 1
    assert "mlcore datasets list" in gone.err
    missing = mlcore("jobs", "show", "job_1", "-t", tenant)
    assert f"mlcore jobs list --tenant {tenant}" in missing.err
    assert mlcore("jobs", "list", "-t", tenant).out.startswith("No job matches.")
    many = submit("--cpus", "0")
    assert many.code != 0
