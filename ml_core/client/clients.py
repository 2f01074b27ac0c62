"""``MLClient`` and ``AsyncMLClient``: the nouns of the control plane, and predictions."""

from __future__ import annotations

import copy
import importlib
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from ml_core.client.calls import Async, Call, Mode, Noun, Sync, operation
from ml_core.client.connection import AsyncConnection, SyncConnection
from ml_core.client.rows import encode, rows_to_send
from ml_core.domain.diagnostics import DIAGNOSTICS_FILE
from ml_core.ids import EnvironmentName, ModelId, ModelRef, TenantId, VersionId

if TYPE_CHECKING:
    from ml_core.client.nouns.audit import Audit
    from ml_core.client.nouns.datasets import Datasets
    from ml_core.client.nouns.environments import Environments, Gates, Rollouts
    from ml_core.client.nouns.job_batches import JobBatches
    from ml_core.client.nouns.jobs import Jobs
    from ml_core.client.nouns.models import Models
    from ml_core.client.nouns.placements import Placements
    from ml_core.client.nouns.predictions import Predictions
    from ml_core.client.nouns.runs import Runs
    from ml_core.client.nouns.schedules import Schedules
    from ml_core.client.nouns.tenants import Keys, Platform, PlatformKeys, Tenants
    from ml_core.client.nouns.versions import Holds, Versions
    from ml_core.evaluation.report import RunRecord

_TIMEOUT_S = 10.0
_MODULES = {
    "platform": "tenants",
    "tenants": "tenants",
    "placements": "placements",
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
    "job_batches": "job_batches",
    "predictions": "predictions",
    "audit": "audit",
}
"""Noun → the module of its class."""


class PredictionResult(BaseModel):
    """An answer of the prediction plane.

    Attributes:
        predictions: One for each row sent: a label or a number.
        probabilities: Class → probability for each row, if asked for.
        model: The model that answered.
        version: The version that answered; the same for all rows.
        rollout: Which part of the rollout it was.
        request_id: Names the request in logs.
    """

    model_config = ConfigDict(frozen=True)

    predictions: list[Any]
    probabilities: list[dict[str, float]] | None = None
    model: str
    version: str
    rollout: str
    request_id: str


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
            environment: Which pointer to follow; ``production`` if neither this nor ``version`` is given.
            version: A version to ask whatever the pointers say.
            key: What a canary keeps together, such as a customer's number: the same key gets the same version.

        Raises:
            MLFrameworkError: The class of ``ml_core.exceptions`` that the server named.
            InvalidRequestError: The input is neither rows nor a table, or can't be sent as JSON.
            DataProcessingError: The table has two columns of one name.
        """
        route = ModelRef(TenantId(self._tenant), ModelId(model_id)).route
        body = {**_asked(rows, environment, version, key), "proba": proba}
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        matrix or residuals, and of a search its trials. It needs the extra ``report``.

        Returns:
            The file.

        Raises:
            RunNotFoundError: There is no such run.
            ConfigurationError: Plotly is not installed.
            InvalidRequestError: The file exists or can't be written.
        """
        from ml_core.evaluation.report import write_report

        return write_report(self.run_record(run_id), file)

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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.aclose()
