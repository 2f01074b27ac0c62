"""The verbs of canaries and shadows."""

from __future__ import annotations

import pytest

from ml_core.ids import TenantId
from support.registry import register

OVER_HTTP = True


@pytest.fixture
def model(mlcore, registry, tenant) -> list[str]:
    """The options that name a model with three versions, the first of them in production."""
    for _ in range(3):
        register(registry, TenantId(tenant), metrics={"validation": {"accuracy": 0.9}})
    assert mlcore("promote", "-t", tenant, "-m", "tickets", "-v", "1").code == 0
    return ["-t", tenant, "-m", "tickets"]


@pytest.mark.both_doors
def test_a_canary_from_start_to_finish(mlcore, model):
    """Each verb says what is served then, in words or as JSON."""
    started = mlcore("rollouts", "start", *model, "-v", "2", "-p", 5, "--sticky", "customer_id")
    assert "serves version 1, canary 2 for 5 % by customer_id (generation 2)." in started.out, started.err
    stepped = mlcore("rollouts", "step", *model, "-p", 50, "--json").json
    assert stepped["canary"] == {"version": "2", "percent": 50, "sticky": "customer_id"}
    shadowed = mlcore("rollouts", "shadow", *model, "-v", "3")
    assert "shadow 3 (generation 4)" in shadowed.out
    assert mlcore("rollouts", "unshadow", *model).code == 0
    finished = mlcore("rollouts", "finish", *model, "--reason", "better", "--json").json
    assert (finished["version"], finished["canary"], finished["generation"]) == ("2", None, 6)
    assert "serves version 2 (generation 6)." in mlcore("rollouts", "show", *model).out


def test_a_share_that_is_none_is_wrong_usage(mlcore, model):
    """Before anything is sent."""
    refused = mlcore("rollouts", "start", *model, "-v", "2", "-p", 150)
    assert (refused.code, "Invalid value for" in refused.err) == (2, True), refused.err


def test_a_sticky_column_that_the_model_does_not_read_is_noted(mlcore, model):
    """It may be sent all the same, so it is no error; one that the model reads is not mentioned."""
    near = mlcore("rollouts", "start", *model, "-v", "2", "-p", 5, "--sticky", "txt")
    assert (near.code, "reads no column 'txt'. Did you mean text?" in near.err) == (0, True)
    mlcore("rollouts", "abort", *model)
    assert mlcore("rollouts", "start", *model, "-v", "2", "-p", 5, "--sticky", "text").err == ""


def test_a_refused_canary_prints_the_result_of_each_gate(mlcore, model):
    """As a refused promotion does; with --json the error carries it."""
    mlcore("gates", "set", "dream", "min_metric", *model, "--set", "metric=accuracy", "--set", "value=1.1")
    refused = mlcore("rollouts", "start", *model, "-v", "2", "-p", 5)
    assert (refused.code, refused.err.startswith("✗ dream (min_metric): accuracy ")) == (1, True)
    assert "✗" not in mlcore("rollouts", "start", *model, "-v", "2", "-p", 5, "--json").err


def test_a_key_does_what_it_may(mlcore, model):
    """Anything else is refused."""
    made = mlcore("keys", "create", *model[:2], "--scope", "read", "--json").json
    refused = mlcore("rollouts", "start", *model, "-v", "2", "-p", 5, "--key", made["key"])
    assert (refused.code, "promote" in refused.err) == (1, True)


def test_an_aborted_canary(mlcore, model):
    """Its request is its key where no column is named."""
    assert "for 5 % by request" in mlcore("rollouts", "start", *model, "-v", "2", "-p", 5).out
    assert "serves version 1 (generation 3)." in mlcore("rollouts", "abort", *model).out


def test_what_is_not_possible_says_what_to_do(mlcore, model):
    """No canary to step, a promotion while one runs, and a stale expectation."""
    refused = mlcore("rollouts", "step", *model, "-p", 5)
    assert (refused.code, "Start a canary first." in refused.err) == (1, True)
    mlcore("rollouts", "start", *model, "-v", "2", "-p", 5)
    promoted = mlcore("promote", *model, "-v", "3")
    assert (promoted.code, "Finish or abort the canary first." in promoted.err) == (1, True)
    late = mlcore("rollouts", "abort", *model, "--expected-generation", 1, "--json")
    assert (late.code, "promotion_conflict" in late.err) == (1, True)
