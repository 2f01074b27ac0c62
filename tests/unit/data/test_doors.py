"""One meaning for a cell: a column trained from a CSV file reads the same cell alike at every door.

The doors are the file, its rows in JSON, a frame of strings, pandas' own reading of the file, Parquet and a dataset.
"""

import csv
import json
import unicodedata

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from ml_core.data.canonical import columns_from_frame
from ml_core.data.cells import typed_series
from ml_core.data.encoding.table import TableEncoder
from ml_core.data.kinds import infer_columns
from ml_core.data.processor import DataProcessor
from ml_core.data.profile import profile_file
from ml_core.data.reading import read_table, rows_from_frame
from ml_core.data.table_file import read_frame, read_typed
from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.domain.values import read_category
from ml_core.exceptions import DataProcessingError
from ml_core.registry.datasets.intake import write_csv
from ml_core.settings import ApiSettings

# What a column may hold. Each is drawn from, and a part of it later is scored: fewer values may then look otherwise.
COLUMNS = {
    "booleans and a word": ["True", "False", "TRUE", "true", "Unknown", ""],
    "floats and a word": ["1.0", "2.0", "other"],
    "versions": ["1.10", "1.2", "beta", "2.0"],
    "numbers": ["1", "2.5", "-3", "1e3", "", "NA", " 7 "],
    "whole numbers": ["1", "2", "30", ""],
    "exponents": ["12E4", "7B", "120000", "1E2"],
    "long ids": ["1234567890123456789", "1234567890123456788", "9007199254740993", ""],
    "codes": ["007", "7", "0123", "+4930123456"],
    "countries": ["NA", "DE", "None", ""],
    "accents": ["caf\u00e9", "cafe\u0301", "na\u00efve", "tea"],
    "texts": ["my printer does not work", "where is my invoice", "please call me back", "12", ""],
    "dates": ["2026-01-31", "2026-02-01 08:30:00 UTC", "1.3.2026", "2026-02-01 08:30:00 +0100", ""],
    "decimal commas": ["0,5", "1.200", "12.500,25", "950", ""],
    "any": None,
}
ANY = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=6) | st.sampled_from(
    [cell for cells in COLUMNS.values() for cell in cells or ()]
)


