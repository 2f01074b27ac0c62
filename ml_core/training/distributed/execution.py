"""From a strategy to the way in which a training is executed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from ml_core.domain.columns import Columns
from ml_core.training.distributed.forest import fit_forest, fit_in_one_task
from ml_core.training.distributed.merging import answer_shards, fit_shards
from ml_core.training.distributed.shards import read_shards
from ml_core.training.distributed.tasks import connected
from ml_core.training.fit import Execution
from ml_core.training.strategies import Strategy


@contextmanager
def executing(strategy: Strategy, cores: float, folder: Path) -> Iterator[Execution]:
    """Connect to the Ray cluster of this process for the length of the block.

    Args:
        strategy: One that ``choose`` returned for a job on Ray.
        cores: Of the cluster, at least 2, that the tasks may use.
        folder: For checkpoints; the same for each attempt at a training, and for no other training.

    Raises:
        PlatformError: No cluster answers, or it has fewer cores.
    """
    with connected(cores):
        yield execution_of(strategy, int(cores), folder)


def execution_of(strategy: Strategy, tasks: int, folder: Path) -> Execution:
    """How a strategy executes a training with so many tasks at the same time, in a process that is connected."""
    executions = {
        Strategy.ONE_TASK: Execution(fit=partial(fit_in_one_task, tasks=tasks)),
        Strategy.FOREST_BY_TREES: Execution(fit=partial(fit_forest, tasks=tasks)),
        Strategy.EXACT_MERGE: Execution(partial(read_shards, tasks=tasks), fit_shards, answer_shards),
        Strategy.LIGHTGBM_ON_RAY_TRAIN: Execution(fit=partial(_fit_lightgbm, tasks=tasks, folder=folder)),
    }
    return executions[strategy]


def _fit_lightgbm(pipeline: Pipeline, columns: Columns, target: NDArray[Any], *, tasks: int, folder: Path) -> None:
    # Imported late: LightGBM is an extra.
    from ml_core.training.distributed.boosting import fit_boosting, put_rows

    features = pipeline[:-1].fit_transform(columns, target)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # an attempt that was given up may not have ended yet
        fit_boosting(pipeline[-1], put_rows(features, target, tasks), folder, workers=tasks)
