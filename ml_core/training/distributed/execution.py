"""From a strategy to the way in which a training is executed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from ml_core.training.distributed.cluster import joined, node_cores
from ml_core.training.distributed.forest import fit_forest, fit_in_one_task
from ml_core.training.distributed.merging import answer_shards, fit_shards
from ml_core.training.distributed.shards import read_shards
from ml_core.training.distributed.tasks import spread
from ml_core.training.fit import Execution
from ml_core.training.rounds import Checkpoints
from ml_core.training.strategies import Strategy


@contextmanager
def executing(strategy: Strategy, cores: float, checkpoints: Checkpoints | None = None) -> Iterator[Execution]:
    """Connect to the Ray cluster of this process for the length of the block.

    Args:
        strategy: One that ``choose`` returned for a job on Ray.
        cores: Of the cluster, at least 2, that the tasks may use.
        checkpoints: Of the job; None: there is one attempt.

    Raises:
        PlatformError: No cluster answers, or it has fewer cores.
    """
    with joined(cores):
        yield execution_of(strategy, int(cores), checkpoints)


def execution_of(strategy: Strategy, tasks: int, checkpoints: Checkpoints | None = None) -> Execution:
    """How a strategy executes a training with so many tasks at the same time, in a process that is connected."""
    if strategy is Strategy.LIGHTGBM_ON_RAY_TRAIN:
        # Imported late: LightGBM is an extra.
        from ml_core.training.distributed.boosting import fit_boosting

        return Execution(partial(read_shards, tasks=tasks), partial(fit_boosting, cores=tasks), answer_shards)
    if strategy is Strategy.ONE_TASK:
        threads = int(min(tasks, max(node_cores(), default=1)))  # more would wait for a larger node
        return Execution(fit=partial(fit_in_one_task, threads=threads), spread=spread)
    executions = {
        Strategy.FOREST_BY_TREES: Execution(
            fit=partial(fit_forest, tasks=tasks, checkpoints=checkpoints), spread=spread
        ),
        Strategy.EXACT_MERGE: Execution(partial(read_shards, tasks=tasks), fit_shards, answer_shards),
    }
    return executions[strategy]
