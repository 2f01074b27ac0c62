"""``Trainer``: train, record the run, register the version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.columns import ColumnKind
from ml_core.exceptions import DataProcessingError, MLFrameworkError
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.models.mirrored_store import open_store
from ml_core.registry.runs import RunRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.training.checkpoints import CheckpointFolder
from ml_core.training.fit import FittedModel, fit_model
from ml_core.training.registration import Naming, Registrar
from ml_core.training.request import TrainingRequest


class Trainer:
    """Trains the models of one tenant in this process; Ray is not involved.

    The tenant is created with its first training.

    Args:
        db: The registry.
        tenant_id: Whose models these are.
        storage_path: Folder that gets a copy of each artifact beside the platform's store; None: no copy.
        actor: Who is recorded as having registered the versions; None: the operating system's user.
    """

    def __init__(
        self,
        db: DatabaseConnection,
        tenant_id: str = "default",
        *,
        storage_path: str | Path | None = None,
        actor: str | None = None,
    ) -> None:
        self.tenant_id = TenantId(tenant_id)
        self._db = db
        platform = db.settings.platform
        store = open_store(storage_path, platform.artifact_root)
        self._registrar = Registrar(db, self.tenant_id, store, actor)
        self._checkpoints = CheckpointFolder(platform.home / "checkpoints", self.tenant_id)

    def train(
        self,
        model_id: str,
        model_type: str | None,
        training_data: tuple[Any, Any],
        validation_data: tuple[Any, Any] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        *,
        kinds: Mapping[str, ColumnKind | str] | None = None,
        processor: Any = None,
        **naming: Any,
    ) -> dict[str, Any]:
        """Fit a model, measure it on held-out rows and register it as a version.

        Args:
            model_id: The model; made on its first version.
            model_type: ``classification``, ``regression``, ``clustering``, ``anomaly_detection`` or a type that was
                registered with ``ModelFactory``; None: classification or regression, by the target.
            training_data: ``(X, y)``: a raw data frame and one target value a row.
            validation_data: The same, to measure on; None: a fifth of the training data is held out and the model is
                fitted on the rest.
            hyperparameters: ``algorithm`` and the estimator's own.
            kinds: Column name → kind, where the inferred one is wrong.
            processor: A ``DataProcessor`` of your own.
            **naming: ``version`` (its name; None: the next number), ``parent_version``, ``metadata``.

        Returns:
            ``model_id``, ``version``, ``metrics`` (``train`` and ``validation`` → metric → value), ``model_path``
            (where the artifact is), ``run_id``, ``duration_s`` (of the fit), ``model`` (the fitted pipeline, which
            takes a data frame) and ``fitted`` (a ``FittedModel`` with all that was found).

        Raises:
            TrainingError: The data, a kind or a hyperparameter can't train (``stage="validate"``), or the fit failed.
            ModelSaveError: The version can't be stored or exists with other bytes; nothing was left behind.
        """
        request = TrainingRequest(
            model_id=ModelId(model_id),
            model_type=model_type,
            training_data=training_data,
            validation_data=validation_data,
            hyperparameters=dict(hyperparameters or {}),
            kinds=_parse_kinds(kinds or {}),
            processor=processor,
        )
        naming = {**naming, "version": _parse_version(naming.get("version"))}
        TenantRepository(self._db).ensure(self.tenant_id)
        with self._run(request) as run_id:
            fitted = self.fit(request)
            self._runs.log_metrics(run_id, _flat(fitted.metrics))
            version = self._registrar.register(fitted, Naming(run_id=run_id, **naming))
        artifact = version.servable
        return {
            "model_id": str(version.model_id),
            "version": str(version.version),
            "metrics": {part: dict(values) for part, values in fitted.metrics.items()},
            "model_path": str(self._registrar.store.path(self.tenant_id, artifact.digest)),
            "run_id": run_id,
            "duration_s": fitted.duration_s,
            "model": fitted.pipeline,
            "fitted": fitted,
        }

    def fit(self, request: TrainingRequest) -> FittedModel:
        """The part of ``train`` that touches neither registry nor disk, see ``fit_model``.

        Raises:
            TrainingError: As ``train``.
        """
        try:
            return fit_model(request)
        except MLFrameworkError as error:
            error.tenant_id = self.tenant_id
            raise

    def save_checkpoint(self, model: Any, model_id: str, epoch: int) -> str:
        """Keep a model of an unfinished training.

        Args:
            model: Any object that pickle can write.
            model_id: The model that it will be.
            epoch: From 0; a checkpoint of the same epoch is replaced.

        Returns:
            Its path.

        Raises:
            ModelSaveError: It can't be written; nothing was left behind.
        """
        return str(self._checkpoints.save(model, ModelId(model_id), epoch))

    def load_checkpoint(self, path: str | Path) -> Any:
        """The model of a checkpoint of this tenant.

        Raises:
            ModelLoadError: The path is not one that ``save_checkpoint`` returned for this tenant, or can't be read.
        """
        return self._checkpoints.load(Path(path))

    @property
    def _runs(self) -> RunRepository:
        return RunRepository(self._db, self.tenant_id)

    @contextmanager
    def _run(self, request: TrainingRequest) -> Iterator[str]:
        """A recorded run: finished when the block ends, failed with the error when it raises."""
        runs = self._runs
        parameters = {"model_type": request.model_type, "hyperparameters": request.recorded_hyperparameters()}
        run_id = runs.start(request.model_id, kind="train", parameters=parameters)
        try:
            yield run_id
        except BaseException as error:  # Ctrl-C ends a run too
            try:
                runs.fail(run_id, f"{type(error).__name__}: {error}")
            except MLFrameworkError as second:
                error.add_note(f"The run {run_id} could not be marked as failed: {second}")
            raise
        runs.finish(run_id)


def _parse_kinds(kinds: Mapping[str, ColumnKind | str]) -> dict[str, ColumnKind]:
    try:
        return {name: ColumnKind(kind) for name, kind in kinds.items()}
    except ValueError as error:
        raise DataProcessingError(
            f"{error}.", remedy=f"A column is one of {', '.join(ColumnKind)}.", stage="validate"
        ) from None


def _parse_version(version: str | None) -> VersionId | None:
    return None if version is None else VersionId(version)


def _flat(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {f"{part}/{name}": value for part, values in metrics.items() for name, value in values.items()}
