"""The verbs that move a pointer wait for the replicas, say what each answered, and fail where one can't serve."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.replica_report import ReplicaReport
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.registry.feed import FeedReader
from ml_core.registry.replicas import ReplicaReports, seen_replicas
from support.replicas import damage, running_replica
from support.tables import measures
from support.waiting import wait_until

OVER_HTTP = True


@pytest.fixture
def db(registry: DatabaseConnection) -> DatabaseConnection:
    """The registry that the command uses."""
    return registry


@pytest.fixture
def model(mlcore: Callable, tenant: str, tmp_path: Path, db: DatabaseConnection) -> Iterator[list[str]]:
    """The options that name a model with two versions, the first of which is promoted."""
    file = tmp_path / "data.csv"
    measures().to_csv(file, index=False)
    options = ["-t", tenant, "-m", "m"]
    for alpha in ("1", "2"):
        fit = ("--target", "outcome", "--param", "algorithm=ridge", "--param", f"alpha={alpha}")
        assert mlcore("train", file, *options, *fit).code == 0
    assert "No replica is running" in mlcore("promote", *options, "-v", "1").out
    yield options
    mlcore("rollouts", "abort", *options, "--no-wait")
    mlcore("withdraw", *options, "--no-wait")


@pytest.mark.both_doors
def test_a_promotion_says_that_each_replica_has_applied_it(
    mlcore: Callable, model: list[str], db: DatabaseConnection
) -> None:
    """So do the way back, a canary, a shadow and a withdrawal; with --json each replica is in the document."""
    with running_replica(db, "a"), running_replica(db, "b"):
        for verb in (
            ("promote", *model, "-v", "2"),
            ("rollback", *model),
            ("rollouts", "start", *model, "-v", "2", "-p", "10"),
            ("rollouts", "step", *model, "-p", "20"),
            ("rollouts", "show", *model),
            ("rollouts", "finish", *model),
            ("rollouts", "shadow", *model, "-v", "1"),
            ("rollouts", "unshadow", *model),
            ("withdraw", *model),
        ):
            wait_until(lambda: {"a", "b"} <= {each.replica_id for each in seen_replicas(db)})
            done = mlcore(*verb)
            assert (done.code, "Replicas that have applied it: 2 of 2." in done.out) == (0, True), (verb, done)
        document = mlcore("promote", *model, "-v", "1", "--json").json
        assert document["version"] == "1"
        assert [(each["replica_id"], each["state"]) for each in document["replicas"]] == [
            ("a", "loaded"),
            ("b", "loaded"),
        ]


@pytest.mark.parametrize(
    ("verb", "undo"),
    [
        (("promote", "-v", "2"), "mlcore rollback"),
        (("rollouts", "start", "-v", "2", "-p", "10"), "mlcore rollouts abort"),
        (("rollouts", "shadow", "-v", "2"), "mlcore rollouts unshadow"),
    ],
)
def test_a_version_that_no_replica_can_load_fails_the_command(
    mlcore: Callable, model: list[str], db: DatabaseConnection, tenant: str, verb: tuple[str, ...], undo: str
) -> None:
    """It says that the pointer has moved, what answers meanwhile, why, and which command takes it back."""
    damage(db, TenantId(tenant), ModelId("m"), VersionId("2"))
    words = [word for word in verb if not word.startswith("-") and word.isalpha()]
    with running_replica(db, "a"):
        failed = mlcore(*words, *model, *verb[len(words) :])
        assert failed.code == 1
        assert "replica a: can't load version 2 (artifact_corrupt)" in failed.out
        assert "Meanwhile version 1 answers." in failed.out
        assert "1 of 1 replicas can't load version 2" in failed.err
        assert "The pointer has moved, to generation 2" in failed.err
        assert f"To take it back:\n  {undo}" in failed.err
        taken_back = failed.err.split("To take it back:\n  mlcore ")[1].split()
        assert mlcore(*taken_back).code == 0


def test_the_error_in_json_names_the_replicas(
    mlcore: Callable, model: list[str], db: DatabaseConnection, tenant: str
) -> None:
    """The pointer is on standard output, since it has moved, and the error on standard error."""
    damage(db, TenantId(tenant), ModelId("m"), VersionId("2"))
    with running_replica(db, "a"):
        failed = mlcore("promote", *model, "-v", "2", "--json")
    assert (failed.code, failed.json["generation"]) == (1, 2)
    error = json.loads(failed.err)["error"]
    assert error["code"] == "model_load_failed"
    assert [each["serves"] for each in error["details"]["replicas"]] == ["1"]


def test_a_replica_that_does_not_answer_in_time_fails_the_command(
    mlcore: Callable, model: list[str], db: DatabaseConnection
) -> None:
    """The wait is bounded, and --no-wait asks nobody."""
    now = FeedReader(db).read(None)
    silent = ReplicaReports(db, "silent")
    silent.write(ReplicaReport(now.generation, now.epoch, True, 1, 1), 60)
    try:
        late = mlcore("promote", *model, "-v", "2", "--wait", "0.1")
        assert late.code == 1
        assert "1 of 1 replicas have not loaded version 2 within 0.1 s." in late.err
        assert "replica silent: has not read the pointer's last move yet" in late.out
        unasked = mlcore("promote", *model, "-v", "1", "--no-wait", "--json")
        assert (unasked.code, unasked.json["replicas"]) == (0, None)
    finally:
        silent.remove()


def test_the_canaries_and_shadows_that_run_are_listed(mlcore: Callable, model: list[str], tenant: str) -> None:
    """Of all models, or of one; what runs none is not among them."""
    assert "No canary or shadow runs" in mlcore("rollouts", "list", "-t", tenant).out
    assert mlcore("rollouts", "list", "-t", tenant, "--json").json["items"] == []
    mlcore("rollouts", "start", *model, "-v", "2", "-p", "10")
    listed = mlcore("rollouts", "list", "-t", tenant).out
    assert "2 for 10 %" in listed
    assert [each["canary"]["version"] for each in mlcore("rollouts", "list", *model, "--json").json["items"]] == ["2"]
    unknown = mlcore("rollouts", "list", "-t", tenant, "-m", "mm")
    assert (unknown.code, "mm" in unknown.err) == (1, True)
