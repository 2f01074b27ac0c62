"""Live quality and drift."""

from __future__ import annotations

from datetime import date, datetime

from pydantic import Field

from ml_core.api.schemas.base import Schema
from ml_core.domain.columns import ColumnKind
from ml_core.domain.quality import Verdict

_BY_CHANCE = "Its expectation if nothing had changed; a column drifted where `psi` exceeds it by 0.2 or more."


class Score(Schema):
    """A mean over labelled rows."""

    metric: str = Field(description="`accuracy` or `mae`.")
    value: float
    rows: int


class QualityDay(Schema):
    """A version on a day."""

    day: date = Field(description="Of the answers, UTC.")
    version: str
    rows: int = Field(description="Rows that it answered.")
    labels: int = Field(description="Rows that have a label by now.")
    measured: int = Field(description="Rows that the metrics are of: all with a label, or a random sample of them.")
    metrics: dict[str, float] = Field(description="Defined as those of training.")
    score: Score | None = Field(description="The metric that the verdict is about.")
    low: float | None = Field(description="The lower end of the 95 % confidence interval of the score.")
    high: float | None
    verdict: Verdict = Field(description="`alert`: worse than the held-out rows by more than chance and tolerance.")


class LiveVerdict(Schema):
    """What the platform last found of the version that an environment serves, of seven days."""

    model_id: str
    environment: str
    version: str
    quality: Verdict = Field(description="The verdict of the report on quality.")
    drift: Verdict = Field(description="The verdict of the report on drift.")
    measured_at: datetime


class QualityReport(Schema):
    """The live quality of a model in an environment."""

    model_id: str
    environment: str
    version: str = Field(description="The stable version, which the verdict is about.")
    since: datetime
    until: datetime
    held_out: dict[str, dict[str, float]] = Field(description="Version → its metrics on the held-out rows of training.")
    days: list[QualityDay] = Field(description="Newest first.")
    verdict: Verdict = Field(description="That of the stable version's newest day with enough labels.")
    notes: list[str] = Field(description="What could not be measured, and why.")


class ColumnDrift(Schema):
    """The live values of a column, or the predictions, against those of training; or two versions of a dataset."""

    name: str
    kind: ColumnKind | None
    verdict: Verdict
    reference_rows: int = Field(description="Rows that the profile of training, or of the first version, describes.")
    live_rows: int = Field(description="Rows that were compared with them: of the window, or of the second version.")
    psi: float | None = Field(description="The population stability index.")
    psi_by_chance: float | None = Field(description=_BY_CHANCE)
    test: str | None = Field(description="`ks` or `chi2`.")
    statistic: float | None
    p_value: float | None
    adjusted_p_value: float | None = Field(description="Corrected for the number of columns.")
    missing_before: float | None = Field(description="Share of rows without a value in training, or the first version.")
    missing_now: float | None
    unseen: float | None = Field(description="Share of the compared rows whose category the reference does not list.")
    note: str | None = Field(description="Why the verdict is `unknown`.")


class DriftReport(Schema):
    """The rows that a version answered, and its answers, against those of its training."""

    model_id: str
    environment: str
    version: str = Field(description="The stable version.")
    since: datetime = Field(description="The beginning of the live window.")
    until: datetime
    rows: int = Field(description="Rows that the version answered in the window.")
    sampled: int = Field(description="Rows that were compared.")
    trained_rows: int | None = Field(description="Rows of the table of training.")
    columns: list[ColumnDrift] = Field(description="Drifted ones first.")
    prediction: ColumnDrift
    verdict: Verdict
    notes: list[str]
