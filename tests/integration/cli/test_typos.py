"""A misspelt name: an error with the nearest name and a command to copy, never an empty list."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from support.registry import register, temporary_home

OVER_HTTP = True


@pytest.fixture
def trained(registry: DatabaseConnection, tenant: str) -> str:
    """A tenant with one version of ``tickets``."""
    register(registry, TenantId(tenant))
    return tenant


@pytest.mark.parametrize(
    "verb",
    [
        ("versions", "list"),
        ("versions", "show", "-v", "1"),
        ("versions", "tag", "-v", "1", "a=b"),
        ("versions", "archive", "-v", "1"),
        ("versions", "search"),
        ("models", "archive"),
        ("gates", "list"),
        ("gates", "set", "bytes", "digest_verified"),
        ("holds", "list"),
        ("holds", "place", "legal", "-v", "1", "--reason", "x"),
        ("environments", "history"),
        ("rollouts", "show"),
        ("promote", "-v", "1"),
        ("rollback",),
        ("withdraw",),
        ("approve", "-v", "1"),
    ],
    ids=" ".join,
)
def test_a_model_that_is_not_there(mlcore: Callable, trained: str, verb: tuple[str, ...]) -> None:
    """Each verb names the nearest of the tenant's models and how to list them."""
    refused = mlcore(*verb, "-t", trained, "-m", "tikets")
    assert (refused.code, refused.out) == (1, "")
    assert "Did you mean tickets?" in refused.err
    assert f"mlcore models list --tenant {trained}" in refused.err


def test_a_version_that_is_not_there(mlcore: Callable, trained: str) -> None:
    """The newest are named, and the command that lists all."""
    refused = mlcore("promote", "-t", trained, "-m", "tickets", "-v", "9")
    assert "The newest is 1." in refused.err
    assert f"mlcore versions list --tenant {trained} --model tickets" in refused.err


@pytest.mark.both_doors
def test_a_tenant_that_is_not_there(mlcore: Callable, tenant: str, door: str) -> None:
    """To this machine's user, who sees all tenants, the nearest is named; a tenant's key must not show another's."""
    refused = mlcore("models", "list", "-t", f"{tenant}x")
    assert refused.code == 1
    assert f"There is no tenant {tenant}x." in refused.err
    assert ("Did you mean t" in refused.err) == (door == "in_process")


def test_an_environment_without_gates_names_those_that_have_some(mlcore: Callable, trained: str) -> None:
    """And the command it shows is for the environment that was asked for."""
    model = ("-t", trained, "-m", "tickets")
    mlcore("gates", "set", "bytes", "digest_verified", *model)
    shown = mlcore("gates", "list", *model, "-e", "staging").out
    assert f"staging of {trained}/tickets has no gates. There are gates of: production." in shown
    assert "--environment staging" in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--action", "version.regstered"), "Did you mean version.registered?"),
        (("--action", "verson."), "Did you mean version.?"),
        (("--since", "2026-02-01", "--until", "2026-01-01"), "earlier"),
    ],
)
def test_an_audit_that_can_find_nothing(mlcore: Callable, tenant: str, options: tuple[str, ...], words: str) -> None:
    """An action that no change has, and a period without a moment."""
    refused = mlcore("audit", "-t", tenant, *options)
    assert refused.code == 1
    assert words in refused.err


def test_an_action_that_just_did_not_happen_is_no_typo(mlcore: Callable, tenant: str) -> None:
    """The list is empty then."""
    shown = mlcore("audit", "-t", tenant, "--action", "hold.placed")
    assert (shown.code, shown.out) == (0, "No such change is recorded.\n")


@pytest.mark.in_process
def test_a_home_that_is_made_is_named(mlcore: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo in MLCORE_HOME makes an empty platform: it is named once."""
    with temporary_home() as home:
        home.rmdir()
        monkeypatch.setenv("MLCORE_HOME", str(home))
        assert f"Making a new platform in {home}" in mlcore("tenants", "list").err
        assert mlcore("tenants", "list").err == ""
