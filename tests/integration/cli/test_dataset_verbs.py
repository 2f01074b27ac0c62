"""``mlcore datasets`` and training on a dataset, as a person types it."""

import sqlite3

import pandas as pd
import pytest

from support.tables import tickets

OVER_HTTP = True


@pytest.fixture
def csv(tmp_path):
    tickets().to_csv(tmp_path / "tickets.csv", index=False)
    return tmp_path / "tickets.csv"


@pytest.mark.both_doors
def test_a_file_becomes_a_dataset(mlcore, tenant, csv):
    """It says what it stored and how to go on; the same file again is the same version."""
    made = mlcore("datasets", "create", "tickets_2026", "-t", tenant, csv)
    assert (made.code, "tickets_2026@1: 240 rows, 6 columns" in made.out) == (0, True), made.err
    assert f"mlcore train --tenant {tenant} --dataset tickets_2026@1" in made.out
    again = mlcore("datasets", "create", "tickets_2026", "-t", tenant, csv, "--json").json
    assert (again["reference"], again["row_count"], again["is_new"]) == ("tickets_2026@1", 240, False)
    known = mlcore("datasets", "create", "tickets_2026", "-t", tenant, csv)
    assert "tickets_2026@1 holds this very table already: 240 rows" in known.out
    (listed,) = mlcore("datasets", "list", "-t", tenant, "--json").json["items"]
    assert (listed["dataset_id"], listed["newest"], listed["versions"]) == ("tickets_2026", 1, 1)
    assert "csv, tickets.csv" in mlcore("datasets", "versions", "tickets_2026", "-t", tenant).out


def test_parquet_and_queries_become_datasets_too(mlcore, tenant, tmp_path, monkeypatch):
    """The file's name tells its kind."""
    frame = pd.DataFrame({"n": [1, 2]})
    frame.to_parquet(tmp_path / "t.parquet")
    with sqlite3.connect(tmp_path / "t.db") as connection:
        frame.to_sql("t", connection, index=False)
    connection.close()
    first = mlcore("datasets", "create", "a", "-t", tenant, tmp_path / "t.parquet", "--json").json
    monkeypatch.setenv("SHOP_URL", f"sqlite:///{tmp_path}/t.db")
    query = ("--sql", "SELECT n FROM t ORDER BY n", "--connection", "SHOP_URL")
    second = mlcore("datasets", "create", "b", "-t", tenant, *query, "--json").json
    assert first["digest"] == second["digest"]
    assert (first["source"]["kind"], second["source"]["kind"]) == ("parquet", "sql")
    refused = mlcore("datasets", "create", "b", "-t", tenant, *query, "--max-rows", 1)
    assert (refused.code, "The table has 2 rows; at most 1 are accepted" in refused.err) == (1, True)


def test_two_versions_are_compared(mlcore, tenant, tmp_path):
    """Which columns came, went and drifted; a table drifted from itself in nothing."""
    now = tickets(300, seed=1).assign(extra=1, priority=range(300)).drop(columns="is_paying")
    now["minutes_open"] += 3_000
    for frame in (tickets(), now):
        frame.to_csv(tmp_path / "t.csv", index=False)
        assert mlcore("datasets", "create", "t", "-t", tenant, tmp_path / "t.csv").code == 0
    shown = mlcore("datasets", "compare", "t@1", "-t", tenant).out
    assert "t@2 against t@1: alert." in shown
    assert "columns added: extra" in shown
    assert "columns removed: is_paying" in shown
    assert "columns changed: priority" in shown
    found = mlcore("datasets", "compare", "t@1", "2", "-t", tenant, "--json").json
    assert (found["columns"][0]["name"], found["columns"][0]["verdict"]) == ("minutes_open", "alert")
    assert "t@2 against t@2: ok." in mlcore("datasets", "compare", "t@2", "2", "-t", tenant).out
    missing = mlcore("datasets", "compare", "t@1", "7", "-t", tenant)
    assert (missing.code, "7" in missing.err) == (1, True)
    assert "names a dataset, not one of its versions" in mlcore("datasets", "compare", "t", "-t", tenant).err


@pytest.mark.parametrize(
    ("given", "words"), [("NOT_SET", "NOT_SET is not set"), ("postgresql://me:secret@h/d", "not the name of an")]
)
def test_a_connection_is_the_name_of_a_variable(mlcore, tenant, given, words):
    """A URL in its place is not repeated."""
    refused = mlcore("datasets", "create", "b", "-t", tenant, "--sql", "SELECT 1", "--connection", given)
    assert (refused.code, words in refused.err, "secret" in refused.err) == (1, True, False)


