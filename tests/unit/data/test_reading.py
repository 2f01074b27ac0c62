"""Reading tables from files."""

import gzip
import json
import os
import pickle
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.data.csv_file import CsvFile, guess_delimiter
from ml_core.data.kinds import infer_columns
from ml_core.data.reading import read_table, rows_from_frame
from ml_core.data.table_file import group_rows
from ml_core.exceptions import DataProcessingError

FRAME = pd.DataFrame({"a": ["1", "2"], "b": ["x, y", "z"]})


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
    assert frame.to_dict("list") == {"name": ["ä, b", "c"], "price": ["1,5", "2"]}


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
    with pytest.raises(DataProcessingError, match="encoding, such as cp1252"):
        read_table(path)
    assert read_table(path, encoding="latin-1")["a"].tolist() == ["Müller"]


def test_a_byte_that_is_not_utf_8_far_into_the_file(write):
    """Beyond what is looked at to find the delimiter."""
    with pytest.raises(DataProcessingError, match="encoding, such as cp1252"):
        read_table(write("t.csv", b"a,b\n" + b"1,2\n" * 500_000 + b"\xff,2\n"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "is empty"),
        ("t.csv", "\n\n", "has no columns"),
        ("t.csv", "a,b\n", "has column names but no row"),
        ("t.csv", "a,b,a\n1,2,3\n", "has several columns called 'a'"),
        ("t.csv", "0.5,-1,0.5\n1,2,3\n", "put a line of column names above"),
        ("t.csv", "a,b\n1,2\n1,2,3,4\n", "line 3 has 4 cells, more than the 2 names"),
        ("t.csv", "a,b\n1,2,3\n4,5,6\n", "line 2 has 3 cells, more than the 2 names"),
        ("t.csv", 'a,b\n"x\ny",2\n\n1\n', "line 5 has 1 cell, fewer than the 2 names"),
        ("t.csv", "a;b;c\n1;2;3\n4;5\n6;7;8\n", "line 3 has 2 cells, fewer than the 3 names"),
        ("t.csv", "sep=;\na;b\n1;2\n4\n", "line 4 has 1 cell, fewer than the 2 names"),
        ("t.csv", "a,b\n" + "1,2\n" * 200_000 + "1", "line 200002 has 1 cell, fewer"),
        ("t.csv", "# made by a tool\na,b\n1,2\n", "line 1 begins with # and looks like a comment"),
        ("t.csv", "a,b\n1,2\n# the end\n", "line 3 begins with # and looks like a comment"),
        ("t.csv", 'a,b\n1,"2\n', "is not a table: line 2: unexpected end of data"),
        ("t.csv", 'a,b\n1,"2"3\n', "is not a table: line 2: ',' expected after '\"'"),
        ("t.csv", ",a\n,1\n" + ",1\n" * 70_000 + "x,1\n", "has values in column 1, which has no name"),
        ("t.csv", "a,b,,\n1,2,,\n1,2,,x\n", "line 3 has 4 cells, more than the 2 names"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16-le"), "encoding, such as utf-16-le"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16-be"), "encoding, such as utf-16-be"),
        ("t.csv", b"PK\x03\x04rest", "is an Excel workbook or a zip archive"),
        ("t.csv", b"\xd0\xcf\x11\xe0rest", "is an Excel workbook"),
        ("t.csv", pickle.dumps([1]), "is a pickle"),
        ("t.csv", b"ARROW1\0\0rest", "is an Arrow"),
        ("t.csv", b"\x28\xb5\x2f\xfdrest", "compressed with zstd"),
        ("t.csv.gz", gzip.compress(b"PAR1rest", mtime=0), "is a Parquet file"),
        ("caf\u0301.csv", "caf\u0301,caf\u00e9\n1,2\n".replace("caf\u0301", "cafe\u0301"), "several columns called"),
        ("t.csv.gz", "a,b\n1,2\n", "is not a complete gzip file"),
        ("t.csv.gz", gzip.compress(b"a,b\n1,2\n" * 1000, mtime=0)[:-20], "is not a complete gzip file"),
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


@pytest.mark.parametrize(("name", "message"), [("none.csv", "none.csv does not exist"), ("folder.csv", "is a folder")])
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


def test_cells_stay_as_they_are_written(write):
    """What they mean depends on the kind of their column; an empty one is missing, quoted or not."""
    cells = ["01234", "1.10", "+4930123456", "12E4", "9007199254740993", "True", "NA", " ", "1,5", "inf"]
    frame = read_table(write("t.csv", "a;b\n" + "".join(f"{cell};1\n" for cell in cells) + ';""\n'))
    assert frame["a"].tolist()[:-1] == cells
    assert frame.isna().iloc[-1].tolist() == [True, True]


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,\u00e9 x\n,z\n".encode(),
        "\ufeffa,b\n1,\u00e9 x\n,z\n".encode(),
        "a,b\n1,\u00e9 x\n,z\n".encode("utf-16"),
        gzip.compress("a,b\n1,\u00e9 x\n,z\n".encode()),
        b"sep=;\r\na;b\r\n1;\xc3\xa9 x\r\n;z\r\n",
        "sep=,\na,b\n1,\u00e9 x\n,z\n".encode(),
        "a, b\n1, \u00e9 x\n, z\n".encode(),
        'a , b\n1 , "\u00e9 x"\n , z\n'.encode(),
        "a|b|\n1|\u00e9 x|\n|z|\n".encode(),
        "a,b\n1,\u00e9 x,\n\n,z,\n  \n".encode(),
        "a,b,,\n1,\u00e9 x\n,z,,,\n".encode(),
        "a,b\n1,\u00e9 x\n,z\n".encode("utf-32"),
    ],
    ids=[
        "plain",
        "BOM",
        "UTF-16",
        "gzip",
        "sep=;",
        "sep=,",
        "blanks",
        "more blanks",
        "end bars",
        "blank lines",
        "ends",
        "UTF-32",
    ],
)
def test_a_table_is_recognised_in_any_of_its_forms(write, content):
    """Byte order marks, compression, Excel's first line, blanks around cells, delimiters at the end."""
    frame = read_table(write("t.csv", content))
    assert frame.astype(object).where(frame.notna(), None).to_dict("list") == {"a": ["1", None], "b": ["\u00e9 x", "z"]}


