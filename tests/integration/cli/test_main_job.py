"""The main job on the command line: a file in, a version out, a prediction."""

import json
import re

import numpy as np
import pytest

from ml_core.database.connection import current_user
from support.tables import measures, tickets

OVER_HTTP = True
FAST = {"algorithm": "logistic_regression"}


@pytest.fixture
def trained(mlcore, tenant, tmp_path):
    """A tenant with one version of ``tickets``, trained from a CSV file."""
    file = tmp_path / "tickets.csv"
    tickets().to_csv(file, index=False)
    result = mlcore(
        "train",
        file,
        "-t",
        tenant,
        "-m",
        "tickets",
        "--target",
        "category",
        "-p",
        "algorithm=logistic_regression",
        "--json",
    )
    assert result.code == 0, result.err
    return tenant, result.json, file


@pytest.mark.both_doors
def test_training_says_what_it_inferred(mlcore, tenant, tmp_path):
    """Each column's kind with a reason, and the held-out quality beside the baseline."""
    file = tmp_path / "tickets.csv"
    tickets().to_csv(file, index=False)
    result = mlcore("train", file, "-t", tenant, "-m", "tickets", "--target", "category")
    assert result.code == 0, result.err
    lines = {line.split()[0]: line for line in result.out.splitlines() if line.strip()}
    kinds = {
        "subject": "text",
        "opened": "datetime",
        "priority": "category",
        "minutes_open": "number",
        "is_paying": "boolean",
    }
    for column, kind in kinds.items():
        assert kind in lines[column], lines[column]
    assert "baseline" in result.out
    assert f"promote --tenant {tenant} --model tickets --version 1" in result.out


def test_the_model_beats_the_baseline(trained):
    """The subject decides the category, so nearly every held-out row is right."""
    _, result, _ = trained
    assert result["metrics"]["validation"]["accuracy"] > 0.95
    assert result["baseline"]["accuracy"] < 0.6


def test_a_version_says_which_algorithm_it_is(mlcore, trained):
    """What was given stays apart from what was in force; what training chose is shown as well."""
    tenant, result, _ = trained
    told = mlcore("versions", "show", "-t", tenant, "-m", "tickets", "-v", "1", "--json").json
    for found in (result, told):
        assert (found["algorithm"], found["hyperparameters"]) == ("logistic_regression", FAST)
        assert found["effective_hyperparameters"]["max_iter"] == 1000
    shown = mlcore("versions", "show", "-t", tenant, "-m", "tickets", "-v", "1").out
    lines = {line[:18].strip(): line[18:].strip() for line in shown.splitlines()}
    assert lines["algorithm"] == "logistic_regression"
    assert "max_iter=1000" in lines["in force"]
    assert "accuracy" in lines["baseline"]


def test_the_selection_of_the_algorithm_is_shown(mlcore, tenant, tmp_path):
    """By the training and of its version: each candidate with its score; the budget may be another one."""
    file = tmp_path / "m.csv"
    measures().to_csv(file, index=False)
    common = ("-t", tenant, "-m", "m")
    made = mlcore("train", file, *common, "--target", "outcome")
    assert made.code == 0, made.err
    assert "selected by log_loss in 5 folds of 160 rows:" in made.out, made.out
    chosen = next(line for line in made.out.splitlines() if line.rstrip().endswith("yes"))
    found = mlcore("versions", "show", *common, "-v", "1", "--json").json
    assert chosen.startswith(found["algorithm"])
    shown = mlcore("versions", "show", *common, "-v", "1").out
    assert shown.count("\ncandidate") == 3, shown
    assert re.search(rf"^selected +{found['algorithm']}.*: log_loss 0\.\d+ ± ", shown, re.MULTILINE), shown
    cheap = mlcore("train", file, *common, "--target", "outcome", "--selection-seconds", "0.001")
    assert "not measured: it would take about" in cheap.out, cheap.out


def test_rows_are_held_out_by_a_column(mlcore, tenant, tmp_path):
    """By group or by time; the version records which, and errors about that column have no hint to ignore it."""
    file = tmp_path / "tickets.csv"
    tickets().assign(customer=[f"c{number % 12}" for number in range(len(tickets()))]).to_csv(file, index=False)
    common = ("train", file, "-t", tenant, "-m", "m", "--target", "category", "-p", "algorithm=logistic_regression")
    by_group = mlcore(*common, "--group", "customer")
    assert re.search(r"Held out were \d of 12 groups by 'customer': \d+ of 240 rows\.", by_group.out), by_group.err
    assert re.search("^customer +left out +not used: rows are held out by it", by_group.out, re.MULTILINE), by_group.out
    found = mlcore("versions", "show", "-t", tenant, "-m", "m", "-v", "1", "--json").json
    assert found["metadata"]["training"]["group"] == "customer"
    assert "customer" not in [column["name"] for column in found["signature"]["inputs"]]
    assert "latest rows by 'opened'" in mlcore(*common, "--time", "opened").out
    refused = mlcore(*common, "--time", "customer")
    assert (refused.code, "'customer' is a category" in refused.err, "Here:" in refused.err) == (1, True, False)
    for wrong, said in (
        (("--group", "custmer"), "Did you mean customer"),
        (("--group", "customer", "--kind", "customer=number"), "is the group, and no input"),
        (("--group", "customer", "--ignore", "customer"), "both the group and ignored"),
        (("--group", "customer", "--time", "opened"), "Hold rows out by one of them"),
    ):
        refused = mlcore(*common, *wrong)
        assert (refused.code, said in refused.err) == (1, True), refused.err


