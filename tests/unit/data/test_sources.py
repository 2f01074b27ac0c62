"""Folders, patterns and addresses as one table: which files they name, and what is refused before a row is moved."""

import contextlib
import tempfile
from datetime import date
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_core.data import joining
from ml_core.data.reading import read_table
from ml_core.data.sources import gathered
from ml_core.data.tables import stored_type
from ml_core.exceptions import DataProcessingError
from ml_core.registry.datasets.intake import write_csv, write_parquet
from ml_core.settings import ApiSettings

VALUES = {
    pa.int32(): [1, 2],
    pa.int64(): [1, 2],
    pa.uint8(): [1, 2],
    pa.float32(): [0.5, None],
    pa.float64(): [0.5, None],
    pa.bool_(): [True, None],
    pa.string(): ["x", None],
    pa.large_string(): ["x", "y"],
    pa.dictionary(pa.int32(), pa.string()): ["x", "y"],
    pa.date32(): [date(2026, 1, 1), None],
    pa.timestamp("ns"): [1, 2],
    pa.timestamp("us"): [1, 2],
    pa.timestamp("us", "UTC"): [1, 2],
    pa.decimal128(10, 2): [Decimal("1.25"), None],
    pa.decimal128(12, 3): [Decimal("1.25"), None],
    pa.null(): [None, None],
}
CELLS = {"numbers": ["1", "-2.5e3"], "booleans": ["true", "false"], "text": ["x", "12 May"], None: ["", "NA"]}
MIXED = ["1", "x"]


