"""``mlcore schedules``, and batches of ``mlcore jobs``, against a platform without replicas."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Scope
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from support.job_queue import empty_queue
from support.registry import new_tenant
from support.tables import measures

OVER_HTTP = True

JOB = ("--", "train", "-m", "m", "--dataset", "d", "--target", "outcome", "-p", "algorithm=logistic_regression")


@pytest.fixture
def dataset(registry: DatabaseConnection, tenant: str) -> None:
    """The tenant has a dataset."""
    DatasetRepository(registry, tenant).create("d", measures(40))


@pytest.fixture
def create(mlcore: Callable, tenant: str, dataset: None) -> Callable:
    """Creates a schedule."""

    def call(name: str, *words: str, cron: str = "0 3 * * *"):
        return mlcore("schedules", "create", name, "-t", tenant, "--cron", cron, *words)

    return call


@pytest.mark.both_doors
def test_a_schedule_from_its_creation_to_its_deletion(mlcore: Callable, tenant: str, create: Callable) -> None:
    """The job is the words of ``jobs submit``, and what they mean is decided there."""
    made = create("nightly", "--timezone", "Europe/Berlin", *JOB, "--cpus", "0.5", "--promote-to", "staging")
    assert (made.code, "Created the schedule nightly; it is due at " in made.out) == (0, True), made.err
    shown = mlcore("schedules", "show", "nightly", "-t", tenant, "--json").json
    assert (shown["timezone"], shown["options"]["cpus"], shown["spec"]["promote_to"]) == (
        *("Europe/Berlin", 0.5),
        "staging",
    )
    training = shown["spec"]["training"]
    assert (training["dataset"], training["hyperparameters"]) == ("d", {"algorithm": "logistic_regression"})
    assert "is paused" in mlcore("schedules", "pause", "nightly", "-t", tenant).out
    assert "paused" in mlcore("schedules", "list", "-t", tenant).out
    assert "nightly is due at" in mlcore("schedules", "resume", "nightly", "-t", tenant).out
    job_id = mlcore("schedules", "run-now", "nightly", "-t", tenant, "--json").json["job_id"]
    assert mlcore("jobs", "show", job_id, "-t", tenant, "--json").json["spec"]["training"]["dataset"] == "d@1"
    assert job_id in mlcore("schedules", "show", "nightly", "-t", tenant).out
    mlcore("jobs", "cancel", job_id, "-t", tenant)
    assert mlcore("schedules", "delete", "nightly", "-t", tenant).out.strip() == "Deleted the schedule nightly."
    assert mlcore("schedules", "list", "-t", tenant).out.startswith("There is no schedule.")


def test_bad_input_is_refused_at_once(mlcore: Callable, tenant: str, create: Callable) -> None:
    """Before anything is sent, or by the platform; nothing is created."""
    for words, code, message in (
        (JOB[:-2], 1, None),
        ((*JOB, "--tenant", "other"), 1, "The job has the option --tenant."),
        ((*JOB, "--wait"), 1, "The job has the option --wait."),
        ((*JOB, "--each-tenant"), 1, "Leave out --each-tenant;"),
        (("--", "predict", __file__, "-m", "m", "--output", "o"), 1, "not with a FILE"),
        ((*JOB, "--colour", "red"), 2, "No such option"),
        (("--", "dance"), 2, "No such command"),
        ((), 2, "Missing argument"),
        ((*JOB[:5], "gone", *JOB[6:]), 1, "gone"),
    ):
        said = create("nightly", *words)
        if message is None:
            assert said.code == 0, said.err
            mlcore("schedules", "delete", "nightly", "-t", tenant)
            continue
        assert (said.code, message in said.err) == (code, True), said.err
    assert "bad hour" in create("nightly", *JOB, cron="0 30 * * *").err
    assert mlcore("schedules", "list", "-t", tenant, "--json").json["items"] == []
    assert create("nightly", *JOB).code == 0
    again = create("nightly", *JOB)
    assert f"mlcore schedules show nightly --tenant {tenant}" in again.err
    missing = mlcore("schedules", "pause", "none", "-t", tenant)
    assert f"mlcore schedules list --tenant {tenant}" in missing.err


@pytest.mark.both_doors
def test_a_batch_is_submitted_shown_cancelled_and_retried(
    mlcore: Callable, registry: DatabaseConnection, door: str, request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an operator, and without a tenant."""
    if door == "over_http":
        key = PlatformKeyRepository(registry).create("test", [Scope.ADMIN])
        monkeypatch.setenv("MLCORE_URL", request.getfixturevalue("control_api"))
        monkeypatch.setenv("MLCORE_API_KEY", str(key))
    empty_queue(registry)
    name, tenants = f"d{uuid.uuid4().hex[:12]}", [new_tenant(registry) for _ in range(3)]
    for tenant in tenants:
        DatasetRepository(registry, tenant).create(name, measures(40))
    job = ("-m", "m", "--dataset", name, "--target", "outcome")
    submitted = mlcore("jobs", "submit", "train", "--each-tenant", *job, "--json")
    assert submitted.code == 0, submitted.err
    batch = submitted.json
    batch_id = batch["batch_id"]
    assert (batch["jobs"], batch["states"], batch["percent"]) == (3, {"queued": 3}, 0.0)
    assert "queued" in mlcore("jobs", "show", batch_id).out
    assert batch_id in mlcore("jobs", "batches").out
    assert {job["tenant_id"] for job in mlcore("jobs", "active", "--json").json} == set(tenants)
    assert tenants[0] in mlcore("jobs", "active").out
    assert mlcore("jobs", "cancel", batch_id, "--json").json["states"] == {"cancelled": 3}
    waited = mlcore("jobs", "wait", batch_id)
    assert (waited.code, "3 of 3 jobs did not succeed." in waited.err) == (1, True), waited.err
    assert f"mlcore jobs retry {batch_id}" in waited.err
    assert mlcore("jobs", "retry", batch_id, "--json").json["states"] == {"queued": 3}
    assert {JobRepository(registry, tenant).list().items[0].batch_id for tenant in tenants} == {batch_id}
    missing = mlcore("jobs", "show", "batch_1")
    assert (missing.code, "mlcore jobs batches" in missing.err) == (1, True), missing.err
    empty_queue(registry)


def test_a_tenants_key_submits_no_batch(mlcore: Callable, tenant: str, dataset: None, tmp_path: Path) -> None:
    """It is told what to use instead."""
    said = mlcore("jobs", "submit", "train", "--each-tenant", "-m", "m", "--dataset", "d", "--target", "outcome")
    assert (said.code, "platform key" in said.err) == (1, True), said.err
