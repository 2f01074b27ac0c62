"""Boosting with LightGBM through Ray Train: each worker holds some of the rows, all of them grow the same trees.

The workers' LightGBM exchanges histograms over sockets of its own. Their checkpoints are the model's text. They end a
training in the same round since the first of them decides: a worker that went on alone would wait for the others.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import ray
import ray.train
from numpy.typing import NDArray
from ray.train.collective import broadcast_from_rank_zero
from ray.train.lightgbm import get_network_params
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.train.v2.lightgbm.lightgbm_trainer import LightGBMTrainer
from scipy import sparse
from sklearn.base import clone

from ml_core.exceptions import PlatformError, TrainingError

_TEXT, _STATE = "model.txt", "state.json"
_RUN = "boosting"
_AGREE_ROUNDS = 10  # between two decisions to save or to stop, which take some milliseconds
_HIDDEN = stat.S_IRWXG | stat.S_IRWXO


def put_rows(X: Any, y: NDArray[Any], n_shards: int, sample_weight: NDArray[np.float64] | None = None) -> list[Any]:
    """Put rows that this process holds into Ray's object store, as shards for ``fit_boosting``."""
    bounds = np.linspace(0, len(y), n_shards + 1, dtype=int)
    rows = [slice(begin, end) for begin, end in pairwise(bounds)]
    return [ray.put((X[part], y[part], None if sample_weight is None else sample_weight[part])) for part in rows]


