"""``MLClient`` and ``AsyncMLClient``: the nouns of the control plane, and predictions."""

from __future__ import annotations

import copy
import importlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from ml_core.client.calls import Async, Call, Mode, Noun, Sync, operation
from ml_core.client.connection import AsyncConnection, SyncConnection
from ml_core.client.rows import encode, rows_to_send
from ml_core.domain.dataset import parse_reference
from ml_core.domain.diagnostics import DIAGNOSTICS_FILE
from ml_core.domain.html import notebook_table, shown
from ml_core.exceptions import DatasetNotFoundError, RunNotFoundError
from ml_core.ids import EnvironmentName, ModelId, ModelRef, TenantId, VersionId

if TYPE_CHECKING:
    from ml_core.client.nouns.audit import Audit
    from ml_core.client.nouns.datasets import Datasets
    from ml_core.client.nouns.environments import Environments, Gates, Rollouts
    from ml_core.client.nouns.jobs import JobBatches, Jobs
    from ml_core.client.nouns.models import Models
    from ml_core.client.nouns.predictions import Predictions
    from ml_core.client.nouns.quality import Quality
    from ml_core.client.nouns.runs import Runs
    from ml_core.client.nouns.schedules import Schedules
    from ml_core.client.nouns.tenants import Keys, Placements, Platform, PlatformKeys, Tenants
    from ml_core.client.nouns.versions import Holds, Versions
    from ml_core.evaluation.report import RunRecord

_TIMEOUT_S = 10.0
_MODULES = {
    "platform": "tenants",
    "tenants": "tenants",
    "placements": "tenants",
    "keys": "tenants",
    "platform_keys": "tenants",
    "datasets": "datasets",
    "models": "models",
    "versions": "versions",
    "holds": "versions",
    "environments": "environments",
    "rollouts": "environments",
    "gates": "environments",
    "runs": "runs",
    "jobs": "jobs",
    "schedules": "schedules",
    "job_batches": "jobs",
    "predictions": "predictions",
    "quality": "quality",
    "audit": "audit",
}
"""Noun → the module of its class."""


class PredictionResult(BaseModel):
    """An answer of the prediction plane.

    Attributes:
        predictions: One for each row sent: a label or a number.
        probabilities: Class → probability for each row, if asked for.
        scores: The anomaly score of each row, if asked for; the higher, the more anomalous.
        threshold: The score above which a row is an anomaly.
        intervals: The lower and upper end of each row's interval, if asked for.
        model: The model that answered.
        version: The version that answered; the same for all rows.
        rollout: Which part of the rollout it was.
        request_id: Names the request in logs.
    """

    model_config = ConfigDict(frozen=True)

    predictions: list[Any]
    probabilities: list[dict[str, float]] | None = None
    scores: list[float] | None = None
    threshold: float | None = None
    intervals: list[tuple[float | None, float | None]] | None = None
    model: str
    version: str
    rollout: str
    request_id: str

    def frame(self, rows: Any) -> Any:
        """The answer as a table like the rows that were sent.

        Its columns are ``prediction`` and, if they were asked for, ``probability_…`` of each class. It is of polars or
        pyarrow if the rows are, else of pandas with the index of the rows.
        """
        # Imported late: whoever takes the lists needs no pandas.
        from ml_core.data.frames import like
        from ml_core.domain.signature import PREDICTION, probability_column

        answered = self.probabilities or []
        classes = answered[0] if answered else ()
        probabilities = {probability_column(each): [row[each] for row in answered] for each in classes}
        return like(rows, {PREDICTION: self.predictions, **probabilities})

    def _repr_html_(self) -> str:
        probabilities = self.probabilities or [{}] * len(self.predictions)
        classes = list(dict.fromkeys(name for of in probabilities for name in of))
        columns: dict[str, list[Any]] = {
            "prediction": self.predictions,
            **{f"P({name})": [of.get(name) for of in probabilities] for name in classes},
        }
        if self.scores is not None:
            columns["score"] = self.scores
        if self.intervals is not None:
            columns["interval"] = [f"{shown(low)} to {shown(high)}" for low, high in self.intervals]
        title = f"{self.model} {self.version} ({self.rollout})"
        return notebook_table(title, [*columns], zip(*columns.values(), strict=True))


