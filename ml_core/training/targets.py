"""The target: from whatever a caller has to one array of one type, or an error that says what is wrong with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_core.data.cells import Cells
from ml_core.data.evidence import fits
from ml_core.data.frames import as_pandas
from ml_core.database.strict_json import is_storable
from ml_core.domain.signature import OutputKind
from ml_core.domain.values import DoesNotFitError, is_blank, read_number
from ml_core.exceptions import TrainingError
from ml_core.models.algorithms import ANOMALY_DETECTION, CLASSIFICATION, CLUSTERING, REGRESSION

# A numeric target with more distinct values than this is a quantity, not a set of classes.
MAX_NUMERIC_CLASSES = 20
# numpy gives each label the room of the longest one.
_MAX_LABEL_CHARACTERS = 500

# Files that were read as if of another encoding have such texts.
UNSTORABLE_REMEDY = "Remove these characters, or read the file with the encoding that it was written in."

GIVE_VALIDATION = "give validation data: --validation FILE (validation_data in Python)"

OUTPUTS = {
    CLASSIFICATION: OutputKind.CLASSES,
    REGRESSION: OutputKind.NUMBER,
    CLUSTERING: OutputKind.CLUSTER,
    ANOMALY_DETECTION: OutputKind.ANOMALY,
}


@dataclass(frozen=True, slots=True)
class Target:
    """A target in one type.

    Attributes:
        values: ``(n_kept,)`` of str (``<U``), int64, bool or float64.
        kept: ``(n_rows,) bool``: the rows that have a target.
        column: What the caller calls it, if anything.
    """

    values: NDArray[Any]
    kept: NDArray[np.bool_]
    column: str | None

    def __str__(self) -> str:
        return _called(self.column)


def read_target(y: Any, n_rows: int, *, as_quantity: bool = False) -> Target:
    """Read a target: Series, list or array of str, int, float, Decimal or bool, missing values and blanks allowed.

    Labels stay what they are: ``NA`` and ``None`` are labels as any other, and ``"1"`` is a string unless it is a cell
    of a text file (``Cells``). A Decimal is the number that it holds, whatever its exponent: whole numbers are
    integers, and where one has a fraction all are floats.

    Args:
        y: ``(n_rows,)``.
        n_rows: Rows of the table.
        as_quantity: Integers beyond 64 bits are floats; as labels they are refused, since rounding would merge them.

    Raises:
        TrainingError: Its length is not ``n_rows``, it has no value, two types, or values that are no label and no
            number. ``stage`` is ``validate``.
    """
    series = _as_series(y)
    column = None if series.name is None else str(series.name)
    if len(series) != n_rows:
        raise invalid(f"There are {n_rows} rows but {len(series)} target values.", "Give one value a row.", column)
    blank = [isinstance(value, str) and is_blank(value) for value in series.tolist()]
    kept = series.notna().to_numpy(dtype=bool) & ~np.array(blank, dtype=bool)
    values = series[kept].tolist()
    if not values:
        raise invalid(f"{_called(column)} is missing in every row.", "Name the column that holds the answers.", column)
    return Target(_one_type(values, column, as_quantity), kept, column)


def infer_model_type(y: Any) -> str:
    """``regression`` for numbers of many distinct values or with fractions, else ``classification``.

    Many are more than ``MAX_NUMERIC_CLASSES``, or in a small table more than half as many as rows.

    Raises:
        TrainingError: The target can't be read.
    """
    values = read_target(y, len(y), as_quantity=True).values
    if values.dtype.kind not in "if":
        return CLASSIFICATION
    distinct = len(np.unique(values))
    is_many = distinct > min(MAX_NUMERIC_CLASSES, max(2, len(values) // 2))
    return REGRESSION if is_many or _has_fractions(values) else CLASSIFICATION


def check_classes(target: Target) -> None:
    """Check that a target can be classified.

    Raises:
        TrainingError: It has one class, or is a quantity. ``stage`` is ``validate``.
    """
    values, column = target.values, target.column
    distinct = np.unique(values)
    if len(distinct) < 2:
        raise invalid(
            f"{target} has one class only, {distinct[0].item()!r}, in all {len(values)} rows.",
            "Add rows of at least one other class.",
            column,
        )
    if values.dtype.kind == "f" and _has_fractions(values):
        raise invalid(
            f"{target} holds fractions such as {_fraction(values)!r}, which are no classes.",
            "Use model_type='regression', or turn the numbers into classes.",
            column,
        )


def check_class_sizes(target: Target) -> None:
    """Check that every class can be both trained and held out.

    Raises:
        TrainingError: A class has one row. ``stage`` is ``validate``.
    """
    counts = Counter(target.values.tolist())
    single = [label for label, count in counts.items() if count == 1]
    if not single:
        return
    if len(single) > max(20, len(counts) // 2):
        raise invalid(
            f"{target} has {len(counts)} different values in {len(target.values)} rows, most once.",
            "It looks like free text or an identifier: name the column that holds the classes.",
            target.column,
        )
    shown = ", ".join(repr(label) for label in single[:5]) + (" and others" if len(single) > 5 else "")
    raise invalid(
        f"{target} has {len(single)} class(es) with one row: {shown}.",
        "Add rows of it; leave such classes out or merge them: --rare-classes drop or merge:LABEL (rare_classes in "
        f"Python); or {GIVE_VALIDATION}.",
        target.column,
    )


def as_numbers(target: Target) -> Target:
    """The target as ``float64``, for regression.

    Raises:
        TrainingError: It is not numeric, infinite, or constant. ``stage`` is ``validate``.
    """
    values = _numbers_in(target.values) if target.values.dtype.kind == "U" else target.values
    if values.dtype.kind not in "if":
        raise invalid(
            f"{target} holds {_no_number(values)!r}, which is not a number.",
            "Use model_type='classification', or give numbers.",
            target.column,
        )
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise invalid(f"{target} holds infinity.", "Drop those rows.", target.column)
    if np.ptp(numbers) == 0:
        raise invalid(f"{target} is {numbers[0]:g} in every row.", "Name another column.", target.column)
    return Target(numbers, target.kept, target.column)


def _numbers_in(texts: NDArray[Any]) -> NDArray[Any]:
    """The numbers that strings say, such as zero-padded ones; the strings themselves if one is no number."""
    try:
        return np.array([read_number(text) for text in texts.tolist()], dtype=np.float64)
    except DoesNotFitError:
        return texts


def _no_number(values: NDArray[Any]) -> Any:
    if values.dtype.kind != "U":
        return values[0].item()
    return next(text for text in values.tolist() if not fits(read_number, text))


def invalid(message: str, remedy: str, column: str | None = None) -> TrainingError:
    """The error for data that can't train."""
    return TrainingError(message, remedy=remedy, stage="validate", column=column)


