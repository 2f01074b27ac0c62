"""``Trainer``: train, record the run, register the version."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.columns import ColumnKind
from ml_core.domain.dataset import DatasetVersion
from ml_core.exceptions import DataProcessingError, MLFrameworkError
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.models.algorithms import CLASSIFICATION, REGRESSION
from ml_core.models.mirrored_store import open_store
from ml_core.models.model_factory import ModelFactory
from ml_core.registry.runs import RunRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.limits import check_document
from ml_core.registry.versions.repository import VersionRepository
from ml_core.training.checkpoints import CheckpointFolder
from ml_core.training.datasets import choose_data, find_dataset
from ml_core.training.effective import algorithm_of, effective_hyperparameters
from ml_core.training.fit import FittedModel, fit_model
from ml_core.training.registration import Naming, Registrar, own_code
from ml_core.training.request import TrainingRequest
from ml_core.training.targets import invalid

_log = logging.getLogger(__name__)
_NOTES_BYTES = 16 * 2**10
"""Room in a version's metadata for what training notes in it: baseline, effective values and a few sentences."""


class TrainingOptions(TypedDict, total=False):
    """The keywords of ``Trainer.train`` beside the data, as ``MLSystem.train_model`` passes them on."""

    dataset: str | None
    target: str | None
    kinds: Mapping[str, ColumnKind | str] | None
    processor: Any
    rare_classes: str | None
    version: str | None
    parent_version: str | None
    metadata: Mapping[str, Any] | None


