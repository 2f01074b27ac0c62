"""A CSV file as a table of strings: the dialect is detected, and each cell is read once, without interpretation.

The kind of a column decides what its cells mean, see ``ml_core.domain.values``. Here an empty cell becomes null, and
nothing else is changed.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from ml_core.data.table_file import GROUP_BYTES, group_rows, too_long_rows
from ml_core.domain.values import composed
from ml_core.exceptions import Action, DataProcessingError

if TYPE_CHECKING:
    from typing_extensions import Buffer

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")

# What separates the cells of files that are called .csv; a comma wins where several would do.
_DELIMITERS = (",", ";", "\t", "|")
_LINES_LOOKED_AT = 20
_LONGEST_LINE = 2**24  # characters of a line that are examined to find the delimiter
_QUOTED = re.compile(r'(?<![^,;\t|\n]) *"(?:[^"]|"")*"')
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[\r\n]*', re.IGNORECASE)  # what Excel reads and writes
_GZIP = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
# The first bytes of files that are not text, whatever their names.
_OTHERS = {
    PARQUET_MAGIC: ("a Parquet file", "Rename it to .parquet."),
    b"PK\x03\x04": ("an Excel workbook or a zip archive", "Save the sheet as CSV UTF-8, or unpack the archive."),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook of the old format", "Save the sheet as CSV UTF-8."),
    # Of the protocols since Python 3.0. No text in UTF-8 begins so.
    **dict.fromkeys((b"\x80\x03", b"\x80\x04", b"\x80\x05"), ("a pickle", "Write the table with frame.to_parquet.")),
    b"ARROW1": ("an Arrow (Feather) file", "Write the table as Parquet."),
    b"BZh": ("compressed with bzip2", "Unpack it, or compress it with gzip."),
    b"\xfd7zXZ": ("compressed with xz", "Unpack it, or compress it with gzip."),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "Unpack it, or compress it with gzip."),
}
_BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_HEAD_BYTES = 4096
_READ_BYTES = 2**18


@dataclass(frozen=True, slots=True)
class CsvFile:
    """A file and its dialect.

    Attributes:
        first_line: Lines above the names of the columns.
        is_padded: Whether there are blanks around the delimiters; they are not part of the cells.
    """

    path: Path
    encoding: str
    delimiter: str
    first_line: int = 0
    is_padded: bool = False

    @classmethod
    def recognise(cls, path: Path, encoding: str) -> CsvFile:
        """Detect the dialect from the first lines.

        Raises:
            DataProcessingError: The file is not text.
        """
        encoding = _encoding_of(path, encoding)
        with _open(path, encoding) as text:
            head = list(islice(iter(lambda: text.readline(_LONGEST_LINE), ""), _LINES_LOOKED_AT))
        separator = _SEPARATOR_LINE.fullmatch(head[0]) if head else None
        skipped = 1 if separator else 0
        guess = "\t" if ".tsv" in path.name.lower() else guess_delimiter(head)
        delimiter = separator[1] if separator else guess
        first = next(csv.reader(head[skipped:], delimiter=delimiter), [])
        is_padded = len(first) > 1 and delimiter != "\t" and all(name[:1] == " " for name in first[1:])
        return cls(path, encoding, delimiter, skipped, is_padded)

    def pieces(self) -> Iterator[pa.Table]:
        """The table in pieces of strings, null where a cell is empty; at least one.

        A piece has about as many rows as a row group of a dataset's file. Empty cells behind the last named column are
        ignored, and nameless columns without values are left out.

        Raises:
            DataProcessingError: A line has too few or too many cells, two columns have one name, or there is no row.
            RequestTooLargeError: A piece has more than ``GROUP_BYTES``, unpacked.
        """
        metered = _Metered(_open_bytes(self.path))
        with io.TextIOWrapper(io.BufferedReader(metered, _READ_BYTES), encoding=self.encoding, newline="") as text:
            for _ in range(self.first_line):
                text.readline()
            names, line = self._names(text)
            kept: list[int] | None = None
            while lines := list(islice(text, metered.begin_piece(group_rows(len(names))))):
                columns, n_lines = self._plain(lines, names) or self._parsed(lines, text, names, line)
                line += n_lines
                if not columns:
                    continue
                n_rows = len(columns[0])
                empty = [i for i, n in enumerate(names) if is_nameless(n) and columns[i].null_count == n_rows]
                if kept is None:
                    kept = [i for i in range(len(names)) if i not in empty]
                elif lost := set(range(len(names))) - {*kept, *empty}:
                    raise unreadable(
                        f"{self.path} has values in column {min(lost) + 1}, which has no name.",
                        "Give each column a name in the first line.",
                    )
                yield pa.table([columns[i] for i in kept], names=[names[i] for i in kept])
            if kept is None:
                raise unreadable(f"{self.path} has column names but no row.", "Add rows.")

    def _names(self, text: TextIO) -> tuple[list[str], int]:
        """The names of the columns, and the number of the line in which they end."""
        reader = self._reader(text)
        with self._located(reader, self.first_line):
            names = next((row for row in reader if any(row)), None)
        if names is None:
            raise unreadable(f"{self.path} has no columns.", "Add a line of column names and rows below it.")
        names = [composed(name.strip() if self.is_padded else name) for name in names]
        while not names[-1]:
            names.pop()  # delimiters at the end of the line
        check_names(names, self.path)
        return [name or f"Unnamed: {index}" for index, name in enumerate(names)], self.first_line + reader.line_num

    def _plain(self, lines: list[str], names: list[str]) -> tuple[list[Any], int] | None:
        """The columns of lines without quotes, all as long as the first; None of other lines.

        Arrow splits such lines as ``csv`` does, 20 times as fast. It can't read the others: it accepts text behind a
        closing quote and a quote that is never closed, and does not name the line of an error.
        """
        if self.is_padded or any('"' in line for line in lines):
            return None
        block = "".join(lines)
        if block.startswith("\ufeff"):  # Arrow would take it for a byte order mark
            return None
        convert = pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        )
        try:
            table = pa_csv.read_csv(
                io.BytesIO(block.encode()),
                read_options=pa_csv.ReadOptions(column_names=names),
                parse_options=pa_csv.ParseOptions(delimiter=self.delimiter, quote_char=False),
                convert_options=convert,
            )
        except pa.ArrowInvalid:  # a line of another length
            return None
        return (table.columns if table.num_rows else []), len(lines)

    def _parsed(self, lines: list[str], text: TextIO, names: list[str], before: int) -> tuple[list[Any], int]:
        """The columns of lines, and of those into which their last cell reaches; and the number of all these lines."""
        reader = self._reader(chain(_drained(lines), text))
        width, n_lines, rows = len(names), len(lines), []
        with self._located(reader, before):
            for row in reader:
                if len(row) == width:
                    rows.append(row)
                elif len(row) > width and not any(row[width:]):
                    rows.append(row[:width])
                elif len(row) > 1 or (row and row[0].strip()):
                    raise self._wrong_length(before + reader.line_num, row, names)
                if reader.line_num >= n_lines:
                    break
        return [self._column(column) for column in zip(*rows, strict=True)], reader.line_num

    def _reader(self, lines: Iterable[str]) -> Any:
        # The limit is global to the process. A longer cell is a long text, not an error.
        csv.field_size_limit(sys.maxsize)
        return csv.reader(lines, delimiter=self.delimiter, skipinitialspace=self.is_padded, strict=True)

    @contextmanager
    def _located(self, reader: Any, before: int) -> Iterator[None]:
        """Report an error of the reader with its line; ``before``: the lines above its first."""
        try:
            yield
        except csv.Error as error:
            raise unreadable(
                f"{self.path} is not a table: line {before + reader.line_num}: {error}.",
                "Quote cells with delimiters or quotes in them, and double the quotes within. "
                "If it is the last line, the file may have been cut off.",
            ) from error

    def _wrong_length(self, line: int, row: list[str], names: list[str]) -> DataProcessingError:
        for number, cells in ((line, row), (self.first_line + 1, names)):
            if cells[0].startswith("#"):
                return unreadable(
                    f"{self.path} is not a table: line {number} begins with # and looks like a comment.",
                    "Remove the lines that are comments.",
                )
        remedy = "Each line needs as many cells as the first; quote cells with delimiters in them."
        if len(row) < len(names):
            remedy += " If it is the last line, the file may have been cut off."
        return unreadable(
            f"{self.path} is not a table: line {line} has {len(row)} cell{'s' if len(row) > 1 else ''}, "
            f"{'more' if len(row) > len(names) else 'fewer'} than the {len(names)} names in its first line.",
            remedy,
        )

    def _column(self, cells: tuple[str, ...]) -> Any:
        array = pa.array(cells, pa.string())
        if self.is_padded:
            array = pc.utf8_trim_whitespace(array)
        return pc.if_else(pc.equal(array, ""), None, array)


def _drained(lines: list[str]) -> Iterator[str]:
    """The lines in order, each freed when it is read."""
    lines.reverse()
    while lines:
        yield lines.pop()


def is_parquet(path: Path) -> bool:
    """Whether the content of a file is Parquet."""
    with path.open("rb") as file:
        return file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC


class _Metered(io.RawIOBase):
    """The bytes of a file, as long as those of a piece are not too many: a small file may unpack to any size."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = cast("io.BufferedIOBase", file)
        self._rows, self._left = 1, GROUP_BYTES

    def begin_piece(self, rows: int) -> int:
        """Begin to count anew, for a piece of so many rows; returns the number."""
        self._rows, self._left = rows, GROUP_BYTES
        return rows

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        n = self._file.readinto(buffer)
        self._left -= n
        if self._left < 0:
            raise too_long_rows(self._rows)
        return n

    def close(self) -> None:
        self._file.close()
        super().close()


