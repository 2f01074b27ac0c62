"""Held-out rows for a gate: read, drawn from if there are too many, and answered by both versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import ColumnKind
from ml_core.domain.gates import LABEL_METRICS, NUMBER_METRICS, PROBABILITY_METRICS, NotWorse
from ml_core.domain.signature import InputColumn, OutputKind
from ml_core.domain.values import is_blank, says_missing
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import DataProcessingError, PredictionError
from ml_core.models.store import ArtifactStore
from ml_core.registry.promotion.gates.paired import Answers

if TYPE_CHECKING:
    import pandas as pd

    from ml_core.domain.dataset import DatasetVersion


class Datasets(Protocol):
    """What a gate needs of ``ml_core.registry.datasets.DatasetRepository``."""

    def open(self, dataset_id: str, number: int | None = None) -> Path:
        """Its file."""


MIN_ROWS = 30
"""Below it a percentile interval is much too narrow: it can't see what a few rows do not hold."""
MAX_DATASET_ROWS = 1_000_000
"""A larger dataset is refused: it would have to be read, only for most of it to be left aside."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows with their truth.

    Attributes:
        frame: ``(n_rows, any)`` raw rows, the target among them.
        truth: ``(n_rows,)`` labels (object), or float64 for a metric of numbers.
        about: Which rows they are, for messages.
    """

    frame: pd.DataFrame
    truth: NDArray[Any]
    about: str


def held_out_rows(
    datasets: Datasets, dataset: DatasetVersion, rule: NotWorse, versions: Sequence[ServableVersion]
) -> HeldOut:
    """The rows that a gate compares on.

    Args:
        datasets: The tenant's.
        dataset: Which version of which of them.
        rule: The gate's.
        versions: What it compares.

    Raises:
        DataProcessingError: It is too large, it lacks the target or a column that a version reads, or too few rows have
            a target.
        SignatureMismatchError: A target is no number where the metric needs numbers.
    """
    called = f"the dataset {dataset.reference}"
    there = [name for name, _ in dataset.columns]
    if rule.target not in there:
        raise DataProcessingError(
            f"The target {rule.target!r} is no column of {called}.",
            remedy=f"Its columns are {', '.join(there)}.",
            column=rule.target,
        )
    if dataset.row_count > MAX_DATASET_ROWS:
        raise DataProcessingError(
            f"{_sentence(called)} has {dataset.row_count} rows, more than {MAX_DATASET_ROWS}.",
            remedy="Register a sample of it as a dataset of its own.",
        )
    from ml_core.data.canonical import require_columns
    from ml_core.data.table_file import read_frame

    frame = read_frame(datasets.open(dataset.dataset_id, dataset.number))
    for version in versions:
        require_columns(frame, (column.name for column in version.signature.inputs), _sentence(called))
    truth, known = _truth(frame, rule, versions)
    rows = np.flatnonzero(known)
    if len(rows) < MIN_ROWS:
        raise DataProcessingError(
            f"{_sentence(called)} has {len(rows)} rows with a {rule.target!r}, fewer than {MIN_ROWS}.",
            remedy="Register a larger dataset.",
            column=rule.target,
        )
    about = f"{len(rows)} rows of {called}"
    if len(rows) > rule.max_rows:
        about = f"{rule.max_rows} of {len(rows)} rows (drawn with the seed {rule.seed}) of {called}"
        rows = np.sort(np.random.default_rng(rule.seed).choice(rows, rule.max_rows, replace=False))
    return HeldOut(frame.iloc[rows], truth[rows], about)


def check_output(version: ServableVersion, metric: str) -> None:
    """Refuse a version that does not answer what a metric is of.

    Raises:
        PredictionError: Says what it answers.
    """
    kind = version.signature.output.kind
    if kind is not (OutputKind.NUMBER if metric in NUMBER_METRICS else OutputKind.CLASSES):
        raise _can_not(version, metric, f"it answers {kind.value}")


def answer(store: ArtifactStore, version: ServableVersion, rows: HeldOut, metric: str) -> Answers:
    """What a version answers to the rows.

    Raises:
        ModelLoadError: It can't be loaded.
        SignatureMismatchError: A row does not fit it.
        PredictionError: It fails on a row, or has no probabilities that the metric needs.
    """
    from ml_core.data.canonical import columns_from_frame
    from ml_core.models.loading import load_version

    model = load_version(store, version)
    if metric in PROBABILITY_METRICS and not model.has_probabilities:
        raise _can_not(version, metric, "it has no probabilities")
    columns = columns_from_frame(rows.frame, version.signature.inputs)
    classes = version.signature.output.classes
    if metric in PROBABILITY_METRICS:
        predictions, probabilities = model.predict_both(columns)
        return Answers(predictions, probabilities, classes)
    return Answers(model.predict(columns), classes=classes)


def _truth(
    frame: pd.DataFrame, rule: NotWorse, versions: Sequence[ServableVersion]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The target's values, and which rows have one."""
    target = frame[rule.target]
    if rule.metric in LABEL_METRICS or rule.metric in PROBABILITY_METRICS:
        values = target.tolist()
        words = any(isinstance(label, str) for version in versions for label in version.signature.output.classes)
        says_nothing = is_blank if words else says_missing
        blank = np.array([isinstance(value, str) and says_nothing(value) for value in values], dtype=bool)
        labels = np.empty(len(values), dtype=object)
        labels[:] = values
        return labels, target.notna().to_numpy(dtype=bool) & ~blank
    from ml_core.data.canonical import read_series
    from ml_core.data.cells import Cells, has_decimal_comma

    has_commas = any(column.decimal_comma for version in versions for column in version.signature.inputs)
    said = Cells(target, has_commas or has_decimal_comma(frame)).labels()
    numbers = read_series(said, InputColumn(rule.target, ColumnKind.NUMBER, nullable=True))
    return numbers, ~np.isnan(numbers)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _can_not(version: ServableVersion, metric: str, why: str) -> PredictionError:
    return PredictionError(
        f"{metric} can't be measured of version {version.ref.version!s}: {why}.",
        remedy="Give the gate a metric of what the model answers.",
        model_id=version.ref.model_id,
        version=version.ref.version,
    )