def test_a_wide_table_is_summed_up(mlcore, tenant, tmp_path):
    """With what is left out of it; the columns are listed on request."""
    file = tmp_path / "wide.csv"
    wide = {f"x{number}": measures()["m0"] + number for number in range(20)}
    measures()[["m1", "outcome"]].assign(**wide, same="x").to_csv(file, index=False)
    common = ("train", file, "-t", tenant, "-m", "m", "--target", "outcome", "-p", "algorithm=naive_bayes")
    said = mlcore(*common).out
    assert "21 of 22 columns are used: 21 number. --verbose lists them." in said, said
    assert re.search("^same +left out", said, re.MULTILINE), said
    assert "x7" not in said.partition("metric")[0], said
    assert re.search("^x7 +number", mlcore(*common, "--verbose").out, re.MULTILINE)


def test_worse_than_the_baseline_is_noted(mlcore, tenant, tmp_path):
    """Beside the table of metrics, with what to try, and again with the version."""
    frame = measures().assign(outcome=np.random.default_rng(1).choice(["a", "b"], 200, p=[0.9, 0.1]))
    frame.to_csv(tmp_path / "noise.csv", index=False)
    common = ("-t", tenant, "-m", "noise")
    told = mlcore("train", tmp_path / "noise.csv", *common, "--target", "outcome", "-p", "algorithm=decision_tree").out
    assert "Note: Worse than the baseline" in told
    assert "hyperparameter algorithm=logistic_regression" in told
    assert "Worse than the baseline" in mlcore("versions", "show", *common, "-v", "1").out


def test_a_parquet_file_gives_the_same_kinds(mlcore, tenant, tmp_path):
    """The format of the file does not change what is inferred."""
    frame = tickets()
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    kinds = [
        {
            c["name"]: c["kind"]
            for c in mlcore("train", tmp_path / name, "-t", tenant, "-m", "m", "--target", "category", "--json").json[
                "columns"
            ]
        }
        for name in ("t.csv", "t.parquet")
    ]
    assert kinds[0] == kinds[1]


def test_predictions_of_rows_and_files(mlcore, trained):
    """A row as JSON, and the training file itself: the target column in it is ignored."""
    tenant, _, file = trained
    row = '{"subject": "I was charged twice this month since noon", "is_paying": true, "opened": "2026-03-01"}'
    assert mlcore("predict", "-t", tenant, "-m", "tickets", "--row", row).out.strip() == "billing"
    result = mlcore("predict", "-t", tenant, "-m", "tickets", file, "--proba", "--json").json
    right = [p == c for p, c in zip(result["predictions"], tickets()["category"], strict=True)]
    assert sum(right) / len(right) > 0.95
    assert all(abs(sum(row.values()) - 1) < 1e-9 for row in result["probabilities"])


@pytest.mark.both_doors
def test_promote_and_rollback(mlcore, trained):
    """The pointer moves, and back; lists show it."""
    tenant, _, file = trained
    common = ("-t", tenant, "-m", "tickets")
    assert mlcore("train", file, *common, "--target", "category", "--version", "2.0.0").code == 0
    assert mlcore("promote", *common, "-v", "1", "--json").json["generation"] == 1
    assert mlcore("promote", *common, "-v", "2.0.0", "--json").json["generation"] == 2
    versions = {v["version"]: v["uses"] for v in mlcore("versions", "list", *common, "--json").json["items"]}
    assert versions == {"1": [], "2.0.0": [{"environment": "production", "role": "stable"}]}
    assert mlcore("rollback", *common, "--json").json["version"] == "1"
    (model,) = mlcore("models", "list", "-t", tenant, "--json").json["items"]
    assert (model["model_id"], model["versions"]) == ("tickets", 2)


@pytest.mark.both_doors
def test_a_lost_race_is_explained(mlcore, trained, door):
    """The error says which generation the pointer has and who moved it."""
    tenant, _, _ = trained
    common = ("-t", tenant, "-m", "tickets", "-v", "1")
    assert mlcore("promote", *common).code == 0
    result = mlcore("promote", *common, "--expected-generation", 7)
    assert result.code == 1
    assert f"moved by {current_user() if door == 'in_process' else 'key:'}" in result.err
    assert f"mlcore environments history --tenant {tenant} --model tickets" in result.err
    assert "generation 1" in result.err


