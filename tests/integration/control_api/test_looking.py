"""What people look for before they act: names, what gates would find, and the jobs of all tenants."""

from __future__ import annotations

import pytest

from ml_core.client import MLClient
from ml_core.domain.api_key import Scope
from ml_core.exceptions import DatasetNotFoundError, InvalidRequestError, ModelNotFoundError, PromotionRefusedError
from ml_core.ids import ModelId
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobQueue, JobRepository
from ml_core.registry.keys import KeyRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.versions import search
from support.gated import PEOPLE, logistic, publish
from support.job_queue import empty_queue
from support.plans import recorded_plans
from support.registry import register, superuser
from support.tables import measures


@pytest.fixture
def operator(db, address):
    """A client of the platform, which may read."""
    with MLClient(address, api_key=str(PlatformKeyRepository(db).create("op", [Scope.READ])), timeout_s=30) as asks:
        yield asks


def test_lists_find_a_text_in_the_name(db, client, operator, tenant_id):
    """Whatever its case; a wildcard of the database is a letter like any other."""
    for name in ("ticket_classifier", "ticket-router", "churn"):
        register(db, tenant_id, model_id=ModelId(name))
        DatasetRepository(db, tenant_id).create(name, measures(20))
    for noun, attribute in ((client.models, "model_id"), (client.datasets, "dataset_id")):
        found = [getattr(each, attribute) for each in noun.list(name="TICKET")]
        assert found == ["ticket-router", "ticket_classifier"]
        assert [getattr(each, attribute) for each in noun.list(name="t_c")] == ["ticket_classifier"]
        assert list(noun.list(name="%")) == []
    assert [tenant.tenant_id for tenant in operator.tenants.list(name=tenant_id[3:].upper())] == [tenant_id]
    page = client.models.list(name="ticket").page(limit=1)
    (second,) = client.models.list(name="ticket").page(limit=1, cursor=page.next_cursor).items
    assert second.model_id == "ticket_classifier"


def test_a_version_is_found_by_its_name(db, client, tenant_id, monkeypatch):
    """By a part of it, whatever its case; the name of the model, notes and tags are not its name."""
    for version in ("1.0.0", "1.1.0", "2.1.0-RC1", "10"):
        register(db, tenant_id, version, metadata={"note": "rc"})
    register(db, tenant_id, "1.1.9", model_id=ModelId("other"))

    def found(name, **criteria):
        return [each.version for each in client.versions.list("tickets", name=name, **criteria)]

    assert found("1.") == ["2.1.0-RC1", "1.1.0", "1.0.0"]
    assert found("rc") == ["2.1.0-RC1"]
    assert found("tickets") == found("%") == found("_") == []
    assert found("1.", descending=False) == ["1.0.0", "1.1.0", "2.1.0-RC1"]
    page = client.versions.list("tickets", name="1.").page(limit=2)
    (last,) = client.versions.list("tickets", name="1.").page(limit=2, cursor=page.next_cursor).items
    assert last.version == "1.0.0"
    assert [each.version for each in client.versions.list(name="1.1")] == ["1.1.9", "1.1.0"]
    monkeypatch.setattr(search, "_FEW_NAMES", 1)
    assert found("1.") == ["2.1.0-RC1", "1.1.0", "1.0.0"]


def test_metrics_say_which_way_is_better(db, client, tenant_id, other_tenant_id):
    """Those of the tenant; of a metric of the user's own it is not known."""
    register(db, tenant_id, metrics={"validation": {"rmse": 1.0, "my_score": 2.0}, "train": {"accuracy": 0.5}})
    register(db, other_tenant_id, metrics={"validation": {"theirs": 1.0}})
    assert [(each.split, each.metric, each.higher_is_better) for each in client.versions.metrics()] == [
        ("train", "accuracy", True),
        ("validation", "my_score", None),
        ("validation", "rmse", False),
    ]


