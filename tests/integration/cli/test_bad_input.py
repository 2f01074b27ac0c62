"""Bad input on the command line: one clear message with the remedy, exit code 1, nothing half-written."""

import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_core.models.store import LocalStore
from support.tables import measures, tickets

OVER_HTTP = True


def one_class(frame):
    return frame.assign(outcome="yes")


def all_missing(frame):
    return frame.assign(empty=np.nan)


def mixed(frame):
    values = [str(n % 60) for n in range(len(frame))]
    values[3], values[17] = "a lot", "see notes"
    return frame.assign(amount=values)


BAD_TABLES = {
    "no target column": (lambda f: f.drop(columns=["outcome"]), ["outcome", "m0"]),
    "one class": (one_class, ["outcome", "one class"]),
    "zero rows": (lambda f: f.head(0), ["no row"]),
    "an all-missing column": (all_missing, ["empty", "--ignore empty"]),
    "five rows": (lambda f: f.head(5), ["5 rows"]),
    "mixed types": (mixed, ["amount", "--kind amount=category"]),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_table_that_can_not_train_is_explained(mlcore, tenant, tmp_path, name):
    """The message names the column or count, and what to do; no version and no artifact of one is left."""
    change, expected = BAD_TABLES[name]
    file = tmp_path / "data.csv"
    change(measures()).to_csv(file, index=False)
    result = mlcore("train", file, "-t", tenant, "-m", "m", "--target", "outcome")
    assert result.code == 1
    assert "Traceback" not in result.err
    for text in expected:
        assert text in result.err, result.err
    assert nothing_written(mlcore, tenant)


def nothing_written(mlcore, tenant):
    """Whether there is no model, and no file but those of the datasets that were uploaded."""
    kept = set()
    for dataset in mlcore("datasets", "list", "-t", tenant, "--json").json["items"]:
        versions = mlcore("datasets", "versions", dataset["dataset_id"], "-t", tenant, "--json").json["items"]
        kept |= {version["digest"] for version in versions}
    home = Path(os.environ["MLCORE_HOME"])
    files = [path for folder in (home / "artifacts" / tenant, home / "uploads") for path in folder.rglob("*")]
    names = {path.name for path in files if path.is_file()}
    return mlcore("models", "list", "-t", tenant, "--json").json["items"] == [] and names == kept


@pytest.mark.parametrize("names", [range(13), pd.MultiIndex.from_product([["a"], map(str, range(13))])])
def test_a_target_may_be_called_by_a_number_or_tuple(mlcore, tenant, tmp_path, names):
    """As a Parquet file can have it: named by the text of it, and left out by it too."""
    frame = measures().set_axis(names, axis=1)
    frame.to_parquet(tmp_path / "t.parquet")
    target, ignored = str(frame.columns[12]), str(frame.columns[5])
    common = ("train", tmp_path / "t.parquet", "-t", tenant, "-m", "m", "--json", "--target", target)
    result = mlcore(*common, "--ignore", ignored)
    assert result.code == 0, result.err
    assert ignored not in [column["name"] for column in result.json["columns"]]
    assert result.json["metrics"]["validation"]["accuracy"] > 0.8
    assert "has no column" in mlcore(*common[:-1], target + "x").err


def test_a_target_that_two_columns_may_be_is_refused(mlcore, tenant, tmp_path):
    """A Parquet file may have two columns of one name."""
    frame = pa.Table.from_pandas(measures()).rename_columns([*map(str, range(12)), "7"])
    pq.write_table(frame, tmp_path / "t.parquet")
    result = mlcore("train", tmp_path / "t.parquet", "-t", tenant, "-m", "m", "--target", "7")
    assert (result.code, "t.parquet has several columns called '7'" in result.err) == (1, True), result.err


def test_a_wide_table_trains(mlcore, tenant, tmp_path):
    """Two hundred columns are no reason to refuse."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(60, 199)), columns=[f"c{i}" for i in range(199)])
    frame["outcome"] = np.where(frame["c0"] > 0, "yes", "no")
    file = tmp_path / "wide.csv"
    frame.to_csv(file, index=False)
    result = mlcore("train", file, "-t", tenant, "-m", "wide", "--target", "outcome", "--json")
    assert result.code == 0, result.err
    assert len(result.json["columns"]) == 199


@pytest.mark.both_doors
def test_a_file_in_another_encoding_is_explained_and_then_read(mlcore, tenant, tmp_path):
    """The message names the option; with the option the file trains."""
    file = tmp_path / "latin.csv"
    frame = tickets()
    frame["priority"] = "größer"
    file.write_bytes(frame.to_csv(index=False).encode("latin-1"))
    common = ("train", file, "-t", tenant, "-m", "m", "--target", "category")
    refused = mlcore(*common)
    assert refused.code == 1
    assert "--encoding" in refused.err
    assert mlcore(*common, "--encoding", "latin-1").code == 0


@pytest.mark.parametrize("name", ["../evil", "Tickets", "x" * 300, "tickëts", "", "a/b"])
def test_a_bad_model_name_is_refused(mlcore, tenant, tmp_path, name):
    """Before anything is read or written; the message has the rule."""
    file = tmp_path / "data.csv"
    measures().to_csv(file, index=False)
    result = mlcore("train", file, "-t", tenant, "-m", name, "--target", "outcome")
    assert result.code == 1
    assert "beginning with a letter" in result.err
    assert len(result.err) < 400
    assert nothing_written(mlcore, tenant)


@pytest.mark.in_process
@pytest.mark.parametrize("name", ["../evil", "Acme", "x" * 300, "acmé", ""])
def test_a_bad_tenant_name_is_refused(mlcore, name):
    """The same for tenants."""
    result = mlcore("tenants", "create", name)
    assert result.code == 1
    assert "beginning with a letter" in result.err


@pytest.mark.in_process
def test_an_unknown_tenant_is_not_made_by_mistake(mlcore, tmp_path):
    """A misspelt tenant must not become a new one."""
    file = tmp_path / "data.csv"
    measures().to_csv(file, index=False)
    result = mlcore("train", file, "-t", "acmee", "-m", "m", "--target", "outcome")
    assert result.code == 1
    assert "mlcore tenants create acmee" in result.err


@pytest.mark.both_doors
def test_an_unknown_hyperparameter_names_the_nearest(mlcore, tenant, tmp_path):
    """A misspelling is corrected, not ignored."""
    file = tmp_path / "data.csv"
    measures().to_csv(file, index=False)
    result = mlcore("train", file, "-t", tenant, "-m", "m", "--target", "outcome", "-p", "max_dept=3")
    assert result.code == 1
    assert "max_depth" in result.err


@pytest.mark.both_doors
def test_a_full_disk_leaves_nothing(mlcore, tenant, tmp_path, monkeypatch, door):
    """No space left while the artifact is written: a clear error, no version, no temporary file.

    Only who runs the store is told where it is; a tenant gets the id under which the operator finds it in the log.
    """
    file = tmp_path / "data.csv"
    measures().to_csv(file, index=False)

    def no_space(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        result = mlcore("train", file, "-t", tenant, "-m", "m", "--target", "outcome")
    assert result.code == 1
    assert "The artifact store is full; nothing was stored" in result.err
    assert ("No space left on device" in result.err) == (door == "in_process")
    assert "Request id: " in result.err
    assert nothing_written(mlcore, tenant)


def test_a_flipped_byte_is_not_loaded(mlcore, tenant, tmp_path, cli_home):
    """The digest is checked before anything is parsed."""
    from ml_core.ids import Digest, TenantId

    file = tmp_path / "data.csv"
    measures().to_csv(file, index=False)
    mlcore("train", file, "-t", tenant, "-m", "m", "--target", "outcome")
    (version,) = mlcore("versions", "list", "-t", tenant, "-m", "m", "--json").json["items"]
    path = LocalStore(cli_home / "artifacts").path(TenantId(tenant), Digest(version["digest"]))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.chmod(0o600)
    path.write_bytes(bytes(data))
    result = mlcore("predict", "-t", tenant, "-m", "m", file)
    assert result.code == 1
    assert "sha256" in result.err.lower() or "digest" in result.err.lower()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["predict", "-t", "T", "-m", "m"], "--row"),
        (["predict", "-t", "T", "-m", "m", "--row", "{'a': 1}"], "not JSON"),
        (["predict", "-t", "T", "-m", "nothing", "--row", "{}"], "nothing"),
        (["predict", "-t", "T", "-m", "m", "--row", "{}", "-v", "1", "-e", "staging"], "either"),
        (["predict", "-t", "T", "-m", "m", "--row", "{}", "--url", "http://127.0.0.1:1"], "--key"),
        (["promote", "-t", "T", "-m", "nothing", "-v", "1"], "nothing"),
        (["rollback", "-t", "T", "-m", "nothing"], "nothing"),
        (["keys", "revoke", "0000", "-t", "T"], "keys"),
        (["train", "missing.csv", "-t", "T", "-m", "m", "--target", "y"], "missing.csv"),
        (["train", "x.csv", "-t", "T", "-m", "m", "--target", "y", "-p", "depth"], "name=value"),
        (["train", "x.csv", "-t", "T", "-m", "m", "--target", "y", "-k", "a=zip"], "category"),
    ],
)
def test_wrong_use_is_explained(mlcore, tenant, arguments, expected):
    """Each says what was wrong, in one message, without a traceback."""
    result = mlcore(*[tenant if argument == "T" else argument for argument in arguments])
    assert result.code == 1
    assert expected in result.err
    assert "Traceback" not in result.err


@pytest.mark.in_process
def test_a_key_of_the_environment_is_used(mlcore, tenant, monkeypatch):
    """It asks over HTTP; where nothing runs, the message says how to go on."""
    monkeypatch.setenv("MLCORE_API_KEY", "mlk_of_the_environment")
    result = mlcore("predict", "-t", tenant, "-m", "m", "--row", "{}")
    assert result.code == 1
    assert "no platform runs on this machine" in result.err


def test_the_target_can_not_be_ignored(mlcore, tenant, tmp_path):
    """Both at once is a mistake; nothing is trained."""
    file = tmp_path / "data.csv"
    measures().to_csv(file, index=False)
    result = mlcore("train", file, "-t", tenant, "-m", "m", "--target", "outcome", "--ignore", "outcome")
    assert result.code == 1
    assert "both the target and ignored" in result.err
    assert nothing_written(mlcore, tenant)


def test_a_misspelt_target_names_the_nearest(mlcore, tenant, tmp_path):
    """The columns are listed, the nearest first."""
    file = tmp_path / "data.csv"
    measures().to_csv(file, index=False)
    result = mlcore("train", file, "-t", tenant, "-m", "m", "--target", "outcom")
    assert "Did you mean outcome?" in result.err
    options = ("--target", "outcome", "--kind", "m00=category")
    result = mlcore("train", file, "-t", tenant, "-m", "m", *options)
    assert "has no column 'm00'. Did you mean m0?" in result.err
    assert "--ignore" not in result.err


@pytest.mark.in_process
def test_errors_are_json_for_programs(mlcore):
    """With --json the one error shape, on standard error."""
    import json

    result = mlcore("models", "list", "-t", "Nope", "--json")
    assert result.code == 1
    error = json.loads(result.err)["error"]
    assert error["code"] == "invalid_name"


REFUSED_WITHOUT_DATA = {
    ("--param", "algorithm=logistic_regresion"): "Did you mean logistic_regression",
    ("--param", "max_dept=3"): "Did you mean max_depth",
    ("--param", "algorithm=lasso", "--param", "alpa=3"): "Lasso has no hyperparameter 'alpa'. Did you mean alpha",
    ("--param", "n_estimators=-1"): "n_estimators",
    ("--param", "algorithm=lasso", "--type", "classification"): "no algorithm 'lasso' for classification",
    ("--param", "algorithm=lasso", "--calibration", "sigmoid"): "Only a classification can be calibrated",
    ("--type", "clustering", "--param", "algorithm=gaussian_mixture", "--weight", "m1"): "takes no weights of rows",
    ("--type", "regressio"): "regression",
    ("--type", "regression", "--rare-classes", "drop"): "applies to a classification only",
    ("--type", "clustering", "--calibration", "sigmoid"): "Only a classification",
    ("--rare-classes", "dropp"): "merge:other",
    ("--cross-validation", "1"): "cross_validation",
    ("--selection-seconds", "0"): "selection_seconds",
    ("--split-seed", "-1"): "split_seed",
    ("--kind", "m1=categry"): "Use one of",
    ("--group", "m1", "--time", "m2"): "a group and a time",
    ("--group", "m1", "--weight", "m1"): "both the group and the weight",
    ("--weight", "outcome"): "both the target and the weight",
    ("--ignore", "outcome"): "both the target and ignored",
    ("--group", "m1", "--kind", "m1=category"): "is the group, and no input",
    ("--validation-dataset", "nowhere"): "nowhere",
    ("--validation", "no_such.csv"): "no_such.csv can't be read",
    ("--validation", "no_such/*.csv"): "names no file",
    ("--version", "a b"): "not a valid version name",
    ("--dataset", "A table"): "not a valid dataset name",
    ("--encoding", "utf-7.5"): "is not an encoding",
}
"""Options of a training → what the message has."""


@pytest.mark.parametrize("options", REFUSED_WITHOUT_DATA, ids=" ".join)
def test_what_no_data_can_mend_is_refused_before_the_upload(mlcore, tenant, tmp_path, options):
    """No dataset is registered for nothing."""
    file = tmp_path / "data.csv"
    measures().to_csv(file, index=False)
    result = mlcore("train", file, "-t", tenant, "-m", "m", "--target", "outcome", *options)
    assert result.code in (1, 2)
    assert REFUSED_WITHOUT_DATA[options] in result.err, result.err
    assert "Storing" not in result.err
    assert mlcore("datasets", "list", "-t", tenant, "--json").json["items"] == []


def test_a_version_of_a_dataset_is_measured_on_a_file(mlcore, tenant, tmp_path):
    """The file becomes a dataset of its own, named after the first."""
    file = tmp_path / "data.csv"
    measures().to_csv(file, index=False)
    common = ("-t", tenant, "-m", "m", "--target", "outcome", "-p", "algorithm=decision_tree")
    assert mlcore("train", file, *common).code == 0
    again = mlcore("train", "--dataset", "m@1", "--validation", file, *common)
    assert again.code == 0, again.err
    names = [each["dataset_id"] for each in mlcore("datasets", "list", "-t", tenant, "--json").json["items"]]
    assert names == ["m", "m-validation"]