@pytest.fixture
def parts(tmp_path):
    """A pattern that names the tickets in two parts."""
    (tmp_path / "data").mkdir()
    for n in (0, 1):
        tickets().iloc[n * 120 : n * 120 + 120].to_csv(tmp_path / f"data/{n}.csv", index=False)
    return f"{tmp_path}/data/*.csv"


@pytest.mark.both_doors
def test_files_that_a_pattern_names_are_one_dataset(mlcore, tenant, csv, parts):
    """That of the whole file; so they are to train and to predict."""
    whole = mlcore("datasets", "create", "whole", "-t", tenant, csv, "--json").json
    made = mlcore("datasets", "create", "parts", "-t", tenant, parts, "--json").json
    assert (made["digest"], made["source"]) == (whole["digest"], {"kind": "csv", "file": parts, "files": "2"})
    common = ("-t", tenant, "-m", "m")
    train = mlcore("train", parts, *common, "--target", "category", "-p", "algorithm=logistic_regression", "--json")
    assert (train.code, train.json["dataset"]) == (0, "m@1"), train.err
    assert len(mlcore("predict", *common, parts, "--json").json["predictions"]) == 240


def test_training_on_files_that_differ_fails_at_once(mlcore, tenant, parts):
    """Before anything is stored, with the file and the column, and no hint that would not help."""
    path = parts.replace("*", "1")
    tickets().assign(minutes_open="long").to_csv(path, index=False)
    refused = mlcore("train", parts, "-t", tenant, "-m", "m", "--target", "category")
    assert (refused.code, f"numbers in {parts.replace('*', '0')}, text in {path}" in refused.err) == (1, True)
    assert "--ignore" not in refused.err
    assert mlcore("datasets", "list", "-t", tenant, "--json").json["items"] == []


def test_the_profile_is_shown(mlcore, tenant, csv):
    """A line a column: kind, missing, distinct and what the values are like."""
    mlcore("datasets", "create", "t", "-t", tenant, csv)
    shown = mlcore("datasets", "show", "t", "-t", tenant).out
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "datetime" in lines["opened"]
    assert "2026-01-01 00:00:00 to 2026-03-" in lines["opened"]
    assert "characters" in lines["subject"]
    assert "mean" in lines["minutes_open"]
    assert "%" in lines["category"]
    assert "csv, tickets.csv" in lines["source"]
    data = mlcore("datasets", "show", "t@1", "-t", tenant, "--json").json
    assert {column["name"] for column in data["profile"]["columns"]} == set(tickets().columns)


@pytest.mark.both_doors
def test_an_export_gives_the_table_back(mlcore, tenant, csv, tmp_path):
    """As CSV and as Parquet; nothing is written over."""
    mlcore("datasets", "create", "t", "-t", tenant, csv)
    for name in ("out.csv", "out.parquet"):
        assert mlcore("datasets", "export", "t@1", "--output", tmp_path / name, "-t", tenant).code == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out.csv"), pd.read_csv(csv))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), pd.read_csv(csv), check_dtype=False)
    again = mlcore("datasets", "export", "t", "--output", tmp_path / "out.csv", "-t", tenant)
    assert (again.code, "exists already" in again.err) == (1, True)


def test_versions_are_archived_restored_and_deleted(mlcore, tenant, csv):
    """By name and number; a name alone is refused."""
    mlcore("datasets", "create", "t", "-t", tenant, csv)
    assert mlcore("datasets", "archive", "t@1", "-t", tenant).code == 0
    assert mlcore("datasets", "list", "-t", tenant, "--json").json["items"] == []
    assert mlcore("datasets", "versions", "t", "-t", tenant, "--archived", "--json").json["items"][0]["archived_at"]
    assert mlcore("datasets", "restore", "t@1", "-t", tenant).code == 0
    refused = mlcore("datasets", "delete", "t", "-t", tenant)
    assert (refused.code, "t@1" in refused.err) == (1, True)
    assert mlcore("datasets", "delete", "t@1", "-t", tenant).code == 0
    assert mlcore("datasets", "show", "t@1", "-t", tenant).code == 1


def test_empty_lists_say_how_to_begin(mlcore, tenant):
    """With the verb to type."""
    assert f"mlcore datasets create NAME FILE -t {tenant}" in mlcore("datasets", "list", "-t", tenant).out


