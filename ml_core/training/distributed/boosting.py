"""LightGBM through Ray Train: a worker on each node has a part of the rows, and all workers grow the same trees.

Workers are elastic: when one is lost the others share its rows, and when a node is there again it has a worker again.

The workers' LightGBM exchanges histograms over sockets of its own. A checkpoint is the model's text, held by an actor
on the node of this process: nothing is written that is unpickled later, and no node reads a folder of another one.
"""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import ray
import ray.train
from numpy.typing import NDArray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.collective import broadcast_from_rank_zero
from ray.train.lightgbm import LightGBMTrainer, get_network_params
from ray.train.v2._internal.exceptions import RayTrainError
from sklearn.pipeline import Pipeline

from ml_core.exceptions import ClusterUnavailableError
from ml_core.training.distributed.cluster import node_cores
from ml_core.training.distributed.merging import learn_encoding
from ml_core.training.distributed.shards import Shards
from ml_core.training.distributed.tasks import gathered

_log = logging.getLogger(__name__)

_SAMPLE_ROWS = 200_000
"""Rows in which the bins of the features are found: LightGBM's ``bin_construct_sample_cnt``."""
_CHECKPOINT_S = 10.0
_RESIZE_S = 60.0
"""How often Ray looks whether a node is there for one more worker, which begins at the last checkpoint."""
_AGREE_ROUNDS = 10  # after which workers ask the first one whether to stop early, which takes some milliseconds
_START_S = "25"  # what Ray Train waits for the cores of its workers; it counts the nodes anew every 20 s
_MAX_LOSSES = 3
_NETWORK = re.compile("[Ss]ocket|[Cc]onnect|Binding port")  # in an error of LightGBM: another worker is away


@dataclass(slots=True)
class _State:
    """A model that grows. ``best`` is the round with the least ``loss`` on held-out rows; 0: there are none."""

    rounds: int = 0
    best: int = 0
    loss: float = math.inf
    is_done: bool = False
    text: str | None = None


@ray.remote(num_cpus=0)
class _Checkpoint:
    """The state of the last checkpoint."""

    _state = _State()

    def get(self) -> _State:
        return self._state

    def set(self, state: _State) -> None:
        self._state = state