def _open(path: Path, encoding: str) -> TextIO:
    codecs.lookup(encoding)
    return io.TextIOWrapper(_open_bytes(path), encoding=encoding, newline="")


def _open_bytes(path: Path) -> IO[bytes]:
    file = path.open("rb")
    start = file.read(len(_GZIP))
    file.seek(0)
    if start == _GZIP or path.name.lower().endswith(".gz"):
        file.close()
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return file


def _encoding_of(path: Path, encoding: str) -> str:
    """The encoding of the file's byte order mark, or else the one that is given.

    Raises:
        DataProcessingError: The file is not text, or its encoding must be given.
    """
    with _open_bytes(path) as file:
        head = file.read(_HEAD_BYTES)
    for start, (what, remedy) in _OTHERS.items():
        if head.startswith(start):
            raise unreadable(f"{path} is {what}, not a CSV file.", remedy)
    marked = next((name for mark, name in _BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    if marked is not None:
        return marked
    wide = max(("utf-16-le", head[1::2]), ("utf-16-be", head[::2]), key=lambda half: half[1].count(0))
    if wide[1].count(0) > len(head) / 8 and not encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32")):
        raise unreadable(
            f"{path} has NUL bytes, like text in UTF-16.",
            f"Give its encoding, such as {wide[0]}, or save it as UTF-8.",
            action=Action.of("datasets.create", encoding=wide[0]),
        )
    return encoding


def guess_delimiter(head: list[str]) -> str:
    """The delimiter: of ``, ; tab |`` the one that splits all lines into the same number of cells, and into the most.

    Where none splits all lines alike, it is the one that splits most of them like the first. ``head`` is the first
    lines, the column names among them.
    """
    text = _QUOTED.sub("", "\n".join(line.rstrip("\r\n") for line in head))
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    lines = lines[:-1] or lines  # the last may be cut within a quoted cell
    best, rank = ",", (False, 0.5, 1)
    for delimiter in _DELIMITERS:
        counts = [line.count(delimiter) + 1 for line in lines]
        share = sum(count == counts[0] for count in counts) / len(counts) if counts else 0.0
        if counts and counts[0] > 1 and (found := (share == 1.0, share, counts[0])) > rank:
            best, rank = delimiter, found
    return best


def check_names(names: list[str], what: Path | str) -> None:
    """Refuse two columns of one name, since a request could fill only one of them."""
    twice = next((name for name, count in Counter(filter(None, names)).items() if count > 1), None)
    if twice is not None:
        is_value = twice.lstrip("-").replace(".", "", 1).isdigit()
        remedy = "Its first line seems to hold values: put a line of column names above it." if is_value else None
        raise unreadable(
            f"{what} has several columns called {twice!r}.", remedy or "Rename all but one of them.", column=twice
        )


def is_nameless(name: str) -> bool:
    """Whether the name was generated for a column without one."""
    return name.startswith("Unnamed: ")


def unreadable(message: str, remedy: str, **attributes: Any) -> DataProcessingError:
    """The error for a file that can't be read."""
    return DataProcessingError(message, remedy=remedy, stage="read", **attributes)