class ScoreExplanation(BaseModel):
    """One score of a row: ``base`` plus all contributions.

    Attributes:
        label: The class; None where a row has a single score.
        score: The score.
        base: The score when no column is known.
        contributions: Input column → what it added.
    """

    model_config = ConfigDict(frozen=True)

    label: str | None
    score: float | None
    base: float | None
    contributions: dict[str, float | None]


class RowExplanation(BaseModel):
    """The explanation of one row.

    Attributes:
        prediction: The answer.
        outputs: One for each class, or a single one.
        words: Text column → its strongest words → what each added to the score of the answer.
    """

    model_config = ConfigDict(frozen=True)

    prediction: Any
    outputs: list[ScoreExplanation]
    words: dict[str, dict[str, float | None]]


class ExplanationResult(BaseModel):
    """An explanation by the prediction plane.

    Attributes:
        explanations: One for each row sent.
        method: ``linear``, ``tree`` or ``permutation``.
        unit: The unit of scores, bases and contributions.
        model: The model.
        version: The version that was explained.
        rollout: Which part of the rollout it is.
        request_id: Names the request in logs.
    """

    model_config = ConfigDict(frozen=True)

    explanations: list[RowExplanation]
    method: str
    unit: str
    model: str
    version: str
    rollout: str
    request_id: str


class _Client(Noun[Mode]):
    """What both clients have.

    Attributes:
        platform: How the platform is.
        platform_keys: API keys of the platform.
        tenants: The tenants of the platform.
        placements: Which cell serves a tenant.
        keys: API keys of the tenant.
        datasets: Immutable versions of tables.
        models: Models.
        versions: Immutable versions of models.
        holds: Reasons to keep versions.
        environments: What each environment serves.
        rollouts: Canaries and shadows.
        gates: What a version must meet before it is served.
        runs: Experiment tracking.
        jobs: Work that the platform does in turn.
        schedules: Jobs that the platform submits by time.
        job_batches: Jobs that are submitted for each tenant.
        predictions: The prediction log.
        quality: Live metrics by labels, and drift from the training.
        audit: The ordered feed of what changed.
    """

    platform: Platform[Mode]
    tenants: Tenants[Mode]
    placements: Placements[Mode]
    keys: Keys[Mode]
    platform_keys: PlatformKeys[Mode]
    datasets: Datasets[Mode]
    models: Models[Mode]
    versions: Versions[Mode]
    holds: Holds[Mode]
    environments: Environments[Mode]
    rollouts: Rollouts[Mode]
    gates: Gates[Mode]
    runs: Runs[Mode]
    jobs: Jobs[Mode]
    schedules: Schedules[Mode]
    job_batches: JobBatches[Mode]
    predictions: Predictions[Mode]
    quality: Quality[Mode]
    audit: Audit[Mode]

    def __init__(self, connection: Mode, tenant_id: str | None) -> None:
        super().__init__(connection, "" if tenant_id is None else TenantId(tenant_id))

    def __getattr__(self, name: str) -> Any:
        """Make a noun when it is first asked for: a command needs one, and loading all takes as long as an answer."""
        if name not in _MODULES:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}", name=name, obj=self)
        module = importlib.import_module(f"ml_core.client.nouns.{_MODULES[name]}")
        noun = getattr(module, name.title().replace("_", ""))(self._connection, self._tenant)
        setattr(self, name, noun)
        return noun

    def for_tenant(self, tenant_id: str) -> Self:
        """The same connection, for another tenant."""
        other = copy.copy(self)
        for name in _MODULES:
            other.__dict__.pop(name, None)  # they are of this tenant
        _Client.__init__(other, self._connection, tenant_id)
        return other

    @property
    def tenant_id(self) -> str:
        """The tenant."""
        return self._tenant

    @operation
    def predict(
        self,
        model_id: str,
        rows: Any,
        *,
        proba: bool = False,
        scores: bool = False,
        interval: float | None = None,
        environment: str | None = None,
        version: str | None = None,
        key: str | None = None,
    ) -> Call[PredictionResult]:
        """Predict raw rows.

        Args:
            model_id: The model.
            rows: A list of mappings from column name to value (or of Series, named tuples or dataclasses), one such
                mapping, or a table: a data frame of pandas, polars or pyarrow, or a mapping from column name to all its
                values. Dates, decimals, UUIDs, NumPy's scalars and missing values of any spelling are sent as
                ``MLSystem.predict`` reads them.
            proba: Also ask for the probability of each class.
            scores: Also ask an anomaly detector for its scores.
            interval: Also ask a regression for the intervals that hold the truth with this probability, such as 0.9.
            environment: Which pointer to follow; ``production`` if neither this nor ``version`` is given.
            version: A version to ask whatever the pointers say.
            key: What a canary keeps together, such as a customer's number: the same key gets the same version.

        Raises:
            MLFrameworkError: The class of ``ml_core.exceptions`` that the server named.
            InvalidRequestError: The input is neither rows nor a table, or can't be sent as JSON.
            DataProcessingError: The table has two columns of one name.
        """
        body = {**_asked(rows, environment, version, key), "proba": proba}
        if scores:
            body["scores"] = True
        if interval is not None:
            body["interval"] = interval
        route = ModelRef(TenantId(self._tenant), ModelId(model_id)).route
        return Call("POST", f"{route}/predict", PredictionResult, body=encode(body))

    @operation
    def explain(
        self,
        model_id: str,
        rows: Any,
        *,
        environment: str | None = None,
        version: str | None = None,
        key: str | None = None,
    ) -> Call[ExplanationResult]:
        """Explain the predictions for up to 100 raw rows: what each input column added to the score.

        Arguments and errors are those of ``predict``.

        Raises:
            RequestTooLargeError: There are more rows than a replica explains of this model.
        """
        route = ModelRef(TenantId(self._tenant), ModelId(model_id)).route
        return Call("POST", f"{route}/explain", ExplanationResult, body=encode(_asked(rows, environment, version, key)))