def fit_boosting(
    estimator: Any,
    shards: Sequence[Any],
    folder: Path,
    *,
    workers: int | tuple[int, int],
    threads: int = 1,
    checkpoint_s: float = 10.0,
    max_failures: int = 3,
) -> Any:
    """Fit an estimator of ``lightgbm_estimators`` on the rows of all shards.

    The trees are those of a fit on all rows in one process only up to the bins of the features, which each worker finds
    for a part of them in its own rows. A training that lost a worker goes on at its last checkpoint.

    Args:
        estimator: Fitted in place. Its held-out rows for early stopping are a random part of each shard.
        shards: References to ``(X, y, sample_weight)``: encoded rows, dense or CSR, the target and a weight of each row
            or None. At least as many as workers, which take them in turn.
        folder: The folder for checkpoints, reachable from every node: absent, or left by a killed call with the same
            arguments, which is then resumed. Only this user can open it; it is removed at the end.
        workers: Their number, or the least and the greatest.
        threads: Cores of each worker.
        checkpoint_s: Seconds between two checkpoints.
        max_failures: How often lost workers are replaced.

    Returns:
        The estimator.

    Raises:
        ValueError: The shards do not fit the estimator or each other.
        TrainingError: Workers failed more often than permitted; ``stage`` is ``fit``.
        PlatformError: The cluster has fewer cores than the workers need, or the folder is open to others.
    """
    least = workers if isinstance(workers, int) else workers[0]
    greatest = workers if isinstance(workers, int) else workers[1]
    if len(shards) < greatest:
        raise ValueError(f"{len(shards)} shards are too few for {greatest} workers")
    _require_cores(least * threads)
    prepared = _prepared(estimator, shards)
    _make_folder(folder)
    try:
        trainer = LightGBMTrainer(
            _train,
            train_loop_config={
                "estimator": prepared,
                "shards": list(shards),
                "threads": threads,
                "checkpoint_s": checkpoint_s,
            },
            scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": threads}),
            run_config=RunConfig(
                name=_RUN,
                storage_path=str(folder),
                failure_config=FailureConfig(
                    max_failures=max_failures,
                    max_preemption_failures=max_failures,
                    controller_failure_limit=max_failures,
                ),
                checkpoint_config=CheckpointConfig(num_to_keep=1),
            ),
        )
        text, _ = _read(trainer.fit().checkpoint)
    except TrainingFailedError as error:
        raise TrainingError(
            "The workers of the boosting failed.",
            remedy="See the log of the job.",
            stage="fit",
            internal=str(error),
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    estimator.prepare(prepared.n_features_in_, getattr(prepared, "classes_", np.empty(0)))
    return estimator.adopt(text)


def _require_cores(needed: int) -> None:
    found = float(ray.cluster_resources().get("CPU", 0.0))  # type: ignore[no-untyped-call]
    if found < needed:  # Ray Train would wait for them without end
        raise PlatformError(
            f"The workers need {needed} cores; the Ray cluster has {found:g}, so {needed - found:g} are missing.",
            remedy="Add nodes, or use fewer workers.",
            component="ray",
        )


def _make_folder(folder: Path) -> None:
    """Create the folder, or accept it as a killed call of this user left it.

    Raises:
        PlatformError: Others can open it: what lies in it could be theirs.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & _HIDDEN:
        raise PlatformError(
            "The folder for checkpoints is open to others.",
            remedy="Remove it, or choose another.",
            internal=str(folder),
            component="storage",
        )


def _prepared(estimator: Any, shards: Sequence[Any]) -> Any:
    """A copy of the estimator for all workers alike: it knows the features, the classes, their weights and a seed.

    Raises:
        ValueError: As ``fit_boosting``.
    """
    by_class = hasattr(estimator, "class_weight")
    facts = ray.get([_facts.remote(shard, by_class) for shard in shards])
    widths = {width for width, _ in facts}
    if len(widths) != 1:
        raise ValueError("the shards have different numbers of features")
    counts: Counter[Any] = sum((found for _, found in facts), Counter())
    prepared = clone(estimator)
    prepared.prepare(widths.pop(), np.array(list(counts)))
    prepared.set_params(random_state=prepared.train_parameters()["seed"])
    if by_class and prepared.class_weight == "balanced":  # of all rows, not of those of a worker
        average = counts.total() / len(counts)
        prepared.set_params(class_weight={label: average / count for label, count in counts.items()})
    return prepared


@ray.remote
def _facts(shard: tuple[Any, ...], by_class: bool) -> tuple[int, Counter[Any]]:
    """The number of features of a shard and the rows of each class."""
    X, y, _ = shard
    labels, counts = np.unique(y, return_counts=True) if by_class else ((), ())
    return X.shape[1], Counter(dict(zip(labels, map(int, counts), strict=True)))


def _train(config: dict[str, Any]) -> None:
    """The work of one worker: grow trees on its shards, from the last checkpoint on."""
    context = ray.train.get_context()
    rank, estimator, n_shards = context.get_world_rank(), config["estimator"], len(config["shards"])
    checkpoint = ray.train.get_checkpoint()
    text, state = _read(checkpoint) if checkpoint else (None, {"rounds": 0, "best": 0, "loss": math.inf, "done": False})
    if state["done"]:
        return  # lost after its last round
    parameters = estimator.train_parameters()
    parameters |= {
        "num_threads": config["threads"],
        "tree_learner": "data",
        "pre_partition": True,
        "seed": parameters["seed"] + state["rounds"],  # or the same rows and features would be sampled again
        **get_network_params(),
    }
    stops = estimator.early_stopping_rounds is not None
    train = _dataset(config, range(rank, n_shards, context.get_world_size()), parameters, held_out=False)
    # Only the first worker measures: sums in another order could make two decide differently.
    held_out = None
    if stops and rank == 0:
        held_out = [_dataset(config, range(n_shards), parameters, held_out=True, reference=train)]
    lightgbm.train(
        parameters,
        train,
        estimator.n_estimators - state["rounds"],
        valid_sets=held_out,
        init_model=None if text is None else lightgbm.Booster(model_str=text),
        callbacks=[_Rounds(estimator, state, rank, config["checkpoint_s"])],
    )


class _Rounds:
    """After each round: remember the best, and with the other workers save or stop."""

    order, before_iteration = 0, False  # read by LightGBM

    def __init__(self, estimator: Any, state: dict[str, Any], rank: int, checkpoint_s: float) -> None:
        self._estimator, self._state, self._rank = estimator, state, rank
        self._checkpoint_s, self._saved_s = checkpoint_s, time.monotonic()

    def __call__(self, env: Any) -> None:
        """Called by LightGBM with its state."""
        state, rounds, patience = self._state, env.iteration + 1, self._estimator.early_stopping_rounds
        state["rounds"] = rounds
        if env.evaluation_result_list and not state["done"]:
            loss = float(env.evaluation_result_list[0][2])
            if loss < state["loss"]:
                state |= {"loss": loss, "best": rounds}
            state["done"] = rounds - state["best"] >= patience
        last = rounds == env.end_iteration
        if not last and rounds % _AGREE_ROUNDS:
            return
        state["done"] = state["done"] or last
        save = state["done"] or time.monotonic() - self._saved_s >= self._checkpoint_s
        save, state["done"] = broadcast_from_rank_zero((save, state["done"]))
        if save:
            self._save(env.model)
        if state["done"]:
            raise lightgbm.callback.EarlyStopException(rounds - 1, [])

    def _save(self, model: Any) -> None:
        """Report a checkpoint, which waits for the other workers; when all is done, of the best round."""
        self._saved_s = time.monotonic()
        if self._rank != 0:
            ray.train.report({})
            return
        rounds = self._state["best"] if self._state["done"] and self._state["best"] else self._state["rounds"]
        text = self._estimator.canonical(model.model_to_string(num_iteration=rounds))
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / _TEXT).write_text(text, encoding="ascii")
            (Path(folder) / _STATE).write_text(json.dumps(self._state), encoding="ascii")
            ray.train.report({"rounds": rounds}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _read(checkpoint: Any) -> tuple[str, dict[str, Any]]:
    with checkpoint.as_directory() as folder:
        state = json.loads((Path(folder) / _STATE).read_text(encoding="ascii"))
        return (Path(folder) / _TEXT).read_text(encoding="ascii"), state


def _dataset(config: dict[str, Any], numbers: range, parameters: Any, *, held_out: bool, reference: Any = None) -> Any:
    """The rows of some shards that are trained on, or those that are held out, one shard in memory after another."""
    estimator = config["estimator"]
    parts = []
    for number in numbers:
        X, y, weight = ray.get(config["shards"][number])
        if estimator.early_stopping_rounds is not None:
            random = np.random.default_rng([estimator.random_state, number])
            rows = (random.random(len(y)) < estimator.validation_fraction) == held_out
            X, y, weight = X[rows], y[rows], None if weight is None else weight[rows]
        target = estimator.encode(y)
        parts.append((X, target, estimator.weights(target, weight)))
    matrices, targets, weights = zip(*parts, strict=True)
    return lightgbm.Dataset(
        matrices[0] if len(matrices) == 1 else (sparse.vstack if sparse.issparse(matrices[0]) else np.vstack)(matrices),
        np.concatenate(targets),
        weight=None if weights[0] is None else np.concatenate(weights),
        reference=reference,
        params=parameters,
    )
