"""``tune``: from a planned training and a search to the hyperparameters of the best configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ml_core.domain.tune_spec import DEFAULT_TRIALS, Sampler, TuneSpec
from ml_core.exceptions import TrainingError
from ml_core.training.cross_validation import Objective, Rung, divide_into_folds, encoded_folds, rungs_of
from ml_core.training.encoding import encoding_steps, takes_sparse
from ml_core.training.repetition import folds_of
from ml_core.training.request import TrainingRequest
from ml_core.training.samplers import Proposals
from ml_core.training.spaces import Space, grid_size, spaces_of
from ml_core.training.table import TrainingTable, read_training_table
from ml_core.training.targets import OUTPUTS
from ml_core.training.trial_log import TrialLog


@dataclass(frozen=True, slots=True)
class Found:
    """The best configuration of a search, and facts about the search as JSON."""

    hyperparameters: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def note(self) -> str:
        """A sentence for the user."""
        of = self.summary
        spread = f"standard deviation {of['std']:.2g} over {of['folds']} folds" if of["folds"] > 1 else "on one fold"
        return (
            f"The hyperparameters are the best of {of['trials']} trials: cross-validated {of['metric']} "
            f"{of['score']:.4g}, {spread}, after fits on "
            f"{of['rows']:,} rows each. The held-out metrics are of rows that no trial saw."
        )


def tune(request: TrainingRequest, search: TuneSpec, log: TrialLog, home: Path, cpus: int) -> Found:
    """Search for the hyperparameters of a training; its held-out rows take no part.

    Args:
        request: The training with its data; its hyperparameters are the same in all trials.
        search: How to search.
        log: Where trials are recorded; has the metric that counts.
        home: The platform's folder.
        cpus: Trials at the same time, one core each.

    Raises:
        TrainingError: The data or the search can't be used (``stage="validate"``), or no trial succeeded.
        InvalidRequestError: The search can't be done.
        PlatformError: The Ray cluster can't be joined.
    """
    model_type = request.model_type_in_use
    spaces = spaces_of(search, model_type, request.hyperparameters)
    output = OUTPUTS[model_type]
    table = read_training_table(request, output)
    folds_of(request, table, output)  # those of the training with the best ones, before a trial is done
    folds = divide_into_folds(table, output, search.folds, search.seed)
    spaces = _encodable(request, table, spaces, model_type)
    n_rows = min(len(train) for train, _ in folds)
    rungs = rungs_of(n_rows, search.folds, early_stopping=search.early_stopping)
    proposals = Proposals(search, model_type, spaces, len(log.ended))
    trials = search.trials or (grid_size(spaces) if search.sampler is Sampler.GRID else DEFAULT_TRIALS)
    log.total = trials
    seconds = None if search.seconds is None else search.seconds - log.seconds
    cpu_s = search.cpu_seconds
    is_left = (seconds is None or seconds > 0) and (cpu_s is None or sum(each.cpu_s for each in log.ended) < cpu_s)
    if len(log.ended) < trials and is_left:
        from ml_core.training.distributed.cluster import joined
        from ml_core.training.distributed.search import Budget, run_trials

        sides = {takes_sparse(table, model_type, name) for name in spaces}
        encode = {side: partial(encoded_folds, request, table, folds, takes_sparse=side) for side in sides}
        objective = Objective(model_type, output, log.metric, dict(request.hyperparameters))
        with joined(1, start=cpus):
            budget = Budget(trials, seconds, cpu_s, cpus)
            run_trials(objective, encode, rungs, proposals, log, budget, home)
    return _found(log, rungs)


def _found(log: TrialLog, rungs: Sequence[Rung]) -> Found:
    best, failed = log.best, [trial for trial in log.ended if trial.error is not None]
    if best is None:
        if failed:
            raise TrainingError(
                f"All {len(failed)} trials of the search failed. The first one: {failed[0].error}",
                remedy="Correct the space, or the data.",
                stage="fit",
            )
        raise TrainingError(
            "The search ended before a trial did.",
            remedy="Give more seconds, fewer folds or fewer rows.",
            stage="fit",
        )
    of = best.metrics[best.cost]
    # An attempt before may have been of another release, with other rungs.
    rung = next((rung for rung in rungs if rung.cost == best.cost), rungs[-1])
    summary = {
        "metric": log.metric,
        "score": of[log.metric],
        "std": of["std"],
        "folds": rung.folds,
        "rows": rung.rows,
        "trials": len(log.ended),
        "failed": len(failed),
        "best_run_id": best.run_id,
        "hyperparameters": dict(best.configuration),
    }
    return Found(best.configuration, summary)


def _encodable(
    request: TrainingRequest, table: TrainingTable, spaces: Mapping[str, Space], model_type: str
) -> Mapping[str, Space]:
    """The spaces of the algorithms for which the table can be encoded; of one algorithm it must be."""
    found = {}
    for name, space in spaces.items():
        try:
            encoding_steps(request, table, takes_sparse=takes_sparse(table, model_type, name))
        except TrainingError:
            if len(spaces) == 1:
                raise
        else:
            found[name] = space
    return found
