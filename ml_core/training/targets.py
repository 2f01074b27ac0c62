"""The target: one array of one type, checked, with rare classes left out or merged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import infer_dtype

from ml_core.data.cells import Cells
from ml_core.data.evidence import fits
from ml_core.data.frames import as_pandas
from ml_core.database.strict_json import is_storable
from ml_core.domain.signature import OutputKind
from ml_core.domain.train_spec import RareClasses
from ml_core.domain.values import is_blank, read_number
from ml_core.exceptions import Action, TrainingError
from ml_core.models.algorithms import ANOMALY_DETECTION, CLASSIFICATION, CLUSTERING, REGRESSION

# A numeric target with more distinct values than this is a quantity, not a set of classes.
MAX_NUMERIC_CLASSES = 20
# An array of strings takes the room of the longest one for each.
_MAX_LABEL_CHARACTERS = 500
_SHOWN = 5

# Files that were read with the wrong encoding have such texts.
UNSTORABLE_REMEDY = "Remove these characters, or read the file with the encoding that it was written in."

GIVE_VALIDATION = "give validation data"

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
        is_rounded: Whether it had integers beyond 64 bits, which are floats now.
    """

    values: NDArray[Any]
    kept: NDArray[np.bool_]
    column: str | None
    is_rounded: bool = False

    def __str__(self) -> str:
        return _called(self.column)


def read_target(y: Any) -> Target:
    """Read ``(n_rows,)`` targets: Series, list or array of str, int, float, Decimal or bool; missing or blank ones too.

    Labels are not converted: ``NA`` and ``None`` are labels like others, and ``"1"`` is a string unless it is a cell
    of a text file (``Cells``). A Decimal is read by its value, whatever its exponent: whole numbers are integers, and
    if one has a fraction all are floats.

    Raises:
        TrainingError: It has no value, two types, or values that are neither labels nor numbers. ``stage`` is
            ``validate``.
    """
    series = _as_series(y)
    column = None if series.name is None else str(series.name)
    codes, distinct = _distinct(series)
    blank = [isinstance(value, str) and is_blank(value) for value in distinct.tolist()]
    present = distinct.notna().to_numpy(dtype=bool) & ~np.array(blank, dtype=bool)
    given = distinct[present].tolist()
    if not given:
        raise invalid(f"{_called(column)} is missing in every row.", "Name the column that holds the answers.", column)
    values, is_rounded = _one_type(given, column)
    kept = (codes >= 0) & present[codes]
    return Target(values[(np.cumsum(present) - 1)[codes[kept]]], kept, column, is_rounded)


def _distinct(series: pd.Series[Any]) -> tuple[NDArray[np.intp], pd.Series[Any]]:
    """For each row the number of its value, -1 where it is missing, and the values.

    Strings are numbered once each, since there are few and reading them takes long. Equal values of other types are
    not: 1 is equal to True.
    """
    if infer_dtype(series, skipna=True) != "string":
        return np.arange(len(series)), series
    codes, distinct = series.factorize()
    return codes, pd.Series(distinct)


