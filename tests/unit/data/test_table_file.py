"""The file of a dataset: equal content, equal bytes; and back without a loss."""

import datetime as dt
import hashlib
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_core.data.table_file import TableWriter, export_table, group_rows, read_frame, read_rows
from ml_core.data.tables import table_from_frame
from ml_core.exceptions import DataProcessingError

_PROGRAM = """
import hashlib, sys
from pathlib import Path
import numpy as np, pandas as pd
from ml_core.data.table_file import TableWriter
from ml_core.data.tables import table_from_frame

def frame(n):
    random = np.random.default_rng(0)
    return pd.DataFrame({
        "number": random.normal(size=n),
        "whole": random.integers(0, 9, n),
        "text": [f"row {i % 977}" for i in range(n)],
        "page": [f"page {i:0{50 + i % 200}}" for i in range(n)],
        "moment": pd.date_range("2026-01-01", periods=n, freq="s"),
        "flag": random.random(n) < 0.5,
    })

def write(path, n):
    table = table_from_frame(frame(n))
    with TableWriter(Path(path), table.schema) as writer:
        writer.write(table)
"""
exec(_PROGRAM)
ROWS = 150_000


def written(path, table, piece=None):
    with TableWriter(path, table.schema) as writer:
        for start in range(0, table.num_rows, piece or table.num_rows):
            writer.write(table.slice(start, piece or table.num_rows))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def table():
    return table_from_frame(frame(ROWS))  # noqa: F821 - defined by the program above


@pytest.mark.parametrize("piece", [777, 65_536, 65_537, 149_999])
def test_bytes_do_not_depend_on_the_pieces_that_rows_come_in(tmp_path, table, piece):
    """Row groups and pages end where they end in one piece; long texts fill many pages."""
    assert written(tmp_path / "a", table) == written(tmp_path / "b", table, piece)


def test_bytes_are_the_same_in_another_process(tmp_path, table):
    """So equal tables are stored once whoever registers them."""
    file = tmp_path / "other"
    subprocess.run([sys.executable, "-c", f"{_PROGRAM}\nwrite(sys.argv[1], {ROWS})", file], check=True)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == written(tmp_path / "mine", table)


def test_bytes_do_not_depend_on_what_the_table_was_before(tmp_path, table):
    """A pandas index, metadata and other chunks leave no trace."""
    through_parquet = tmp_path / "pandas.parquet"
    frame(ROWS).set_index(pd.Index(range(5, ROWS + 5))).to_parquet(through_parquet)  # noqa: F821
    again = table_from_frame(pd.read_parquet(through_parquet))
    assert written(tmp_path / "a", table) == written(tmp_path / "b", again)
    assert pq.ParquetFile(tmp_path / "a").metadata.metadata is None


def test_row_groups_are_bounded(tmp_path, table):
    """In rows, and in cells where there are many columns."""
    written(tmp_path / "a", table)
    file = pq.ParquetFile(tmp_path / "a")
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [65_536, 65_536, ROWS - 131_072]
    assert group_rows(10_000) == 419


def test_a_frame_comes_back_as_it_was(tmp_path):
    """Dtypes and values, whole numbers beyond 2**53 with missing values too."""
    original = pd.DataFrame(
        {
            "big": pd.array([2**60 + 1, None], dtype="Int64"),
            "small": pd.array([None, 255], dtype="UInt8"),
            "number": [1.5, np.nan],
            "text": pd.Series(["NA", None], dtype="str"),
            "flag": [True, False],
            "moment": pd.Series(pd.to_datetime(["2026-01-01", None])),
            "day": pd.Series([dt.date(2026, 1, 1), None], dtype=object),
            "price": pd.Series([Decimal("1.10"), None], dtype=object),
        }
    )
    written(tmp_path / "a", table_from_frame(original))
    pd.testing.assert_frame_equal(read_frame(tmp_path / "a"), original)
    assert read_frame(tmp_path / "a", ["text", "big"]).columns.tolist() == ["text", "big"]


def test_a_column_that_is_not_there_is_named(tmp_path):
    """With those that are."""
    written(tmp_path / "a", pa.table({"x": [1]}))
    with pytest.raises(DataProcessingError, match="no column 'y'") as caught:
        read_frame(tmp_path / "a", ["y"])
    assert "x" in caught.value.remedy


def test_some_rows_are_read_from_every_group(tmp_path, table):
    """By their position in the whole table."""
    written(tmp_path / "a", table)
    rows = np.array([0, 65_535, 65_536, 100_000, ROWS - 1])
    assert read_rows(tmp_path / "a", rows).equals(table.take(pa.array(rows)).combine_chunks())


def test_an_export_is_whole_or_not_there(tmp_path, table):
    """CSV over several row groups; nothing is written over, and nothing half-written stays."""
    written(tmp_path / "a", table)
    export_table(tmp_path / "a", tmp_path / "out.csv")
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "out.csv", parse_dates=["moment"]), read_frame(tmp_path / "a"), check_dtype=False
    )
    with pytest.raises(DataProcessingError, match="exists already"):
        export_table(tmp_path / "a", tmp_path / "out.csv")
    (tmp_path / "broken").write_bytes(b"no parquet")
    with pytest.raises(pa.ArrowInvalid):
        export_table(tmp_path / "broken", tmp_path / "half.csv")
    assert not (tmp_path / "half.csv").exists()
