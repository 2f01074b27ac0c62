"""``Retrainer``: schedules that train on an alert, from the alert to the version that is served or refused.

At its times such a schedule compares live quality and drift with the training. On an alert its job is submitted; the
version that it makes passes the gates of the environment and answers a share of the requests as a canary, until the
labels show that it is better (it becomes the stable version) or worse, or until its time is over (it is aborted).

It is level-triggered: what is to be done next follows from the schedule's row, the job and the pointer with its
history. So any number of retrainers may take turns, and each can be killed at any time.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.dataset import parse_reference
from ml_core.domain.job import Job, JobState
from ml_core.domain.job_spec import TrainJobSpec, TuneJobSpec
from ml_core.domain.quality import Score, Verdict
from ml_core.domain.retraining import Decision, OnDrift, Retraining, decide, reason_of
from ml_core.domain.schedule import Schedule
from ml_core.evaluation.live import worse_by
from ml_core.exceptions import (
    InvalidRequestError,
    MLFrameworkError,
    PromotionConflictError,
    PromotionRefusedError,
)
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.jobs.kinds import SPECS
from ml_core.jobs.schedules import act, key_of, note_of, submitted
from ml_core.jobs.submission import Jobs
from ml_core.monitoring import Quality
from ml_core.monitoring.collecting import collect_labels
from ml_core.monitoring.turns import take_turns
from ml_core.registry.predictions.live import Window
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.promotion.pointers import Pointer
from ml_core.registry.promotion.rollouts import RolloutRepository
from ml_core.registry.schedules import Due, ScheduleRepository, due_schedules, retraining_schedules
from ml_core.registry.versions.repository import VersionRepository

_log = logging.getLogger(__name__)

_MOST_DRIFTED: Final = 3
_OF_A_TENANT: Final = 3
"""Canaries of one tenant that a turn looks at."""
_LATEST_MOVES: Final = 100


class Retrainer:
    """Takes schedules on drift from one step to the next.

    Args:
        db: The registry; its principal belongs to no tenant.
    """

    def __init__(self, db: DatabaseConnection) -> None:
        self._db = db

    def run(self, stopped: threading.Event) -> None:
        """Take turns until the event is set. An error ends a turn."""
        take_turns(self.turn, stopped, "Retraining waits")

    def turn(self) -> None:
        """Look at the schedules that are due, then go on with the retrainings.

        Raises:
            RegistryUnavailableError: The registry is away; all stays as it is.
        """
        act(self._db, due_schedules(self._db, on_drift=True), _look)
        act(self._db, _few_of_each(retraining_schedules(self._db)), _go_on)


def _few_of_each(schedules: Sequence[Due]) -> list[Due]:
    """Some of the schedules of each tenant, by chance, so that no tenant keeps the others waiting."""
    mixed, taken = random.sample(schedules, len(schedules)), Counter[TenantId]()
    found = []
    for due in mixed:
        taken[due.schedule.tenant_id] += 1
        if taken[due.schedule.tenant_id] <= _OF_A_TENANT:
            found.append(due)
    return found


def _look(acting: DatabaseConnection, due: Due) -> None:
    """Submit the job of a schedule if there is an alert."""
    schedule, own = due.schedule, ScheduleRepository(acting, due.schedule.tenant_id)
    following = due.following
    if schedule.retraining is not None:
        own.advance(due, following, None, schedule.note)
        return
    is_known = Jobs(acting, schedule.tenant_id).find(key_of(schedule)) is not None
    try:
        alert = "" if is_known else alert_of(acting, schedule)
    except MLFrameworkError as error:
        own.advance(due, following, None, note_of(error))
        return
    if alert is None:
        own.advance(due, following, None, "No alert: quality and rows are as in training, or there are too few labels.")
        return
    job_id, why_none = submitted(acting, due, partial(_collect, acting, schedule))
    own.advance(due, following, job_id, why_none or alert, retrains=True)


def alert_of(db: DatabaseConnection, schedule: Schedule) -> str | None:
    """What live quality and drift of a schedule's model raise an alert for, as sentences; None: nothing.

    Raises:
        ModelNotFoundError: The environment serves nothing.
    """
    spec, rule = _parsed(schedule)
    quality = Quality(db, schedule.tenant_id)
    report = quality.report(spec.model_id, rule.environment, days=rule.days)
    drift = quality.drift(spec.model_id, rule.environment, days=rule.days)
    found = []
    if report.verdict is Verdict.ALERT:
        day = next(each for each in report.days if (each.version, each.verdict) == (report.version, Verdict.ALERT))
        if day.score is not None:
            before = report.held_out[str(report.version)].get(day.score.metric, float("nan"))
            found.append(f"{_told(day.score)} on {day.day}, {before:.4g} on the held-out rows.")
    if drift.verdict is Verdict.ALERT:
        drifted = [each.name for each in (*drift.columns, drift.prediction) if each.verdict is Verdict.ALERT]
        more = f" and {len(drifted) - _MOST_DRIFTED} more" if len(drifted) > _MOST_DRIFTED else ""
        found.append(f"Drift of {', '.join(drifted[:_MOST_DRIFTED])}{more}.")
    return " ".join(found) or None


def _collect(db: DatabaseConnection, schedule: Schedule) -> None:
    """Make the next version of the job's dataset of the labels, if the rule says so."""
    spec, rule = _parsed(schedule)
    if not rule.collect_labels or spec.training.dataset is None or spec.training.target is None:
        return
    environments, now = EnvironmentRepository(db, schedule.tenant_id), datetime.now(UTC)
    stable = environments.pointed(spec.model_id, rule.environment)
    output = VersionRepository(db, schedule.tenant_id).get(spec.model_id, stable).signature.output.kind
    window = Window(spec.model_id, rule.environment, now - timedelta(days=rule.days), now)
    dataset, _ = parse_reference(spec.training.dataset)
    collect_labels(db, schedule.tenant_id, window, dataset, spec.training.target, output)