def test_keys_are_shown_once_and_revoked(mlcore, tenant):
    """The list has the id, never the secret."""
    made = mlcore("keys", "create", "-t", tenant, "--name", "web", "--json").json
    secret = made["key"].split("_", 2)[2]
    listed = mlcore("keys", "list", "-t", tenant, "--json")
    assert secret not in listed.out
    assert made["key_id"] in {key["key_id"] for key in listed.json["items"]}
    assert mlcore("keys", "revoke", made["key_id"], "-t", tenant).code == 0
    keys = {key["key_id"]: key for key in mlcore("keys", "list", "-t", tenant, "--json").json["items"]}
    assert keys[made["key_id"]]["revoked_at"] is not None


def test_a_new_key_is_alone_on_standard_output(mlcore, tenant):
    """So that KEY=$(mlcore keys create …) holds the key and nothing else."""
    result = mlcore("keys", "create", "-t", tenant)
    assert result.out.strip().startswith("mlk_")
    assert len(result.out.split()) == 1
    assert f"shown only now. Its scopes in {tenant}: predict." in result.err


def test_what_is_not_promoted_answers_here_and_says_so(mlcore, trained):
    """Over HTTP it would not; after the promotion nothing is said."""
    tenant, _, file = trained
    common = ("predict", "-t", tenant, "-m", "tickets", file)
    assert "Nothing is promoted" in mlcore(*common).err
    mlcore("promote", "-t", tenant, "-m", "tickets", "-v", "1")
    assert "Nothing is promoted" not in mlcore(*common).err


def test_training_ends_with_a_row_to_try(mlcore, tenant, tmp_path):
    """The line can be pasted: a row of the user's own table, with the version."""
    import shlex

    file = tmp_path / "tickets.csv"
    tickets().to_csv(file, index=False)
    result = mlcore("train", file, "-t", tenant, "-m", "tickets", "--target", "category")
    line = next(line for line in result.out.splitlines() if line.startswith("Try it:"))
    words = shlex.split(line)
    answer = mlcore(*words[words.index("predict") :])
    assert answer.code == 0, answer.err
    assert answer.out.strip() in set(tickets()["category"])


def test_probabilities_of_a_regression_are_none(mlcore, tenant, tmp_path):
    """As over HTTP: there are none, which is no error."""
    frame = measures()
    frame["outcome"] = frame["m0"] * 3 + frame["m1"]
    file = tmp_path / "numbers.csv"
    frame.to_csv(file, index=False)
    mlcore("train", file, "-t", tenant, "-m", "numbers", "--target", "outcome")
    result = mlcore("predict", "-t", tenant, "-m", "numbers", file, "--proba", "--json")
    assert (result.code, result.json["probabilities"]) == (0, None)


@pytest.mark.parametrize(("labels", "names"), [((0, 1), {"0", "1"}), ((False, True), {"false", "true"})])
def test_probabilities_name_each_class_by_its_text(mlcore, tenant, tmp_path, labels, names):
    """As over HTTP, since the names of a JSON object are texts; a class itself keeps its type."""
    frame = measures()
    frame["outcome"] = [labels[value > 0] for value in frame["m0"]]
    file = tmp_path / "flags.csv"
    frame.to_csv(file, index=False)
    mlcore("train", file, "-t", tenant, "-m", "flags", "--target", "outcome")
    result = mlcore("predict", "-t", tenant, "-m", "flags", file, "--proba", "--json").json
    assert {frozenset(row) for row in result["probabilities"]} == {frozenset(names)}
    assert set(result["predictions"]) == set(labels)


def test_the_version_of_the_command(mlcore):
    """What to put into a bug report."""
    result = mlcore("--version")
    assert (result.code, result.out.split()[0]) == (0, "mlcore")


def test_regression_is_found_from_the_target(mlcore, tenant, tmp_path):
    """A numeric target with many values is a regression; the answer is a number."""
    frame = measures()
    frame["outcome"] = frame["m0"] * 3 + frame["m1"]
    file = tmp_path / "numbers.csv"
    frame.to_csv(file, index=False)
    result = mlcore("train", file, "-t", tenant, "-m", "numbers", "--target", "outcome", "--json").json
    assert result["metrics"]["validation"]["r2"] > 0.5
    answers = mlcore("predict", "-t", tenant, "-m", "numbers", file, "--json").json["predictions"]
    assert all(isinstance(answer, float) for answer in answers)