def test_two_versions_of_a_dataset_are_compared(db, client, tenant_id, other_tenant_id):
    """Columns, types, and drift; those of another tenant are not there."""
    before, now = measures(400), measures(400, seed=1)
    now["m3"] += 1.0
    now["m4"] = now["m4"].astype(str) + " cm"
    now["new"] = 1
    for frame in (before.assign(old="x"), now):
        DatasetRepository(db, tenant_id).create("m", frame)
        DatasetRepository(db, other_tenant_id).create("theirs", frame)
    compared = client.datasets.compare("m", 1, 2)
    assert (compared.added, compared.removed, compared.changed) == (["new"], ["old"], ["m4"])
    assert (compared.verdict, compared.same) == ("alert", False)
    assert [each.name for each in compared.columns if each.verdict == "alert"] == ["m3"]
    by_name = {each.name: each for each in compared.columns}
    assert by_name.keys() == {*(f"m{index}" for index in range(12)), "outcome"}
    assert (by_name["m4"].verdict, by_name["m4"].note) == ("unknown", "It was a number and is a text now.")
    assert by_name["m3"].reference_rows == by_name["m3"].live_rows == 400
    same = client.datasets.compare("m", 2, 2)
    assert (same.same, same.verdict, max(each.psi or 0 for each in same.columns)) == (True, "ok", 0)
    for name, numbers in (("m", (1, 3)), ("m", (9, 1)), ("theirs", (1, 2)), ("nothing", (1, 2))):
        with pytest.raises(DatasetNotFoundError):
            client.datasets.compare(name, *numbers)


def test_gates_are_evaluated_without_a_move(db, address, client, tenant_id):
    """They find what a promotion finds, also for a key that may only read; what can't be judged is refused."""
    for version, noise in (("1", 0.45), ("2", 0.0)):
        publish(db, tenant_id, version, logistic(int(version), noise))
    client.gates.set(PEOPLE, "production", "accurate", "min_metric", {"metric": "accuracy", "value": 0.8})
    reader = str(KeyRepository(db, tenant_id).create("reader", [Scope.READ]))
    with MLClient(address, api_key=reader, tenant_id=tenant_id) as asks:
        (bad,), (good,) = (asks.gates.evaluate(PEOPLE, version) for version in "12")
        assert (bad.passed, good.passed, bad.kind) == (False, True, "min_metric")
        assert asks.gates.evaluate(PEOPLE, "1", "staging") == []
        with pytest.raises(ModelNotFoundError):
            asks.gates.evaluate(PEOPLE, "3")
        with pytest.raises(InvalidRequestError):
            asks.gates.evaluate(PEOPLE, "1", "nowhere")
    with pytest.raises(PromotionRefusedError, match=bad.message.replace(".", "\\.")):
        client.environments.promote(PEOPLE, "1")
    assert list(EnvironmentRepository(db, tenant_id).list().items) == []


def test_operators_see_the_jobs_of_all_tenants(db, address, operator, tenant_id, other_tenant_id):
    """Those that run or wait, running ones first; one that ended is in its tenant's list only."""
    empty_queue(db)
    submitted = []
    for tenant in (tenant_id, other_tenant_id):
        DatasetRepository(db, tenant).create("m", measures(50))
        key = str(KeyRepository(db, tenant).create("trainer", [Scope.TRAIN, Scope.READ]))
        with MLClient(address, api_key=key, tenant_id=tenant) as asks:
            submitted += [asks.jobs.train("m", "m", training={"target": "outcome"}).job_id for _ in range(2)]
            asks.jobs.cancel(submitted.pop())
    found = operator.platform.jobs()
    assert [(job.tenant_id, job.job_id, job.state) for job in found] == [
        (tenant_id, submitted[0], "queued"),
        (other_tenant_id, submitted[1], "queued"),
    ]
    JobQueue(db).claim_one(other_tenant_id, submitted[1], "test", 60)
    assert [job.state for job in operator.platform.jobs()] == ["starting", "queued"]
    empty_queue(db)


def test_jobs_that_ended_are_not_read(db, tenant_id):
    """The page of the platform asks every few seconds, and a platform has millions of them."""
    jobs = JobRepository(db, tenant_id)
    ended = jobs.submit("train", {}).job_id
    jobs.cancel(ended)
    copies = (
        "INSERT INTO mlcore.jobs SELECT copy.* FROM mlcore.jobs AS job, generate_series(1, 4000) AS number, "
        "jsonb_populate_record(job, jsonb_build_object('job_id', 'job_' || lpad(number::text, 16, '0'))) AS copy "
        "WHERE job.job_id = %s"
    )
    with superuser(db) as connection:
        connection.execute(copies, [ended])
        connection.execute("ANALYZE mlcore.jobs")
    try:
        with recorded_plans() as plans:
            JobQueue(db).active(100)
        indexes = {node["Index Name"] for plan in plans for node in plan.nodes if "Index Name" in node}
        assert {"ix_jobs_waiting", "ix_jobs_holding"} <= indexes
    finally:
        with superuser(db) as connection:
            connection.execute("DELETE FROM mlcore.jobs WHERE tenant_id = %s", [tenant_id])
            connection.execute("ANALYZE mlcore.jobs")