def model_type_of(target: Target) -> str:
    """``regression`` for numbers of many distinct values or with fractions, else ``classification``.

    Many are more than ``MAX_NUMERIC_CLASSES``, or in a small table more than half as many as rows.
    """
    values = target.values
    if values.dtype.kind not in "if":
        return CLASSIFICATION
    distinct = len(np.unique(values))
    is_many = distinct > min(MAX_NUMERIC_CLASSES, max(2, len(values) // 2))
    return REGRESSION if is_many or _has_fractions(values) else CLASSIFICATION


def as_labels(target: Target) -> Target:
    """The target as labels; integers beyond 64 bits are refused, since rounding could merge two of them.

    Raises:
        TrainingError: It has such an integer. ``stage`` is ``validate``.
    """
    if target.is_rounded:
        raise invalid(f"{target} holds integers beyond 64 bits.", "Give them as strings.", target.column)
    return target


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
        example = float(values[values != np.round(values)][0])
        raise invalid(
            f"{target} holds fractions such as {example!r}, which can't be classes.",
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
        "Add rows of it; leave such classes out, merge them or train on them unmeasured with rare_classes, which is "
        f"drop, merge:LABEL or keep; or {GIVE_VALIDATION}.",
        target.column,
        Action.of("jobs.submit", rare_classes="drop"),
    )


def rare_classes_of(target: Target, rule: RareClasses) -> NDArray[Any]:
    """The classes of a training target that are rare."""
    classes, counts = np.unique(target.values, return_counts=True)
    return classes[counts < rule.minimum]


def without_rare_classes(
    target: Target, rule: RareClasses, rare: NDArray[Any], what: str, notes: list[str], *, shown: bool = True
) -> Target:
    """The target of the training or validation data without the rare classes of the training data.

    ``notes`` gets a sentence if a row is affected; it says which data that was, ``what``, and names the classes if they
    may be ``shown``.

    Raises:
        TrainingError: The label can't be a class among the others, or no row is left.
    """
    is_rare = np.isin(target.values, rare)
    if not is_rare.any():
        return target
    found, counts = np.unique(target.values[is_rare], return_counts=True)
    named = zip(found[:_SHOWN].tolist(), counts[:_SHOWN], strict=True)
    names = ": " + ", ".join(f"{label!r} ({count})" for label, count in named)
    names += ", …" if len(found) > _SHOWN else ""
    rows = f"{int(is_rare.sum()):,} of {len(is_rare):,} {what} rows, of {len(found)} class(es) with fewer than "
    rows += f"{rule.minimum} training rows{names if shown else ''}"
    if rule.label is not None:
        notes.append(f"Merged into {rule.label!r}: {rows}.")
        return replace(target, values=np.where(is_rare, _as_class(rule.label, target), target.values))
    if is_rare.all():
        raise invalid(f"{target} has no class with {rule.minimum} rows.", "Give a lower number.", target.column)
    notes.append(f"Left out {rows}.")
    kept = target.kept.copy()
    kept[kept] = ~is_rare
    return replace(target, values=target.values[~is_rare], kept=kept)


def _as_class(label: str, target: Target) -> Any:
    """The label in the type of the target's classes."""
    kind = target.values.dtype.kind
    try:
        return {"U": str, "i": int, "f": float}[kind](label)
    except (KeyError, ValueError):
        raise invalid(
            f"{target} has classes of the type {target.values.dtype.name}, so {label!r} can't be one of them.",
            "Merge into a label of that type, such as merge:-1, or use drop."
            if kind in "if"
            else "Use drop, or add rows.",
            target.column,
        ) from None


def as_numbers(target: Target) -> Target:
    """The target as ``float64``, for regression.

    Raises:
        TrainingError: It is not numeric, infinite, or constant. ``stage`` is ``validate``.
    """
    values: Any = target.values
    if values.dtype.kind in "Ub":  # texts may be numbers, zero-padded ones included; booleans are none
        values = values.tolist()
        wrong = next((value for value in values if isinstance(value, bool) or not fits(read_number, value)), None)
        if wrong is not None:
            remedy = "Use model_type='classification', or give numbers."
            raise invalid(f"{target} holds {wrong!r}, which is not a number.", remedy, target.column)
        values = list(map(read_number, values))
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise invalid(f"{target} holds infinity.", "Drop those rows.", target.column)
    if np.ptp(numbers) == 0:
        raise invalid(f"{target} is {numbers[0]:g} in every row.", "Name another column.", target.column)
    return replace(target, values=numbers)


def invalid(message: str, remedy: str, column: str | None = None, action: Action | None = None) -> TrainingError:
    """The error for data that can't train."""
    return TrainingError(message, remedy=remedy, stage="validate", column=column, action=action)


def unstorable(text: str) -> str:
    """The end of a sentence on a text that neither the registry nor JSON can hold."""
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


def _one_type(values: list[Any], column: str | None) -> tuple[NDArray[Any], bool]:
    """The values as an array, and whether integers were rounded."""
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
        return np.array(values, dtype=np.str_), False
    if set(types) == {bool}:
        return np.array(values, dtype=np.bool_), False
    if set(types) == {int}:
        try:
            return np.array(values, dtype=np.int64), False
        except OverflowError:  # beyond 64 bits
            return np.array([read_number(value) for value in values], dtype=np.float64), True
    if set(types) <= {int, float}:
        return np.array(values, dtype=np.float64), False
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


def _has_fractions(values: NDArray[Any]) -> bool:
    return not bool(np.all(np.isfinite(values) & (values == np.round(values))))


def _called(column: str | None) -> str:
    return "The target" if column is None else f"The target {column!r}"