def unstorable(text: str) -> str:
    """The end of a sentence on a text that neither the registry nor JSON can carry."""
    return f"{text[:40]!a}, with a NUL character or half of a surrogate pair: that is not valid text."


def _as_series(y: Any) -> pd.Series[Any]:
    y = y.labels() if isinstance(y, Cells) else as_pandas(y)
    if isinstance(y, pd.DataFrame) and y.shape[1] == 1:
        y = y.iloc[:, 0]
    if isinstance(y, np.ndarray) and y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if isinstance(y, pd.DataFrame) or (isinstance(y, np.ndarray) and y.ndim != 1):
        raise invalid(f"The target has the shape {y.shape}.", "Give one value a row: a model predicts one target.")
    if isinstance(y, pd.Series | pd.Index):
        return pd.Series(y).reset_index(drop=True)
    # dtype=object, else pandas would turn a list of ints with one None into floats.
    return pd.Series(list(y), dtype=object)


def _one_type(values: list[Any], column: str | None, as_quantity: bool) -> NDArray[Any]:
    values = _plain_numbers([value.item() if isinstance(value, np.generic) else value for value in values])
    types = Counter(type(value) for value in values)
    if set(types) == {str}:
        if not all(map(is_storable, values)):
            bad = next(value for value in values if not is_storable(value))
            raise invalid(f"{_called(column)} holds {unstorable(bad)}", UNSTORABLE_REMEDY, column)
        longest = max(values, key=len)
        if len(longest) > _MAX_LABEL_CHARACTERS:
            raise invalid(
                f"{_called(column)} holds texts of up to {len(longest)} characters.",
                "It looks like free text: name the column that holds the classes.",
                column,
            )
        return np.array(values, dtype=np.str_)
    if set(types) == {bool}:
        return np.array(values, dtype=np.bool_)
    if set(types) == {int}:
        return _integers(values, column, as_quantity)
    if set(types) <= {int, float}:
        return np.array(values, dtype=np.float64)
    if len(types) > 1:
        examples = {cls.__name__: next(v for v in values if type(v) is cls) for cls in types}
        shown = " and ".join(f"{count} of {cls.__name__} ({examples[cls.__name__]!r})" for cls, count in types.items())
        raise invalid(f"{_called(column)} mixes types: {shown}.", "Convert them to one, such as str.", column)
    raise invalid(
        f"{_called(column)} holds {next(iter(types)).__name__} values such as {values[0]!r}.",
        "Give strings, booleans or numbers.",
        column,
    )


def _plain_numbers(values: list[Any]) -> list[Any]:
    """The values with each Decimal, and each float wider than Python's, as the int or float that it equals."""
    wide = [value for value in values if isinstance(value, Decimal | np.longdouble)]
    if not wide:
        return values
    is_whole = all(isinstance(value, Decimal) and value.is_finite() and value == int(value) for value in wide)
    as_number = int if is_whole else float
    return [as_number(value) if isinstance(value, Decimal | np.longdouble) else value for value in values]


def _integers(values: list[int], column: str | None, as_quantity: bool) -> NDArray[Any]:
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:
        if as_quantity:
            return np.array([read_number(value) for value in values], dtype=np.float64)
        raise invalid(f"{_called(column)} holds integers beyond 64 bits.", "Give them as strings.", column) from None


def _has_fractions(values: NDArray[Any]) -> bool:
    return not bool(np.all(np.isfinite(values) & (values == np.round(values))))


def _fraction(values: NDArray[Any]) -> float:
    return float(values[values != np.round(values)][0])


def _called(column: str | None) -> str:
    return "The target" if column is None else f"The target {column!r}"
