"""``TrialLog``: the trials of a search as runs in the registry, which are all that another attempt needs to go on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.domain.run import Run, RunStatus
from ml_core.exceptions import MLFrameworkError, RunStateError
from ml_core.ids import ModelId, TenantId
from ml_core.registry.heartbeat import beating
from ml_core.registry.pages import every
from ml_core.registry.runs import RunRepository
from ml_core.training.samplers import Configuration

KIND = "trial"
"""Of the runs."""
CROSS_VALIDATED = "cv/"
"""Begins the names of metrics that are means over folds."""
_CPU_S = "cpu_s"
_LOST = "Its search was lost, and another attempt repeats it."


@dataclass(slots=True)
class Trial:
    """One configuration and what came of it.

    Attributes:
        run_id: The run that records it.
        number: Its place in the search, from 1.
        metrics: Rows of the fits together (``Rung.cost``) → metric → mean over the folds.
        error: Why it failed, or None.
        cpu_s: Core-seconds.
    """

    run_id: str
    number: int
    configuration: Configuration
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    error: str | None = None
    cpu_s: float = 0.0

    @property
    def cost(self) -> int:
        """The most rows of fits after which it was measured."""
        return max(self.metrics)


class TrialLog:
    """The trials of one search.

    Args:
        db: The registry.
        tenant_id: The tenant.
        model_id: The model.
        search_id: What all attempts at the search have in common.
        run_id: The run of this attempt, whose parts the trials are.
        metric: By which the best is chosen.
        on_trial: Called with this when a trial has ended.

    Attributes:
        ended: The trials that ended, those of earlier attempts included.
        running: Run → the trial that it records, of those that run.
        total: Trials that there may be; None: not known yet.
        seconds: That earlier attempts took.
    """

    def __init__(
        self,
        db: DatabaseConnection,
        tenant_id: TenantId,
        model_id: ModelId,
        search_id: str,
        run_id: str,
        metric: str,
        on_trial: Callable[[TrialLog], object],
    ) -> None:
        self._runs = RunRepository(db, tenant_id)
        self._model_id, self._search_id, self._run_id = model_id, search_id, run_id
        self.metric, self._on_trial = metric, on_trial
        self.total: int | None = None
        self.running: dict[str, Trial] = {}
        self.ended, self.seconds = self._past()

    @property
    def best(self) -> Trial | None:
        """The best of the trials that were measured most thoroughly."""
        sign = 1 if HIGHER_IS_BETTER[self.metric] else -1
        measured = [trial for trial in self.ended if trial.error is None and trial.metrics]
        key = lambda trial: (trial.cost, sign * trial.metrics[trial.cost][self.metric], -trial.number)  # noqa: E731
        return max(measured, key=key, default=None)

    @property
    def best_metric(self) -> dict[str, float]:
        """The metric that counts and its best value; empty before there is one."""
        best = self.best
        return {} if best is None else {f"{CROSS_VALIDATED}{self.metric}": best.metrics[best.cost][self.metric]}

    def start(self, configuration: Configuration) -> Trial:
        """A new trial begins."""
        number = max((trial.number for trial in (*self.ended, *self.running.values())), default=0) + 1
        parameters = {"search": self._search_id, "trial": number, "hyperparameters": dict(configuration)}
        run_id = self._runs.start(self._model_id, kind=KIND, parameters=parameters, parent_run_id=self._run_id)
        self.running[run_id] = Trial(run_id, number, configuration)
        return self.running[run_id]

    def measured(self, trial: Trial, cost: int, metrics: dict[str, float], cpu_s: float) -> None:
        """A trial was measured after fits on so many rows in all."""
        trial.metrics[cost], trial.cpu_s = metrics, cpu_s
        values = {f"{CROSS_VALIDATED}{name}": value for name, value in metrics.items()}
        self._runs.log_metrics(trial.run_id, {**values, _CPU_S: cpu_s}, cost)

    def end(self, trial: Trial, error: str | None) -> None:
        """A trial ended, with the reason if it failed."""
        del self.running[trial.run_id]
        trial.error = error
        if error is None:
            self._runs.finish(trial.run_id)
        else:
            self._runs.fail(trial.run_id, error)
        self.ended.append(trial)
        if best := self.best_metric:
            self._runs.log_metrics(self._run_id, best, len(self.ended))
        self._on_trial(self)

    def stop(self) -> None:
        """End the runs of the trials that run: the search is over."""
        with suppress(MLFrameworkError):  # they count as dead soon, and another attempt ends them
            while self.running:
                self._runs.cancel(self.running.popitem()[0], "The search was over before it ended.")

    def heartbeats(self) -> AbstractContextManager[None]:
        """Send heartbeats of all trials that run while a block runs."""
        return beating(self._beat, self._runs.beat_every_s)

    def _beat(self) -> None:
        for run_id in list(self.running):
            with suppress(RunStateError):  # it ended meanwhile
                self._runs.beat(run_id)

    def _past(self) -> tuple[list[Trial], float]:
        """The trials that earlier attempts ended, and the seconds of these attempts; ends the runs of the others."""
        wanted = {"search": self._search_id}
        trials: list[Trial] = []
        spans: dict[str | None, list[float]] = {}
        for run in every(
            lambda limit, cursor: self._runs.search(
                self._model_id, kind=KIND, parameters=wanted, limit=limit, cursor=cursor
            )
        ):
            has_ended = run.status in (RunStatus.FINISHED, RunStatus.FAILED)
            last = run.finished_at if has_ended and run.finished_at is not None else run.heartbeat_at
            spans.setdefault(run.parent_run_id, []).extend([run.started_at.timestamp(), last.timestamp()])
            if has_ended:
                trials.append(self._read(run))
            else:
                with suppress(RunStateError):  # it was cancelled before
                    self._runs.cancel(run.run_id, _LOST)
        return sorted(trials, key=lambda trial: trial.number), sum(max(span) - min(span) for span in spans.values())

    def _read(self, run: Run) -> Trial:
        trial = Trial(run.run_id, int(run.parameters["trial"]), run.parameters["hyperparameters"], error=run.error)
        for name in run.metrics:
            for point in self._runs.series(run.run_id, name).points:
                if name == _CPU_S:
                    trial.cpu_s = max(trial.cpu_s, point.value)
                else:
                    of = trial.metrics.setdefault(point.step, {})
                    of[name.removeprefix(CROSS_VALIDATED)] = point.value
        return trial