def _go_on(acting: DatabaseConnection, due: Due) -> None:
    """Take a retraining to its next step, if it is time."""
    step = _Step.of(acting, due)
    try:
        step.take()
    except PromotionConflictError:
        pass  # somebody moved the pointer at the same time: the next turn sees what they did
    except MLFrameworkError as error:
        step.end(note_of(error))


@dataclass(frozen=True, slots=True)
class _Step:
    """A retraining as it is now."""

    db: DatabaseConnection
    due: Due
    model_id: ModelId
    rule: OnDrift
    state: Retraining

    @classmethod
    def of(cls, acting: DatabaseConnection, due: Due) -> _Step:
        spec, rule = _parsed(due.schedule)
        return cls(acting, due, spec.model_id, rule, Retraining.from_json(due.schedule.retraining or {}))

    def take(self) -> None:
        """Do what is next: wait for the job, start its canary, or compare."""
        job = Jobs(self.db, self.due.schedule.tenant_id).get(self.state.job_id)
        if not job.is_final:
            return
        if job.state is not JobState.SUCCEEDED:
            self.end(f"The job {job.job_id} is {job.state}; see it for the reason.")
            return
        version = VersionId(job.result["version"])
        environments = EnvironmentRepository(self.db, self.due.schedule.tenant_id)
        # Before the pointer: another process may start the canary in between, which must not look like one that ended.
        was_tried = self._was_tried(environments)
        pointer = environments.get(self.model_id, self.rule.environment)
        if pointer.version == version:
            self.end(f"Version {version} is served.")
        elif pointer.canary is not None and pointer.canary.version == version:
            self._compare(pointer, version)
        elif was_tried:
            self.end(f"The canary of version {version} was ended by {pointer.updated_by}.")
        else:
            self._start(pointer, job, version)

    def end(self, note: str) -> None:
        """Record how it ended."""
        self._follow(None, note)

    def _follow(self, state: Retraining | None, note: str) -> None:
        ScheduleRepository(self.db, self.due.schedule.tenant_id).follow(self.due, state, note)

    @property
    def reason(self) -> str:
        """The reason of its moves."""
        return reason_of(self.due.schedule.name, self.state.job_id)

    def _was_tried(self, environments: EnvironmentRepository) -> bool:
        latest = environments.history(self.model_id, self.rule.environment, limit=_LATEST_MOVES).items
        return any(move.reason.startswith(self.reason) for move in latest)

    def _start(self, pointer: Pointer, job: Job, version: VersionId) -> None:
        rollouts = RolloutRepository(self.db, self.due.schedule.tenant_id)
        try:
            rollouts.start(
                self.model_id,
                version,
                self.rule.canary_percent,
                self.rule.environment,
                reason=self.reason,
                expected_generation=pointer.generation,
            )
        except PromotionRefusedError as error:
            self.end(f"Version {version} of the job {job.job_id} was refused: {error.public()}")
            return
        self._follow(self.state, f"Version {version} is a canary of {self.rule.canary_percent} %.")

    def _compare(self, pointer: Pointer, version: VersionId) -> None:
        """End the canary if the labels decide, or its time is over.

        Only answers since the last move count: a canary whose share was changed gets other rows from then on.
        """
        stable = pointer.version
        if stable is None:
            return
        of = (self.model_id, self.rule.environment, (version, stable), pointer.updated_at)
        quality = Quality(self.db, self.due.schedule.tenant_id)
        labels = min(quality.labels(*of).values())
        is_over = self.due.now - pointer.updated_at > timedelta(hours=self.rule.canary_hours)
        if not is_over and not self.state.is_due(labels, self.rule):
            return
        scores = quality.scores(*of)
        canary, other = scores.get(version), scores.get(stable)
        decision = Decision.WAIT
        told = f"Canary: {_told(canary)}; stable: {_told(other)}."
        if canary is not None and other is not None and self.state.is_due(labels, self.rule):
            decision = decide(worse_by(canary, other))
        if decision is Decision.FINISH:
            self._finish(pointer, version, told)
        elif decision is Decision.ABORT or is_over:
            why = "It is worse" if decision is Decision.ABORT else "Its time is over, and it is not shown to be better"
            self._abort(pointer, version, f"{why}. {told}")
        else:
            self._follow(replace(self.state, compared_labels=labels), f"Version {version} is on trial. {told}")

    def _finish(self, pointer: Pointer, version: VersionId, told: str) -> None:
        rollouts = RolloutRepository(self.db, self.due.schedule.tenant_id)
        reason = f"{self.reason}. {told}"
        try:
            rollouts.finish(self.model_id, self.rule.environment, reason=reason, expected_generation=pointer.generation)
        except PromotionRefusedError as error:
            self._abort(pointer, version, str(error.public()))
            return
        self.end(f"Version {version} is served. {told}")

    def _abort(self, pointer: Pointer, version: VersionId, why: str) -> None:
        rollouts = RolloutRepository(self.db, self.due.schedule.tenant_id)
        reason = f"{self.reason}. {why}"
        rollouts.abort(self.model_id, self.rule.environment, reason=reason, expected_generation=pointer.generation)
        self.end(f"Version {version} was aborted. {why}")


def _parsed(schedule: Schedule) -> tuple[TrainJobSpec | TuneJobSpec, OnDrift]:
    spec = SPECS[schedule.kind].from_json(schedule.spec)
    if not isinstance(spec, TrainJobSpec | TuneJobSpec):
        raise InvalidRequestError("The schedule trains nothing.", remedy="Delete it.", field="on_drift")
    return spec, OnDrift.from_json(schedule.on_drift or {})


def _told(score: Score | None) -> str:
    return "no label" if score is None else f"{score.metric} {score.value:.4g} of {score.rows:,} labels"
