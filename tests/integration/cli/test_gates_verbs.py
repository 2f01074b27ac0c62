"""The verbs of gates, approvals and protected environments."""

from __future__ import annotations

import pytest

from support.tables import measures

OVER_HTTP = True


@pytest.fixture
def model(mlcore, tenant, tmp_path) -> list[str]:
    """The options that name a model with one version."""
    file = tmp_path / "data.csv"
    measures().to_csv(file, index=False)
    trained = mlcore("train", file, "-t", tenant, "-m", "m", "--target", "outcome", "--param", "algorithm=ridge")
    assert trained.code == 0, trained.err
    return ["-t", tenant, "-m", "m"]


@pytest.mark.both_doors
def test_a_refused_promotion_prints_a_line_a_gate(mlcore, model):
    """What each gate found, then the error, which carries it with --json; an override with a reason goes through."""
    assert (
        mlcore("gates", "set", "dream", "min_metric", *model, "--set", "metric=accuracy", "--set", "value=1.1").code
        == 0
    )
    assert mlcore("gates", "set", "bytes", "digest_verified", *model).code == 0
    evaluated = mlcore("gates", "evaluate", *model, "-v", "1", "--json").json
    assert [(gate["name"], gate["passed"]) for gate in evaluated] == [("bytes", True), ("dream", False)]
    assert "below the 1.1 that gate 'dream' requires" in mlcore("gates", "evaluate", *model, "-v", "1").out
    refused = mlcore("promote", *model, "-v", "1")
    assert refused.code == 1
    lines = refused.err.splitlines()
    assert lines[0].startswith("✓ bytes (digest_verified): ")
    assert lines[1].startswith("✗ dream (min_metric): accuracy ")
    assert "below the 1.1 that gate 'dream' requires" in lines[1]
    assert lines[2].startswith("Error: Version 1 of m may not go to production: accuracy ")
    as_json = mlcore("promote", *model, "-v", "1", "--json")
    assert [name in as_json.err for name in ("promotion_refused", '"passed": false', "✗")] == [True, True, False]
    overridden = mlcore("promote", *model, "-v", "1", "--override", "a demonstration")
    assert (overridden.code, "generation 1" in overridden.out) == (0, True)


def test_gates_are_set_listed_and_removed(mlcore, model):
    """An empty list says how to make one."""
    empty = mlcore("gates", "list", *model)
    assert "mlcore gates set quality min_metric" in empty.out
    mlcore("gates", "set", "signed", "approval", *model, "-e", "staging", "--set", "count=2")
    assert "count=2" in mlcore("gates", "list", *model).out
    (gate,) = mlcore("gates", "list", *model, "-e", "staging", "--json").json
    assert (gate["name"], gate["kind"], gate["settings"]) == ("signed", "approval", {"count": 2})
    assert mlcore("gates", "remove", "signed", *model, "-e", "staging").code == 0
    assert mlcore("gates", "list", *model, "--json").json == []


@pytest.mark.parametrize(
    ("setting", "words"),
    [("count=0", "1 to 20"), ("cuont=1", "Did you mean count"), ("count", "NAME=VALUE"), ("count=two", "whole number")],
)
def test_a_setting_that_can_not_be_used_is_explained(mlcore, model, setting, words):
    """With what to write instead."""
    refused = mlcore("gates", "set", "signed", "approval", *model, "--set", setting)
    assert refused.code == 1
    assert words in refused.err


def test_the_author_can_not_approve(mlcore, model):
    """On one machine the same user trained it: the message says so."""
    refused = mlcore("approve", *model, "-v", "1")
    assert refused.code == 1
    assert "does not count" in refused.err


def test_environments_are_protected_and_listed(mlcore, tenant):
    """Both ways; a typo is named."""
    assert "promote:production" in mlcore("environments", "protect", "production", "-t", tenant).out
    listed = mlcore("environments", "list", "-t", tenant, "--json").json
    assert {row["environment"]: row["is_protected"] for row in listed} == {
        "development": False,
        "staging": False,
        "production": True,
    }
    assert mlcore("environments", "unprotect", "production", "-t", tenant, "--json").json["is_protected"] is False
    assert "Did you mean production?" in mlcore("environments", "protect", "prodction", "-t", tenant).err
