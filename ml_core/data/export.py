"""A dataset's file, written where a user wants it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq

from ml_core.data.cells import read_typed
from ml_core.data.table_file import frame_of, holds_cells
from ml_core.data.tables import table_from_frame
from ml_core.exceptions import DataProcessingError

SUFFIXES = (".parquet", ".csv")


def export_table(source: Path, target: Path) -> None:
    """Copy a dataset's Parquet file, or write its table as CSV with one row group in memory at a time.

    In Parquet the cells of a text file become the values that they say, see ``ml_core.data.cells.read_typed``.

    Args:
        source: The dataset's file.
        target: A file that does not exist, ending in one of ``SUFFIXES``. Nothing is left there when it fails.

    Raises:
        DataProcessingError: It exists, ends otherwise, or can't be written; ``stage`` is ``write``.
    """
    if target.suffix.lower() not in SUFFIXES:
        raise _refused(f"{target} is not a file of a known kind.", f"Use one of {', '.join(SUFFIXES)}.")
    try:
        with target.open("xb") as file:
            try:
                if target.suffix.lower() == ".parquet" and holds_cells(source):
                    pq.write_table(table_from_frame(read_typed(source)), file)
                elif target.suffix.lower() == ".parquet":
                    with source.open("rb") as stored:
                        shutil.copyfileobj(stored, file)
                else:
                    _write_csv(source, file)
            except BaseException:  # also on Ctrl-C: no half-written file stays
                target.unlink(missing_ok=True)
                raise
    except FileExistsError as error:
        raise _refused(f"{target} exists already.", "Name another file, or remove it.") from error
    except OSError as error:
        raise _refused(
            f"{target} can't be written: {error.strerror or error}.", "Check the folder and its disk."
        ) from error


def _write_csv(source: Path, file: object) -> None:
    with pq.ParquetFile(source) as stored:
        for group in range(stored.num_row_groups):
            frame = frame_of(stored.read_row_group(group))
            frame.to_csv(file, index=False, header=group == 0)  # type: ignore[call-overload]


def _refused(message: str, remedy: str) -> DataProcessingError:
    return DataProcessingError(message, remedy=remedy, stage="write")