def write(path, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([["c", "beside"], *rows])
    return path


def canonical(frame, column):
    return [None if value is None or value != value else value for value in columns_from_frame(frame, [column])["c"]]


def from_rows(rows, column):
    array = Signature((column,), Output(OutputKind.NUMBER)).columns_from_rows(rows)["c"]
    return [None if value is None or value != value else value for value in array]


def inferred(frame, kinds=None):
    """The first column as a model reads it; one that may be missing, so that every part of it can be scored."""
    try:
        found = infer_columns(frame, kinds=kinds)[0]
    except DataProcessingError:
        reject()
    if found.input is None:
        reject()
    column = found.input
    return InputColumn("c", column.kind, True, column.categories, column.date_order, column.decimal_comma)


@pytest.mark.parametrize("name", COLUMNS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(told=st.sampled_from([None, ColumnKind.CATEGORY, ColumnKind.TEXT]), data=st.data())
def test_a_cell_means_the_same_at_every_door(tmp_path_factory, name, told, data):
    """Trained on a file, scored on a part of its rows, which alone might look like numbers or booleans."""
    cells = ANY if COLUMNS[name] is None else st.sampled_from(COLUMNS[name])
    drawn = data.draw(st.lists(cells, min_size=4, max_size=30))
    part = data.draw(st.lists(st.sampled_from(drawn), min_size=1, max_size=4))
    folder = tmp_path_factory.mktemp("doors")
    delimiter = data.draw(st.sampled_from([",", ";"]))
    file = write(folder / "train.csv", [[cell, index % 3] for index, cell in enumerate(drawn)], delimiter)
    frame = read_table(file)
    column = inferred(frame, {} if told is None else {"c": told})

    write_csv(file, "utf-8", folder / "dataset.parquet", ApiSettings())
    dataset = read_frame(folder / "dataset.parquet")
    assert inferred(dataset, {} if told is None else {"c": told}) == column
    frame.to_parquet(folder / "train.parquet")
    assert inferred(read_table(folder / "train.parquet"), {} if told is None else {"c": told}) == column
    expected = canonical(frame, column)
    assert canonical(dataset, column) == expected

    meaning = dict(zip(drawn, expected, strict=True))
    wanted = [meaning[cell] for cell in part]
    scored = read_table(write(folder / "score.csv", [[cell, 0] for cell in part], delimiter))
    assert canonical(scored, column) == wanted
    assert from_rows(json.loads(json.dumps(rows_from_frame(scored))), column) == wanted
    assert from_rows([{"c": cell} for cell in part], column) == wanted
    assert from_rows([{"c": cell or None} for cell in part], column) == wanted
    assert canonical(pd.DataFrame({"c": pd.Series(part, dtype=object)}), column) == wanted
    assert canonical(pd.DataFrame({"c": pd.Series(part, dtype="category")}), column) == wanted


@pytest.mark.parametrize(
    ("trained", "scored", "expected"),
    [
        (["True", "False", "Unknown"], [True, False], ["true", "false"]),
        (["TRUE", "false", "Unknown"], [True, False], ["true", "false"]),
        (["1.0", "2.0", "other"], [1.0, 2, 1], ["1.0", "2.0", "1.0"]),
        (["1.10", "1.2", "beta"], [1.1, 1.2], ["1.10", "1.2"]),
        (["1.10", "1.1", "beta"], [1.1], ["1.1"]),
        (["3", "4", "x"], [3, 4.0, "3.0"], ["3", "4", "3"]),
        (["1.0", "1", "x"], [1, 1.0, "1.0"], ["1", "1", "1.0"]),
        (["1.0", "1.00", "x"], [1], ["1"]),
        (["9007199254740993", "9007199254740992", ""], [2**53 + 1], ["9007199254740993"]),
        (["12E4", "x", "y"], [120000], ["12E4"]),
        (["007", "8", "x"], [8, 7], ["8", "007"]),
        ([1.0, 2.0, None], ["1.0", "2", 1], ["1", "2", "1"]),
    ],
)
def test_a_value_finds_the_category_that_it_means(trained, scored, expected):
    """A JSON number, boolean or typed frame, where training saw texts; and the other way round."""
    frame = pd.DataFrame({"c": pd.Series(trained * 4, dtype=object), "beside": range(12)})
    column = inferred(frame, {"c": ColumnKind.CATEGORY})
    assert from_rows([{"c": value} for value in scored], column) == expected
    assert canonical(pd.DataFrame({"c": pd.Series(scored, dtype=object)}), column) == expected


def test_pandas_own_reading_of_a_part_means_the_same(tmp_path):
    """A frame whose types pandas guessed from the rows that happen to be there."""
    cells = {"flag": ["True", "False", "Unknown"], "release": ["1.10", "1.2", "beta"], "level": ["1.0", "2.0", "other"]}
    frame = pd.DataFrame({name: values * 10 for name, values in cells.items()})
    inputs = [column.input for column in infer_columns(frame)]
    frame.head(2).to_csv(tmp_path / "part.csv", index=False)
    guessed = pd.read_csv(tmp_path / "part.csv")
    assert [dtype.kind for dtype in guessed.dtypes] == ["b", "f", "f"]
    whole, part = columns_from_frame(frame.head(2), inputs), columns_from_frame(guessed, inputs)
    assert {name: part[name].tolist() for name in cells} == {name: whole[name].tolist() for name in cells}


@pytest.mark.parametrize("names", [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
def test_names_match_however_their_accents_are_encoded(names):
    """In frames, in rows and where a kind is told."""
    trained, sent = names
    frame = pd.DataFrame({trained: ["a", "b"] * 5, "n": range(10)})
    column = infer_columns(frame, kinds={sent: ColumnKind.CATEGORY})[0].input
    assert column.name == unicodedata.normalize("NFC", trained)
    signature = Signature((column,), Output(OutputKind.NUMBER))
    assert signature.read_rows([{sent: "a"}], strict=True)[0][column.name].tolist() == ["a"]
    assert columns_from_frame(pd.DataFrame({sent: ["b"]}), [column])[column.name].tolist() == ["b"]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1.0", "2.0"], [1.0, 2.0]),
        (["1", "2"], [1, 2]),
        (["True", "FALSE"], [True, False]),
        (["007", "8"], ["007", "8"]),
        (["1", "x"], ["1", "x"]),
        (["0,5", "1.200"], [0.5, 1200.0]),
        (["1234567890123456789", "1"], [1234567890123456789, 1]),
        (["12345678901234567890", "1"], ["12345678901234567890", "1"]),
    ],
)
@pytest.mark.parametrize("missing", [None, "", "NA", " "])
def test_a_missing_label_changes_no_other(cells, values, missing):
    """Neither its value nor its type."""
    labels = typed_series(pd.Series([*cells, missing, *cells], dtype="str")).tolist()
    found = [labels[0], labels[1]]
    assert found == values
    assert [type(label) for label in found] == [type(value) for value in values]
    assert typed_series(pd.Series(cells, dtype="str")).tolist() == values


def test_points_group_thousands_where_another_column_has_decimal_commas(tmp_path):
    """``950;1.200;12.500`` beside ``0,5``; and without such a column they are fractions."""
    rows = [["950", "0,5"], ["1.200", "1,25"], ["12.500", "2,75"]] * 5
    file = write(tmp_path / "t.csv", rows, ";")
    price, beside = infer_columns(read_table(file))
    assert (price.input.decimal_comma, beside.input.decimal_comma) == (True, True)
    assert canonical(read_table(file), price.input)[:3] == [950.0, 1200.0, 12500.0]
    alone = infer_columns(read_table(file)[["c"]])[0]
    assert not alone.input.decimal_comma
    assert infer_columns(read_table(file)[["c"]], has_commas=True)[0].input.decimal_comma
    write_csv(file, "utf-8", tmp_path / "t.parquet", ApiSettings())
    assert read_typed(tmp_path / "t.parquet", ["c"])["c"].tolist()[:3] == [950.0, 1200.0, 12500.0]


@pytest.mark.parametrize("cells", [["1,234", "5,678"], ["0,5", "0.5"], ["1,5", "1,5,5"], ["1.2,5", "3,5"]])
def test_numbers_that_are_read_in_two_ways_are_no_numbers(cells):
    """The reason says how to write them."""
    frame = pd.DataFrame({"c": cells * 5, "n": range(10)})
    found = infer_columns(frame)[0]
    assert found.kind is not ColumnKind.NUMBER


@pytest.mark.parametrize("text", ["True", "TRUE", "true"])
def test_the_ways_to_write_true_are_one_category(text):
    """As JSON's."""
    assert read_category(text) == read_category(True) == "true"


def test_a_processor_reads_decimal_commas_as_it_learned(tmp_path):
    """In rows that have none, and in an encoder that is given frames."""
    frame = read_table(write(tmp_path / "t.csv", [["950", "0,5"], ["1.200", "1,25"], ["12.500", "2,75"]] * 5, ";"))
    part = read_table(write(tmp_path / "part.csv", [["1.200", "1"]], ";"))
    processor = DataProcessor()
    processor.preprocess(frame, is_training=True)
    assert processor.preprocess(part, is_training=False)["c"].tolist() == [1200.0]
    encoder = TableEncoder(scaling="none").fit(frame)
    assert encoder.transform(part)[0, 0] == 1200.0
    write_csv(tmp_path / "t.csv", "utf-8", tmp_path / "t.parquet", ApiSettings())
    profile = profile_file(tmp_path / "t.parquet")
    assert (profile.column("c").minimum, profile.column("c").maximum) == (950.0, 12500.0)
