"""``mlcore keys``, and verbs that act with a key."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from ml_core.database.connection import DatabaseConnection, current_user
from ml_core.ids import TenantId
from ml_core.registry.keys import KeyRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from support.registry import new_tenant, register

OVER_HTTP = True


def key_of(mlcore: Callable, tenant: str, *scopes: str) -> str:
    """A whole new key."""
    options = [part for scope in scopes for part in ("--scope", scope)]
    return str(mlcore("keys", "create", "-t", tenant, *options, "--json").json["key"])


@pytest.fixture
def model(registry: DatabaseConnection, tenant: str) -> list[str]:
    """The options that name a model with one version."""
    register(registry, TenantId(tenant))
    return ["-t", tenant, "-m", "tickets"]


@pytest.fixture
def me(door: str) -> str:
    """How histories name whoever sends the commands."""
    return current_user() if door == "in_process" else f"key:{os.environ['MLCORE_API_KEY'].split('_')[1]}"


def test_a_pasted_key_is_revoked_and_its_secret_is_not_repeated(mlcore: Callable, tenant: str) -> None:
    """The id is taken out of it; neither the answer nor an error repeats a secret."""
    key = key_of(mlcore, tenant)
    _, key_id, secret = key.split("_", 2)
    revoked = mlcore("keys", "revoke", key, "-t", tenant)
    assert revoked.out == f"Revoked {key_id} of {tenant}.\n"
    listed = {each["key_id"]: each for each in mlcore("keys", "list", "-t", tenant, "--json").json["items"]}
    assert listed[key_id]["revoked_at"] is not None
    for typo in (f"mlk_{key_id[:-1]}_{secret}", f"_{secret}"):
        refused = mlcore("keys", "revoke", typo, "-t", tenant)
        assert refused.code == 1
        assert secret[:8] not in refused.out + refused.err


def test_an_unknown_key_is_named_by_its_id_alone(mlcore: Callable, tenant: str) -> None:
    """What was pasted after the id is left out, and the command that lists the ids can be copied."""
    refused = mlcore("keys", "revoke", f"mlk_{'0' * 16}_{'s' * 32}", "-t", tenant)
    assert f"has no key {'0' * 16}." in refused.err
    assert "sss" not in refused.err
    assert f"mlcore keys list --tenant {tenant}" in refused.err


def test_a_scope_of_no_environment_is_refused(mlcore: Callable, tenant: str) -> None:
    """With the environment that was meant; no key is made."""
    before = mlcore("keys", "list", "-t", tenant, "--json").json
    refused = mlcore("keys", "create", "-t", tenant, "--scope", "promote:prod")
    assert refused.code == 1
    assert "Did you mean production?" in refused.err
    assert mlcore("keys", "list", "-t", tenant, "--json").json == before


@pytest.mark.both_doors
def test_a_protected_environment_is_tried_with_keys(mlcore: Callable, tenant: str, model: list[str], me: str) -> None:
    """The environment's own key moves it and is named in the history; a key that only promotes is refused."""
    mlcore("environments", "protect", "production", "-t", tenant)
    own, other = key_of(mlcore, tenant, "promote:production"), key_of(mlcore, tenant, "promote")
    refused = mlcore("promote", *model, "-v", "1", "--key", other)
    assert refused.code == 1
    assert f"mlcore keys create --tenant {tenant} --scope promote:production" in refused.err
    moved = mlcore("promote", *model, "-v", "1", "--key", own)
    assert (moved.code, "The replicas were not asked" in moved.err) == (0, True)
    assert mlcore("withdraw", *model, "--key", own).code == 0
    assert mlcore("rollback", *model).code == 0
    moves = mlcore("environments", "history", *model, "--json").json["items"]
    assert [(move["action"], move["actor"]) for move in moves] == [
        ("rollback", me),
        ("withdraw", f"key:{own.split('_')[1]}"),
        ("promote", f"key:{own.split('_')[1]}"),
    ]


def test_an_approval_is_given_with_a_key(mlcore: Callable, tenant: str, model: list[str]) -> None:
    """The refusal says how; with the approval the version passes."""
    mlcore("gates", "set", "signed", "approval", *model)
    refused = mlcore("promote", *model, "-v", "1")
    assert f"mlcore keys create --tenant {tenant} --scope approve" in refused.err
    assert f"mlcore approve --tenant {tenant} --model tickets --environment production --version 1" in refused.err
    assert mlcore("approve", *model, "-v", "1", "--key", key_of(mlcore, tenant, "approve")).code == 0
    assert mlcore("promote", *model, "-v", "1").code == 0


