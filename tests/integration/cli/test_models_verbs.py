"""``mlcore models``, and the pages and rows of lists of versions."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from support.tables import measures

OVER_HTTP = True


@pytest.fixture
def model(mlcore: Callable, tenant: str, tmp_path: Path) -> list[str]:
    """The options that name a model with two versions."""
    file = tmp_path / "data.csv"
    measures().to_csv(file, index=False)
    for alpha in ("1", "2"):
        fit = ("--target", "outcome", "--param", "algorithm=ridge", "--param", f"alpha={alpha}")
        trained = mlcore("train", file, "-t", tenant, "-m", "tickets", *fit)
        assert trained.code == 0, trained.err
    return ["-t", tenant, "-m", "tickets"]


def test_a_model_is_archived_restored_and_deleted(mlcore: Callable, tenant: str, model: list[str]) -> None:
    """As a whole; an archived one is marked where it is listed at all."""
    assert mlcore("models", "archive", *model).code == 0
    assert mlcore("models", "list", "-t", tenant, "--json").json["items"] == []
    listed = mlcore("models", "list", "-t", tenant, "--archived")
    assert "archived at" in listed.out.splitlines()[0]
    assert "tickets" in listed.out
    assert "mlcore models restore" in mlcore("promote", *model, "-v", "1").err
    assert mlcore("models", "restore", *model, "--json").json["restored"] is True
    assert mlcore("models", "delete", *model, "--yes").code == 0
    assert mlcore("models", "list", "-t", tenant, "--archived", "--json").json["items"] == []


@pytest.mark.both_doors
def test_deleting_a_model_asks_first(mlcore: Callable, model: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its name nothing is deleted; with --json nothing is asked."""
    monkeypatch.setattr("sys.stdin", io.StringIO("other\n"))
    assert mlcore("models", "delete", *model).code == 1
    assert "--yes" in mlcore("models", "delete", *model, "--json").err
    assert len(mlcore("versions", "list", *model, "--json").json["items"]) == 2


def test_a_served_model_names_the_verb_that_frees_it(mlcore: Callable, tenant: str, model: list[str]) -> None:
    """As a command to copy, for the environment that serves it."""
    mlcore("promote", *model, "-v", "1", "-e", "staging")
    refused = mlcore("models", "archive", *model)
    assert f"mlcore withdraw --tenant {tenant} --model tickets --environment staging" in refused.err


@pytest.mark.both_doors
def test_versions_are_listed_in_pages_and_archived_ones_marked(mlcore: Callable, model: list[str]) -> None:
    """The option that is named shows what comes next."""
    page = mlcore("versions", "list", *model, "--limit", "1")
    cursor = page.err.split("More: --cursor ")[1].strip()
    rest = mlcore("versions", "list", *model, "--cursor", cursor, "--json").json
    assert ([row["version"] for row in rest["items"]], rest["next_cursor"]) == (["1"], None)
    mlcore("versions", "archive", *model, "-v", "1")
    rows = mlcore("versions", "list", *model, "--archived", "--json").json["items"]
    assert [(row["version"], row["archived_at"] is not None) for row in rows] == [("2", False), ("1", True)]
    assert "archived at" in mlcore("versions", "list", *model, "--archived").out
    mlcore("versions", "archive", *model, "-v", "2")
    assert "--archived" in mlcore("versions", "list", *model).out


def test_a_version_is_shown_whole(mlcore: Callable, tenant: str, model: list[str]) -> None:
    """Where it belongs, its metrics, its columns and its size with separators."""
    mlcore("versions", "tag", *model, "-v", "1", "stage=pilot")
    shown = mlcore("versions", "show", *model, "-v", "1").out
    assert f"{tenant}/tickets (classification)" in shown
    assert "stage=pilot" in shown
    assert "m0, m1" in shown
    document = mlcore("versions", "show", *model, "-v", "1", "--json").json
    assert f"{document['size_bytes']:,} bytes" in shown
    assert (document["model_id"], document["version"]) == ("tickets", "1")
    assert document["lineage"]["run_id"].startswith("run_")


@pytest.mark.in_process
def test_deleted_tenants_are_listed(mlcore: Callable, tenant: str) -> None:
    """With when; and --json does not stop to ask."""
    asked = mlcore("tenants", "delete", tenant, "--json")
    assert (asked.code, "--yes" in asked.err) == (1, True)
    assert mlcore("tenants", "delete", tenant, "--yes").code == 0
    listed = mlcore("tenants", "list", "--deleted", "--json").json["items"]
    assert {row["tenant_id"]: row["deleted_at"] for row in listed}[tenant] is not None
    assert tenant not in {row["tenant_id"] for row in mlcore("tenants", "list", "--json").json["items"]}
