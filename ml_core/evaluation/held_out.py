"""Held-out rows: read from a dataset, sampled if there are too many, and answered by the versions to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import ColumnKind
from ml_core.domain.gates import LABEL_METRICS, NUMBER_METRICS, PROBABILITY_METRICS, NotWorse
from ml_core.domain.signature import InputColumn, OutputKind
from ml_core.domain.values import is_blank, says_missing
from ml_core.domain.version import ServableVersion
from ml_core.evaluation.paired import Answers
from ml_core.exceptions import DataProcessingError, PredictionError, RequestTooLargeError
from ml_core.models.own_types import Trust
from ml_core.models.store import ArtifactStore

if TYPE_CHECKING:
    import pandas as pd

    from ml_core.domain.dataset import DatasetVersion


MIN_ROWS = 30
"""With fewer rows a percentile interval is much too narrow: it does not cover values that a small sample lacks."""
MAX_DATASET_ROWS = 1_000_000
"""A larger dataset is refused: it would be read whole for a sample of at most 100,000 rows."""


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


def check_size(dataset: DatasetVersion) -> None:
    """Refuse a dataset that is too large to compare on. Its file is not read.

    Raises:
        RequestTooLargeError: It has more than ``MAX_DATASET_ROWS`` rows.
    """
    if dataset.row_count > MAX_DATASET_ROWS:
        raise RequestTooLargeError(
            f"The dataset {dataset.reference} has {dataset.row_count} rows, more than {MAX_DATASET_ROWS}.",
            remedy="Register a sample of it as a dataset of its own.",
            tenant_id=dataset.tenant_id,
            limit=MAX_DATASET_ROWS,
            actual=dataset.row_count,
        )


def held_out_rows(path: Path, dataset: DatasetVersion, rule: NotWorse, versions: Sequence[ServableVersion]) -> HeldOut:
    """The rows to compare versions on.

    Args:
        path: The dataset's file.
        dataset: What the registry knows of it; ``check_size`` accepted it.
        rule: Names the target and the metric, and says how many rows to draw.
        versions: The versions to compare.

    Raises:
        DataProcessingError: The target or a column that a version reads is missing, or too few rows have a target.
        SignatureMismatchError: A target is not a number, and the metric needs numbers.
    """
    from ml_core.data.canonical import require_columns
    from ml_core.data.table_file import read_frame

    frame, called = read_frame(path), f"The dataset {dataset.reference}"
    inputs = (column.name for version in versions for column in version.signature.inputs)
    require_columns(frame, (rule.target, *inputs), called)
    truth, known = _truth(frame, rule, versions)
    rows = np.flatnonzero(known)
    if len(rows) < MIN_ROWS:
        raise DataProcessingError(
            f"{called} has {len(rows)} rows with a {rule.target!r}, fewer than {MIN_ROWS}.",
            remedy="Register a larger dataset.",
            column=rule.target,
        )
    number = f"{len(rows)} rows"
    if len(rows) > rule.max_rows:
        number = f"{rule.max_rows} of {number} (drawn with the seed {rule.seed})"
        rows = np.sort(np.random.default_rng(rule.seed).choice(rows, rule.max_rows, replace=False))
    return HeldOut(frame.iloc[rows], truth[rows], f"{number} of the dataset {dataset.reference}")


def check_output(version: ServableVersion, metric: str) -> None:
    """Refuse a version whose output the metric does not measure.

    Raises:
        PredictionError: Names what the version answers.
    """
    kind = version.signature.output.kind
    if kind is not (OutputKind.NUMBER if metric in NUMBER_METRICS else OutputKind.CLASSES):
        raise _not_measurable(version, metric, f"it answers {kind.value}")


def answer(store: ArtifactStore, version: ServableVersion, rows: HeldOut, metric: str, trust: Trust) -> Answers:
    """What a version answers to the rows; ``trust`` as in ``load_version``.

    Raises:
        ModelLoadError: It can't be loaded.
        SignatureMismatchError: A row does not fit it.
        PredictionError: It fails on a row, or has no probabilities that the metric needs.
    """
    from ml_core.data.canonical import columns_from_frame
    from ml_core.models.loading import load_version

    model = load_version(store, version, trust)
    if metric in PROBABILITY_METRICS and not model.has_probabilities:
        raise _not_measurable(version, metric, "it has no probabilities")
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


def _not_measurable(version: ServableVersion, metric: str, why: str) -> PredictionError:
    return PredictionError(
        f"{metric} can't be measured of version {version.ref.version!s}: {why}.",
        remedy="Choose a metric of what the model answers.",
        model_id=version.ref.model_id,
        version=version.ref.version,
    )
