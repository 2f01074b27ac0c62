"""From a request to two checked tables: rows to train on, and rows to measure on that were not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml_core.data.canonical import columns_from_frame, require_columns
from ml_core.data.cells import Cells, cells_of
from ml_core.data.frames import as_frame
from ml_core.data.kinds import InferredColumn, has_missing, infer_columns
from ml_core.database.strict_json import is_storable
from ml_core.domain.columns import ColumnKind, Columns, take
from ml_core.domain.signature import InputColumn, OutputKind
from ml_core.domain.train_spec import RareClasses
from ml_core.domain.values import composed
from ml_core.exceptions import DataProcessingError, SignatureMismatchError, TrainingError
from ml_core.training.hold_out import MIN_ROWS, divide, divide_by, times_of
from ml_core.training.provenance import data_digest, row_digests
from ml_core.training.request import TrainingRequest
from ml_core.training.targets import (
    UNSTORABLE_REMEDY,
    Target,
    as_labels,
    as_numbers,
    check_class_sizes,
    check_classes,
    invalid,
    rare_classes_of,
    read_target,
    unstorable,
    without_rare_classes,
)


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one purpose: canonical columns, and ``(n_rows,)`` targets and weights, None without."""

    columns: Columns
    target: NDArray[Any] | None
    n_rows: int
    weights: NDArray[np.float64] | None = None

    def take(self, rows: NDArray[np.intp]) -> Part:
        """The part with these of its rows."""
        target, weights = (None if each is None else each[rows] for each in (self.target, self.weights))
        return Part(take(self.columns, rows), target, len(rows), weights)


@dataclass(frozen=True, slots=True)
class TrainingTable:
    """A request's data, checked and canonical.

    Attributes:
        columns: What was inferred of every column of the training data.
        validation: Rows to measure on; none of them is in ``train`` unless the caller gave them so.
        digest: Of the training data.
        groups: ``(n_train,)`` numbers of groups whose rows stay together, or None.
        times: ``(n_train,)`` times by which rows are held out, or None.
        notes: Sentences for the user on what was done to the data.
    """

    columns: tuple[InferredColumn, ...]
    inputs: tuple[InputColumn, ...]
    train: Part
    validation: Part
    digest: str
    notes: tuple[str, ...]
    groups: NDArray[np.intp] | None = None
    times: NDArray[np.float64] | None = None

    def with_rows(self, rows: NDArray[np.intp]) -> TrainingTable:
        """The table with these of its training rows."""
        groups = None if self.groups is None else self.groups[rows]
        times = None if self.times is None else self.times[rows]
        return replace(self, train=self.train.take(rows), groups=groups, times=times)


@dataclass(frozen=True, slots=True)
class _Raw:
    frame: pd.DataFrame
    target: Target | None


