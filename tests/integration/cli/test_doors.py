"""A cell of a file means the same at every door of the command: training, datasets, prediction, gates."""

from __future__ import annotations

import json

import pandas as pd
import pytest

OVER_HTTP = True
FAST = ["--param", "algorithm=decision_tree"]


def write(path, columns, n_rows=60, delimiter=","):
    """A CSV of columns whose values repeat."""
    lines = [delimiter.join(columns)]
    lines += [delimiter.join(values[i % len(values)] for values in columns.values()) for i in range(n_rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def trained(mlcore, tenant, model, *options):
    result = mlcore("train", "-t", tenant, "-m", model, *options, *FAST, "--json")
    assert result.code == 0, result.err
    return result.json


def answers(mlcore, tenant, model, *options):
    result = mlcore("predict", "-t", tenant, "-m", model, *options, "--json")
    assert result.code == 0, result.err
    return result.json["predictions"]


@pytest.mark.parametrize(
    ("cells", "labels", "scored"),
    [
        (["True", "False", "Unknown"], ["a", "b", "c"], [True, False]),
        (["1.0", "2.0", "other"], ["a", "b", "c"], [1.0, 2.0]),
        (["1.10", "1.2", "beta"], ["a", "b", "c"], [1.1, 1.2]),
        (["NA", "DE", "FR"], ["a", "b", "c"], ["NA", "DE"]),
    ],
)
def test_a_part_of_the_rows_gets_the_answers_of_the_whole(mlcore, tenant, tmp_path, cells, labels, scored):
    """Although the values of the part alone look like booleans or numbers; as CSV, Parquet and JSON."""
    file = write(tmp_path / "train.csv", {"x": cells, "n": ["1", "2", "3", "4", "5"], "y": labels})
    trained(mlcore, tenant, "m", file, "--target", "y")
    part = write(tmp_path / "part.csv", {"x": cells[:2], "n": ["1"]}, 2)
    pd.DataFrame({"x": scored, "n": [1, 1]}).to_parquet(tmp_path / "part.parquet")
    rows = [option for value in scored for option in ("--row", json.dumps({"x": value, "n": 1}))]
    texts = [option for value in cells[:2] for option in ("--row", json.dumps({"x": value, "n": "1"}))]
    for asked in ([part], [tmp_path / "part.parquet"], rows, texts):
        assert answers(mlcore, tenant, "m", *asked) == labels[:2]


def test_a_category_that_is_named_is_the_text_of_the_cell(mlcore, tenant, tmp_path):
    """From the file and from a dataset alike, whose columns are otherwise numbers; and the data is the same data."""
    cells = ["1.10", "1.1", "12E4", "120000", "1234567890123456789", "1234567890123456788", ""]
    labels = list("abcdefg")
    file = write(tmp_path / "t.csv", {"code": cells, "n": ["1", "2", "3", "4", "5"], "y": labels}, 140)
    made = mlcore("datasets", "create", "codes", "-t", tenant, file, "--json").json
    assert made["column_count"] == 3
    named = ["--target", "y", "--kind", "code=category"]
    of_file = trained(mlcore, tenant, "m", file, *named)
    of_dataset = trained(mlcore, tenant, "m", "--dataset", "codes", *named)
    registered = trained(mlcore, tenant, "m", file, *named, "--dataset", "codes")
    assert registered["dataset"] == "codes@1"
    assert of_file["metrics"] == of_dataset["metrics"]
    compared = mlcore("versions", "compare", "1", "2", "-t", tenant, "-m", "m", "--json").json
    assert compared["data"]["same"]
    scored = write(tmp_path / "score.csv", {"code": cells, "n": ["1"]}, 7)
    for version in ("1", "2", "3"):
        assert answers(mlcore, tenant, "m", scored, "--version", version) == labels


def test_a_decimal_comma_means_the_same_in_training_and_prediction(mlcore, tenant, tmp_path):
    """Although the file that is scored has no comma: ``1.200`` stays 1200."""
    columns = {"price": ["950", "1.200", "12.500"], "share": ["0,5", "1,5", "2,5", "3,5"], "y": ["a", "b", "c"]}
    trained(mlcore, tenant, "m", write(tmp_path / "t.csv", columns, delimiter=";"), "--target", "y")
    part = write(tmp_path / "part.csv", {"price": ["1.200", "12.500"], "share": ["1", "1"]}, 2, ";")
    rows = [option for price in (1200, 12500) for option in ("--row", json.dumps({"price": price, "share": 1}))]
    assert answers(mlcore, tenant, "m", part) == answers(mlcore, tenant, "m", *rows) == ["b", "c"]


def test_a_target_with_decimal_commas_is_a_quantity(mlcore, tenant, tmp_path):
    """And shows how the other columns are written."""
    prices = [f"{number / 4:.2f}".replace(".", ",") for number in range(60)]
    sizes = [f"{number}.000" for number in range(1, 61)]
    result = trained(
        mlcore,
        tenant,
        "m",
        write(tmp_path / "t.csv", {"size": sizes, "n": ["1", "2"], "price": prices}, delimiter=";"),
        "--target",
        "price",
    )
    assert "mae" in result["metrics"]["validation"]
    assert "1000 to 60000" in next(column["reason"] for column in result["columns"] if column["name"] == "size")


@pytest.mark.parametrize(
    ("labels", "classes"), [(["1.0", "2.0"], [1.0, 2.0]), (["1", "2"], [1, 2]), (["True", "False"], [True, False])]
)
@pytest.mark.parametrize("missing", [[], [""]])
def test_labels_are_what_their_cells_say(mlcore, tenant, tmp_path, labels, classes, missing):
    """Whether one of them is missing or not."""
    file = write(tmp_path / "t.csv", {"x": ["a", "b", "c"][: 2 + len(missing)], "n": ["1", "2", "3", "4", "5"]})
    lines = file.read_text().splitlines()
    cells = [*labels, *missing]
    file.write_text(
        "\n".join([f"{lines[0]},y", *(f"{line},{cells[i % len(cells)]}" for i, line in enumerate(lines[1:]))])
    )
    trained(mlcore, tenant, "m", file, "--target", "y")
    rows = [option for x in "ab" for option in ("--row", json.dumps({"x": x, "n": 1}))]
    found = answers(mlcore, tenant, "m", *rows)
    assert found == classes
    assert [type(label) for label in found] == [type(label) for label in classes]


@pytest.mark.both_doors
def test_a_gate_measures_on_cells_what_the_models_answer(mlcore, tenant, tmp_path):
    """Held-out rows in which a category's values alone look like booleans: 1.0 and 0.5 are measured, and refused."""
    columns = {"flag": ["True", "False", "Unknown"], "n": ["1", "2", "3", "4", "5"], "y": ["yes", "no", "maybe"]}
    trained(mlcore, tenant, "m", write(tmp_path / "good.csv", columns), "--target", "y")
    blind = {**columns, "flag": ["True", "False", "Unknown", "Unknown"], "y": ["yes", "yes", "maybe", "no"]}
    trained(mlcore, tenant, "m", write(tmp_path / "bad.csv", blind), "--target", "y")
    held_out = write(tmp_path / "held.csv", {name: values[:2] for name, values in columns.items()})
    assert mlcore("datasets", "create", "held", "-t", tenant, held_out).code == 0
    assert mlcore("promote", "-t", tenant, "-m", "m", "-v", "1").code == 0
    settings = {"dataset": "held", "target": "y", "metric": "accuracy", "margin": "0.02"}
    options = [option for name, value in settings.items() for option in ("--set", f"{name}={value}")]
    assert mlcore("gates", "set", "no_worse", "not_worse", "-t", tenant, "-m", "m", *options).code == 0
    refused = mlcore("promote", "-t", tenant, "-m", "m", "-v", "2")
    assert refused.code == 1
    assert "accuracy is 0.5 against 1 of the present version 1" in refused.err


@pytest.mark.parametrize("labels", [["1.0", "2.0"], ["1", "0"], ["True", "FALSE"]])
def test_a_gate_knows_labels_by_what_the_version_answers(mlcore, tenant, tmp_path, labels):
    """A version whose labels are strings and one whose labels are numbers are measured on the same cells."""
    columns = {"flag": ["x", "y"], "n": ["1", "2", "3", "4", "5"], "label": labels}
    words = {"flag": ["x", "y", "z"], "n": columns["n"], "label": [*labels, "other"]}
    trained(mlcore, tenant, "m", write(tmp_path / "words.csv", words), "--target", "label")
    trained(mlcore, tenant, "m", write(tmp_path / "numbers.csv", columns), "--target", "label")
    held = write(tmp_path / "held.csv", {**columns, "n": ["3", "2", "1"]})  # other rows than those of the training
    assert mlcore("datasets", "create", "held", "-t", tenant, held).code == 0
    assert mlcore("promote", "-t", tenant, "-m", "m", "-v", "1").code == 0
    settings = {"dataset": "held", "target": "label", "metric": "accuracy", "margin": "0.02"}
    options = [option for name, value in settings.items() for option in ("--set", f"{name}={value}")]
    assert mlcore("gates", "set", "no_worse", "not_worse", "-t", tenant, "-m", "m", *options).code == 0
    promoted = mlcore("promote", "-t", tenant, "-m", "m", "-v", "2")
    assert promoted.code == 0, promoted.err
    (move, *_) = mlcore("environments", "history", "-t", tenant, "-m", "m", "--json").json["items"]
    assert "accuracy is 1 against 1" in move["gates"][0]["message"]


def test_a_held_out_table_has_the_columns_that_the_models_read(mlcore, tenant, tmp_path):
    """The gate names the one that it lacks, and the one that is called much alike."""
    columns = {"colour": ["x", "y"], "n": ["1", "2", "3"], "label": ["a", "b"]}
    for _ in range(2):
        trained(mlcore, tenant, "m", write(tmp_path / "t.csv", columns), "--target", "label")
    held = write(tmp_path / "held.csv", {"color": ["x", "y"], "n": ["1", "2", "3"], "label": ["a", "b"]})
    assert mlcore("datasets", "create", "held", "-t", tenant, held).code == 0
    assert mlcore("promote", "-t", tenant, "-m", "m", "-v", "1").code == 0
    settings = {"dataset": "held", "target": "label", "metric": "accuracy", "margin": "0.02"}
    options = [option for name, value in settings.items() for option in ("--set", f"{name}={value}")]
    assert mlcore("gates", "set", "no_worse", "not_worse", "-t", tenant, "-m", "m", *options).code == 0
    refused = mlcore("promote", "-t", tenant, "-m", "m", "-v", "2")
    assert "has no column 'colour'" in refused.err


@pytest.mark.both_doors
def test_a_target_in_a_named_index_is_found(mlcore, tenant, tmp_path):
    """In the Parquet file and in the dataset that is made of it."""
    frame = pd.DataFrame({"x": ["a", "b"] * 30, "n": range(60), "y": ["p", "q"] * 30}).set_index("y")
    frame.to_parquet(tmp_path / "t.parquet")
    trained(mlcore, tenant, "m", tmp_path / "t.parquet", "--target", "y")
    assert mlcore("datasets", "create", "d", "-t", tenant, tmp_path / "t.parquet").code == 0
    trained(mlcore, tenant, "m", "--dataset", "d", "--target", "y")
    compared = mlcore("versions", "compare", "1", "2", "-t", tenant, "-m", "m", "--json").json
    assert compared["data"]["same"]
