"""From a request to two checked tables: rows to train on, rows to measure on."""

from __future__ import annotations

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
from ml_core.domain.columns import Columns, take
from ml_core.domain.signature import InputColumn, OutputKind
from ml_core.exceptions import DataProcessingError, SignatureMismatchError, TrainingError
from ml_core.training.provenance import data_digest, row_digests
from ml_core.training.rare import RareClasses
from ml_core.training.request import TrainingRequest
from ml_core.training.split import can_be_kept_together, hold_out
from ml_core.training.targets import (
    GIVE_VALIDATION,
    UNSTORABLE_REMEDY,
    Target,
    as_numbers,
    check_class_sizes,
    check_classes,
    invalid,
    read_target,
    unstorable,
)

# With fewer, two are held out at most, and a score of two rows says nothing.
MIN_ROWS = 10


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one purpose: canonical columns and ``(n_rows,)`` targets, None without."""

    columns: Columns
    target: NDArray[Any] | None
    n_rows: int


@dataclass(frozen=True, slots=True)
class TrainingTable:
    """A request's data, checked and canonical.

    Attributes:
        columns: What was inferred of every column of the training data.
        inputs: The columns that are used.
        train: Rows to fit on.
        validation: Rows to measure on; none of them is in ``train`` unless the caller gave them so.
        digest: Of the training data.
        notes: Sentences for the user on what was done to the data.
    """

    columns: tuple[InferredColumn, ...]
    inputs: tuple[InputColumn, ...]
    train: Part
    validation: Part
    digest: str
    notes: tuple[str, ...]


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
    rare = _Rare(request, output)
    y = request.training_data[1]
    raw = _read(request.training_data, output, notes, "training", rare)
    if raw.target is not None and output is OutputKind.CLASSES:
        check_classes(raw.target)
    given = None
    if request.validation_data is not None:
        X, labels = request.validation_data
        given = _read((X, _as_in_training(labels, y, raw.target)), output, notes, "validation", rare)
        _check_same_type(raw.target, given.target)
    elif raw.target is not None and output is OutputKind.CLASSES:
        check_class_sizes(raw.target)
    try:
        columns = infer_columns(raw.frame, kinds=request.kinds, has_commas=isinstance(y, Cells) and y.has_commas)
        if given is not None:
            require_columns(given.frame, (column.name for column in columns if column.used), "The validation data")
        inputs = tuple(_widened(column, given) for column in columns if column.used)
        train = _part(raw, inputs)
        validation = None if given is None else _part(given, inputs)
    except (DataProcessingError, SignatureMismatchError) as error:
        raise TrainingError(
            error.message,
            remedy=error.remedy,
            stage="validate",
            column=error.attributes().get("column"),
            details=error.details,
        ) from error
    digest = data_digest(train.columns, inputs, train.target)
    if validation is None:
        train, validation = _divide(train, inputs, output, notes)
    else:
        _note_known_rows(train, validation, inputs, notes)
    return TrainingTable(columns, inputs, train, validation, digest, tuple(notes))


class _Rare:
    """The caller's word on rare classes, and which those are: the training data, which is read first, decides."""

    def __init__(self, request: TrainingRequest, output: OutputKind) -> None:
        given = request.rare_classes
        self.rule = None if given is None else RareClasses.parse(given)
        self.shown = request.tells_cells
        self.classes: NDArray[Any] | None = None
        if self.rule is not None and output is not OutputKind.CLASSES:
            raise invalid("There are rare classes in a classification only.", "Leave rare_classes out.")

    def apply(self, target: Target, what: str, notes: list[str]) -> Target:
        """The target without them."""
        if self.rule is None:
            return target
        if self.classes is None:
            self.classes = self.rule.find(target)
        return self.rule.apply(target, self.classes, what, notes, shown=self.shown)


def _read(data: tuple[Any, Any], output: OutputKind, notes: list[str], what: str, rare: _Rare) -> _Raw:
    X, y = data
    frame = _frame(X)
    if not len(frame):
        raise invalid(f"The {what} data has no rows.", "Give at least ten." if what == "training" else "Give some.")
    if not frame.shape[1]:
        raise invalid(f"The {what} data has no column besides the target.", "Add the columns to predict it from.")
    _check_texts(frame, what)
    target = None
    if y is not None:
        target = read_target(y, len(frame), as_quantity=output is OutputKind.NUMBER)
        target = as_numbers(target) if output is OutputKind.NUMBER else target
        if dropped := int((~target.kept).sum()):
            notes.append(f"{dropped} of {len(frame)} {what} rows have no target and were left out.")
        target = rare.apply(target, what, notes)
        frame = frame.loc[target.kept]
    elif output in (OutputKind.CLASSES, OutputKind.NUMBER):
        raise invalid(f"The {what} data has no target.", "Give one value a row as the second of the pair (X, y).")
    if what == "training" and len(frame) < MIN_ROWS:
        raise invalid(
            f"There are {len(frame)} rows to train on, fewer than {MIN_ROWS}.", "Add rows: so few prove nothing."
        )
    return _Raw(frame, target)