@pytest.mark.parametrize(
    "verb",
    [
        ("versions", "archive", "-m", "tickets", "-v", "1"),
        ("versions", "restore", "-m", "tickets", "-v", "1"),
        ("versions", "delete", "-m", "tickets", "-v", "1"),
        ("versions", "tag", "-m", "tickets", "-v", "1", "a=b"),
        ("models", "archive", "-m", "tickets"),
        ("models", "restore", "-m", "tickets"),
        ("models", "delete", "-m", "tickets", "--yes"),
        ("holds", "place", "legal", "-m", "tickets", "-v", "1", "--reason", "x"),
        ("holds", "release", "legal", "-m", "tickets", "-v", "1"),
        ("gates", "set", "bytes", "digest_verified", "-m", "tickets"),
        ("gates", "remove", "bytes", "-m", "tickets"),
        ("approve", "-m", "tickets", "-v", "1"),
        ("promote", "-m", "tickets", "-v", "1"),
        ("rollback", "-m", "tickets"),
        ("withdraw", "-m", "tickets"),
        ("environments", "protect", "production"),
        ("environments", "unprotect", "production"),
    ],
    ids=" ".join,
)
def test_a_key_does_only_what_it_may(mlcore: Callable, tenant: str, verb: tuple[str, ...], model: list[str]) -> None:
    """Every verb that takes ``--key`` asks for the key's scopes: one that may only read changes nothing."""
    refused = mlcore(*verb, "-t", tenant, "--key", key_of(mlcore, tenant, "read"))
    assert refused.code == 1
    assert "lacks the scope" in refused.err


@pytest.mark.both_doors
def test_the_key_may_be_in_the_environment(
    mlcore: Callable, tenant: str, model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no list of processes shows it. The option has precedence."""
    reader, mover = key_of(mlcore, tenant, "read"), key_of(mlcore, tenant, "promote", "read")
    monkeypatch.setenv("MLCORE_API_KEY", reader)
    assert "lacks the scope" in mlcore("promote", *model, "-v", "1").err
    assert mlcore("promote", *model, "-v", "1", "--key", mover).code == 0


def test_a_key_of_another_tenant_finds_nothing(
    mlcore: Callable, registry: DatabaseConnection, tenant: str, model: list[str]
) -> None:
    """It is answered as for a tenant that does not exist."""
    other = KeyRepository(registry, new_tenant(registry)).create("other", ["admin"])
    refused = mlcore("promote", *model, "-v", "1", "--key", str(other))
    assert refused.code == 1
    assert f"There is no tenant {tenant}." in refused.err


@pytest.mark.both_doors
def test_a_key_of_the_platform_is_created_listed_and_revoked(
    mlcore: Callable, registry: DatabaseConnection, tenant: str, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It creates tenants and gives each a key; a tenant's key may do none of it, and it has no tenant itself."""
    if door == "over_http":
        assert "in its own tenants only" in mlcore("keys", "list", "--platform").err
        monkeypatch.setenv("MLCORE_API_KEY", str(PlatformKeyRepository(registry).create("operator", ["admin"])))
    made = mlcore("keys", "create", "--platform", "--scope", "admin", "--name", "console", "--json").json
    assert (made["name"], made["scopes"], "tenant_id" in made) == ("console", ["admin"], False)
    names = [f"{tenant}b", f"{tenant}c"]
    assert mlcore("tenants", "create", *names, "--key", made["key"]).code == 0
    several = mlcore("keys", "create", "-t", names[0], "-t", names[1], "--key", made["key"], "--json").json
    assert [each["tenant_id"] for each in several] == names
    assert made["key_id"] in mlcore("keys", "list", "--platform").out
    assert mlcore("keys", "revoke", made["key_id"], "--platform").out == f"Revoked {made['key_id']} of the platform.\n"
    assert "not valid" in mlcore("tenants", "list", "--key", made["key"]).err
    again = mlcore("keys", "revoke", "0" * 16, "--platform")
    assert (again.code, "mlcore keys list --platform" in again.err) == (1, True)
    refused = mlcore("keys", "create", "--platform", "-t", tenant, "--scope", "read")
    assert (refused.code, "either --tenant or --platform" in refused.err) == (1, True)
    assert "admin or read" in mlcore("keys", "create", "--platform", "--scope", "predict").err
