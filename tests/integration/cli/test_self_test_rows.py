"""A tenant's policy on self-tests: with synthetic rows no cell of training is kept in a version, or printed."""

import json

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId

ROWS = 120


@pytest.fixture
def table():
    """Cells of every kind that differ from all else, and a category that many rows share."""
    random = np.random.default_rng(11)
    amounts = (random.permutation(ROWS) * 7919 + 100_003) / 1000
    return pd.DataFrame(
        {
            "email": [f"person{i}@customer{i}.example" for i in range(ROWS)],
            "amount": amounts,
            "spare": np.where(np.arange(ROWS) < 5, amounts + 0.123, np.nan),
            "at": [
                f"20{10 + i % 13}-0{1 + i % 9}-1{i % 10} 1{i % 10}:{10 + i % 50}:{11 + i % 40}" for i in range(ROWS)
            ],
            "city": [f"Village {i // 3}" if i < 60 else random.choice(["Metropolis", "Capital"]) for i in range(ROWS)],
            "note": [f"Caller Nr{i}x said that pump {i}y in hall {i % 7} makes a noise again" for i in range(ROWS)],
            "is_paid": random.choice([True, False], ROWS),
            "site": "Harbour Plant",
            "outcome": np.where(amounts > np.median(amounts), "late", "on time"),
        }
    )


def cells(frame):
    """What nobody but a row has: every cell but labels, booleans and what ten rows share."""
    found = set()
    for name in ("email", "amount", "spare", "at", "city", "note"):
        found |= {str(value) for value in frame[name].dropna()} - {"Metropolis", "Capital"}
    return found | {text.replace(" ", "T") for text in frame["at"]} | {"Harbour Plant"}


def kept(tenant):
    """The rows of a tenant's versions and of its runs, as the database has them."""
    tenant_id = TenantId(tenant)
    with DatabaseConnection() as database, database.tenant(tenant_id) as connection:
        return "\n".join(
            text
            for part in ("versions", "runs")
            for text in connection.scalars(sa.text(f"SELECT to_jsonb(t)::text FROM mlcore.{part} AS t"))
        )


def shown_in(cells, text):
    """The cells that a text has; JSON escapes are undone."""
    return sorted(cell for cell in cells if cell in text or json.dumps(cell)[1:-1] in text)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("model_type", ["classification", "anomaly_detection"])
def test_synthetic_rows_keep_no_cell_of_training(mlcore, tenant, tmp_path, table, kind, model_type):
    """Not in the version, its signature or run, nor in what train and versions show print; and it can be served."""
    file = tmp_path / f"t.{kind}"
    table.to_csv(file, index=False) if kind == "csv" else table.to_parquet(file, index=False)
    assert mlcore("tenants", "self-test-rows", tenant, "synthetic").code == 0
    target = (
        ("--target", "outcome") if model_type == "classification" else ("--type", model_type, "--ignore", "outcome")
    )
    common = ("-t", tenant, "-m", "m")
    printed = [mlcore("train", file, *common, *target, "-k", "city=category", *how) for how in ((), ("--json",))]
    assert {result.code for result in printed} == {0}, printed[0].err
    assert "not shown, since it may quote cells" in printed[0].out
    printed += [mlcore("versions", "show", *common, "-v", "1", *how) for how in ((), ("--json",))]
    for result in printed:
        assert shown_in(cells(table), result.out + result.err) == []
    assert shown_in(cells(table), kept(tenant)) == []
    categories = {column["name"]: column["categories"] for column in printed[-1].json["signature"]["inputs"]}
    assert sorted(categories["city"]) == ["Capital", "Metropolis"]
    assert mlcore("promote", *common, "-v", "1").code == 0


def test_rows_of_training_are_kept_by_default(mlcore, tenant, tmp_path, table):
    """So this file can see a cell; the policy is shown, and set for what is trained from then on."""
    table.to_csv(tmp_path / "t.csv", index=False)
    common = ("train", tmp_path / "t.csv", "-t", tenant, "-m", "m", "--target", "outcome")
    assert mlcore("tenants", "self-test-rows", tenant, "--json").json["self_test_rows"] == "training"
    trained = mlcore(*common)
    assert shown_in(cells(table), trained.out)
    assert "datasets" not in trained.err
    assert shown_in(cells(table), kept(tenant))
    before = kept(tenant)
    assert "Existing versions keep theirs" in mlcore("tenants", "self-test-rows", tenant, "synthetic").out
    listed = {row["tenant_id"]: row["self_test_rows"] for row in mlcore("tenants", "list", "--json").json["items"]}
    assert listed[tenant] == "synthetic"
    assert kept(tenant) == before


def test_notes_name_no_rare_class(mlcore, tenant, tmp_path, table):
    """A class of one row is a cell; how many there are is said."""
    table.loc[:1, "outcome"] = ["Settled by Jo", "Settled by Al"]
    table.to_csv(tmp_path / "t.csv", index=False)
    mlcore("tenants", "self-test-rows", tenant, "synthetic")
    common = ("train", tmp_path / "t.csv", "-t", tenant, "-m", "m", "--target", "outcome", "--rare-classes", "drop")
    result = mlcore(*common)
    assert result.code == 0, result.err
    assert "out of versions, but not out of datasets" in result.err
    told = result.out
    assert "2 of 120 training rows, of 2 class(es) with fewer than 2 training rows." in told
    assert shown_in({"Settled by Jo", "Settled by Al"}, told + kept(tenant)) == []


def test_whoever_trains_is_told_what_is_kept_before_the_table_is_sent(mlcore, tenant, tmp_path):
    """The note comes before the upload, which fails here."""
    mlcore("tenants", "self-test-rows", tenant, "synthetic")
    (tmp_path / "t.csv").write_text("a,outcome\n1\n")
    result = mlcore("train", tmp_path / "t.csv", "-t", tenant, "-m", "m", "--target", "outcome", "--json")
    assert result.code == 1
    assert result.err.startswith(
        "Note: The tenant's policy keeps training rows out of versions, but not out of datasets"
    )
    assert mlcore("datasets", "list", "-t", tenant, "--json").json["items"] == []


def test_only_an_admin_sets_the_policy(mlcore, tenant):
    """It says what is kept of the tenant's people."""
    key = mlcore("keys", "create", "-t", tenant, "--scope", "train", "--json").json["key"]
    refused = mlcore("tenants", "self-test-rows", tenant, "training", "--key", key)
    assert (refused.code, "scope 'admin'" in refused.err) == (1, True)
