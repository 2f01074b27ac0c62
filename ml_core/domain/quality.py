"""Live quality and drift: what reports say of a version by the labels and the rows of the prediction log."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum

from ml_core.domain.columns import ColumnKind
from ml_core.domain.dataset import ColumnProfile, TableProfile
from ml_core.domain.document import Document
from ml_core.ids import DatasetId, EnvironmentName, ModelId, VersionId

PROFILE_FILE = "training_profile.json"
"""The file of a training's run that holds its ``TrainingProfile``."""
MAX_DAYS = 92


class Verdict(StrEnum):
    """What a report says of a version, a day or a column."""

    OK = "ok"
    ALERT = "alert"
    UNKNOWN = "unknown"
    """There are too few rows or labels, or there is nothing to compare with."""

    @classmethod
    def of_all(cls, verdicts: Collection[Verdict]) -> Verdict:
        """An alert if there is one, and unknown if nothing is known."""
        return next((each for each in (cls.ALERT, cls.OK) if each in verdicts), cls.UNKNOWN)


@dataclass(frozen=True, slots=True)
class TrainingProfile(Document):
    """What live rows of a version are compared with.

    Attributes:
        predictions: The predictions for the held-out rows.
        inputs: The rows that it was fitted on; None: the profile of the dataset that it was trained on has them.
    """

    predictions: ColumnProfile
    inputs: TableProfile | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over labelled rows.

    Attributes:
        metric: ``accuracy``, or ``mae``, in the target's unit.
        rows: How many rows it is the mean of.
        std: The standard deviation of the absolute errors; None for accuracy, or where it is not known.
    """

    metric: str
    value: float
    rows: int
    std: float | None = None


@dataclass(frozen=True, slots=True)
class QualityDay:
    """A version on a day.

    Attributes:
        day: The day of the answers, UTC.
        rows: Rows that it answered.
        labels: How many of them have a label by now.
        measured: Rows that the metrics are of: all with a label, or a random sample of them.
        metrics: Metric → value, defined as those of training.
        score: The metric that the verdict is about; None without labels.
        low: The lower end of the 95 % confidence interval of the score.
        high: The upper end.
        verdict: ``alert``: the score is worse than that of the held-out rows by more than chance and tolerance.
    """

    day: date
    version: VersionId
    rows: int
    labels: int
    measured: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    score: Score | None = None
    low: float | None = None
    high: float | None = None
    verdict: Verdict = Verdict.UNKNOWN


@dataclass(frozen=True, slots=True)
class QualityReport:
    """The live quality of a model in an environment.

    Attributes:
        version: The stable version, which the verdict is about.
        since: The beginning of the first day, UTC.
        until: When it was made, UTC.
        held_out: Version → its metrics on the held-out rows of its training.
        days: Newest first, and by version.
        verdict: That of the newest day of the stable version that has enough labels.
        notes: Sentences on what could not be measured.
    """

    model_id: ModelId
    environment: EnvironmentName
    version: VersionId
    since: datetime
    until: datetime
    held_out: Mapping[str, Mapping[str, float]]
    days: Sequence[QualityDay]
    verdict: Verdict
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """The live values of an input column, or the predictions, against those of training; or two versions of a dataset.

    Attributes:
        reference_rows: Rows that the profile of training, or of the first version, describes.
        live_rows: Rows of the window, or of the profile of the second version.
        psi: The population stability index.
        psi_by_chance: Its expectation if nothing had changed, which is the larger the fewer rows there are.
        test: ``ks`` (Kolmogorov and Smirnov) or ``chi2``; None where nothing was compared.
        statistic: The statistic of the test.
        p_value: Of the test, and of that of the share of missing values.
        adjusted_p_value: Corrected for the number of columns (Benjamini and Hochberg).
        missing_before: Share of rows without a value in training.
        missing_now: The same of the live rows.
        unseen: Share of the live rows whose category is not in the profile; None for other kinds.
        note: Why the verdict is ``unknown``.
    """

    name: str
    kind: ColumnKind | None
    verdict: Verdict = Verdict.UNKNOWN
    reference_rows: int = 0
    live_rows: int = 0
    psi: float | None = None
    psi_by_chance: float | None = None
    test: str | None = None
    statistic: float | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    missing_before: float | None = None
    missing_now: float | None = None
    unseen: float | None = None
    note: str | None = None


def drifted_first(columns: Iterable[ColumnDrift]) -> list[ColumnDrift]:
    """Columns that drifted before others, and the more they changed the earlier."""
    return sorted(columns, key=lambda each: (each.verdict is not Verdict.ALERT, -(each.psi or 0.0), each.name))


@dataclass(frozen=True, slots=True)
class DatasetComparison:
    """How a version of a dataset differs from another, the first.

    Attributes:
        same: Whether they are the same table.
        added: Columns that only the second has.
        removed: Columns that only the first has.
        changed: Columns of another Arrow type, or with values of another kind.
        columns: The drift of those that both have, by their profiles: drifted ones first.
        verdict: ``alert`` if a column drifted.
    """

    dataset_id: DatasetId
    number1: int
    number2: int
    same: bool
    added: Sequence[str]
    removed: Sequence[str]
    changed: Sequence[str]
    columns: Sequence[ColumnDrift]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class DriftReport:
    """The drift of the rows that a version answered, against its training.

    Attributes:
        version: The stable version of the environment.
        since: The beginning of the live window, UTC.
        until: Its end, UTC.
        rows: Rows that the version answered in the window.
        sampled: How many of them were compared: all, or a random sample.
        trained_rows: Rows of the table of training.
        columns: Drifted columns first, the most drifted first.
        prediction: The predictions.
        verdict: ``alert`` if a column or the predictions drifted.
        notes: Sentences on what could not be compared.
    """

    model_id: ModelId
    environment: EnvironmentName
    version: VersionId
    since: datetime
    until: datetime
    rows: int
    sampled: int
    trained_rows: int | None
    columns: Sequence[ColumnDrift]
    prediction: ColumnDrift
    verdict: Verdict
    notes: Sequence[str] = ()