def test_parquet_is_recognised_under_another_name(write, tmp_path):
    """By how it begins."""
    FRAME.to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read_table(write("t.csv", (tmp_path / "t.parquet").read_bytes())), FRAME)


def test_an_index_with_a_name_is_a_column(tmp_path):
    """Which pandas would hide."""
    FRAME.set_index("a").to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").to_dict("list") == {"b": ["x, y", "z"], "a": ["1", "2"]}


def test_whole_numbers_of_parquet_keep_their_digits_beside_missing_ones(tmp_path):
    """As floats they would be rounded."""
    pd.DataFrame({"n": pd.array([2**53 + 1, None], "Int64")}).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet")["n"].tolist()[0] == 2**53 + 1


@pytest.mark.parametrize("long", ["x" * 140_000, "y; " * 100_000, '""' * 100_000])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_long_cell_is_a_text(write, long, delimiter):
    """Among the first lines, where the delimiter is looked for."""
    frame = read_table(write("t.csv", f'a{delimiter}b\n1{delimiter}"{long}"\n2{delimiter}z\n'))
    assert frame["b"].tolist() == [long.replace('""', '"'), "z"]


def test_a_decimal_comma_is_told_of(write):
    """JSON numbers have a point; strings are read as in training."""
    rows = "".join(f"{i},5;{i};{'NA' if i % 5 == 0 else f'{i},25'}\n" for i in range(1, 50))
    columns = infer_columns(read_table(write("t.csv", f"price;count;weight\n{rows}")))
    assert {column.name: column.input.decimal_comma for column in columns} == {
        "price": True,
        "count": False,
        "weight": True,
    }
    assert columns[0].reason.endswith("decimal comma read; send 180.5, or the string '180,5', in requests")


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


@pytest.mark.parametrize("encoding", ["klingon", "hex", "a\0b"])
def test_an_unknown_encoding(write, encoding):
    """Names encodings that exist; one of bytes is no encoding of texts."""
    with pytest.raises(DataProcessingError, match=r"is not an encoding\. Use one such as utf-8"):
        read_table(write("t.csv", "a\n1\n"), encoding=encoding)


CELLS = st.text(st.sampled_from('ab"; ,\t\r\n\ufeff\0\u00e9\u2028'), max_size=4)


@given(
    rows=st.lists(
        st.lists(CELLS, min_size=1, max_size=3).map(",".join) | st.sampled_from(["", "1,2", "1,2,", '1,"x"'])
    ),
    width=st.integers(1, 2),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_lines_without_quotes_are_read_as_all_others(tmp_path_factory, rows, width, end):
    """Arrow and the csv module give the same table or the same error, whatever is between the delimiters."""
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    names = ["p", "q"][:width]
    path.write_bytes((",".join(names) + end + end.join([*rows, ""])).encode())
    file = CsvFile(path, "utf-8", ",")

    def read():
        try:
            return pa.concat_tables(file.pieces()).to_pydict()
        except DataProcessingError as error:
            return str(error)

    expected = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CsvFile, "_plain", lambda *_: None)
        assert read() == expected


def test_a_quoted_cell_may_reach_over_the_end_of_a_piece(write):
    """The next piece begins behind it, and errors still name their line."""
    group = group_rows(2)
    text = "a,b\n" + "1,2\n" * (group - 1) + '3,"x\n\ny"\n' + "4,5\n" * 3
    frame = read_table(write("t.csv", text))
    assert frame.iloc[group - 1 :].to_dict("list") == {"a": ["3", "4", "4", "4"], "b": ["x\n\ny", "5", "5", "5"]}
    with pytest.raises(DataProcessingError, match=f"line {group + 7} has 1 cell"):
        read_table(write("t.csv", text + "6\n"))


@pytest.mark.parametrize(
    "metadata",
    [
        b"no json",
        b"[]",
        b"{}",
        b'{"index_columns": 5}',
        b'{"index_columns": [{"x": 1}]}',
        b'{"index_columns": [{"kind": "range", "name": "i", "start": "a", "step": {}}]}',
        b'{"index_columns": [{"kind": "range", "name": "i", "start": 1e400, "step": 1}]}',
        b'{"index_columns": [{"kind": "range", "name": "i", "start": 0, "step": 9223372036854775808}]}',
    ],
)
def test_metadata_that_pandas_did_not_write_is_ignored(tmp_path, metadata):
    """It is part of the file, so it may be anything."""
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1, 2]}).replace_schema_metadata({b"pandas": metadata}), path)
    assert list(read_table(path).columns) == ["a"]


def test_a_parquet_file_with_two_columns_of_one_name_is_refused(tmp_path):
    """By this name."""
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    with pytest.raises(DataProcessingError, match="has several columns called 'a'"):
        read_table(path)


def test_a_parquet_file_with_a_string_that_is_no_text_is_refused(tmp_path):
    """Parquet does not check it, and Arrow only where it is asked to."""
    path, offsets = tmp_path / "t.parquet", pa.py_buffer(np.array([0, 2], "int32").tobytes())
    column = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"a": column}), path)
    with pytest.raises(DataProcessingError, match="UTF"):
        read_table(path)
