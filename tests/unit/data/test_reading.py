"""Reading tables from files."""

import gzip
import json
import os
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from ml_core.data.kinds import infer_columns
from ml_core.data.reading import guess_delimiter, read_table, rows_from_frame
from ml_core.exceptions import DataProcessingError

FRAME = pd.DataFrame({"a": [1, 2], "b": ["x, y", "z"]})


@pytest.fixture
def write(tmp_path):
    """Write bytes or text to a file of the given name."""

    def _write(name, content):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "T.CSV"])
def test_csv(tmp_path, name):
    """Plain and compressed, whatever the case of the name."""
    FRAME.to_csv(tmp_path / name, index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / name), FRAME)


def test_tsv(tmp_path):
    """Separated by tabs."""
    FRAME.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.tsv"), FRAME)


def test_parquet(tmp_path):
    """Without its index."""
    FRAME.set_index(pd.Index([7, 8])).to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet"), FRAME)


def test_a_spreadsheet_of_continental_europe(write):
    """Semicolons between cells, commas in numbers, a byte order mark in front."""
    frame = read_table(write("t.csv", "\ufeffname;price\nä, b;1,5\nc;2\n"))
    assert frame.to_dict("list") == {"name": ["ä, b", "c"], "price": [1.5, 2.0]}


@pytest.mark.parametrize(
    ("head", "delimiter"),
    [
        (["a,b", "1,2"], ","),
        (["a;b", "1,5;2"], ";"),
        (["a\tb", "x, y\tz"], "\t"),
        (["a|b", "1|2"], "|"),
        (["text", "one; two", "three"], ","),
        (["a,b", '"x;y",1', '"z;w",2'], ","),
        (["a,b", "1,2", '"cut'], ","),
        ([], ","),
    ],
)
def test_the_delimiter_is_the_one_that_splits_all_lines_alike(head, delimiter):
    """Quoted cells and a cut last line don't matter."""
    assert guess_delimiter(head) == delimiter


def test_nameless_empty_columns_are_left_out(write):
    """A comma at the end of each line makes one."""
    assert list(read_table(write("t.csv", "a,b,\n1,2,\n3,4,\n")).columns) == ["a", "b"]


def test_latin_1(write):
    """With the encoding named; without, the error says how."""
    path = write("t.csv", "a\nM\xfcller\n".encode("latin-1"))
    with pytest.raises(DataProcessingError, match="--encoding latin-1"):
        read_table(path)
    assert read_table(path, encoding="latin-1")["a"].tolist() == ["Müller"]


def test_a_byte_that_is_not_utf_8_far_into_the_file(write):
    """Beyond what is looked at to find the delimiter."""
    with pytest.raises(DataProcessingError, match="--encoding latin-1"):
        read_table(write("t.csv", b"a,b\n" + b"1,2\n" * 500_000 + b"\xff,2\n"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "is empty"),
        ("t.csv", "\n\n", "has no columns"),
        ("t.csv", "a,b\n", "has column names but no row"),
        ("t.csv", "a,b,a\n1,2,3\n", "has several columns called 'a'"),
        ("t.csv", "0.5,-1,0.5\n1,2,3\n", "put a line of column names above"),
        ("t.csv", "a,b\n1,2\n1,2,3,4\n", "is not a table"),
        ("t.csv", 'a,b\n1,"2\n', "is not a table"),
        ("t.csv.gz", "a,b\n1,2\n", "is not a complete gzip file"),
        ("t.csv.gz", gzip.compress(b"a,b\n1,2\n" * 1000)[:-20], "is not a complete gzip file"),
        ("t.parquet", "a,b\n1,2\n", "is not a Parquet file"),
        ("t.xlsx", "x", "is not a file of a known kind"),
    ],
)
def test_files_that_are_no_tables(write, name, content, message):
    """Each with one message and its remedy."""
    with pytest.raises(DataProcessingError, match=message) as caught:
        read_table(write(name, content))
    assert caught.value.remedy
    assert caught.value.stage == "read"


