"""Jobs that predict every row of a registered dataset into another one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from ml_core.data.table_file import TableWriter
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job_spec import OnError, PredictJobSpec
from ml_core.ids import TenantId, VersionId
from ml_core.inference.batch import ERROR, BatchPredictor, BatchRequest
from ml_core.jobs.work import Work
from ml_core.models.own_types import trusted
from ml_core.models.store import platform_store
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.settings import Settings

_RAY_COSTS_S: Final = 20.0
"""Ray is used where it saves more: actors take 5 s to start on idle cores, and several times that on busy ones."""


def check(db: DatabaseConnection, tenant_id: TenantId, spec: PredictJobSpec) -> PredictJobSpec:
    """See ``Kind``."""
    version = spec.version or _answering(db, tenant_id, spec)
    dataset = DatasetRepository(db, tenant_id).get(spec.dataset)
    pinned = replace(spec, version=version, environment=None, dataset=dataset.reference)
    _request(db, tenant_id, pinned)
    return pinned


def execute(work: Work[PredictJobSpec]) -> Mapping[str, Any]:
    """Predict and register; what an earlier attempt has registered is the result."""
    if "dataset" in work.made:
        return work.made
    spec, runs = work.spec, RunRepository(work.db, work.tenant_id)
    with runs.record(spec.model_id, kind="predict", parameters=spec.to_json(), run_id=work.run_id):
        work.progress.enter("load")
        prediction = _Prediction(work, _request(work.db, work.tenant_id, spec))
        source = {
            "kind": "prediction",
            "dataset": spec.dataset,
            "model_id": str(spec.model_id),
            "version": str(spec.version),
        }
        datasets = DatasetRepository(work.db, work.tenant_id)
        made = datasets.write(spec.output, prediction.write, source, run_id=work.run_id, owner=str(work.attempt.job_id))
        runs.log_metrics(work.run_id, prediction.metrics)
        runs.tag(work.run_id, {"predicted_by": prediction.predicted_by})
    return {"dataset": made.reference, "run_id": work.run_id}


def _answering(db: DatabaseConnection, tenant_id: TenantId, spec: PredictJobSpec) -> VersionId:
    environments = EnvironmentRepository(db, tenant_id)
    if spec.environment is None:
        return environments.resolve(spec.model_id)
    return environments.pointed(spec.model_id, spec.environment)


def _request(db: DatabaseConnection, tenant_id: TenantId, spec: PredictJobSpec) -> BatchRequest:
    return BatchRequest.checked(
        VersionRepository(db, tenant_id).servable(spec.model_id, str(spec.version)),
        DatasetRepository(db, tenant_id).get(spec.dataset),
        keep=spec.keep,
        proba=spec.proba,
        null_on_error=spec.on_error is OnError.NULL,
    )


class _Prediction:
    """One execution: in this process, and from the row group on by Ray where that is faster.

    Attributes:
        predicted_by: Who predicts.
    """

    def __init__(self, work: Work[PredictJobSpec], request: BatchRequest) -> None:
        self._work = work
        self._request = request
        self._predictor = _open(request, work.db.settings)
        self._rows = sum(self._predictor.group_rows)
        self._done = self._errors = 0
        self._began = time.monotonic()
        self.predicted_by = "the job's own process"

    @property
    def metrics(self) -> dict[str, float]:
        """Of the rows so far."""
        rate = self._done / max(1e-9, time.monotonic() - self._began)
        return {"rows": self._done, "rows_with_error": self._errors, "rows_per_s": round(rate, 1)}

    def write(self, path: Path) -> None:
        """Write the predictions to a new file."""
        self._work.progress.enter("predict")
        self._began = time.monotonic()
        with TableWriter(path, self._predictor.schema) as writer:
            for table in self._tables():
                writer.write(table)
                self._done += table.num_rows
                if self._request.null_on_error:
                    self._errors += table.num_rows - table.column(ERROR).null_count
                speed = {"rows_per_s": self.metrics["rows_per_s"]}
                self._work.progress.advance(self._done, self._rows, "rows", speed)
        if self._errors:
            self._work.progress.say(f"{self._errors:,} of {self._rows:,} rows do not fit and have no prediction.")
        self._work.progress.enter("register")

    def _tables(self) -> Iterator[pa.Table]:
        groups = range(len(self._predictor.group_rows))
        for group in groups:
            if group and (workers := self._workers()) > 1:
                from ml_core.training.distributed.ordered import stream  # imports Ray

                self.predicted_by = f"{workers} Ray actors"
                self._work.progress.say(f"From row {self._done:,} on, {self.predicted_by} predict.")
                yield from stream(_Opening(self._request), groups[group:], workers)
                return
            yield from self._predictor.predict(group)

    def _workers(self) -> int:
        """The Ray actors that would be done earlier with what is left than this process, by its speed so far."""
        cpus = self._work.attempt.cpus
        left_s = (self._rows - self._done) / self.metrics["rows_per_s"]
        if cpus < 2 or left_s * (1 - 1 / cpus) < _RAY_COSTS_S:
            return 0
        from ml_core.training.distributed.ordered import free_workers

        return free_workers(cpus)


@dataclass(frozen=True, slots=True)
class _Opening:
    """Opens the dataset and the version in an actor, which reads them from the store of its own settings."""

    request: BatchRequest

    def __call__(self) -> Callable[[int], Iterator[pa.Table]]:
        return _open(self.request, Settings.from_environment()).predict


def _open(request: BatchRequest, settings: Settings) -> BatchPredictor:
    return BatchPredictor(request, platform_store(settings), trusted(settings))