def read_training_table(request: TrainingRequest, output: OutputKind) -> TrainingTable:
    """Read, check and divide a request's data.

    Raises:
        TrainingError: The data can't train; ``stage`` is ``validate`` and ``column`` the offending one.
    """
    notes: list[str] = []
    rare = RareRows(request)
    y = request.training_data[1]
    _check_aligned(*request.training_data, "training", notes)
    raw = _read(request.training_data[0], lambda: request.target, output, notes, "training", rare)
    if raw.target is not None and output is OutputKind.CLASSES:
        check_classes(raw.target)
    given = None
    if request.validation_data is not None:
        X, labels = request.validation_data
        _check_aligned(X, labels, "validation", notes)
        labels = _as_in_training(labels, y, raw.target)
        given = _read(X, lambda: None if labels is None else read_target(labels), output, notes, "validation", rare)
        _check_same_type(raw.target, given.target)
    elif raw.target is not None and output is OutputKind.CLASSES:
        rare.check_sizes(raw.target)
    with as_training_errors():
        has_commas = isinstance(y, Cells) and y.has_commas
        raw, groups = _without_group(raw, request.group)
        raw, weights = _without_weights(raw, request.weight, has_commas=has_commas)
        columns = infer_columns(raw.frame, kinds=request.kinds, has_commas=has_commas)
        if groups is not None:
            of_groups = InferredColumn(composed(str(request.group)), None, "not used: rows are held out by it")
            columns = (*columns, of_groups)
        if weights is not None:
            columns = (*columns, InferredColumn(composed(str(request.weight)), None, "not used: it weighs the rows"))
        inputs = tuple(column.input for column in columns if column.input is not None)
        if given is not None:
            require_columns(given.frame, (column.name for column in inputs), "The validation data")
            inputs = tuple(_widened(column, given.frame[column.name]) for column in inputs)
        train = replace(_part(raw, inputs), weights=weights)
        validation = None if given is None else _part(given, inputs)
    digest = _digest(train, inputs, request.weight)  # before the split, of all the rows that were given
    times = None if request.time is None else times_of(train.columns, inputs, request.time)
    if validation is not None:
        _note_known_rows(train, validation, inputs, notes)
        return TrainingTable(columns, inputs, train, validation, digest, tuple(notes), groups, times)
    labels, by = train.target if output is OutputKind.CLASSES else None, request.group or request.time
    if by is None:
        rows, held_out = divide(row_digests(train.columns, inputs), labels, notes, request.split_seed)
    else:
        rows, held_out = divide_by(groups, times, by, labels, notes, request.split_seed)
    rare.note_unmeasured(labels, rows, held_out, notes)
    validation = train.take(held_out)
    return TrainingTable(columns, inputs, train, validation, digest, tuple(notes), groups, times).with_rows(rows)


def _without_group(raw: _Raw, name: str | None) -> tuple[_Raw, NDArray[np.intp] | None]:
    """The data without the column of groups, and their numbers; rows without a group are one."""
    if name is None or not raw.frame.columns.is_unique:  # which is refused with all columns
        return raw, None
    require_columns(raw.frame, [composed(name)], "The training data")
    try:
        groups = pd.factorize(raw.frame[composed(name)], use_na_sentinel=False)[0]
    except TypeError:
        raise invalid(
            f"The values of {name!r} can't be compared.", "Group by a column of plain values.", name
        ) from None
    if len(np.unique(groups)) < 2:
        raise invalid(f"The column {name!r} has one value only.", "Group by another column, or by none.", name)
    return replace(raw, frame=raw.frame.drop(columns=[composed(name)])), groups


def _without_weights(raw: _Raw, name: str | None, *, has_commas: bool) -> tuple[_Raw, NDArray[np.float64] | None]:
    """The data without the column of weights, and these."""
    if name is None or not raw.frame.columns.is_unique:  # which is refused with all columns
        return raw, None
    require_columns(raw.frame, [composed(name)], "The training data")
    own = raw.frame[[composed(name)]]
    [column] = infer_columns(own, kinds={composed(name): ColumnKind.NUMBER}, has_commas=has_commas)
    assert column.input is not None  # noqa: S101 - a kind was given
    weights: NDArray[np.float64] = columns_from_frame(own, (column.input,))[composed(name)]
    if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.max() > 0):
        are_missing = np.isnan(weights).any()
        wrong = "a value is missing" if are_missing else f"they are from {weights.min():g} to {weights.max():g}"
        raise invalid(f"The column {name!r} can't be weights: {wrong}.", "Give each row a number of at least 0.", name)
    return replace(raw, frame=raw.frame.drop(columns=[composed(name)])), weights


def _digest(part: Part, inputs: tuple[InputColumn, ...], weight: str | None) -> str:
    if weight is None or part.weights is None:
        return data_digest(part.columns, inputs, part.target)
    of_weight = InputColumn(composed(weight), ColumnKind.NUMBER, nullable=False)
    return data_digest({**part.columns, of_weight.name: part.weights}, (*inputs, of_weight), part.target)