def test_a_dataset_that_does_not_exist_is_no_empty_list(mlcore, tenant, csv):
    """The nearest is named; one whose versions are all archived is told so, and marked where they are shown."""
    assert mlcore("datasets", "create", "tickets", "-t", tenant, csv, "--json").json["is_new"] is True
    for verb in ("versions", "show"):
        missing = mlcore("datasets", verb, "tikets", "-t", tenant)
        assert (missing.code, "Did you mean tickets?" in missing.err) == (1, True)
    beyond = mlcore("datasets", "show", "tickets@9", "-t", tenant)
    assert (beyond.code, "mlcore datasets versions tickets" in beyond.err) == (1, True)
    mlcore("datasets", "archive", "tickets@1", "-t", tenant)
    assert "are archived: --archived shows them" in mlcore("datasets", "versions", "tickets", "-t", tenant).out
    assert "mlcore datasets restore tickets@1" in mlcore("datasets", "show", "tickets", "-t", tenant).err
    for verb in (("list",), ("versions", "tickets")):
        assert "archived at" in mlcore("datasets", *verb, "-t", tenant, "--archived").out


@pytest.mark.parametrize("options", [(), ("a.csv", "--sql", "SELECT 1"), ("--sql", "SELECT 1")])
def test_a_dataset_is_made_from_one_thing(mlcore, tenant, options):
    """A file, or a query with its database."""
    result = mlcore("datasets", "create", "x", "-t", tenant, *options)
    assert (result.code, "--sql QUERY with --connection VARIABLE" in result.err) == (1, True)


def test_training_keeps_the_file_as_a_dataset(mlcore, tenant, csv):
    """As the next version of --dataset; the lineage names it, and training on it again gives the same model."""
    common = ("-t", tenant, "-m", "tickets", "--target", "category", "-p", "algorithm=logistic_regression")
    first = mlcore("train", csv, "--dataset", "tickets_2026", *common, "--json")
    assert first.code == 0, first.err
    second = mlcore("train", "--dataset", "tickets_2026", *common, "--json")
    assert second.code == 0, second.err
    assert first.json["metrics"] == second.json["metrics"]
    lineage = mlcore("versions", "lineage", "-t", tenant, "-m", "tickets", "--version", "2", "--json").json
    assert lineage["datasets"] == ["tickets_2026@1"]
    refused = mlcore("datasets", "delete", "tickets_2026@1", "-t", tenant)
    assert (refused.code, "tickets@1" in refused.err) == (1, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "Give a FILE, or --dataset NAME"),
        (("--dataset", "none@1"), "none does not exist"),
        (("--dataset", "none@one"), "tickets_2026@3"),
    ],
)
def test_training_needs_one_table(mlcore, tenant, options, words):
    """A file or a dataset that exists."""
    result = mlcore("train", "-t", tenant, "-m", "m", "--target", "y", *options)
    assert (result.code, words in result.err) == (1, True), result.err


def test_training_names_the_dataset_that_it_registers(mlcore, tenant, csv):
    """That it was made, or was there already, and which it is as JSON; without a name it has that of the model."""
    train = ("train", "-t", tenant, "-m", "m", "--target", "category", "-p", "algorithm=logistic_regression")
    first = mlcore(*train, csv, "--dataset", "tickets")
    assert "Registered the table as tickets@1, 240 rows." in first.out, first.err
    assert "registered already as tickets@1" in mlcore(*train, csv, "--dataset", "tickets").out
    for given, dataset in (((csv,), "m@1"), (("--dataset", "tickets"), "tickets@1"), ((csv,), "m@1")):
        assert mlcore(*train, *given, "--json").json["dataset"] == dataset
    assert "data: the same" in mlcore("versions", "compare", "-t", tenant, "-m", "m", "1", "5").out


def test_a_version_that_is_taken_is_refused_before_training(mlcore, tenant, csv):
    """No run began and nothing was registered; so is the name of one that was deleted."""
    train = ("train", csv, "-t", tenant, "-m", "m", "--target", "category", "-p", "algorithm=logistic_regression")
    assert mlcore(*train, "--version", "1.0").code == 0
    refused = mlcore(*train, "--version", "1.0", "--dataset", "never")
    assert (refused.code, "Version 1.0 of m exists" in refused.err) == (1, True)
    assert len(mlcore("runs", "list", "-t", tenant, "--json").json["items"]) == 1
    listed = mlcore("datasets", "list", "-t", tenant, "--json").json["items"]
    assert [dataset["dataset_id"] for dataset in listed] == ["m"]
    version = ("-t", tenant, "-m", "m", "--version", "1.0")
    mlcore("versions", "archive", *version)
    mlcore("versions", "delete", *version)
    assert "was deleted" in mlcore(*train, "--version", "1.0").err