def _asked(rows: Any, environment: str | None, version: str | None, key: str | None) -> dict[str, Any]:
    """The body of a request for rows."""
    body: dict[str, Any] = {"rows": rows_to_send(rows)}
    if environment is not None:
        body["environment"] = EnvironmentName(environment)
    if version is not None:
        body["version"] = VersionId(version)
    if key is not None:
        body["key"] = key
    return body


class MLClient(_Client[Sync]):
    """Asks a platform for predictions and for everything of the control API; a context manager.

    Args:
        url: The ingress, such as ``http://127.0.0.1:8000``.
        api_key: ``mlk_<key id>_<secret>`` or a token of an OpenID issuer.
        tenant_id: Whose models, datasets and keys these are; None: only ``tenants`` can be asked.
        timeout_s: Seconds to wait; also sent as the request's deadline.
        transport: Instead of the network, such as ``InProcessTransport``.

    Raises:
        InvalidNameError: The tenant's name is not valid.
        ConfigurationError: The address, the key or the timeout can't be used.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        tenant_id: str | None = None,
        timeout_s: float = _TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(SyncConnection(url, api_key, timeout_s, transport), tenant_id)
        self._url = url if transport is None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run_record(self, run_id: str) -> RunRecord:
        """What the platform knows of a run: parameters, metrics, curves, diagnostics and the runs that are its parts.

        Raises:
            RunNotFoundError: There is no such run.
        """
        from ml_core.evaluation.report import record_of

        run, diagnostics = self.runs.get(run_id), None
        if DIAGNOSTICS_FILE in [file.name for file in self.runs.files(run_id)]:
            with suppress(ValidationError):  # a file of the user's own under that name
                diagnostics = self.runs.diagnostics(run_id)
        trials = self.runs.list(parent_run_id=run_id)
        return record_of(run, lambda metric: self.runs.series(run_id, metric).model_dump(), diagnostics, trials)

    def report_run(self, run_id: str, file: str | Path) -> Path:
        """Write a report of a run: one HTML file, with all that it needs, which does not exist yet.

        It shows parameters, metrics beside the baseline, learning curves, importances, calibration, the confusion
        matrix or residuals, and of a search its trials.

        Returns:
            The file.

        Raises:
            RunNotFoundError: There is no such run.
            InvalidRequestError: The file exists or can't be written.
        """
        from ml_core.evaluation.report import run_report, write_report

        return write_report(run_report(self.run_record(run_id)), file)

    def report_version(self, model_id: str, version: str | None, file: str | Path) -> Path:
        """Write the report of a version, its model card: one HTML file, which does not exist yet.

        It shows what the version is and why its algorithm was chosen, metrics beside the baseline, what its training
        found on held-out rows, its data, how to call it, the moves of environments, and its lineage. The texts of the
        metadata ``card``, such as ``{"intended_use": "…", "limitations": "…"}``, come first.

        Args:
            model_id: The model.
            version: The version; None: the newest that is not archived.
            file: The file.

        Returns:
            The file.

        Raises:
            ModelNotFoundError: There is no such version.
            InvalidRequestError: The file exists or can't be written.
        """
        from ml_core.evaluation.report import write_report
        from ml_core.evaluation.version_report import VersionRecord, version_report

        found = self.versions.get(model_id, version)
        training, profile, run = self.versions.training(model_id, found.version), None, None
        if training.dataset is not None:
            with suppress(DatasetNotFoundError):  # deleted since
                profile = self.datasets.get(*parse_reference(training.dataset)).profile
        if found.lineage.run_id is not None:
            with suppress(RunNotFoundError):
                run = self.run_record(found.lineage.run_id)
        pointers = [pointer.environment for pointer in self.environments.list(model_id)]
        record = VersionRecord(
            tenant_id=self.tenant_id,
            version=found,
            signature=found.signature,
            training=training,
            lineage=dict(self.versions.lineage(model_id, found.version)),
            profile=profile,
            moves={
                environment: self.environments.history(model_id, environment).page().items for environment in pointers
            },
            run=run,
            url=self._url,
        )
        return write_report(version_report(record), file)

    def export_version(self, model_id: str, version: str | None, file: str | Path) -> Path:
        """Write a version as a file for use without a platform: no server, no database, no settings.

        Args:
            model_id: The model.
            version: The version; None: the newest that is not archived.
            file: A file that does not exist yet. ``.joblib`` is the fitted pipeline, for Python with this package; it
                takes raw data frames and holds every model. ``.skops`` is a pipeline of scikit-learn's own classes,
                which takes numbers, booleans, categories and texts. ``.onnx`` is a graph that takes the columns but
                texts. The latter two need the extra ``export`` and are compared with the version before they are
                written.

        Returns:
            The file.

        Raises:
            ModelNotFoundError: There is no such version.
            ModelSaveError: The format can't hold the model, and why.
            ModelLoadError: The artifact can't be loaded by this process.
            InvalidRequestError: The ending is not known, or the file exists or can't be written.
            ConfigurationError: A package that the format needs is not installed.
        """
        from ml_core.client.exporting import downloaded
        from ml_core.models.exporting import export_model

        found = self.versions.get(model_id, version)
        example = self.versions.training(model_id, found.version).example
        with downloaded(self, found) as model:
            return export_model(model, [example] if example else [], file)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class AsyncMLClient(_Client[Async]):
    """As ``MLClient``, with ``await`` and ``async for``; arguments and results are the same."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        tenant_id: str | None = None,
        timeout_s: float = _TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(AsyncConnection(url, api_key, timeout_s, transport), tenant_id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.aclose()