@contextmanager
def as_training_errors() -> Iterator[None]:
    """Raise errors about columns as ``TrainingError`` of the stage ``validate``."""
    try:
        yield
    except (DataProcessingError, SignatureMismatchError) as error:
        raise TrainingError(
            error.message,
            remedy=error.remedy,
            stage="validate",
            column=error.attributes().get("column"),
            details=error.details,
        ) from error


class RareRows:
    """The rule for rare classes, and the classes to which it applies: those of the training data, read first."""

    def __init__(self, request: TrainingRequest) -> None:
        given = request.rare_classes
        self.rule = None if given is None else RareClasses.parse(given)
        self.shown = request.shows_cells
        self.classes: NDArray[Any] | None = None

    def apply(self, target: Target, what: str, notes: list[str]) -> Target:
        """The target without them."""
        if self.rule is None or self.rule.is_kept:
            return target
        if self.classes is None:
            self.classes = rare_classes_of(target, self.rule)
        return without_rare_classes(target, self.rule, self.classes, what, notes, shown=self.shown)

    def check_sizes(self, target: Target) -> None:
        """Refuse a class with one row, which can't be both trained on and held out, unless rare ones are kept.

        Raises:
            TrainingError: There is one.
        """
        if self.rule is None or not self.rule.is_kept:
            check_class_sizes(target)

    def note_unmeasured(
        self, labels: NDArray[Any] | None, train: NDArray[np.intp], held_out: NDArray[np.intp], notes: list[str]
    ) -> None:
        """Note classes that are kept and not measured; ``(n_rows,)`` labels, and the numbers of rows of both sides."""
        if labels is None or self.rule is None or not self.rule.is_kept:
            return
        if unmeasured := len(np.setdiff1d(labels[train], labels[held_out])):
            notes.append(f"{unmeasured} class(es) are trained on, and the held-out metrics don't cover them.")


def _check_aligned(X: Any, y: Any, what: str, notes: list[str]) -> None:
    """Refuse targets with the index of the rows in another order; note another index.

    Raises:
        TrainingError: They are refused.
    """
    pandas = (pd.DataFrame, pd.Series)
    if not (isinstance(X, pandas) and isinstance(y, pandas)) or len(X) != len(y) or X.index.equals(y.index):
        return
    is_alike = X.index.nlevels == y.index.nlevels and X.index.is_unique and y.index.is_unique
    if is_alike and len(X.index.intersection(y.index)) == len(X):
        raise invalid(
            f"The {what} targets have the index of the rows in another order.",
            "Give y.loc[X.index], or reset both indexes if the rows are in order as they stand.",
        )
    notes.append(f"The {what} targets have another index than the rows; they were paired in the order given.")


def _read(
    X: Any, read: Callable[[], Target | None], output: OutputKind, notes: list[str], what: str, rare: RareRows
) -> _Raw:
    frame = _frame(X)
    check_shape(*frame.shape, what)
    check_texts(frame, what)
    target = checked_target(read(), len(frame), output, notes, what, rare)
    return _Raw(frame if target is None else frame.loc[target.kept], target)


def check_shape(n_rows: int, n_columns: int, what: str) -> None:
    """Refuse a table without rows or columns.

    Raises:
        TrainingError: It has none.
    """
    if not n_rows:
        raise invalid(f"The {what} data has no rows.", "Give at least ten." if what == "training" else "Give some.")
    if not n_columns:
        raise invalid(f"The {what} data has no column besides the target.", "Add the columns to predict it from.")


