"""The choice of a strategy, as a table of cases."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml_core.data.profile import profile_table
from ml_core.domain.columns import ColumnKind
from ml_core.domain.train_spec import TrainSpec
from ml_core.training.strategies import Facts, Strategy, choose

NUMBERS = {ColumnKind.NUMBER: 20}
TEXTS = {ColumnKind.TEXT: 1, ColumnKind.CATEGORY: 2}


def facts(algorithm="random_forest", rows=1_000_000, columns=NUMBERS, cores=4.0, **others):
    """Those of a large table on a cluster."""
    return Facts(rows=rows, columns=columns, algorithm=algorithm, cores=cores, **others)


@pytest.mark.parametrize(
    ("given", "strategy"),
    [
        (facts(cores=1), Strategy.IN_PROCESS),
        (facts("ridge", cores=1.9), Strategy.IN_PROCESS),
        (facts(), Strategy.FOREST_BY_TREES),
        (facts("extra_trees", columns=TEXTS), Strategy.FOREST_BY_TREES),
        (facts(hyperparameters={"oob_score": True}), Strategy.ONE_TASK),
        (facts(hyperparameters={"warm_start": True}), Strategy.ONE_TASK),
        (facts("isolation_forest"), Strategy.ONE_TASK),
        (facts("logistic_regression"), Strategy.ONE_TASK),
        (facts("gradient_boosting"), Strategy.ONE_TASK),
        (facts("naive_bayes"), Strategy.EXACT_MERGE),
        (facts("naive_bayes", rows=5_000_000, columns={ColumnKind.NUMBER: 10}, cores=2), Strategy.ONE_TASK),
        (facts("naive_bayes", columns=TEXTS), Strategy.EXACT_MERGE),
        (facts("naive_bayes", in_one_process="a validation dataset"), Strategy.ONE_TASK),
        (facts("ridge", hyperparameters={"alpha": 2}), Strategy.EXACT_MERGE),
        (facts("ridge", columns=TEXTS), Strategy.ONE_TASK),
        (facts("ridge", hyperparameters={"solver": "svd"}), Strategy.ONE_TASK),
        (facts("ridge", hyperparameters={"alpha": 0}), Strategy.ONE_TASK),
        (facts("ridge", hyperparameters={"alpha": [1, 2]}), Strategy.ONE_TASK),
        (facts("lightgbm"), Strategy.ONE_TASK),
        (facts("lightgbm", nodes=(8.0,)), Strategy.ONE_TASK),
        (facts("lightgbm", rows=10**7, nodes=(2.0, 2.0)), Strategy.LIGHTGBM_ON_RAY_TRAIN),
        (facts("lightgbm", rows=10_000, nodes=(2.0, 2.0)), Strategy.ONE_TASK),
        (facts("lightgbm", nodes=(2.0, 2.0), in_one_process="a validation dataset"), Strategy.ONE_TASK),
        (facts("lightgbm", nodes=(2.0, 2.0), cores=1), Strategy.IN_PROCESS),
        (facts("gradient_boosting", nodes=(2.0, 2.0)), Strategy.ONE_TASK),
        (facts(rows=500, models=1_000), Strategy.MANY_SMALL_MODELS),
        (facts(rows=500, models=1_000, cores=1), Strategy.MANY_SMALL_MODELS),
    ],
)
def test_the_strategy_follows_from_the_facts(given, strategy):
    """It has the least estimate, and every strategy has a reason."""
    choice = choose(given)
    assert choice.strategy is strategy
    assert sorted(option.strategy for option in choice.options) == sorted(Strategy)
    assert all(option.reason for option in choice.options)
    possible = [option.seconds for option in choice.options if option.seconds is not None]
    assert possible == sorted(possible)
    assert choice.options[0].seconds == possible[0] > 0


@pytest.mark.parametrize("algorithm", ["random_forest", "naive_bayes", "ridge"])
def test_more_cores_take_less_time(algorithm):
    """In the estimate of the chosen strategy; more rows take more."""
    few, many, more = (
        choose(facts(algorithm, **options)).options[0].seconds
        for options in ({"cores": 2}, {"cores": 16}, {"cores": 16, "rows": 10**8})
    )
    assert many < few
    assert many < more


def test_on_one_node_lightgbm_uses_its_threads():
    """The plan says why Ray Train is left out, and how many threads a node has."""
    options = {option.strategy: option for option in choose(facts("lightgbm", nodes=(3.0,))).options}
    left_out = options[Strategy.LIGHTGBM_ON_RAY_TRAIN]
    assert left_out.seconds is None
    assert "for a Ray cluster of 2 nodes or more; on one node LightGBM's threads use all cores" in left_out.reason
    assert "with 3 threads, on one node" in options[Strategy.ONE_TASK].reason


def test_what_is_missing_is_said():
    """Of a job that is larger than what the platform gives jobs."""
    assert choose(facts(cores=8), available_cores=8).missing == ()
    (sentence,) = choose(facts(cores=8), available_cores=2).missing
    assert "asks for 8 cores; the platform gives jobs 2 (MLCORE_JOB_CPUS), so 6 are missing" in sentence


@pytest.mark.parametrize("by", ["group", "time"])
def test_a_split_by_a_column_is_read_in_one_process(by: str) -> None:
    """Tasks that read shards don't know which rows belong together. A group is no feature."""
    amounts = {f"amount{number}": np.arange(100.0) for number in range(20)}
    table = pa.table({"customer": [1, 2, 3, 4, 5] * 20, **amounts, "label": ["a", "b"] * 50})
    source: Any = SimpleNamespace(row_count=10_000_000, profile=profile_table(table))
    plain = TrainSpec(dataset="t@1", target="label", hyperparameters={"algorithm": "naive_bayes"})
    assert choose(Facts.of(source, plain, 16)).strategy is Strategy.EXACT_MERGE
    facts = Facts.of(source, replace(plain, **{by: "customer"}), 16)
    assert choose(facts).strategy is Strategy.ONE_TASK
    assert sum(facts.columns.values()) == (20 if by == "group" else 21)
