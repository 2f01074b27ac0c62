"""``mlcore keys``, and verbs that act as the holder of a key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ml_core.database.connection import current_user
from support.tables import measures


def key_of(mlcore: Callable, tenant: str, *scopes: str) -> str:
    """A whole new key."""
    options = [part for scope in scopes for part in ("--scope", scope)]
    return str(mlcore("keys", "create", "-t", tenant, *options, "--json").json["key"])


@pytest.fixture
def model(mlcore: Callable, tenant: str, tmp_path: Path) -> list[str]:
    """The options that name a model with one version."""
    file = tmp_path / "data.csv"
    measures().to_csv(file, index=False)
    trained = mlcore("train", file, "-t", tenant, "-m", "m", "--target", "outcome", "--param", "algorithm=ridge")
    assert trained.code == 0, trained.err
    return ["-t", tenant, "-m", "m"]


def test_a_pasted_key_is_revoked_and_its_secret_is_not_told(mlcore: Callable, tenant: str) -> None:
    """The id is taken out of it; neither the answer nor an error repeats a secret."""
    key = key_of(mlcore, tenant)
    _, key_id, secret = key.split("_", 2)
    revoked = mlcore("keys", "revoke", key, "-t", tenant)
    assert revoked.out == f"Revoked {key_id} of {tenant}.\n"
    (listed,) = mlcore("keys", "list", "-t", tenant, "--json").json
    assert listed["revoked_at"] is not None
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
    refused = mlcore("keys", "create", "-t", tenant, "--scope", "promote:prod")
    assert refused.code == 1
    assert "Did you mean production?" in refused.err
    assert mlcore("keys", "list", "-t", tenant, "--json").json == []


def test_a_protected_environment_is_tried_with_keys(mlcore: Callable, tenant: str, model: list[str]) -> None:
    """The environment's own key moves it and is named in the history; a key that only promotes is refused."""
    mlcore("environments", "protect", "production", "-t", tenant)
    own, other = key_of(mlcore, tenant, "promote:production"), key_of(mlcore, tenant, "promote")
    refused = mlcore("promote", *model, "-v", "1", "--as-key", other)
    assert refused.code == 1
    assert f"mlcore keys create --tenant {tenant} --scope promote:production" in refused.err
    assert mlcore("promote", *model, "-v", "1", "--as-key", own).code == 0
    assert mlcore("withdraw", *model, "--as-key", own).code == 0
    assert mlcore("rollback", *model).code == 0
    moves = mlcore("environments", "history", *model, "--json").json
    assert [(move["action"], move["actor"]) for move in moves] == [
        ("rollback", current_user()),
        ("withdraw", f"key:{own.split('_')[1]}"),
        ("promote", f"key:{own.split('_')[1]}"),
    ]


def test_an_approval_is_given_with_a_key(mlcore: Callable, tenant: str, model: list[str]) -> None:
    """The refusal says how; with the approval the version passes."""
    mlcore("gates", "set", "signed", "approval", *model)
    refused = mlcore("promote", *model, "-v", "1")
    assert f"mlcore keys create --tenant {tenant} --scope approve" in refused.err
    assert mlcore("approve", *model, "-v", "1", "--as-key", key_of(mlcore, tenant, "approve")).code == 0
    assert mlcore("promote", *model, "-v", "1").code == 0


@pytest.mark.parametrize(
    "verb",
    [
        ("versions", "archive", "-m", "m", "-v", "1"),
        ("versions", "restore", "-m", "m", "-v", "1"),
        ("versions", "delete", "-m", "m", "-v", "1"),
        ("versions", "tag", "-m", "m", "-v", "1", "a=b"),
        ("models", "archive", "-m", "m"),
        ("models", "restore", "-m", "m"),
        ("models", "delete", "-m", "m", "--yes"),
        ("holds", "place", "-m", "m", "-v", "1", "--name", "legal", "--reason", "x"),
        ("holds", "release", "-m", "m", "-v", "1", "--name", "legal"),
        ("gates", "set", "bytes", "digest_verified", "-m", "m"),
        ("gates", "remove", "bytes", "-m", "m"),
        ("approve", "-m", "m", "-v", "1"),
        ("promote", "-m", "m", "-v", "1"),
        ("rollback", "-m", "m"),
        ("withdraw", "-m", "m"),
        ("environments", "protect", "production"),
        ("environments", "unprotect", "production"),
    ],
    ids=" ".join,
)
def test_a_key_does_only_what_it_may(mlcore: Callable, tenant: str, verb: tuple[str, ...], model: list[str]) -> None:
    """Every verb that takes ``--as-key`` asks for the key's scopes: one that may only read changes nothing."""
    refused = mlcore(*verb, "-t", tenant, "--as-key", key_of(mlcore, tenant, "read"))
    assert refused.code == 1
    assert "lacks the scope" in refused.err


def test_the_key_may_be_in_the_environment(
    mlcore: Callable, tenant: str, model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no list of processes shows it. Verbs without ``--as-key`` are not concerned, and an option goes before."""
    reader, mover = key_of(mlcore, tenant, "read"), key_of(mlcore, tenant, "promote")
    monkeypatch.setenv("MLCORE_AS_KEY", reader)
    assert "lacks the scope" in mlcore("promote", *model, "-v", "1").err
    assert mlcore("promote", *model, "-v", "1", "--as-key", mover).code == 0
    assert mlcore("keys", "create", "-t", tenant).code == 0


def test_a_key_of_another_tenant_is_none(mlcore: Callable, tenant: str, model: list[str]) -> None:
    """It is told as one that is not valid."""
    other = f"{tenant}b"
    mlcore("tenants", "create", other)
    refused = mlcore("promote", *model, "-v", "1", "--as-key", key_of(mlcore, other, "admin"))
    assert refused.code == 1
    assert "The API key is not valid" in refused.err