def _frame(X: Any) -> pd.DataFrame:
    if isinstance(X, np.ndarray) and X.ndim == 2:
        X = pd.DataFrame(X, columns=[f"x{index}" for index in range(X.shape[1])])
    try:
        return as_frame(X.to_frame() if isinstance(X, pd.Series) else X).reset_index(drop=True)
    except DataProcessingError as error:
        raise invalid(error.message, error.remedy or "") from error


def _check_texts(frame: pd.DataFrame, what: str) -> None:
    """Refuse texts that can't be recorded of a version, before hours of training rather than after."""
    for position, name in enumerate(map(str, frame.columns)):
        if not is_storable(name):
            message = f"A column of the {what} data is called {unstorable(name)}"
            raise invalid(message, UNSTORABLE_REMEDY, ascii(name)[1:-1])
        series = frame.iloc[:, position]
        cells = cells_of(series)
        if cells is not None and not pc.any(pc.match_substring(cells, "\0")).as_py():
            continue
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
    if kinds[0] != kinds[1] and not set(kinds) <= {"i", "f"}:
        raise invalid(
            f"The target is {train.values.dtype.name} in the training data and {validation.values.dtype.name} in the "
            "validation data.",
            "Give both in one type.",
            train.column,
        )


def _widened(column: InferredColumn, given: _Raw | None) -> InputColumn:
    """The input column; it may also be null if the caller's validation rows have it missing."""
    found = column.to_input()
    if given is None or found.nullable:
        return found
    return replace(found, nullable=has_missing(given.frame[found.name], found.kind))


def _part(raw: _Raw, inputs: tuple[InputColumn, ...]) -> Part:
    target = None if raw.target is None else raw.target.values
    return Part(columns_from_frame(raw.frame, inputs), target, len(raw.frame))


def _divide(part: Part, inputs: tuple[InputColumn, ...], output: OutputKind, notes: list[str]) -> tuple[Part, Part]:
    """Training and held-out rows; equal rows are on one side, for a model may know a row by heart."""
    labels = part.target if output is OutputKind.CLASSES else None
    digests = row_digests(part.columns, inputs)
    n_equal, n_different = int(pd.Series(digests).duplicated(keep=False).sum()), len(np.unique(digests))
    train, held_out = hold_out(digests, labels)
    if not n_equal:
        return _rows(part, train), _rows(part, held_out)
    if can_be_kept_together(digests) and len(held_out):
        notes.append(
            f"{n_equal:,} of {part.n_rows:,} rows equal another one in every column used; equal rows are on one side "
            f"of the split: {len(train):,} rows to train on, {len(held_out):,} held out."
        )
        if labels is not None and (unmeasured := len(np.setdiff1d(labels, labels[held_out]))):
            notes.append(
                f"{unmeasured} class(es) have equal rows only, or nearly so: they are trained on, and the held-out "
                "metrics say nothing about them."
            )
    else:
        train, held_out = hold_out(np.arange(part.n_rows), labels)
        notes.append(
            f"{n_equal:,} of {part.n_rows:,} rows equal another one in every column used, and there are "
            f"{n_different:,} different rows only, so equal rows are on both sides of the split: the held-out metrics "
            f"say nothing about rows unlike these. To measure those {GIVE_VALIDATION}."
        )
    return _rows(part, train), _rows(part, held_out)


def _note_known_rows(train: Part, validation: Part, inputs: tuple[InputColumn, ...], notes: list[str]) -> None:
    known = np.isin(row_digests(validation.columns, inputs), row_digests(train.columns, inputs))
    if count := int(known.sum()):
        notes.append(
            f"{count:,} of {validation.n_rows:,} validation rows equal a training row in every column used: a model "
            "may know these by heart."
        )


def _rows(part: Part, rows: NDArray[np.intp]) -> Part:
    target = None if part.target is None else part.target[rows]
    return Part(take(part.columns, rows), target, len(rows))
