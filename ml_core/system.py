"""``MLSystem``: train, compare, promote and predict for one tenant, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from pydantic import TypeAdapter, ValidationError

from ml_core.domain.diagnostics import DIAGNOSTICS_FILE, Diagnostics
from ml_core.domain.keywords import check_keywords
from ml_core.domain.rollout import GatedMoving, Moving
from ml_core.domain.training_report import TrainingReport
from ml_core.evaluation.report import RunRecord, record_of, run_report, write_report
from ml_core.evaluation.version_report import VersionRecord, version_report
from ml_core.exceptions import DatasetNotFoundError, RunNotFoundError
from ml_core.ids import ModelId, TenantId, VersionId, VersionRef
from ml_core.inference.model_table import ModelTable
from ml_core.inference.predictor import Predictor
from ml_core.jobs.submission import Jobs
from ml_core.manager import ModelManager
from ml_core.models import own_types
from ml_core.models.loading import LoadedModel, load_version
from ml_core.monitoring import Quality
from ml_core.observability import NO_HOOKS, Hooks
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.model_registry import ModelRegistry
from ml_core.registry.pages import every
from ml_core.registry.predictions import PredictionRepository
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.lists import Versions
from ml_core.registry.versions.repository import VersionRepository
from ml_core.settings import check_number
from ml_core.training.trainer import Trainer, TrainingOptions

if TYPE_CHECKING:
    from ml_core.cache import CacheMechanism
    from ml_core.database.connection import DatabaseConnection
    from ml_core.domain.explanation import Explanation
    from ml_core.domain.version import ModelVersion, ServableVersion
    from ml_core.registry.promotion.environments import Move, Pointer

_MIB = 2**20


class MLSystem:
    """The façade over training, registry and inference for one tenant.

    The tenant must exist; on the embedded server the first write creates it. A context manager: leaving it frees the
    loaded models. The methods train, predict, promote and roll back; the attributes have the rest.

    Attributes:
        models: Model files: register, annotate, archive, restore, delete, load.
        registry: Versions and environments; ``registry.versions`` searches, tags and compares versions.
        versions: ``versions("tickets")`` are those of a model, newest first; ``versions.to_frame()`` are all of the
            tenant as a data frame.
        datasets: Immutable versions of tables.
        runs: Trainings with parameters, metrics, tags and files.
        jobs: Trainings that the platform does in turn, in processes of its own.
        environments: What each environment serves, its history, its replicas, and protected environments.
        rollouts: Canaries and shadows.
        gates: What a promotion has to pass: gates and approvals.
        holds: Versions that must be kept.
        predictions: The prediction log: answers of replicas, and the labels that arrive later.
        quality: Live metrics by these labels, and drift of inputs and predictions from the training.
        trainer: Checkpoints, and training that also returns the fitted pipeline.
        predictor: Answers of a model that you loaded yourself.

    Args:
        db: The registry; its principal is recorded with every change.
        cache: For answers; None: no cache.
        max_memory_mb: Bound on the measured mebibytes of loaded models. A model is loaded on first use; the least
            recently used is evicted first, never one in use.
        tenant_id: The tenant.
        storage_path: Folder that gets a copy of each artifact beside the platform's store; none if left out.
        hooks: Are called as models are trained, loaded and asked, such as ``observability.prometheus.PrometheusHooks``.

    Raises:
        InvalidNameError: The tenant's name is not valid.
        ConfigurationError: The bound is out of range.
    """

    def __init__(
        self,
        db: DatabaseConnection,
        cache: CacheMechanism | None = None,
        max_memory_mb: int = 2048,
        tenant_id: str = "default",
        *,
        storage_path: str | Path | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self.tenant_id = TenantId(tenant_id)
        check_number("max_memory_mb", max_memory_mb)
        self._db = db
        self._hooks = hooks
        root = Path(storage_path) if storage_path is not None else db.settings.platform.artifact_root
        self.models = ModelManager(db, root, self.tenant_id)
        self.registry = ModelRegistry(db, self.tenant_id, storage_path=root)
        self.trainer = Trainer(db, self.tenant_id, storage_path=root, hooks=hooks)
        self.predictor = Predictor(self.models, cache, self.tenant_id, hooks=hooks)
        self.environments, self.rollouts = self.registry.environments, self.registry.rollouts
        self.versions = Versions(self.registry)
        self.gates, self.holds = self.registry.gates, self.registry.holds
        self.runs = RunRepository(db, self.tenant_id)
        self.jobs = Jobs(db, self.tenant_id)
        self.datasets = DatasetRepository(db, self.tenant_id)
        self.predictions = PredictionRepository(db, self.tenant_id)
        self.quality = Quality(db, self.tenant_id)
        self._max_memory_bytes = int(max_memory_mb * _MIB)
        self._table = self._empty_table()

    def __repr__(self) -> str:
        return f"MLSystem({self._db!r}, tenant_id={str(self.tenant_id)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the loaded models; a later call loads its model again. The database connection stays open."""
        self._table.close()
        self._table = self._empty_table()

    def train_model(
        self,
        model_id: str,
        model_type: str | None,
        training_data: tuple[Any, Any] | None = None,
        validation_data: tuple[Any, Any] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        **options: Unpack[TrainingOptions],
    ) -> dict[str, Any]:
        """Train a model and register it as a new version.

        Arguments, options and errors are those of ``Trainer.train``, and so is the result, but for ``model``,
        ``fitted`` and ``report``.
        """
        check_keywords("train_model", options, TrainingOptions.__annotations__)
        result = self.trainer.train(
            model_id, model_type, training_data, validation_data, dict(hyperparameters or {}), **options
        )
        return {name: value for name, value in result.items() if name not in ("model", "fitted", "report")}

    def predict(
        self,
        model_id: str,
        input_data: Any,
        use_cache: bool = True,
        *,
        version: str | None = None,
        environment: str | None = None,
        as_frame: bool = False,
    ) -> Any:
        """Predict one row or many.

        Args:
            model_id: The model.
            input_data: One row (dict, Series, 1-row frame, 1-d array) or many (frame, list of rows, 2-d array; for a
                model of one column also a Series or array of its values). Frames of polars, pyarrow and others too.
            use_cache: Whether a cached answer may be returned.
            version: The version that answers, whatever environments serve.
            environment: The environment whose version answers; None: ``production``, or the newest version if that
                serves nothing.
            as_frame: Whether the result is a table like the input.

        Returns:
            One prediction for one row; an array of the same length for many. With ``as_frame`` a table with the column
            ``prediction``: of polars or pyarrow for a table of these, else of pandas with the index of the input.

        Raises:
            ModelNotFoundError: There is no such model, version or promoted environment.
            SignatureMismatchError: A row does not fit, or has none of the model's columns.
            DataProcessingError: The input is neither a row nor a table.
        """
        with self._table.using(self.resolve(model_id, version=version, environment=environment)) as model:
            return self.predictor.predict(model, input_data, use_cache=use_cache, as_frame=as_frame)

    def predict_proba(
        self,
        model_id: str,
        input_data: Any,
        *,
        version: str | None = None,
        environment: str | None = None,
        as_frame: bool = False,
    ) -> Any:
        """Class → probability for one row, or a list of these for many; arguments as for ``predict``.

        With ``as_frame`` the table has a column ``probability_…`` for each class.

        Raises:
            PredictionError: The model has no probabilities.
        """
        with self._table.using(self.resolve(model_id, version=version, environment=environment)) as model:
            return self.predictor.predict_proba(model, input_data, as_frame=as_frame)

    def predict_interval(
        self,
        model_id: str,
        input_data: Any,
        coverage: float = 0.9,
        *,
        version: str | None = None,
        environment: str | None = None,
    ) -> Any:
        """Predict the interval that holds the truth with the probability ``coverage``.

        It is made of the residuals of the version's held-out rows (split conformal prediction). Further arguments and
        errors are those of ``predict``.

        Returns:
            The lower and the upper end in the target's unit: a tuple for one row, an array ``(n_rows, 2)`` for many.

        Raises:
            InvalidRequestError: The version has no intervals, or too few held-out rows for the coverage.
        """
        with self._table.using(self.resolve(model_id, version=version, environment=environment)) as model:
            return self.predictor.predict_interval(model, input_data, coverage)

    def predict_scores(
        self, model_id: str, input_data: Any, *, version: str | None = None, environment: str | None = None
    ) -> Any:
        """Predict anomaly scores; arguments as for ``predict``.

        The higher, the more anomalous: a row whose score is above ``signature.output.threshold`` of the version is an
        anomaly. An isolation forest has scores from 0 to 1, and 0.5 is an average row.

        Returns:
            A float for one row, an array ``(n_rows,)`` for many.

        Raises:
            InvalidRequestError: The version has no scores.
        """
        with self._table.using(self.resolve(model_id, version=version, environment=environment)) as model:
            return self.predictor.predict_scores(model, input_data)

    def predict_batch(
        self,
        model_id: str,
        input_batch: Sequence[Any],
        batch_size: int = 32,
        *,
        version: str | None = None,
        environment: str | None = None,
    ) -> list[Any]:
        """Predict a list of rows, ``batch_size`` of them at a time, in order; further arguments as for ``predict``."""
        with self._table.using(self.resolve(model_id, version=version, environment=environment)) as model:
            return self.predictor.predict_batch(model=model, input_batch=input_batch, batch_size=batch_size)

    def explain(
        self, model_id: str, input_data: Any, *, version: str | None = None, environment: str | None = None
    ) -> Explanation:
        """Explain the predictions for one row or many: what each input column added to the score.

        Exact for linear models and trees, sampled for others; arguments as for ``predict``.

        Returns:
            The contributions; ``to_frame()`` is a table of rows by input columns.

        Raises:
            PredictionError: The model failed, or has no rows to compare with.
        """
        with self._table.using(self.resolve(model_id, version=version, environment=environment)) as model:
            return self.predictor.explain(model, input_data)

    async def predict_async(self, model_id: str, input_data: Any, use_cache: bool = True, **where: Any) -> Any:
        """As ``predict``, in a thread, without blocking the event loop."""
        return await asyncio.to_thread(self.predict, model_id, input_data, use_cache, **where)

    def promote(
        self,
        model_id: str,
        version: str,
        environment: str = "production",
        *,
        actor: str | None = None,
        **moving: Unpack[GatedMoving],
    ) -> Pointer:
        """Point an environment to a version, so that it is served from now on.

        It returns when the pointer has moved; ``environments.replicas`` waits for replicas, and says what each has
        loaded. Arguments (``expected_generation``, ``reason`` and ``override`` among them), result and errors are those
        of ``environments.promote``.
        """
        return self.environments.promote(model_id, version, environment, actor=actor, **moving)

    def rollback(
        self, model_id: str, environment: str = "production", *, actor: str | None = None, **moving: Unpack[Moving]
    ) -> Pointer:
        """Point an environment back to the version that it served before; again, to the one before that.

        No gate is evaluated. Keywords and errors are those of ``environments.rollback``.
        """
        return self.environments.rollback(model_id, environment, actor=actor, **moving)

    def withdraw(
        self, model_id: str, environment: str = "production", *, actor: str | None = None, **moving: Unpack[Moving]
    ) -> Pointer:
        """Let an environment serve nothing. Keywords and errors are those of ``environments.withdraw``."""
        return self.environments.withdraw(model_id, environment, actor=actor, **moving)

    def history(self, model_id: str, environment: str = "production", *, limit: int = 100) -> Sequence[Move]:
        """The last moves of an environment's pointer, newest first: what, who, when, why and the results of the gates.

        The prediction log is in ``predictions``.

        Raises:
            InvalidRequestError: There is no such environment.
        """
        return self.registry.history(model_id, environment, limit=limit)

    def create_model(
        self,
        model_id: str,
        model_type: str,
        model_path: str,
        metadata: Mapping[str, Any] | None = None,
        *,
        sample: Any = None,
    ) -> str:
        """Register a ``.skops`` or ``.joblib`` file that you made as a model's next version; returns the model's id.

        Arguments and errors are those of ``models.register_model``.
        """
        return self.models.register_model(model_id, model_type, model_path, metadata=metadata or {}, sample=sample)

    def update_model(self, model_id: str, metadata: Mapping[str, Any], version: str | None = None) -> ModelVersion:
        """Merge notes into a version's metadata, or without a version into that of the model and each of its versions.

        Errors are those of ``models.update_model``.
        """
        return self.models.update_model(model_id, metadata, version=version)

    def archive_model(self, model_id: str, version: str | None = None) -> None:
        """Hide a version, or the whole model; ``models.restore_model`` shows it again.

        Errors are those of ``models.archive_model``.
        """
        self.models.archive_model(model_id, version=version)

    def delete_model(self, model_id: str, version: str | None = None) -> None:
        """Delete a version, or the whole model; bytes go when no version of the tenant needs them.

        Errors are those of ``models.delete_model``.
        """
        self.models.delete_model(model_id, version=version)

    def report_run(self, run_id: str, file: str | Path) -> Path:
        """Write a report of a run as one HTML file, as ``MLClient.report_run`` does.

        Raises:
            RunNotFoundError: There is no such run.
            InvalidRequestError: The file exists or can't be written.
        """
        return write_report(run_report(self._run_record(run_id)), file)

    def report_version(self, model_id: str, version: str | None, file: str | Path) -> Path:
        """Write the report of a version, its model card, as one HTML file, as ``MLClient.report_version`` does.

        Raises:
            ModelNotFoundError: There is no such version.
            InvalidRequestError: The file exists or can't be written.
        """
        found = self.registry.get_model_version(model_id, version)
        training, profile, run = TrainingReport.of_version(found), None, None
        if training.dataset is not None:
            with suppress(DatasetNotFoundError):  # deleted since
                profile = self.datasets.get(training.dataset).profile
        if found.lineage.run_id is not None:
            with suppress(RunNotFoundError):
                run = self._run_record(found.lineage.run_id)
        pointers = [pointer.environment for pointer in self.environments.list(model_id).items]
        record = VersionRecord(
            tenant_id=self.tenant_id,
            version=found,
            signature=found.signature.to_json(),
            training=training,
            lineage=self.registry.get_lineage(model_id, found.version),
            profile=profile,
            moves={environment: self.history(model_id, environment) for environment in pointers},
            run=run,
        )
        return write_report(version_report(record), file)

    def export_version(self, model_id: str, version: str | None, file: str | Path) -> Path:
        """Write a version as a file that needs no platform, as ``MLClient.export_version`` does.

        Raises:
            ModelNotFoundError: There is no such version.
            ModelSaveError: The format can't hold the model, and why.
            InvalidRequestError: The ending is not known, or the file exists or can't be written.
            ConfigurationError: A package that the format needs is not installed.
        """
        # Imported late: few processes export.
        from ml_core.models.exporting import export_model

        servable = self.resolve(model_id, version=version)
        with self._table.using(servable) as model:
            return export_model(model, servable.self_test.rows, file)

    def _run_record(self, run_id: str) -> RunRecord:
        runs, diagnostics = self.runs, None
        if DIAGNOSTICS_FILE in [kept.name for kept in runs.artifacts.list(run_id)]:
            with suppress(ValidationError):  # a file of the user's own under that name
                content = runs.artifacts.open(run_id, DIAGNOSTICS_FILE).read_bytes()
                diagnostics = TypeAdapter(Diagnostics).validate_json(content)
        trials = every(lambda limit, cursor: runs.search(parent_run_id=run_id, limit=limit, cursor=cursor))
        return record_of(runs.get(run_id), lambda metric: runs.series(run_id, metric).to_json(), diagnostics, trials)

    def resolve(self, model_id: str, *, version: str | None = None, environment: str | None = None) -> ServableVersion:
        """The version that answers a prediction with these arguments.

        Raises:
            ModelNotFoundError: There is no such model, version or promoted environment.
        """
        with self._db.together(self.tenant_id) as db:
            environments = EnvironmentRepository(db, self.tenant_id, self.models.store)
            if version is None and environment is not None:
                version = environments.pointed(model_id, environment)
            version = version or environments.resolve(model_id)
            versions = VersionRepository(db, self.tenant_id, self.models.store)
            ref = VersionRef(self.tenant_id, ModelId(model_id), VersionId(version))
            # Pointer, archival and digest are read each time, so a move is seen at once. The rest never changes, and
            # of a wide table it takes longer to read.
            known = self._table.loaded(ref, versions.served_digest(model_id, version))
            return known or versions.servable(model_id, version)

    def _empty_table(self) -> ModelTable:
        return ModelTable(self._load, max_memory_bytes=self._max_memory_bytes, hooks=self._hooks)

    def _load(self, version: ServableVersion) -> LoadedModel:
        # Types of the caller's own are loaded if this process trained with them; a server refuses them.
        return load_version(self.models.store, version, own_types.known(self._db.settings))