def refusal(source, **options):
    with pytest.raises(DataProcessingError) as caught, gathered(source, **options):
        pass
    assert caught.value.remedy
    assert "mlcore-source-" not in str(caught.value), "a copy is called by the name of its file"
    return caught.value


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Writes files of rows with the columns ``a`` and ``b``, in a folder that is the current one."""
    monkeypatch.chdir(tmp_path)

    def _write(*names):
        for row, name in enumerate(names):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            frame = pd.DataFrame({"a": [f"{row}"], "b": [path.name]})
            frame.to_parquet(path) if name.endswith("parquet") else frame.to_csv(path, index=False)

    return _write


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("data/*.csv", ["1.csv", "2.csv"]),
        ("data/?.csv", ["1.csv", "2.csv"]),
        ("data/[2-9].csv", ["2.csv"]),
        ("data/_*.csv", ["_part.csv"]),
        ("data/2.csv", ["2.csv"]),
        ("data/2026", ["3.csv", "4.csv.gz"]),
        ("data/2026/", ["3.csv", "4.csv.gz"]),
        (Path("data/2026"), ["3.csv", "4.csv.gz"]),
        ("data/**/*.csv", ["1.csv", "2.csv", "3.csv", "5.csv"]),
        ("*/*/deep/*.csv", ["5.csv"]),
        ("./data/*/3.csv", ["3.csv"]),
        ("file://{}/data/*.csv", ["1.csv", "2.csv"]),
        ("{}/data/*.csv", ["1.csv", "2.csv"]),
        ("odd [1]", ["6.csv", "7.csv"]),
    ],
)
def test_the_files_that_a_source_names(files, tmp_path, source, names):
    """In the order of their names; hidden ones only where the pattern says so."""
    files("data/2.csv", "data/1.csv", "data/_part.csv", "data/.hidden.csv", "data/2026/4.csv.gz", "data/2026/3.csv")
    files("data/2026/_SUCCESS", "data/2026/deep/5.csv", "data/.x/8.csv", "odd [1]/7.csv", "odd [1]/6.csv", "x.parquet")
    if str(source).rstrip("/").endswith("2026"):
        (tmp_path / "data/2026/deep/5.csv").unlink()
        (tmp_path / "data/2026/deep").rmdir()
    source = source.format(tmp_path) if isinstance(source, str) else source
    with gathered(source) as table:
        assert list(read_table(table.path)["b"]) == names
        assert table.facts.get("files") == (str(len(names)) if len(names) > 1 else None)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("data/*.tsv", "names no file"),
        ("none/*.csv", "names no file"),
        ("data/s*", "names no file"),
        ("data", "more than the files of a table: notes.txt, sub. Name the files with a pattern, such as data/*.csv"),
        ("data/*[12].*", "data/2.parquet is Parquet"),
        ("empty", "names no file"),
        ("file:///none", "nothing at file:///none"),
        ("file://host/data", "no host"),
        ("https://host/x.csv", "not read from https://"),
        ("s3://key:secret@bucket/x", "name of a bucket"),
        ("s3://bucket?secret=1", "name of a bucket"),
        ("gs:///x", "name of a bucket"),
    ],
)
def test_a_source_without_one_table_is_refused(files, tmp_path, source, words):
    """With what to write instead, and no secret of an address."""
    files("data/1.csv", "data/2.parquet", "data/sub/3.csv", "data/notes.txt")
    (tmp_path / "empty").mkdir()
    message = str(refusal(source))
    assert words in message
    assert "secret" not in message


@st.composite
def schemas(draw, kinds):
    """The kinds of two columns in each of some files."""
    n = draw(st.integers(2, 4))
    return [draw(st.lists(kinds, min_size=n, max_size=n)) for _ in range(2)]


def first_change(columns):
    """The first file in which a column has another type than in the files before, the column and both types."""
    for file in range(len(columns[0])):
        for name, kinds in zip("ab", columns, strict=True):
            known = next((n for n, kind in enumerate(kinds[:file]) if kind is not None), None)
            if known is not None and kinds[file] not in (None, kinds[known]):
                return file, name, kinds[known], kinds[file], known
    return None


def check(folder, suffix, columns):
    """Joining is refused exactly where a type changes, before a row is written."""
    change = first_change(columns)
    if change is None:
        with gathered(folder) as table:
            assert len(read_table(table.path)) == 2 * len(columns[0])
        return
    file, name, before, here, known = change
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joining, "TableWriter", None)
        error = refusal(folder)
    assert error.column == name
    assert f"{name!r} changes its type: {before} in {folder}/{known}{suffix}, {here} in {folder}/{file}{suffix}" in str(
        error
    )


@settings(max_examples=60)
@given(schemas(st.sampled_from(list(VALUES))), st.randoms(use_true_random=False))
def test_a_column_of_parquet_that_changes_its_type_is_named(columns, random):
    """Types are those in which a dataset stores them; no values fit any type, and the order of columns is free."""
    with tempfile.TemporaryDirectory() as folder:
        for file, kinds in enumerate(zip(*columns, strict=True)):
            table = pa.table(
                {
                    n: pa.array(VALUES[k]).cast(k) if pa.types.is_dictionary(k) else pa.array(VALUES[k], k)
                    for n, k in zip("ab", kinds, strict=True)
                }
            )
            names = random.sample(["a", "b"], 2 if file else 0) or ["a", "b"]
            pq.write_table(table.select(names), f"{folder}/{file}.parquet")
        stored = [[None if pa.types.is_null(k) else str(stored_type("x", k)) for k in kinds] for kinds in columns]
        check(folder, ".parquet", stored)


@settings(max_examples=60)
@given(schemas(st.sampled_from([*CELLS, "mixed"])), st.randoms(use_true_random=False))
def test_a_column_of_csv_that_changes_its_type_is_named(columns, random):
    """Where all cells of a file are of a type, and none of another file is; one cell of another type is none."""
    with tempfile.TemporaryDirectory() as folder:
        for file, kinds in enumerate(zip(*columns, strict=True)):
            frame = pd.DataFrame({n: MIXED if k == "mixed" else CELLS[k] for n, k in zip("ab", kinds, strict=True)})
            frame[random.sample(["a", "b"], 2 if file else 0) or ["a", "b"]].to_csv(f"{folder}/{file}.csv", index=False)
        check(folder, ".csv", [[None if kind == "mixed" else kind for kind in kinds] for kinds in columns])


CELL = st.text(st.sampled_from('a0," \n.-é'), max_size=4)


@settings(max_examples=50)
@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=2, max_size=12), st.data())
def test_the_parts_of_a_csv_are_the_same_bytes_as_the_whole(rows, data):
    """However it was cut, in any order of the columns, whatever the quoting and compression of a part."""
    frame = pd.DataFrame([["1", *row] for row in rows], columns=["n", "x", "y", "z"])
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows) - 1), min_size=1)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frame.to_csv(folder / "whole.csv", index=False)
        (folder / "parts").mkdir()
        for n, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(rows)], strict=True)):
            names = list(frame.columns) if n == 0 else data.draw(st.permutations(list(frame.columns)))
            options = {
                "quoting": data.draw(st.sampled_from([0, 1])),
                "compression": data.draw(st.sampled_from([None, "gzip"])),
            }
            frame.iloc[start:end][names].to_csv(folder / f"parts/{n:02}.csv", index=False, **options)
        write_csv(folder / "whole.csv", "utf-8", folder / "one", ApiSettings())
        with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
            patch.setattr(joining, "_type_of", lambda cells: pa.null())  # parts of few rows seem to have types
            table = stack.enter_context(gathered(folder / "parts"))
            write_parquet(table.path, folder / "other", ApiSettings())
        assert (folder / "one").read_bytes() == (folder / "other").read_bytes()


def write_pair(folder, first, second):
    """Two files; bytes as they are, a frame as CSV or Parquet by the name."""
    for name, content in (first, second):
        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif name.endswith(".parquet"):
            pd.DataFrame(content).to_parquet(path)
        else:
            pd.DataFrame(content).to_csv(path, index=False)


def parquet_bytes(folder):
    pd.DataFrame({"a": range(1000), "b": 1}).to_parquet(folder / "whole")
    data = (folder / "whole").read_bytes()
    (folder / "whole").unlink()
    return data


TABLE = {"a": [1, 2], "b": [3, 4]}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("table", "words", "column"),
    [
        ({"a": [1]}, "2.{} has no column 'b', unlike", "b"),
        ({"a": [1], "bb": [2]}, "2.{} has no column 'b', unlike", "b"),
        ({"a": [1], "b": [1], "c": [1]}, "2.{} has a column 'c' that", "c"),
    ],
)
def test_a_column_that_is_missing_or_new_is_named(tmp_path, suffix, table, words, column):
    """With the first file that lacks it, or has it."""
    write_pair(tmp_path, (f"1.{suffix}", TABLE), (f"2.{suffix}", table))
    write_pair(tmp_path, (f"3.{suffix}", {"z": [1]}), (f"4.{suffix}", {"z": [1]}))
    error = refusal(tmp_path)
    assert error.column == column
    assert words.format(suffix) in str(error)
    assert ("Did you mean bb?" in str(error)) is ("bb" in table)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("2.csv", b"", "2.csv is empty"),
        ("2.csv", b"a,b\n", "2.csv has column names but no row"),
        ("2.csv", b"a,b\n1,2\n3\n", "2.csv is not a table: line 3"),
        ("2.csv", b"a,b\n\xe9,2\n", "2.csv is not utf-8"),
        ("2.csv", b"a,a\n1,2\n", "2.csv has several columns called 'a'"),
        ("2.csv", b"PK\x03\x04rest", "2.csv is an Excel workbook"),
        ("2.csv.gz", b"\x1f\x8bcut", "2.csv.gz is not a complete gzip file"),
    ],
)
@pytest.mark.parametrize("position", ["first", "last"])
def test_a_csv_that_is_no_table_is_named(tmp_path, name, content, words, position):
    """Wherever it is among good ones."""
    good = "1.csv" if position == "last" else "3.csv"
    write_pair(tmp_path, (good, TABLE), (name, content))
    assert words in str(refusal(tmp_path))


@pytest.mark.parametrize("position", ["first", "last"])
@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -20, -1])
def test_a_truncated_parquet_file_is_named(tmp_path, kept, position):
    """Wherever it was cut."""
    data = parquet_bytes(tmp_path)
    cut = data[: int(len(data) * kept) if isinstance(kept, float) else kept]
    write_pair(tmp_path, ("1.parquet" if position == "last" else "3.parquet", TABLE), ("2.parquet", cut))
    assert f"{tmp_path}/2.parquet is " in str(refusal(tmp_path))


def test_a_parquet_file_with_damaged_pages_is_named(tmp_path):
    """Its footer is whole, so it is found when its rows are read."""
    data = bytearray(parquet_bytes(tmp_path))
    data[4:60] = b"\xff" * 56
    write_pair(tmp_path, ("1.parquet", TABLE), ("2.parquet", bytes(data)))
    assert f"{tmp_path}/2.parquet" in str(refusal(tmp_path))


def test_parquet_files_without_rows_among_others_add_none(tmp_path):
    """As programs write them, one a process; none with rows at all is no table."""
    empty = pd.DataFrame(TABLE).head(0)
    write_pair(tmp_path, ("1.parquet", empty), ("2.parquet", TABLE))
    with gathered(tmp_path) as table:
        assert len(read_table(table.path)) == 2
    write_pair(tmp_path, ("1.parquet", empty), ("2.parquet", empty))
    assert "None of the files has a row" in str(refusal(tmp_path))


def test_a_type_that_no_dataset_holds_is_refused_before_rows_are_moved(tmp_path, monkeypatch):
    """By the footer."""
    monkeypatch.setattr(joining, "TableWriter", None)
    write_pair(tmp_path, ("1.parquet", {"a": [[1]]}), ("2.parquet", {"a": [[2]]}))
    assert refusal(tmp_path).column == "a"


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    """Neither after success nor after an error of whoever uses the table."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    write_pair(tmp_path, ("1.csv", TABLE), ("2.csv", TABLE))
    with gathered(f"{tmp_path}/*.csv") as table:
        assert table.path.is_file()
    with pytest.raises(KeyboardInterrupt), gathered(f"{tmp_path}/*.csv"):
        raise KeyboardInterrupt
    assert not list((tmp_path / "temporary").iterdir())