class Trainer:
    """Trains the models of one tenant in this process; Ray is not involved.

    The tenant must exist; on the embedded server its first training creates it.

    Args:
        db: The registry.
        tenant_id: Whose models these are.
        storage_path: Folder that gets a copy of each artifact beside the platform's store; None: no copy.
        actor: For whom an operator registers the versions; None: the connection's principal.
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
        store = open_store(storage_path, db.settings)
        self._registrar = Registrar(db, self.tenant_id, store, actor)
        self._checkpoints = CheckpointFolder(platform.home / "checkpoints", self.tenant_id)

    def __repr__(self) -> str:
        return f"Trainer({self._db!r}, tenant_id={str(self.tenant_id)!r})"

    def train(
        self,
        model_id: str,
        model_type: str | None,
        training_data: tuple[Any, Any] | None = None,
        validation_data: tuple[Any, Any] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        *,
        dataset: str | None = None,
        target: str | None = None,
        kinds: Mapping[str, ColumnKind | str] | None = None,
        processor: Any = None,
        rare_classes: str | None = None,
        version: str | None = None,
        parent_version: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Fit a model, measure it on held-out rows and register it as a version.

        Args:
            model_id: The model; made on its first version.
            model_type: ``classification``, ``regression``, ``clustering``, ``anomaly_detection`` or a type that was
                registered with ``ModelFactory``; None: classification or regression, by the target.
            training_data: ``(X, y)``: a raw data frame and one target value a row; None: the dataset.
            validation_data: The same, to measure on; None: a fifth of the training data is held out and the model is
                fitted on the rest.
            hyperparameters: ``algorithm`` and the estimator's own.
            dataset: The registered dataset that the data is from, such as ``tickets_2026@3``, or ``tickets_2026`` for
                its newest version: recorded in the version's lineage.
            target: The dataset's column to predict, where there is no ``training_data``.
            kinds: Column name → kind, where the inferred one is wrong.
            processor: A ``DataProcessor`` of your own.
            rare_classes: What is done with classes of fewer than 2 training rows: ``drop`` leaves their rows out,
                ``merge:other`` makes them one class. ``drop:5`` and ``merge:other:5``: of fewer than 5. A note says
                which classes and how many rows.
            version: The version's name; None: the model's next number.
            parent_version: The version of the same model that it is made from, for the lineage.
            metadata: Notes of your own, JSON-compatible.

        Returns:
            ``model_id``, ``version``, ``metrics`` (``train`` and ``validation`` → metric → value), ``baseline`` (metric
            → value of an answer that looks at no column), ``notes`` (sentences on what to know of the version: worse
            than the baseline, rows left out, code of your own), ``algorithm``, ``hyperparameters`` (as given),
            ``effective_hyperparameters`` (those by default included), ``model_path`` (where the artifact is: a path, or
            a URL in an object store), ``run_id``, ``duration_s`` (of the fit), ``model`` (the fitted pipeline, which
            takes a data frame) and ``fitted`` (a ``FittedModel`` with all that was found).

        Raises:
            TrainingError: The data, a kind or a hyperparameter can't train (``stage="validate"``), or the fit failed.
            InvalidRequestError: There is no such dataset, or the notes can't be stored; nothing was done.
            ModelNotFoundError: There is no such parent version; nothing was done.
            ModelVersionConflictError: There is, or was, a version of this name; nothing was done.
            PermissionDeniedError: The principal lacks the scope ``train``; nothing was done.
            ModelSaveError: The model is archived or of another type, found before the fit; or the version can't be
                stored, and nothing was left behind.
            TenantNotFoundError: There is no such tenant; nothing was done.
        """
        self.refuse_in_vain(model_id, model_type, version)
        naming = self._naming(ModelId(model_id), version, parent_version, metadata)
        if training_data is None and dataset is not None and target is None and model_type in _NEED_TARGET:
            raise self._no_target(dataset)
        data, source = choose_data(self._db, self.tenant_id, training_data, dataset, target)
        request = TrainingRequest(
            model_id=ModelId(model_id),
            model_type=model_type,
            training_data=data,
            validation_data=validation_data,
            hyperparameters=dict(hyperparameters or {}),
            kinds=_parse_kinds(kinds or {}),
            processor=processor,
            rare_classes=rare_classes,
        )
        check_document(request.recorded_hyperparameters(), "hyperparameters")
        tenants = TenantRepository(self._db)
        tenants.ensure(self.tenant_id)
        request = replace(request, self_test_rows=tenants.self_test_rows(self.tenant_id))
        with self._run(request, source) as run_id:
            fitted = self._fit(request, version)
            self._runs.log_metrics(run_id, _flat(fitted.metrics))
            naming = replace(naming, run_id=run_id, dataset_digest=None if source is None else source.digest)
            made = self._registrar.register(fitted, naming)
        warnings = own_code(made.outside_types)
        for note in warnings:
            _log.warning("%s version %s: %s", made.model_id, made.version, note)
        return {
            "model_id": str(made.model_id),
            "version": str(made.version),
            "metrics": {part: dict(values) for part, values in fitted.metrics.items()},
            "algorithm": fitted.algorithm,
            "hyperparameters": dict(fitted.hyperparameters),
            "effective_hyperparameters": dict(fitted.effective_hyperparameters),
            "baseline": dict(fitted.baseline),
            "notes": [*fitted.notes, *warnings],
            "model_path": self._registrar.store.location(self.tenant_id, made.servable.digest),
            "run_id": run_id,
            "duration_s": fitted.duration_s,
            "model": fitted.pipeline,
            "fitted": fitted,
        }

    def refuse_in_vain(self, model_id: str, model_type: str | None = None, version: str | None = None) -> None:
        """Refuse a training whose version could not be registered; ``train`` does so before it spends a core.

        Args:
            model_id: The model.
            model_type: Of the version; None: not known yet.
            version: The version's name; None: the next number.

        Raises:
            PermissionDeniedError: The principal lacks the scope ``train``.
            ModelVersionConflictError: There is, or was, a version of this name.
            ModelSaveError: The model is of another type, or is archived.
        """
        name = None if version is None else VersionId(version)
        VersionRepository(self._db, self.tenant_id).refuse_in_vain(ModelId(model_id), model_type, name)

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

    def _fit(self, request: TrainingRequest, version: str | None) -> FittedModel:
        """Read the data, fit, measure on held-out rows: all that writes nothing."""
        try:
            request = replace(request, model_type=request.known_model_type())
            self.refuse_in_vain(request.model_id, request.model_type, version)
            return fit_model(request)
        except MLFrameworkError as error:
            error.tenant_id = self.tenant_id
            error.__dict__["model_id"] = str(request.model_id)
            raise

    def _naming(
        self, model_id: ModelId, version: str | None, parent: str | None, metadata: Mapping[str, Any] | None
    ) -> Naming:
        """What is said of the version to be, checked before the training that it would be lost with."""
        if parent is not None:
            VersionRepository(self._db, self.tenant_id).get(model_id, VersionId(parent))
        return Naming(
            version=None if version is None else VersionId(version),
            parent_version=None if parent is None else VersionId(parent),
            metadata=check_document(metadata or {}, "metadata", reserved_bytes=_NOTES_BYTES),
        )

    def _no_target(self, dataset: str) -> MLFrameworkError:
        columns = [name for name, _ in find_dataset(self._db, self.tenant_id, dataset).columns]
        shown = f"{', '.join(columns[:20])}{', …' if len(columns) > 20 else ''}"
        error = invalid(
            f"Nothing says which column of the dataset {dataset} to predict.",
            f"Give target=, one of: {shown}. Without a target, name a model_type such as 'clustering'.",
        )
        error.tenant_id = self.tenant_id
        return error

    @property
    def _runs(self) -> RunRepository:
        return RunRepository(self._db, self.tenant_id)

    def _run(self, request: TrainingRequest, source: DatasetVersion | None) -> AbstractContextManager[str]:
        """A recorded run, which gives signs of life as long as this process lives, however long the fit takes."""
        parameters = {
            "model_type": request.model_type,
            "hyperparameters": request.recorded_hyperparameters(),
            **_estimator_parameters(request),
        }
        if source is not None:
            parameters["dataset"] = source.reference
        if request.rare_classes is not None:
            parameters["rare_classes"] = request.rare_classes
        return self._runs.record(request.model_id, kind="train", parameters=parameters)


_NEED_TARGET = (None, CLASSIFICATION, REGRESSION)
"""The model types that learn a target; a type of the caller's own may do without."""


def _parse_kinds(kinds: Mapping[str, ColumnKind | str]) -> dict[str, ColumnKind]:
    try:
        return {str(name): ColumnKind(kind) for name, kind in kinds.items()}
    except ValueError as error:
        raise DataProcessingError(
            f"{error}.", remedy=f"A column is one of {', '.join(ColumnKind)}.", stage="validate"
        ) from None


def _estimator_parameters(request: TrainingRequest) -> dict[str, Any]:
    """What the run says of the estimator; empty if it can't be made, which the fit reports."""
    try:
        estimator = ModelFactory.create_model(request.known_model_type(), dict(request.hyperparameters))
    except Exception:  # noqa: BLE001 - a builder of the caller's own can raise anything
        return {}
    effective = effective_hyperparameters(estimator)
    return {"algorithm": algorithm_of(estimator), "effective_hyperparameters": effective}


def _flat(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {f"{part}/{name}": value for part, values in metrics.items() for name, value in values.items()}
