"""A large CSV in pieces is the very table that a small one is."""

import gzip

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_core.data import csv_pieces
from ml_core.data.reading import read_table
from ml_core.data.tables import table_from_frame
from ml_core.exceptions import DataProcessingError

FILES = {
    "numbers": "a\n1\n2.5\n-3e2\n",
    "whole numbers": "a\n1\n 2\n+3\n",
    "missing": "a,b\n1,x\n,y\n3,NA\n",
    "a code in the last line": "zip\n94110\n10115\n01234\n",
    "phone numbers": "a\n+4930123456\n+4930123457\n",
    "booleans": "a,b\nTrue,1\n,2\nfalse,3\n",
    "words among numbers": "a\nNA\n1\n2.5\nnull\n",
    "words among booleans": "a\nNA\nTrue\nFALSE\n",
    "words alone": "a\nNA\nNone\n",
    "beyond 63 bits": "a\n1\n9223372036854775808\n",
    "beyond 63 bits and negative": "a\n-1\n9223372036854775808\n",
    "beyond 64 bits": "a\n1\n99999999999999999999\n",
    "infinity": "a\n1\n-Infinity\n",
    "a comma at the end": "a,\n1,\n2,\n",
    "a column without a value": "a,b\n1,\n2,\n",
    "decimal comma": "a;b\n1,5;x\n2;y\n",
    "decimal comma and words": "a;b\n1,5;x\nNA;y\n",
    "quotes": 'a,b\n"x\ny",1\n"z, ""q""",2\n',
    "the last digit": "a\n0.1\n0.30000000000000004\n1.7976931348623157e308\n5e-324\n",
    "a byte order mark": "\ufeffa,b\n1,2\n",
    "blanks": 'a\n" "\n1\n',
    "short lines": "a,b\n1\n2,3\n",
}


def whole(path):
    return table_from_frame(read_table(path)).combine_chunks()


def pieces(path, rows):
    return pa.concat_tables(list(csv_pieces.read_pieces(path, "utf-8", rows))).combine_chunks()


@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("name", FILES)
def test_pieces_are_the_whole_table(tmp_path, name, rows):
    """Types and values, wherever the pieces end."""
    file = tmp_path / "data.csv"
    file.write_text(FILES[name], encoding="utf-8")
    assert pieces(file, rows).equals(whole(file))


# Not among them: numbers beyond 64 bits together with words, where pandas itself depends on their order.
_CELLS = ["1", "2.5", "", "NA", "True", "false", "x", "01", "-3", "1e5", '" "', "nan", "inf", "2026-01-01", "1,5", "5."]


@settings(max_examples=200, deadline=None)
@given(
    cells=st.lists(st.lists(st.sampled_from(_CELLS), min_size=2, max_size=2), min_size=1, max_size=7),
    rows=st.integers(1, 4),
)
def test_any_mixture_is_read_alike(tmp_path_factory, cells, rows):
    """Whatever stands together in a column."""
    file = tmp_path_factory.mktemp("csv") / "data.csv"
    file.write_text("a;b\n" + "".join(";".join(line) + "\n" for line in cells))
    assert pieces(file, rows).equals(whole(file))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n", "no row"),
        ("a,b\n1,2,3\n1,2,3\n", "more cells"),
        ("a,a\n1,2\n", "called 'a'"),
        ("a\n\xe9\n", "not utf-8"),
    ],
)
def test_a_bad_file_is_refused_as_a_small_one(tmp_path, text, words):
    """With the same message."""
    file = tmp_path / "data.csv"
    file.write_text(text, encoding="latin-1")
    for read in (whole, lambda path: pieces(path, 1)):
        with pytest.raises(DataProcessingError, match=words) as caught:
            read(file)
        assert caught.value.stage == "read"


def test_size_decides(tmp_path, monkeypatch):
    """Of a compressed file the size that it will have."""
    monkeypatch.setattr(csv_pieces, "LARGE_BYTES", 100)
    (tmp_path / "small.csv").write_text("a\n1\n")
    (tmp_path / "large.csv").write_text("a\n" + "1\n" * 100)
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(b"a\n" + b"1\n" * 10_000))
    found = {name: csv_pieces.is_large(tmp_path / name) for name in ("small.csv", "large.csv", "packed.csv.gz", "none")}
    assert found == {"small.csv": False, "large.csv": True, "packed.csv.gz": True, "none": False}
    assert pieces(tmp_path / "packed.csv.gz", 999).num_rows == 10_000