@pytest.mark.in_process
def test_a_tenant_does_not_see_anothers_models(mlcore, trained):
    """Same model name, other tenant: nothing there."""
    other = "somebody-else"
    mlcore("tenants", "create", other)
    assert mlcore("models", "list", "-t", other, "--json").json["items"] == []
    result = mlcore("predict", "-t", other, "-m", "tickets", "--row", "{}")
    assert result.code == 1
    assert "tickets" in result.err


@pytest.mark.parametrize("model_type", ["clustering", "anomaly_detection"])
def test_a_type_without_a_target_trains_and_answers(mlcore, tenant, tmp_path, model_type):
    """From the file to a prediction, every column used."""
    file = tmp_path / "tickets.csv"
    tickets().to_csv(file, index=False)
    common = ("-t", tenant, "-m", "m")
    trained = mlcore("train", file, *common, "--type", model_type, "--ignore", "category", "--json")
    assert trained.code == 0, trained.err
    assert len([column for column in trained.json["columns"] if column["used"]]) == 5
    answers = mlcore("predict", *common, file, "--json").json["predictions"]
    assert len(answers) == 240
    assert len(set(answers)) > 1
    assert mlcore("promote", *common, "-v", "1").code == 0


def test_what_has_to_be_predicted_is_asked_for(mlcore, tenant, tmp_path):
    """With the columns that there are."""
    measures().to_csv(tmp_path / "m.csv", index=False)
    for model_type in ((), ("--type", "regression")):
        refused = mlcore("train", tmp_path / "m.csv", "-t", tenant, "-m", "m", *model_type)
        assert (refused.code, "Give the target, one of: m0, m1" in refused.err) == (1, True)


@pytest.mark.both_doors
def test_validation_rows_come_from_a_file(mlcore, tenant, tmp_path):
    """Every row of the table is trained on, the metrics are of the other file; further columns are ignored."""
    measures().to_csv(tmp_path / "m.csv", index=False)
    common = ("train", tmp_path / "m.csv", "-t", tenant, "-m", "m", "--target", "outcome", "--ignore", "m3")
    held_out = measures(60, seed=8)
    files = {
        "right": held_out.assign(further=1),
        "wrong": held_out.assign(outcome=held_out["outcome"].map({"yes": "no", "no": "yes"})),
        "no m0": held_out.drop(columns=["m0"]),
        "no outcome": held_out.drop(columns=["outcome"]),
    }
    told = {}
    for name, frame in files.items():
        frame.to_csv(tmp_path / "held.csv", index=False)
        told[name] = mlcore(*common, "--validation", tmp_path / "held.csv", "--json")
    accuracy = {name: told[name].json["metrics"]["validation"]["accuracy"] for name in ("right", "wrong")}
    assert accuracy["right"] > 0.8
    assert accuracy["right"] + accuracy["wrong"] == pytest.approx(1)
    assert json.loads(told["no m0"].err)["error"]["details"]["column"] == "m0"
    assert "m-validation@4 has no column 'outcome'" in told["no outcome"].err
    assert {told[name].code for name in ("no m0", "no outcome")} == {1}


def test_rare_classes_are_dropped_or_merged(mlcore, tenant, tmp_path):
    """What the refusal names is what helps, and the note says how many rows."""
    frame = measures()
    frame.loc[:2, "outcome"] = ["a", "b", "b"]
    frame.to_csv(tmp_path / "m.csv", index=False)
    common = ("train", tmp_path / "m.csv", "-t", tenant, "-m", "m", "--target", "outcome")
    assert "--rare-classes drop" in mlcore(*common).err
    assert "Note: Left out 1 of 200 training rows" in mlcore(*common, "--rare-classes", "drop").out
    merged = mlcore(*common, "--rare-classes", "merge:other:3", "--json").json
    assert any(note.startswith("Merged into 'other': 3 of 200 training rows") for note in merged["notes"])
    run = mlcore("runs", "show", "-t", tenant, merged["run_id"], "--json").json
    assert run["parameters"]["rare_classes"] == "merge:other:3"


def test_class_weights_are_written_as_json(mlcore, tenant, tmp_path):
    """Their keys are strings there, and name classes of any type; what names none is told the classes."""
    frame = measures()
    frame.assign(outcome=(frame["outcome"] == "yes").astype(int)).to_csv(tmp_path / "m.csv", index=False)
    common = ("train", tmp_path / "m.csv", "-t", tenant, "-m", "m", "--target", "outcome", *("-p", "n_estimators=5"))
    made = mlcore(*common, "-p", 'class_weight={"0": 1, "1": 5}', "--json")
    assert made.code == 0, made.err
    assert made.json["effective_hyperparameters"]["class_weight"] == {"0": 1.0, "1": 5.0}
    refused = mlcore(*common, "-p", 'class_weight={"no": 1}')
    assert (refused.code, "Its classes are: 0, 1." in refused.err) == (1, True)
