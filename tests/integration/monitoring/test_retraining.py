"""A schedule that trains on an alert: from a stream whose concept changes to the version that is served, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pytest
from river.datasets import synth

from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import schedules
from ml_core.domain.api_key import Scope
from ml_core.domain.job import JobState
from ml_core.domain.job_spec import PredictJobSpec, TrainJobSpec
from ml_core.domain.quality import Verdict
from ml_core.domain.retraining import OnDrift
from ml_core.domain.schedule import Schedule
from ml_core.exceptions import InvalidRequestError, PermissionDeniedError, RegistryUnavailableError
from ml_core.ids import DatasetId, ModelId
from ml_core.jobs.here import executing
from ml_core.jobs.retraining import Retrainer
from ml_core.jobs.schedules import Schedules, submit_due
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.schedules import ScheduleRepository
from ml_core.system import MLSystem
from support.job_queue import empty_queue
from support.live import LiveModel, days_ago
from support.registry import superuser

RULE = OnDrift(days=2, canary_percent=50, min_labels=100)
BEFORE, AFTER = 0, 2
"""Functions of Agrawal: by the age alone, and by age and education."""


def rows(concept: int, count: int, seed: int = 0) -> pd.DataFrame:
    """Loan applications with their class by one concept."""
    stream = synth.Agrawal(classification_function=concept, seed=seed)
    return pd.DataFrame([{**x, "group": f"g{y}"} for x, y in islice(stream, count)])


class Loans:
    """A model of loans that is served, and its schedule."""

    def __init__(self, db: DatabaseConnection, system: MLSystem) -> None:
        self.db, self.system, self.tenant_id = db, system, system.tenant_id
        system.datasets.create("loans", rows(BEFORE, 1_500))
        self.training = {
            "dataset": "loans",
            "target": "group",
            "model_type": "classification",
            "hyperparameters": {"algorithm": "gradient_boosting", "max_iter": 30},
        }
        made = system.trainer.train_spec(ModelId("loans"), self.spec.training)
        system.promote("loans", made.version)
        self.model = LiveModel(db, system, "loans")
        self.model.keep()

    @property
    def spec(self) -> TrainJobSpec:
        return TrainJobSpec.from_json({"model_id": "loans", "training": self.training})

    def watch(self, rule: OnDrift = RULE, db: DatabaseConnection | None = None) -> Schedule:
        return Schedules(db or self.db, self.tenant_id).create("watch", "0 * * * *", self.spec, on_drift=rule)

    def ask(self, concept: int, count: int, seed: int, *, at: float | None = None) -> None:
        """Requests of one concept, labelled."""
        frame = rows(concept, count, seed)
        self.model.ask(frame.drop(columns=["group"]), frame["group"], at=at)

    def turn(self, *, is_due: bool = False) -> Schedule:
        """A turn of a retrainer that was just started; the schedule afterwards."""
        if is_due:
            with self.db.tenant(self.tenant_id) as connection:
                connection.execute(schedules.update().values(next_at=datetime.now(UTC) - timedelta(seconds=1)))
        Retrainer(self.db).turn()
        return ScheduleRepository(self.db, self.tenant_id).get("watch")

    def finish_job(self) -> None:
        """Execute the job of the schedule, as a process of the platform does."""
        (job,) = self.system.jobs.list(state=JobState.QUEUED).items
        with executing(self.db, self.tenant_id, job.job_id):
            self.system.jobs.wait(job.job_id, timeout_s=120, progress=False)

    @property
    def served(self) -> tuple[str, str | None]:
        """The stable version and the canary."""
        pointer = self.system.environments.get("loans")
        return str(pointer.version), pointer.canary and str(pointer.canary.version)

    def until_canary(self) -> None:
        """Raise an alert, train, and start the canary."""
        self.ask(AFTER, 500, seed=2)
        assert self.turn(is_due=True).retraining is not None
        self.finish_job()
        self.turn()
        assert self.served == ("1", "2")


@pytest.fixture
def loans(db, tenant_id) -> Iterator[Loans]:
    """One whose schedule does not exist yet."""
    empty_queue(db)
    with MLSystem(db, tenant_id=tenant_id) as system:
        yield Loans(db, system)


def test_a_concept_changes_and_the_retrained_version_wins(loans) -> None:
    """Quality falls, the labels of the new concept become a dataset, the canary is better, and quality is back."""
    loans.watch(OnDrift(days=2, canary_percent=50, min_labels=100, collect_labels=True))
    loans.ask(BEFORE, 400, seed=1, at=days_ago(3))
    loans.ask(BEFORE, 200, seed=6)
    quiet = loans.turn(is_due=True)
    assert (quiet.last_job_id, quiet.retraining) == (None, None)
    assert quiet.note.startswith("No alert")
    loans.ask(AFTER, 800, seed=2)
    before = loans.system.quality.report("loans", days=2)
    assert before.verdict is Verdict.ALERT
    found = loans.turn(is_due=True)
    assert found.note.startswith("accuracy 0.")
    collected = loans.system.datasets.get("loans@2")
    assert (collected.row_count, collected.source["kind"], collected.source["labels"]) == (1_000, "labels", 1_000)
    assert loans.turn().retraining["job_id"] == found.last_job_id
    loans.finish_job()
    assert loans.turn().note == "Version 2 is a canary of 50 %."
    assert loans.served == ("1", "2")
    loans.ask(AFTER, 150, seed=3)
    assert loans.served == ("1", "2"), "there are fewer labels than the rule asks for"
    loans.turn()
    loans.ask(AFTER, 400, seed=4)
    done = loans.turn()
    assert loans.served == ("2", None)
    assert done.note.startswith("Version 2 is served. Canary: accuracy 0.")
    assert done.retraining is None
    (promoted, started) = loans.system.history("loans")[:2]
    assert (promoted.action, started.action) == ("finish", "start_canary")
    assert promoted.reason.startswith(f"retraining watch: job {found.last_job_id}. Canary: accuracy")
    loans.ask(AFTER, 400, seed=5)
    after = next(day for day in loans.system.quality.report("loans", days=2).days if day.version == "2")
    worse = next(day for day in before.days if day.version == "1")
    assert after.verdict is Verdict.OK
    assert after.score.value > worse.score.value + 0.2
    assert loans.turn(is_due=True).note.startswith("No alert")


def test_a_retrained_version_that_is_worse_is_aborted(loans) -> None:
    """Whoever writes the dataset wrote nonsense into it; the stable version stays."""
    loans.watch()
    spoilt = rows(AFTER, 1_000, seed=7)
    spoilt["group"] = np.random.default_rng(0).permutation(spoilt["group"])
    loans.system.datasets.create("loans", spoilt)
    shifted = rows(BEFORE, 500, seed=2).assign(salary=lambda frame: frame["salary"] + 200_000.0)
    loans.model.ask(shifted.drop(columns=["group"]), shifted["group"])
    found = loans.turn(is_due=True)
    assert "Drift of salary" in found.note
    loans.finish_job()
    loans.turn()
    assert loans.served == ("1", "2")
    loans.ask(BEFORE, 500, seed=3)
    done = loans.turn()
    assert loans.served == ("1", None)
    assert done.note.startswith("Version 2 was aborted. It is worse. Canary: accuracy 0.")
    assert done.retraining is None
    assert loans.system.history("loans")[0].action == "abort"


def test_a_gate_refuses_the_retrained_version(loans) -> None:
    """Before it answers any request."""
    loans.watch()
    loans.system.gates.set("loans", "production", "good", "min_metric", {"metric": "accuracy", "value": 0.999999})
    loans.system.datasets.create("loans", rows(AFTER, 300, seed=7).assign(group=["g0", "g1", "g1"] * 100))
    loans.ask(AFTER, 500, seed=2)
    loans.turn(is_due=True)
    loans.finish_job()
    done = loans.turn()
    assert loans.served == ("1", None)
    assert "was refused" in done.note
    assert done.retraining is None


def test_a_canary_that_is_not_shown_to_be_better_is_aborted_in_time(loans) -> None:
    """Few labels arrive, so nothing is shown."""
    loans.watch()
    loans.until_canary()
    loans.ask(AFTER, 40, seed=3)
    assert loans.turn().retraining is not None
    with superuser(loans.db) as session:
        session.execute(
            "UPDATE mlcore.environments SET updated_at = updated_at - interval '73 hours' WHERE tenant_id = %s",
            [loans.tenant_id],
        )
    done = loans.turn()
    assert loans.served == ("1", None)
    assert "Its time is over" in done.note


def test_a_job_that_fails_ends_the_retraining(loans) -> None:
    """The next alert begins another."""
    loans.watch()
    loans.ask(AFTER, 500, seed=2)
    loans.turn(is_due=True)
    (job,) = loans.system.jobs.list(state=JobState.QUEUED).items
    loans.system.jobs.cancel(job.job_id)
    ended = loans.turn()
    assert ended.retraining is None
    assert ended.note == f"The job {job.job_id} is cancelled; see it for the reason."
    again = loans.turn(is_due=True)
    assert again.last_job_id != job.job_id
    assert again.retraining is not None


def test_a_person_who_ends_the_canary_is_heeded(loans) -> None:
    """It is not started again."""
    loans.watch()
    loans.until_canary()
    loans.system.rollouts.abort("loans")
    assert "was ended by" in loans.turn().note
    assert loans.turn().retraining is None
    assert loans.served == ("1", None)


@pytest.mark.parametrize("method", ["advance", "follow"])
def test_a_retrainer_that_is_killed_between_two_writes_is_continued(loans, monkeypatch, method) -> None:
    """After what it did, and before it said so: one job, one canary, one promotion."""
    loans.watch()
    loans.system.datasets.create("loans", rows(AFTER, 1_000, seed=7))
    loans.ask(AFTER, 500, seed=2)
    real, killed = getattr(ScheduleRepository, method), []

    def dies(*given, **more):
        if len(killed) % 2 == 0:  # each first time
            killed.append(given)
            raise RegistryUnavailableError("killed")
        killed.append(given)
        return real(*given, **more)

    def turn(*, is_due: bool = False) -> None:
        """Until nothing is killed."""
        before = len(killed)
        try:
            loans.turn(is_due=is_due)
        except RegistryUnavailableError:
            loans.turn()
        assert len(killed) >= before

    monkeypatch.setattr(ScheduleRepository, method, dies)
    turn(is_due=True)
    loans.finish_job()
    turn()
    loans.ask(AFTER, 500, seed=3)
    turn()
    turn()
    monkeypatch.setattr(ScheduleRepository, method, real)
    assert killed
    assert loans.turn().retraining is None
    assert loans.served == ("2", None)
    assert [move.action for move in loans.system.history("loans")] == ["finish", "start_canary", "promote"]
    assert len(loans.system.jobs.list().items) == 1


def test_several_retrainers_do_each_step_once(loans) -> None:
    """As while one control loop is replaced by another."""
    loans.watch()
    loans.system.datasets.create("loans", rows(AFTER, 1_000, seed=7))
    loans.ask(AFTER, 500, seed=2)
    with loans.db.tenant(loans.tenant_id) as connection:
        connection.execute(schedules.update().values(next_at=datetime.now(UTC) - timedelta(seconds=1)))

    def together() -> None:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: Retrainer(loans.db).turn(), range(3)))

    together()
    loans.finish_job()
    together()
    loans.ask(AFTER, 500, seed=3)
    together()
    together()
    assert [move.action for move in loans.system.history("loans")] == ["finish", "start_canary", "promote"]


def test_a_canary_that_another_process_starts_meanwhile_goes_on(loans, monkeypatch) -> None:
    """Between the two reads of a retrainer, whichever it does first."""
    loans.watch()
    loans.system.datasets.create("loans", rows(AFTER, 1_000, seed=7))
    loans.ask(AFTER, 500, seed=2)
    loans.turn(is_due=True)
    loans.finish_job()
    others = [Retrainer(loans.db)]

    def then_another(read: Any) -> Any:
        def reads(*arguments: Any, **options: Any) -> Any:
            found = read(*arguments, **options)
            if others:
                others.pop().turn()
            return found

        return reads

    for name in ("get", "history"):
        monkeypatch.setattr(EnvironmentRepository, name, then_another(getattr(EnvironmentRepository, name)))
    assert loans.turn().retraining is not None
    assert not others
    assert loans.served == ("1", "2")


def test_it_acts_with_the_rights_of_its_creator(loans) -> None:
    """Who may not move the environment creates no such schedule, and a revoked key stops it."""
    keys = KeyRepository(loans.db, loans.tenant_id)
    trains = loans.db.acting_as(keys.authenticate(str(keys.create("trains", [Scope.TRAIN]))))
    with pytest.raises(PermissionDeniedError, match=r"may not change what .*production serves"):
        loans.watch(db=trains)
    key = keys.create("both", [Scope.TRAIN, "promote:production"])
    loans.watch(db=loans.db.acting_as(keys.authenticate(str(key))))
    loans.until_canary()
    assert loans.system.history("loans")[0].actor == f"key:{key.key_id}"
    keys.revoke(key.key_id)
    assert loans.turn().state == "stopped"


def test_what_could_not_be_done_is_refused_at_once(loans) -> None:
    """A job that makes no version or promotes by itself, and numbers out of range."""
    own = Schedules(loans.db, loans.tenant_id)
    predicts = PredictJobSpec(ModelId("loans"), "loans", DatasetId("out"))
    promotes = TrainJobSpec.from_json({"model_id": "loans", "training": loans.training, "promote_to": "staging"})
    for spec in (predicts, promotes):
        with pytest.raises(InvalidRequestError, match="tries it as a canary"):
            own.create("watch", "0 * * * *", spec, on_drift=RULE)
    loans.training["group"] = "zipcode"
    with pytest.raises(InvalidRequestError, match="the prediction log has no group column"):
        loans.watch(OnDrift(collect_labels=True))
    del loans.training["group"]
    for wrong in ({"days": 0}, {"canary_percent": 100}, {"min_labels": 5}, {"canary_hours": 0}, {"percent": 5}):
        with pytest.raises(InvalidRequestError):
            OnDrift.from_json(wrong)
    loans.watch()
    submit_due(loans.db)
    assert loans.turn(is_due=True).note.startswith("No alert"), "the dispatcher leaves it to the retrainer"
