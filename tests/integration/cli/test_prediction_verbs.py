"""``mlcore predictions``: list, show, label, policy, losses, prune."""

from __future__ import annotations

from typing import Any

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.registry.predictions import PredictionRepository
from support.predictions import answered, today, write
from support.registry import new_tenant, register

OVER_HTTP = True


@pytest.fixture
def tenant(registry: DatabaseConnection, enter: Any) -> str:
    """A tenant with one request of two rows, and one row that was lost."""
    tenant_id = new_tenant(registry)
    register(registry, tenant_id)
    PredictionRepository(registry, tenant_id).set_policy(PredictionPolicy.INPUTS)
    write(registry, answered(tenant_id, [{"text": "one"}, {"text": "two"}], request_id="r1"))
    write(registry, answered(tenant_id, at=(today().toordinal() - 719163 - 20) * 86400.0))
    return str(enter(tenant_id))


@pytest.mark.both_doors
def test_predictions_are_listed_and_shown(mlcore: Any, tenant: str) -> None:
    """In pages, filtered, and one request with its inputs."""
    table = mlcore("predictions", "list", "-t", tenant, "-m", "tickets").out
    assert table.count("r1") == 2
    page = mlcore("predictions", "list", "-t", tenant, "--limit", "1", "--json").json
    assert [record["row"] for record in page["items"]] == [1]
    rest = mlcore("predictions", "list", "-t", tenant, "--limit", "1", "--cursor", page["next_cursor"], "--json").json
    assert ([record["row"] for record in rest["items"]], rest["next_cursor"]) == ([0], None)
    assert "See --since" in mlcore("predictions", "list", "-t", tenant, "--version", "9").out.replace("see", "See")
    shown = mlcore("predictions", "show", "r1", "-t", tenant).out
    assert all(text in shown for text in ('"text": "one"', '"text": "two"'))
    assert "Nothing is kept of the request r2" in mlcore("predictions", "show", "r2", "-t", tenant).out


def test_typos_are_no_empty_list(mlcore: Any, tenant: str) -> None:
    """Neither of an environment nor of a model; what there is may have no predictions."""
    listing = ("predictions", "list", "-t", tenant)
    assert "Did you mean staging?" in mlcore(*listing, "-e", "stging").err
    assert "Did you mean tickets?" in mlcore(*listing, "-m", "tikets").err
    assert mlcore(*listing, "-e", "staging", "-m", "tickets").code == 0


@pytest.mark.parametrize(("text", "label"), [("b", "b"), ('"b"', "b")])
def test_a_label_is_told(mlcore: Any, tenant: str, text: str, label: Any) -> None:
    """A class of the model, with or without quotes."""
    told = mlcore("predictions", "label", "r1", text, "-t", tenant, "-m", "tickets", "--row", 1)
    assert (told.code, "is kept yet" in told.out) == (0, False)
    page = mlcore("predictions", "list", "-t", tenant, "--json").json
    assert [record["label"] for record in page["items"]] == [label, None]


@pytest.mark.parametrize(
    ("text", "label"), [("billing", "billing"), ("7", 7), ("true", True), ('"7"', "7"), ("[", "[")]
)
def test_a_new_class_is_told_on_request(mlcore: Any, tenant: str, text: str, label: Any) -> None:
    """It is refused otherwise, with the classes that there are. Numbers are numbers; a text in quotes is a text."""
    label_of = ("predictions", "label", "r1", text, "-t", tenant, "-m", "tickets", "--row", 1)
    refused = mlcore(*label_of)
    assert (refused.code, "Its classes are: a, b." in refused.err) == (1, True)
    assert mlcore(*label_of, "--new-class").code == 0
    assert mlcore("predictions", "list", "-t", tenant, "--json").json["items"][0]["label"] == label


def test_a_row_that_the_request_has_not_is_refused(mlcore: Any, tenant: str) -> None:
    """With those that it has."""
    refused = mlcore("predictions", "label", "r1", "b", "-t", tenant, "-m", "tickets", "--row", 7)
    assert (refused.code, "2 rows, which are rows 0 to 1" in refused.err) == (1, True)


def test_a_label_of_an_unknown_request_is_stored_and_told(mlcore: Any, tenant: str) -> None:
    """The prediction may arrive a second later; that nothing is ever kept is said as well."""
    label_of = ("predictions", "label", "nowhere", "b", "-t", tenant, "-m", "tickets")
    told = mlcore(*label_of)
    assert (told.code, "is kept yet; the label is stored" in told.out) == (0, True)
    assert mlcore(*label_of, "--json").json["prediction_kept"] is False
    mlcore("predictions", "policy", "nothing", "-t", tenant)
    assert "keeps no predictions" in mlcore(*label_of).out


def test_a_label_of_an_unknown_model_is_refused(mlcore: Any, tenant: str) -> None:
    """With what to do."""
    result = mlcore("predictions", "label", "r1", "b", "-t", tenant, "-m", "nothing")
    assert (result.code, "The model nothing does not exist" in result.err) == (1, True)


def test_the_policy_is_shown_and_set(mlcore: Any, tenant: str) -> None:
    """And an empty list says that it is why."""
    assert "kept with their inputs" in mlcore("predictions", "policy", "-t", tenant).out
    assert mlcore("predictions", "policy", "nothing", "-t", tenant, "--json").json["policy"] == "nothing"
    empty = mlcore("predictions", "list", "-t", tenant, "--until", "2020-01-01").out
    assert "keeps no predictions" in empty


def test_losses_are_listed(mlcore: Any, tenant: str) -> None:
    """By day, model and reason."""
    (loss,) = mlcore("predictions", "losses", "-t", tenant, "--json").json
    assert (loss["model_id"], loss["reason"], loss["rows"]) == ("tickets", "wrong_clock", 1)
    assert "No loss was counted" in mlcore("predictions", "losses", "-t", tenant, "--days", "1").out


def test_old_days_are_pruned(mlcore: Any, tenant: str) -> None:
    """A dry run counts what the run removes."""
    planned = mlcore("predictions", "prune", "--keep-days", "10", "--dry-run", "--json").json
    assert (planned["dry_run"], planned["losses"] >= 1) == (True, True)
    assert "counts of losses were removed" in mlcore("predictions", "prune", "--keep-days", "10").out
    assert mlcore("predictions", "losses", "-t", tenant, "--json").json == []
