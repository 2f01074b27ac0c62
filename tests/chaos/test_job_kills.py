"""Any process is killed at a random moment of a job, and the job ends in one version all the same.

``make test`` kills Ray once; MLCORE_TEST_KILLS=50 makes it 50 kills of one process after the other, MLCORE_TEST_SEED
other moments.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import psutil
import pytest

from ml_core.domain.job import Job, JobState
from ml_core.jobs.submission import Jobs
from ml_core.models.store import platform_store
from ml_core.platform.processes import find_marked
from ml_core.registry.collection.fsck import Checker
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.repository import VersionRepository
from support.running_platform import RunningPlatform, running_platform
from support.tables import measures
from support.waiting import wait_until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(7_200)]

WITHIN_S = 240.0
PHASES = ("submitted", "starting", "fit", "register")
LATEST_S = 1.5
"""After the beginning of a phase."""
VICTIMS = ("raylet", "worker", "driver", "dispatcher", "postgres")
KILLS = int(os.environ.get("MLCORE_TEST_KILLS", "1"))
SEED = int(os.environ.get("MLCORE_TEST_SEED", "0"))
TRAINING = {
    "dataset": "m",
    "target": "outcome",
    "hyperparameters": {"algorithm": "random_forest", "n_estimators": 400},
}


@pytest.fixture(scope="module")
def victim() -> Iterator[tuple[RunningPlatform, Jobs]]:
    """A platform of these tests' own, with a tenant that has a dataset."""
    with running_platform() as platform:
        tenant = platform.tenant("acme")
        DatasetRepository(platform.db, tenant.tenant_id).create("m", measures(600))
        yield platform, Jobs(platform.db, tenant.tenant_id)


def named(platform: RunningPlatform, *words: str) -> list[psutil.Process]:
    """The platform's processes with these words in their title or arguments."""
    state, found = platform.local.state, []
    assert state is not None
    for process in find_marked(platform.settings.platform.home, state.session_id):
        with suppress(psutil.NoSuchProcess):
            title = " ".join([process.name(), *process.cmdline()])
            if all(word in title for word in words):
                found.append(process)
    return found


def has_reached(job: Job, phase: str) -> bool:
    """Whether a job is in a phase, or after it."""
    return phase == "submitted" or job.is_final or phase in (job.state.value, job.progress.get("stage"))


def kill(platform: RunningPlatform, victim: str) -> int:
    """kill -9 a kind of process, and what a person does afterwards; how many were killed."""
    if victim == "postgres":
        path = platform.settings.platform.home / "postgres" / "postmaster.pid"
        processes = [psutil.Process(int(path.read_text().splitlines()[0]))]
    else:
        titles = {"worker": "ml_core.jobs.worker", "driver": "JobSupervisor", "dispatcher": "ServeReplica:control-loop"}
        processes = named(platform, titles.get(victim, victim))
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(processes, timeout=10)
    if victim in ("raylet", "postgres"):
        platform.local.up()
    return len(processes)


def test_a_job_whose_processes_are_killed_ends_in_one_version(
    victim: tuple[RunningPlatform, Jobs], capsys: pytest.CaptureFixture[str]
) -> None:
    """Once, promoted once; nothing is left of the attempts that were lost."""
    platform, jobs = victim
    moments, killed = random.Random(SEED), Counter[tuple[str, str]]()
    for number in range(KILLS):
        kind = VICTIMS[number % len(VICTIMS)]
        job_id = jobs.train(f"m{number}", TRAINING, promote_to="production").job_id
        phase, after_s = moments.choice(PHASES), moments.uniform(0.0, LATEST_S)
        wait_until(lambda job_id=job_id, phase=phase: has_reached(jobs.get(job_id), phase), WITHIN_S)
        threading.Event().wait(after_s)  # the moment is the test's own choice: nothing is waited for
        before = jobs.get(job_id)
        found = kill(platform, kind)
        killed[kind, before.progress.get("stage", before.state.value) if found else "not there"] += 1
        job = wait_until(lambda job_id=job_id: (seen := jobs.get(job_id)).is_final and seen, WITHIN_S)
        assert job.state is JobState.SUCCEEDED, (kind, phase, after_s, job.error, jobs.log(job_id).text)
        _refuse_leftovers(platform, job)
    counted = ", ".join(f"{who} {when} {n}" for (who, when), n in sorted(killed.items()))
    with capsys.disabled():
        print(f"{KILLS} kills, seed {SEED}: {counted}")  # noqa: T201 - the figure
    wait_until(lambda: not named(platform, "ml_core.jobs.worker"), WITHIN_S)
    grace = timedelta(seconds=platform.settings.collection.grace_s)
    checker = Checker(platform.db, platform_store(platform.settings), grace)
    assert list(checker.check(platform.tenant("acme").tenant_id)) == []


def _refuse_leftovers(platform: RunningPlatform, job: Job) -> None:
    model_id, tenant_id = str(job.spec["model_id"]), job.tenant_id
    (version,) = VersionRepository(platform.db, tenant_id).list(model_id).items
    assert (version.version, job.result["version"]) == ("1", "1")
    moves = EnvironmentRepository(platform.db, tenant_id).history(model_id, "production").items
    assert [move.version for move in moves] == ["1"]
    runs = RunRepository(platform.db, tenant_id)
    mine = runs.search(model_id).items
    assert not [run.run_id for run in mine if run.status.value == "running"]
    assert [run.run_id for run in mine if run.status.value == "finished"] == [version.lineage.run_id]