def checked_target(
    target: Target | None, n_rows: int, output: OutputKind, notes: list[str], what: str, rare: RareRows
) -> Target | None:
    """The target of a table with so many rows in the type of the output, without rare classes.

    Raises:
        TrainingError: It can't be trained on, or too few rows have one.
    """
    if target is not None:
        n_targets = len(target.kept)
        if n_targets != n_rows:
            message = f"There are {n_rows} rows but {n_targets} target values."
            raise invalid(message, "Give one value a row.", target.column)
        # Before rare classes are looked for: their counts are of the values in one type.
        target = as_numbers(target) if output is OutputKind.NUMBER else as_labels(target)
        if dropped := int((~target.kept).sum()):
            notes.append(f"{dropped} of {n_rows} {what} rows have no target and were left out.")
        target = rare.apply(target, what, notes)
        n_rows = int(target.kept.sum())
    elif output in (OutputKind.CLASSES, OutputKind.NUMBER):
        raise invalid(f"The {what} data has no target.", "Give one value a row as the second of the pair (X, y).")
    if what == "training" and n_rows < MIN_ROWS:
        raise invalid(f"There are {n_rows} rows to train on, fewer than {MIN_ROWS}.", "Add rows.")
    return target


def _frame(X: Any) -> pd.DataFrame:
    if isinstance(X, np.ndarray) and X.ndim == 2:  # pandas would name its columns by numbers
        X = pd.DataFrame(X, columns=[f"x{index}" for index in range(X.shape[1])])
    try:
        return as_frame(X.to_frame() if isinstance(X, pd.Series) else X).reset_index(drop=True)
    except DataProcessingError as error:
        raise invalid(error.message, error.remedy or "") from error


def check_texts(frame: pd.DataFrame, what: str) -> None:
    """Refuse texts that the registry can't store, before the training rather than after it."""
    for label, series in frame.items():
        name = str(label)
        if not is_storable(name):
            message = f"A column of the {what} data is called {unstorable(name)}"
            raise invalid(message, UNSTORABLE_REMEDY, ascii(name)[1:-1])
        cells = cells_of(series)
        if cells is not None and not pc.any(pc.match_substring(cells, "\0")).as_py():
            continue  # Arrow has refused a half of a surrogate pair, so only a NUL can be wrong
        if isinstance(series.dtype, pd.CategoricalDtype):
            values = series.cat.remove_unused_categories().cat.categories.tolist()
        elif pd.api.types.is_object_dtype(series.dtype) or pd.api.types.is_string_dtype(series.dtype):
            values = series.tolist()
        else:
            continue
        for value in values:
            if isinstance(value, str) and not is_storable(value):
                message = f"Column {name!r} of the {what} data holds {unstorable(value)}"
                raise invalid(message, UNSTORABLE_REMEDY, name)


def _as_in_training(labels: Any, y: Any, target: Target | None) -> Any:
    """The validation target; cells are read as those of the training data were."""
    if not isinstance(labels, Cells):
        return labels
    if target is not None and target.values.dtype.kind == "U":
        return labels.series
    return Cells(labels.series, labels.has_commas or (isinstance(y, Cells) and y.has_commas))


def _check_same_type(train: Target | None, validation: Target | None) -> None:
    if train is None or validation is None:
        return
    kinds = (train.values.dtype.kind, validation.values.dtype.kind)
    if kinds[0] != kinds[1] and not set(kinds) <= {"i", "f"}:  # whole numbers may be floats in one of the two
        raise invalid(
            f"The target is {train.values.dtype.name} in the training data and {validation.values.dtype.name} in the "
            "validation data.",
            "Give both in one type.",
            train.column,
        )


def _widened(column: InputColumn, given: pd.Series[Any]) -> InputColumn:
    """The input column; it may also be null if the caller's validation rows have it missing."""
    return column if column.nullable else replace(column, nullable=has_missing(given, column.kind))


def _part(raw: _Raw, inputs: tuple[InputColumn, ...]) -> Part:
    target = None if raw.target is None else raw.target.values
    return Part(columns_from_frame(raw.frame, inputs), target, len(raw.frame))


def _note_known_rows(train: Part, validation: Part, inputs: tuple[InputColumn, ...], notes: list[str]) -> None:
    known = np.isin(row_digests(validation.columns, inputs), row_digests(train.columns, inputs))
    if count := int(known.sum()):
        notes.append(
            f"{count:,} of {validation.n_rows:,} validation rows equal a training row in every column used: the "
            "model may have memorised these."
        )