@pytest.mark.parametrize(("name", "message"), [("none.csv", "There is no file"), ("folder.csv", "is a folder")])
def test_paths_that_are_no_files(tmp_path, name, message):
    """Missing, or a folder."""
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataProcessingError, match=message):
        read_table(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(write):
    """The error says to check permissions."""
    path = write("t.csv", "a\n1\n")
    path.chmod(0)
    with pytest.raises(DataProcessingError, match="Check its permissions"):
        read_table(path)


@pytest.mark.parametrize(
    "cells",
    [
        ["01234", "94110", "00501"],
        ["000", "001", "002"],
        ["01.20", "10.11", "35.30"],
        ["+4930123456", "+4930123457", "+15551234567"],
        ["01234", "NA", "94110"],
    ],
)
def test_codes_stay_strings(write, cells):
    """With their leading zeros and plus signs, far into the file too."""
    lines = [f"{cell},{i}" for i, cell in enumerate([*["1"] * 200_000, *cells])]
    frame = read_table(write("t.csv", "\n".join(["code,n", *lines])))
    assert frame["code"].tolist()[-len(cells) :] == cells
    assert frame["n"].dtype == "int64"


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["0.5", "0", "10"], [0.5, 0.0, 10.0]),
        (["+1.5", "+3", "-07"], [1.5, 3.0, -7.0]),
        (["1", "NA", "2e3", ""], [1.0, np.nan, 2000.0, np.nan]),
        (["None", " ", "0.5"], [np.nan, np.nan, 0.5]),
    ],
)
def test_numbers_stay_numbers(write, cells, numbers):
    """Zeros before a point, signs, and words for missing among them."""
    frame = read_table(write("t.csv", "\n".join(["n,i", *(f"{cell},1" for cell in cells)])))
    assert frame["n"].dtype.kind in "if"
    np.testing.assert_array_equal(frame["n"].to_numpy(), numbers)


def test_words_for_missing_stay_among_words(write):
    """Namibia's code, and a class called None; an empty cell is missing."""
    frame = read_table(write("t.csv", "country,class\nNA,None\nDE,some\n,null\n"))
    assert frame.astype(object).where(frame.notna(), None).to_dict("list") == {
        "country": ["NA", "DE", None],
        "class": ["None", "some", "null"],
    }


def test_words_for_missing_are_missing_among_booleans(write):
    """The others are booleans, not their texts."""
    frame = read_table(write("t.csv", "paid,n\ntrue,1\nNA,2\nFalse,3\n"))
    assert frame["paid"].astype(object).where(frame["paid"].notna(), None).tolist() == [True, None, False]


def test_a_decimal_comma_is_told_of(write):
    """Requests are JSON, where a number has a point."""
    rows = "".join(f"{i},5;{i};{'NA' if i % 5 == 0 else f'{i},25'}\n" for i in range(1, 50))
    columns = infer_columns(read_table(write("t.csv", f"price;count;weight\n{rows}")))
    told = {column.name: column.reason.endswith("decimal comma read; send 180.5 in requests") for column in columns}
    assert told == {"price": True, "count": False, "weight": True}


def test_rows_of_a_frame_are_json():
    """Missing values are null, times ISO 8601, and an infinity does not become null."""
    frame = pd.DataFrame(
        {
            "n": pd.Series([1, None], dtype="Int64"),
            "t": pd.to_datetime(pd.Series(["2026-01-31 08:30", None]), utc=True),
            "f": [float("inf"), 0.5],
            "o": pd.Series([Decimal("1.5"), np.True_], dtype=object),
            3: ["x", None],
        }
    )
    rows = rows_from_frame(frame)
    assert rows == [
        {"n": 1, "t": "2026-01-31T08:30:00+00:00", "f": "inf", "o": 1.5, "3": "x"},
        {"n": None, "t": None, "f": 0.5, "o": True, "3": None},
    ]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_a_frame_without_rows_has_none():
    """An empty list, not an error."""
    assert rows_from_frame(pd.DataFrame({"a": []})) == []


def test_an_unknown_encoding(write):
    """Names encodings that exist."""
    with pytest.raises(DataProcessingError, match="'klingon' is not an encoding"):
        read_table(write("t.csv", "a\n1\n"), encoding="klingon")


def test_lines_longer_than_the_names_are_an_error(tmp_path):
    """The cells without a name would be lost; empty ones at each line's end are no loss."""
    long = tmp_path / "long.csv"
    long.write_text("a,b\n1,2,3\n4,5,6\n")
    with pytest.raises(DataProcessingError, match="more cells than its first line has names"):
        read_table(long)
    trailing = tmp_path / "trailing.csv"
    trailing.write_text("a,b\n1,2,\n4,5,\n")
    assert read_table(trailing).to_dict("list") == {"a": [1, 4], "b": [2, 5]}