def fit_boosting(pipeline: Pipeline, table: Shards, target: NDArray[Any], *, cores: int) -> None:
    """Fit a pipeline of an encoder and an estimator of ``lightgbm_estimators``, in place.

    The encoding and the rows that are held out for early stopping are exactly those of ``Pipeline.fit``. The trees
    differ by the order in which floats are added, where LightGBM's workers estimate how many rows a leaf has
    (``min_child_samples``; classes and weighted rows) or draw rows, and above 200,000 rows by their bins. A worker
    holds its rows as columns, as features and as bins; the first one also all that are held out.

    Args:
        pipeline: Unfitted.
        table: The rows.
        target: ``(n_rows,)``.
        cores: Of all workers. There are at most as many workers as nodes, with a thread for each core.

    Raises:
        ClusterUnavailableError: Workers were lost more than three times between two checkpoints, or no cluster answers.
        Exception: What the fit raised in a worker; it is not repeated.
    """
    (_, encoder), (_, estimator) = pipeline.steps
    learn_encoding(encoder, table)
    estimator.prepare(encoder.n_features_out, target)
    labels, parameters = estimator.encode(target), estimator.train_parameters()
    weights = estimator.weights(labels)
    kept, held_out = estimator.divide(labels, parameters["seed"])

    random = np.random.default_rng(parameters["seed"])
    sample = np.sort(random.choice(kept, min(len(kept), _SAMPLE_ROWS), replace=False))
    nodes = node_cores()
    workers = max(1, min(len(nodes), cores))
    threads = int(max(1, min(cores // workers, *nodes)))
    config = {
        "rows": ray.put((table, labels, weights, kept, held_out)),
        "encoder": ray.put(encoder),
        "sample": ray.put(encoder.transform(dict(table.take(sample)))),
        "parameters": parameters,
        "rounds": estimator.n_estimators,
        "patience": estimator.early_stopping_rounds,
        "checkpoint_s": _CHECKPOINT_S,
        "threads": threads,
    }
    estimator.adopt(_finished(config, workers))


def _finished(config: dict[str, Any], workers: int) -> str:
    """The text of the model, after as many attempts as permitted, each from the last checkpoint of those before."""
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    checkpoint = _Checkpoint.options(label_selector=here).remote()  # type: ignore[attr-defined]
    losses, rounds = 0, 0
    while not (state := gathered(checkpoint.get.remote())).is_done:
        if state.rounds > rounds:
            losses, rounds = 0, state.rounds
        try:
            _train({**config, "checkpoint": checkpoint}, workers)
        except (RayError, TrainingFailedError) as error:
            raised = getattr(error, "worker_failures", {}).values()
            if of_fit := [each for each in raised if not _is_loss(each)]:
                raise of_fit[0] from None
            losses += 1
            if losses > _MAX_LOSSES:
                raise ClusterUnavailableError(
                    f"The workers of the training were lost or could not start ({type(error).__name__}).",
                    remedy="See Ray's dashboard and its logs; where workers run out of memory, use more nodes.",
                    internal=str(error),
                    component="ray",
                ) from error
            _log.warning("Workers were lost or could not start; the training goes on at its last checkpoint.")
    return str(state.text)


def _is_loss(error: Exception) -> bool:
    """Whether a worker died or lost another, which is no error of the fit."""
    is_network = isinstance(error, lightgbm.basic.LightGBMError) and _NETWORK.search(str(error))
    return bool(is_network) or isinstance(error, RayError | RayTrainError)


def _train(config: dict[str, Any], workers: int) -> None:
    """Have up to so many workers grow the trees that lack; a TrainingFailedError if one raised an error or died."""
    scaling = ScalingConfig(  # type: ignore[call-arg]  # the names are those of Ray Train's V2
        num_workers=(1, workers),  # type: ignore[arg-type]
        elastic_resize_monitor_interval_s=_RESIZE_S,
        resources_per_worker={"CPU": config["threads"]},
        placement_strategy="SPREAD",
    )
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", _START_S)
    before = signal.getsignal(signal.SIGINT)
    with tempfile.TemporaryDirectory() as folder:  # of mode 0700, for what Ray Train notes of a run
        # By itself Ray Train repeats no error, or all of them.
        once = FailureConfig(max_failures=0, controller_failure_limit=0)  # type: ignore[call-arg]
        run = RunConfig(name="boosting", storage_path=folder, failure_config=once)
        try:
            LightGBMTrainer(_work, train_loop_config=config, scaling_config=scaling, run_config=run).fit()
        finally:
            if threading.current_thread() is threading.main_thread():  # where Ray Train replaces it
                signal.signal(signal.SIGINT, before)


def _work(config: dict[str, Any]) -> None:
    """The work of one worker: grow trees on its rows, from the last checkpoint on."""
    context, patience = ray.train.get_context(), config["patience"]
    rank, stops, state = context.get_world_rank(), patience is not None, ray.get(config["checkpoint"].get.remote())
    if state.is_done:  # and another worker was added meanwhile
        return
    (table, labels, weights, kept, held_out), encoder, sample = ray.get(
        [config["rows"], config["encoder"], config["sample"]]
    )
    parameters = {
        **config["parameters"],
        **get_network_params(),
        "tree_learner": "data",
        "pre_partition": True,
        "num_threads": config["threads"],
        "seed": config["parameters"]["seed"] + state.rounds,  # or the same rows and features would be sampled again
    }

    def dataset(rows: NDArray[np.intp], reference: Any) -> Any:
        X, weight = encoder.transform(dict(table.take(rows))), None if weights is None else weights[rows]
        return lightgbm.Dataset(X, labels[rows], weight=weight, reference=reference, params=parameters)

    # Now, while the workers are not connected: each would find the bins of some features in its own rows.
    bins = lightgbm.Dataset(sample, np.zeros(sample.shape[0]), params=parameters).construct()
    train = dataset(np.array_split(kept, context.get_world_size())[rank], bins)
    saved_s = time.monotonic()

    def save(model: Any, rounds: int) -> None:
        state.text = model.model_to_string(num_iteration=rounds)
        ray.get(config["checkpoint"].set.remote(state))

    def after_round(env: Any) -> None:
        nonlocal saved_s
        was_over = stops and state.rounds - state.best >= patience  # and the others do not know yet
        state.rounds += 1
        for _, _, loss, _ in env.evaluation_result_list or ():
            if loss < state.loss and not was_over:
                state.best, state.loss = state.rounds, float(loss)
        asks = stops and state.rounds % _AGREE_ROUNDS == 0
        if asks and broadcast_from_rank_zero(state.rounds - state.best >= patience):
            raise lightgbm.callback.EarlyStopException(env.iteration, [])
        if rank == 0 and time.monotonic() >= saved_s + config["checkpoint_s"] and state.rounds < env.end_iteration:
            save(env.model, -1)
            saved_s = time.monotonic()

    model = lightgbm.train(
        parameters,
        train,
        config["rounds"] - state.rounds,
        # The others would need the rows, and could decide otherwise by the last digit of a sum.
        valid_sets=[dataset(held_out, train)] if stops and rank == 0 else None,
        init_model=None if state.text is None else lightgbm.Booster(model_str=state.text),
        callbacks=[after_round],
    )
    if rank == 0:
        state.is_done = True
        save(model, state.best or -1)
