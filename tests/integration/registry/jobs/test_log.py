"""The log of a job: what is said stays in order, bounded, and whole lines."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_core.exceptions import JobNotFoundError
from ml_core.registry.jobs import JobQueue, JobRepository
from support.job_queue import empty_queue
from support.registry import new_tenant

LEASE_S = 60.0
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=1_200)


@pytest.fixture(scope="module")
def shared_jobs(db) -> JobRepository:
    """The jobs of a tenant for all examples of a property."""
    return JobRepository(db, new_tenant(db))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(TEXTS, max_size=4), max_size=4))
def test_each_line_is_one_line_with_its_time(shared_jobs: JobRepository, batches: list[list[str]]) -> None:
    """Whatever is in it; the parts that positions name are the whole."""
    job_id = shared_jobs.submit("train", {}).job_id
    parts, position = [], 0
    for batch in batches:
        shared_jobs.say(job_id, batch)
        part = shared_jobs.log(job_id, position)
        parts.append(part.text)
        position = part.position
    lines = shared_jobs.log(job_id).text.split("\n")
    assert "".join(parts) == "\n".join(lines)
    said = [" ".join(text.split())[:1_000] for batch in batches for text in batch]
    assert [line.partition(" ")[2] for line in lines[:-1]] == said
    assert all(line[10] == "T" and line[19:21] == "Z " for line in lines[:-1])
    shared_jobs.cancel(job_id)


def test_a_log_that_is_full_says_so_once(shared_jobs: JobRepository) -> None:
    job_id = shared_jobs.submit("train", {}).job_id
    for _ in range(80):
        shared_jobs.say(job_id, ["é" * 900])
    text = shared_jobs.log(job_id).text
    assert len(text.encode()) < 65_536
    assert text.endswith("The log is full; what follows is left out.\n")
    assert text.count("The log is full") == 1


def test_the_life_of_a_job_is_in_its_log(db, shared_jobs: JobRepository) -> None:
    """Attempts, why one was lost, and why the job failed."""
    empty_queue(db)
    job_id = shared_jobs.submit("train", {}, max_attempts=1).job_id
    attempt = JobQueue(db).claim("test", 1, LEASE_S)
    assert attempt is not None
    shared_jobs.begin(job_id, attempt.run_id, LEASE_S)
    shared_jobs.beat(job_id, attempt.run_id, LEASE_S, {"stage": "fit"}, ["Stage: fit."])
    shared_jobs.lose(job_id, attempt.run_id, "killed")
    lines = [line.partition(" ")[2] for line in shared_jobs.log(job_id).text.splitlines()]
    assert lines == [
        f"Attempt 1 of 1 begins; its run is {attempt.run_id}.",
        "Stage: fit.",
        "Attempt 1 is lost: killed",
        "Failed: The process was lost 1 times; the last time: killed",
    ]


def test_another_tenants_job_has_no_log(db, shared_jobs: JobRepository, tenant_id) -> None:
    job_id = shared_jobs.submit("train", {}).job_id
    with pytest.raises(JobNotFoundError):
        JobRepository(db, tenant_id).log(job_id)
