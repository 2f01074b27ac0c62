"""``Quality``: reports on the live versions of one tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ml_core.domain.columns import ColumnKind
from ml_core.domain.dataset import TableProfile
from ml_core.domain.quality import (
    MAX_DAYS,
    PROFILE_FILE,
    ColumnDrift,
    DriftReport,
    QualityDay,
    QualityReport,
    Score,
    TrainingProfile,
    Verdict,
    drifted_first,
)
from ml_core.domain.signature import PREDICTION, InputColumn, OutputKind
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.domain.values import category_text
from ml_core.domain.version import ModelVersion
from ml_core.evaluation.drift import drift
from ml_core.evaluation.live import held_out_score, interval, judge
from ml_core.exceptions import InvalidRequestError, ModelNotFoundError, RunNotFoundError, SignatureMismatchError
from ml_core.ids import EnvironmentName, ModelId, VersionId
from ml_core.monitoring.measuring import Measuring
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.predictions import PredictionRepository
from ml_core.registry.predictions.live import Window
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.records import OfTenant
from ml_core.registry.runs.artifacts import RunArtifacts
from ml_core.registry.versions.repository import VersionRepository

_MAX_PROFILE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class _Measured:
    day: QualityDay
    version: ModelVersion | None


class Quality(OfTenant):
    """How good the live versions of one tenant are, and how their rows differ from those of their training.

    Reports read the prediction log, so the tenant's policy limits what they can tell: with ``nothing`` there is
    nothing, with ``digest`` no drift of inputs.
    """

    def report(self, model_id: str, environment: str = PRODUCTION, *, days: int = 7) -> QualityReport:
        """Metrics per version and day, of the answers that have a label by now, beside those of the held-out rows.

        Those of a classifier are of all labelled rows; log loss and ROC AUC, which need probabilities, are left out.
        Those of a regression are of at most 10,000 rows of a version and day, drawn at random. Other models have none.

        Args:
            model_id: The model.
            environment: Whose requests.
            days: Whole days (UTC), the present one included.

        Raises:
            ModelNotFoundError: There is no such model, or the environment serves nothing.
            InvalidRequestError: There is no such environment, or ``days`` is not 1 to 92.
        """
        window, stable = self._window(model_id, environment, days)
        notes: list[str] = []
        measured = [each for day in window.days() for each in self._of_day(day, notes)]
        measured.sort(key=lambda each: (-each.day.day.toordinal(), each.day.version))
        found = [each.day for each in measured]
        verdicts = [day.verdict for day in found if day.version == stable.version]
        if not found:
            notes.append(self._why_nothing())
        elif not any(day.labels for day in found):
            notes.append("No label has arrived for these answers.")
        held_out = {str(each.day.version): _held_out(each.version) for each in measured if each.version is not None}
        return QualityReport(
            window.model_id,
            window.environment,
            stable.version,
            window.since,
            window.until,
            {str(stable.version): _held_out(stable), **held_out},
            found,
            next((verdict for verdict in verdicts if verdict is not Verdict.UNKNOWN), Verdict.UNKNOWN),
            tuple(dict.fromkeys(notes)),
        )

    def drift(self, model_id: str, environment: str = PRODUCTION, *, days: int = 7) -> DriftReport:
        """The rows that the stable version answered in the last days, and its answers, against those of its training.

        At most 10,000 rows are compared, drawn at random. See ``ml_core.evaluation.drift``. Arguments and errors as for
        ``report``.
        """
        window, stable = self._window(model_id, environment, days)
        profile, table = self._profile(stable)
        rows, drawn = Measuring(self._db, self._tenant_id).draw(window, stable.version)
        inputs = [kept for kept, _, _ in drawn if kept is not None]
        notes = []
        if not rows:
            notes.append(self._why_nothing())
        elif not inputs:
            notes.append("The inputs are not kept. The policy inputs keeps them from then on.")
        answers = _live_predictions(stable.signature.output.kind, [answer for _, answer, _ in drawn])
        *found, prediction = drift(
            [
                *(
                    (None if table is None else table.column(each.name), *_live_column(each, inputs))
                    for each in stable.signature.inputs
                ),
                (None if profile is None else profile.predictions, *answers),
            ]
        )
        return DriftReport(
            window.model_id,
            window.environment,
            stable.version,
            window.since,
            window.until,
            rows,
            len(drawn),
            None if table is None else table.row_count,
            drifted_first(found),
            prediction,
            Verdict.of_all({each.verdict for each in (*found, prediction)}),
            tuple(notes),
        )

    def labels(
        self, model_id: str, environment: str, versions: Sequence[VersionId], since: datetime
    ) -> Mapping[VersionId, int]:
        """Version → the labels of what it answered since a moment."""
        window = Window(ModelId(model_id), EnvironmentName(environment), since.astimezone(UTC), datetime.now(UTC))
        measuring, found = Measuring(self._db, self._tenant_id), dict.fromkeys(versions, 0)
        for day in window.days():
            counted = measuring.labelled(day)
            for name in versions:
                found[name] += counted.get(name, 0)
        return found

    def scores(
        self, model_id: str, environment: str, versions: Sequence[VersionId], since: datetime
    ) -> Mapping[VersionId, Score]:
        """Version → its score by the labels of what it answered since a moment; without those that have no label."""
        window = Window(ModelId(model_id), EnvironmentName(environment), since.astimezone(UTC), datetime.now(UTC))
        measuring, found = Measuring(self._db, self._tenant_id), {}
        for name in versions:
            version = VersionRepository(self._db, self._tenant_id).get(model_id, name)
            measured = measuring.measure(window, name, version.signature.output.kind, [])
            if measured is not None:
                found[name] = measured[1]
        return found

    def _window(self, model_id: str, environment: str, days: int) -> tuple[Window, ModelVersion]:
        """The last days of an environment, and its stable version."""
        if not 1 <= days <= MAX_DAYS:
            raise InvalidRequestError(
                f"A report is of 1 to {MAX_DAYS} days, not {days}.", remedy="Correct it.", field="days"
            )
        model, at, now = ModelId(model_id), EnvironmentName(environment), datetime.now(UTC)
        stable = EnvironmentRepository(self._db, self._tenant_id).pointed(model, at)
        since = datetime(now.year, now.month, now.day, tzinfo=UTC) - timedelta(days=days - 1)
        return Window(model, at, since, now), VersionRepository(self._db, self._tenant_id).get(model, stable)

    def _of_day(self, window: Window, notes: list[str]) -> list[_Measured]:
        """The versions that answered in a window of one day."""
        measuring = Measuring(self._db, self._tenant_id)
        rows, labels = measuring.answered(window), measuring.labelled(window)
        return [
            self._measured(measuring, window, QualityDay(window.since.date(), name, count, labels.get(name, 0)), notes)
            for name, count in rows.items()
        ]

    def _measured(self, measuring: Measuring, window: Window, day: QualityDay, notes: list[str]) -> _Measured:
        try:
            version = VersionRepository(self._db, self._tenant_id).get(window.model_id, day.version)
        except ModelNotFoundError:
            notes.append(f"Version {day.version} was deleted, so its answers are only counted.")
            return _Measured(day, None)
        found = None
        if day.labels:
            found = measuring.measure(window, day.version, version.signature.output.kind, notes)
        if found is None:
            return _Measured(day, version)
        metrics, score = found
        before = held_out_score(score.metric, _held_out(version), _held_out_rows(version))
        low, high = interval(score) or (None, None)
        found_day = replace(day, measured=score.rows, metrics=metrics, score=score, low=low, high=high)
        return _Measured(replace(found_day, verdict=judge(score, before)), version)

    def _profile(self, version: ModelVersion) -> tuple[TrainingProfile | None, TableProfile | None]:
        """What training recorded for a version, and the profile of its inputs."""
        profile = self._recorded(version.lineage.run_id)
        if profile is not None and profile.inputs is not None:
            return profile, profile.inputs
        datasets = DatasetRepository(self._db, self._tenant_id)
        digest = version.lineage.dataset_digest
        entries = datasets.find_by_digest(digest) if digest is not None else ()
        return profile, datasets.get(entries[0].reference).profile if entries else None

    def _recorded(self, run_id: str | None) -> TrainingProfile | None:
        if run_id is None:
            return None
        files = RunArtifacts(self._db, self._tenant_id)
        try:
            sizes = {each.name: each.size_bytes for each in files.list(run_id)}
            if not 0 < sizes.get(PROFILE_FILE, 0) <= _MAX_PROFILE_BYTES:
                return None
            return TypeAdapter(TrainingProfile).validate_json(files.open(run_id, PROFILE_FILE).read_bytes())
        except (RunNotFoundError, ValidationError):  # the run was deleted, or it is a file of the user's own
            return None

    def _why_nothing(self) -> str:
        if PredictionRepository(self._db, self._tenant_id).policy() is PredictionPolicy.NOTHING:
            return "The tenant keeps no predictions. The policy digest or inputs keeps them from then on."
        return "Nothing was answered in this time."


def _held_out(version: ModelVersion) -> Mapping[str, float]:
    return version.metrics.get("validation", {})


def _held_out_rows(version: ModelVersion) -> int:
    rows = version.training.get("n_rows")
    count = rows.get("validation") if isinstance(rows, Mapping) else None
    return count if isinstance(count, int) else 0  # as of a version that was registered from a file


def _live_column(column: InputColumn, rows: Sequence[Mapping[str, Any]]) -> tuple[ColumnDrift, NDArray[Any]]:
    result = ColumnDrift(column.name, column.kind)
    try:
        return result, replace(column, nullable=True).read([row.get(column.name) for row in rows])
    except SignatureMismatchError:  # of a version of the same name whose column had another kind
        return result, np.array([])


def _live_predictions(output: OutputKind, answers: Sequence[Any]) -> tuple[ColumnDrift, NDArray[Any]]:
    if output is OutputKind.NUMBER:
        numbers = [float("nan") if value is None else float(value) for value in answers]
        return ColumnDrift(PREDICTION, ColumnKind.NUMBER), np.array(numbers)
    texts = [None if value is None else category_text(value) for value in answers]
    return ColumnDrift(PREDICTION, ColumnKind.CATEGORY), np.array(texts, dtype=object)
