"""What an environment serves, from the command line: moved, withdrawn, brought back, and looked up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from support.registry import register

OVER_HTTP = True


@pytest.fixture
def model(registry: DatabaseConnection, tenant: str) -> list[str]:
    """The options that name a model with two versions."""
    for _ in range(2):
        register(registry, TenantId(tenant))
    return ["-t", tenant, "-m", "tickets"]


@pytest.mark.both_doors
def test_a_withdrawn_environment_serves_nothing_until_it_is_rolled_back(mlcore: Callable, model: list[str]) -> None:
    """The history shows each move with its reason."""
    mlcore("promote", *model, "-v", "1", "--reason", "first")
    assert "serves nothing (generation 2)" in mlcore("withdraw", *model, "--reason", "incident").out
    again = mlcore("withdraw", *model)
    assert (again.code, "It serves nothing already." in again.err) == (1, True)
    assert "serves version 1 (generation 3)" in mlcore("rollback", *model).out
    lines = mlcore("environments", "history", *model).out.splitlines()
    assert [line.split()[3] for line in lines[1:]] == ["rollback", "withdraw", "promote"]
    assert "incident" in lines[2]
    assert "first" in lines[3]


def test_the_history_goes_on_where_a_page_ended(mlcore: Callable, model: list[str]) -> None:
    """The option that shows the next page is printed after a page."""
    for version in ("1", "2", "1"):
        mlcore("promote", *model, "-v", version)
    page = mlcore("environments", "history", *model, "--limit", "2")
    cursor = page.err.split("More: --cursor ")[1].strip()
    rest = mlcore("environments", "history", *model, "--limit", "2", "--cursor", cursor, "--json").json
    assert ([move["generation"] for move in rest["items"]], rest["next_cursor"]) == ([1], None)


def test_a_pointer_that_moved_is_not_rolled_back(mlcore: Callable, model: list[str]) -> None:
    """With the generation that was seen, as for a promotion."""
    for version in ("1", "2"):
        mlcore("promote", *model, "-v", version)
    for verb in ("rollback", "withdraw"):
        refused = mlcore(verb, *model, "--expected-generation", "1")
        assert (refused.code, "generation 2" in refused.err) == (1, True)


def test_a_rollback_during_a_canary_says_what_to_do(mlcore: Callable, model: list[str]) -> None:
    """Also where there is no version to go back to: the canary is what somebody wants to be rid of."""
    mlcore("promote", *model, "-v", "1")
    mlcore("rollouts", "start", *model, "-v", "2", "--percent", "20")
    refused = mlcore("rollback", *model)
    assert refused.code == 1
    assert "Rollback is not possible while a canary runs" in refused.err
    assert "abort the canary" in refused.err


def test_versions_show_what_environments_use_them_for(mlcore: Callable, model: list[str]) -> None:
    """As stable version, canary and shadow."""
    mlcore("promote", *model, "-v", "1")
    mlcore("rollouts", "start", *model, "-v", "2", "--percent", "20")
    lines = mlcore("versions", "list", *model).out.splitlines()
    assert "production (canary)" in lines[1]
    assert "(canary)" not in lines[2]
    newest, oldest = mlcore("versions", "list", *model, "--json").json["items"]
    assert newest["uses"] == [{"environment": "production", "role": "canary"}]
    assert oldest["uses"] == [{"environment": "production", "role": "stable"}]
    mlcore("rollouts", "abort", *model)
    mlcore("rollouts", "shadow", *model, "-v", "2")
    assert "production (shadow)" in mlcore("versions", "show", *model, "-v", "2").out


@pytest.mark.parametrize(
    "verb",
    [
        ("environments", "history", "-e", "stging"),
        ("rollouts", "show", "-e", "stging"),
        ("gates", "list", "-e", "stging"),
        ("withdraw", "-e", "stging"),
    ],
    ids=" ".join,
)
def test_a_misspelt_environment_is_refused_by_verbs_that_only_read(
    mlcore: Callable, model: list[str], verb: tuple[str, ...]
) -> None:
    """It is not an environment that serves nothing."""
    refused = mlcore(*verb, *model)
    assert refused.code == 1
    assert "There is no environment stging." in refused.err
    assert "Did you mean staging?" in refused.err


def test_a_misspelt_environment_is_refused_by_a_prediction_in_process(
    mlcore: Callable, model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP the prediction plane refuses it."""
    monkeypatch.delenv("MLCORE_URL", raising=False)
    monkeypatch.delenv("MLCORE_API_KEY", raising=False)
    refused = mlcore("predict", *model, "-e", "stging", "--row", '{"text": "x"}')
    assert (refused.code, "Did you mean staging?" in refused.err) == (1, True)
