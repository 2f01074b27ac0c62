"""``run_trials``: the trials of a search with Ray Tune, on actors that are used again from trial to trial.

Tune only runs trials here. What was tried and found is in the registry (``TrialLog``), so Tune's own state is never
read: it lies in a folder that only this platform's user can open, and is removed at the end.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from filelock import FileLock, Timeout
from ray import tune
from ray.exceptions import OutOfMemoryError, WorkerCrashedError
from ray.tune.search import Searcher
from threadpoolctl import threadpool_limits

from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.evaluation.metrics import Metrics
from ml_core.exceptions import MLFrameworkError, public_text
from ml_core.models.model_factory import find_algorithm
from ml_core.training.cross_validation import EncodedFold, Objective, Rung
from ml_core.training.samplers import Proposals
from ml_core.training.trial_log import Trial, TrialLog

_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # which prints, however quiet it is to be
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would turn Ctrl-C into a regular end
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
_REDUCTION = 3
# It misses files of results, which nobody reads.
logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
_DIED = "Its process ended: most often, it ran out of memory. Search over smaller models, or train on fewer rows."
_NO_MEMORY = "It ran out of memory."


@dataclass(frozen=True, slots=True)
class Budget:
    """What a search may use; None: unbounded.

    Attributes:
        trials: In all.
        seconds: From now.
        cpu_seconds: Core-seconds of trials, in all.
        at_once: Trials at the same time, one core each.
    """

    trials: int
    seconds: float | None
    cpu_seconds: float | None
    at_once: int


def run_trials(
    objective: Objective,
    folds: Mapping[bool, Callable[[], Iterable[EncodedFold]]],
    rungs: Sequence[Rung],
    proposals: Proposals,
    log: TrialLog,
    budget: Budget,
    home: Path,
) -> None:
    """Run trials until the budget is used up or there is nothing new to try. Ray is initialised.

    Args:
        objective: What is measured.
        folds: Whether an estimator takes sparse matrices → its folds, each put into Ray's object store once. Without
            an entry for False all take those for True.
        rungs: On which a trial is measured one after the other.
        proposals: What to try.
        log: Where trials are recorded; has those of earlier attempts.
        budget: What may be used.
        home: The platform's folder.

    Raises:
        MLFrameworkError: The registry refuses or is away.
    """
    put = {takes_sparse: [ray.put(fold) for fold in encode()] for takes_sparse, encode in folds.items()}
    driver = _Driver(objective, False not in folds, rungs, proposals, log, budget)
    trainable = tune.with_parameters(_Trial, objective=objective, folds=put, rungs=rungs)
    with ExitStack() as stack:
        stack.callback(log.stop)
        stack.enter_context(_environment(_SETTINGS))
        stack.enter_context(log.heartbeats())
        folder = stack.enter_context(_storage(home))
        found = tune.run(
            trainable,
            name="search",
            storage_path=str(folder),
            search_alg=driver,
            stop=_Stopper(driver),
            num_samples=budget.trials,
            max_concurrent_trials=budget.at_once,
            resources_per_trial={"cpu": 1},
            reuse_actors=True,
            raise_on_failed_trial=False,
            verbose=0,
            trial_dirname_creator=lambda trial: str(trial.trial_id),  # by default it has the hyperparameters
        )
        for storage in {trial.storage for trial in found.trials if trial.storage is not None}:
            shutil.rmtree(Path(storage.experiment_driver_staging_path).parent, ignore_errors=True)
        if driver.error is not None:
            raise driver.error


@ray.remote(num_cpus=0, max_retries=0)
def _measured(
    objective: Objective, configuration: Mapping[str, Any], share: float, *folds: EncodedFold
) -> tuple[list[Metrics] | str, float]:
    """The metrics of a configuration on each fold, or why there are none; and seconds of the core."""
    began = time.process_time()
    try:
        with threadpool_limits(1):
            return [objective.measure(fold, configuration, share) for fold in folds], time.process_time() - began
    except MemoryError:
        return _NO_MEMORY, time.process_time() - began
    except Exception as error:  # noqa: BLE001 - an estimator can raise anything, and the next trial goes on
        return public_text(error), time.process_time() - began


class _Trial(tune.Trainable):
    """One trial after the other; a step is a rung.

    Fits are done in a task, for which this process waits: Tune ends the search if Ray's memory monitor kills an actor.
    """

    def setup(  # type: ignore[override]  # tune.with_parameters gives the others
        self,
        config: dict[str, Any],
        objective: Objective,
        folds: Mapping[bool, Sequence[Any]],
        rungs: Sequence[Rung],
    ) -> None:
        self._objective, self._folds, self._rungs = ray.put(objective), folds, rungs
        self._mean = objective.mean
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}  # whose core this process has
        self._measured = _measured.options(label_selector=here)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._configuration, self._takes_sparse = new_config["configuration"], new_config["takes_sparse"]
        self._step, self._cpu_s = 0, 0.0
        self._found: dict[float, list[Metrics]] = {}  # by share, of the first folds
        return True

    def step(self) -> dict[str, Any]:
        rung = self._rungs[self._step]
        self._step += 1
        known = self._found.setdefault(rung.share, [])
        folds = self._folds[self._takes_sparse][len(known) : rung.folds]
        try:
            found, cpu_s = ray.get(self._measured.remote(self._objective, self._configuration, rung.share, *folds))
        except OutOfMemoryError:
            return {"failed": _NO_MEMORY, "done": True}
        except WorkerCrashedError:
            return {"failed": _DIED, "done": True}
        self._cpu_s += cpu_s
        if isinstance(found, str):
            return {"failed": found, "done": True}
        known += found
        of_rung = {"cost": rung.cost, "metrics": self._mean(known), "cpu_s": self._cpu_s}
        return {"found": of_rung, "done": self._step == len(self._rungs)}


class _Driver(Searcher):
    """Gives Tune configurations, records what its trials report, and stops those that are not worth more.

    Tune swallows exceptions of its listeners, so the first one is kept in ``error``, and the search ends with it.
    """

    def __init__(
        self,
        objective: Objective,
        sparse_only: bool,
        rungs: Sequence[Rung],
        proposals: Proposals,
        log: TrialLog,
        budget: Budget,
    ) -> None:
        super().__init__()
        self._objective, self._sparse_only, self._proposals, self._log = objective, sparse_only, proposals, log
        self._budget = budget
        self._ends_at = None if budget.seconds is None else time.monotonic() + budget.seconds
        self._of: dict[str, Trial] = {}
        self._rungs: dict[int, list[float]] = {rung.cost: [] for rung in rungs}
        self.error: MLFrameworkError | None = None
        for trial in log.ended:
            for of, score in self._scores(trial).items():
                self._rungs.get(of, []).append(score)
            self._learn(trial)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]  # FINISHED is a text
        with self._kept():
            log = self._log
            is_over = self.is_over() or len(log.ended) + len(log.running) >= self._budget.trials
            configuration = None if is_over else self._proposals.propose()
            if configuration is not None:
                self._of[trial_id] = log.start(configuration)
                algorithm = find_algorithm(self._objective.model_type, configuration["algorithm"])
                takes_sparse = algorithm.takes_sparse or self._sparse_only
                return {"configuration": dict(configuration), "takes_sparse": takes_sparse}
        return str(Searcher.FINISHED)

    def hear(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Record a result; whether its trial ends with it: only the best third of those on its rung goes on (ASHA)."""
        trial, found = self._of[trial_id], result.get("found")
        if found is None:
            return True
        cost = found["cost"]
        with self._kept():
            self._log.measured(trial, cost, found["metrics"], found["cpu_s"])
        score, rung = self._scores(trial)[cost], self._rungs[cost]
        is_behind = bool(rung) and bool(score < np.quantile(rung, 1 - 1 / _REDUCTION))
        rung.append(score)
        return is_behind

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        trial = self._of.pop(trial_id, None)
        if trial is None:
            return
        with self._kept():
            self._log.end(trial, _DIED if error else (result or {}).get("failed"))
            self._learn(trial)

    def is_over(self) -> bool:
        """Whether no trial may go on: the time is used up, or an error ends the search."""
        is_late = self._ends_at is not None and time.monotonic() >= self._ends_at
        used = sum(trial.cpu_s for trial in (*self._log.ended, *self._of.values()))
        is_spent = self._budget.cpu_seconds is not None and used >= self._budget.cpu_seconds
        return is_late or is_spent or self.error is not None

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the registry has it."""

    def _scores(self, trial: Trial) -> dict[int, float]:
        metric = self._objective.metric
        sign = 1 if HIGHER_IS_BETTER[metric] else -1
        return {cost: sign * of[metric] for cost, of in trial.metrics.items()}

    def _learn(self, trial: Trial) -> None:
        scores = {} if trial.error is not None else self._scores(trial)
        self._proposals.learn(trial.configuration, scores, is_complete=max(self._rungs) in scores)

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except MLFrameworkError as error:
            self.error = self.error or error


class _Stopper(tune.Stopper):
    def __init__(self, driver: _Driver) -> None:
        self._driver = driver

    def __reduce__(self) -> tuple[Any, ...]:
        return tune.stopper.NoopStopper, ()  # Tune writes it to its state, which nobody reads

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        return self._driver.hear(trial_id, result)

    def stop_all(self) -> bool:
        return self._driver.is_over()


@contextmanager
def _storage(home: Path) -> Iterator[Path]:
    """A folder for Tune, which only this user can open; those that killed processes left are removed as well."""
    parent = home / "searches"
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        with FileLock(parent / "lock"):
            for left in filter(Path.is_dir, parent.iterdir()):
                of_left = FileLock(left / "lock", timeout=0)  # a process that ends loses its lock
                with suppress(Timeout, OSError), of_left:
                    shutil.rmtree(left, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(dir=parent))  # of mode 0700
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(FileLock(folder / "lock"))
        yield folder


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Environment variables as long as the block lasts: the only form in which Tune takes these."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
