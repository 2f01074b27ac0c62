"""``MLSystem``: train, compare, promote and predict for one tenant, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.inference.model_table import ModelTable
from ml_core.inference.predictor import Predictor
from ml_core.models import own_types
from ml_core.models.loading import LoadedModel, load_version
from ml_core.models.manager import ModelManager
from ml_core.registry.environments import EnvironmentRepository, Pointer
from ml_core.registry.model_registry import ModelRegistry
from ml_core.registry.versions import VersionRepository
from ml_core.training.trainer import Trainer

if TYPE_CHECKING:
    from ml_core.cache import CacheMechanism
    from ml_core.database.connection import DatabaseConnection
    from ml_core.domain.version import ModelVersion, ServableVersion

_MIB = 2**20


class MLSystem:
    """The façade over training, registry and inference for one tenant.

    The tenant is created when something is first written for it. A context manager: leaving it frees the loaded models.

    Args:
        db: The registry.
        cache: Answers to remember, or None.
        max_memory_mb: Bound on the measured mebibytes of loaded models: loaded on first use, least recently used first
            to go, never one in use.
        tenant_id: Whose data and models these are.
        storage_path: Folder that gets a copy of each artifact beside the platform's store; none if left out.

    Raises:
        InvalidNameError: The tenant's name is not valid.
    """

    def __init__(
        self,
        db: DatabaseConnection,
        cache: CacheMechanism | None = None,
        max_memory_mb: int = 2048,
        tenant_id: str = "default",
        *,
        storage_path: str | Path | None = None,
    ) -> None:
        self.tenant_id = TenantId(tenant_id)
        root = Path(storage_path) if storage_path is not None else db.settings.platform.artifact_root
        self.models = ModelManager(db, root, self.tenant_id)
        self.registry = ModelRegistry(db, self.tenant_id, storage_path=root)
        self.trainer = Trainer(db, self.tenant_id, storage_path=root)
        self.predictor = Predictor(self.models, cache, self.tenant_id)
        self._versions = VersionRepository(db, self.tenant_id)
        self._environments = EnvironmentRepository(db, self.tenant_id)
        self._max_memory_bytes = max_memory_mb * _MIB
        self._table = self._empty_table()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the loaded models; one that is asked for again is loaded again. The database connection stays open."""
        self._table.close()
        self._table = self._empty_table()

    def train_model(
        self,
        model_id: str,
        model_type: str | None,
        training_data: tuple[Any, Any],
        validation_data: tuple[Any, Any] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Train a model and register it as a new version.

        Args:
            model_id: The model.
            model_type: ``classification``, ``regression``, ``clustering`` or ``anomaly_detection``; None finds it
                from y.
            training_data: ``(X, y)``: a raw data frame and its labels.
            validation_data: Held-out ``(X, y)``; a fifth of the training data if left out.
            hyperparameters: ``algorithm`` and the estimator's own.
            **options: Further keywords of ``Trainer.train``.

        Returns:
            ``model_id``, ``version``, ``metrics`` (``train``, ``validation``), ``model_path``, ``run_id`` and
            ``duration_s``.

        Raises:
            TrainingError: The data can't train, or a hyperparameter is unknown.
        """
        result = self.trainer.train(
            model_id, model_type, training_data, validation_data, dict(hyperparameters or {}), **options
        )
        return {name: value for name, value in result.items() if name not in ("model", "fitted")}

    def predict(
        self,
        model_id: str,
        input_data: Any,
        use_cache: bool = True,
        *,
        version: str | None = None,
        environment: str | None = None,
    ) -> Any:
        """Predict one row or many.

        Args:
            model_id: The model.
            input_data: One row (dict, Series, 1-row frame, 1-d array) or many (frame, list of rows, 2-d array).
            use_cache: Whether a remembered answer will do.
            version: A version to ask whatever the pointers say.
            environment: The pointer to follow; by default ``production``, or the newest version where it points
                nowhere.

        Returns:
            One prediction for one row; an array of the same length for many.

        Raises:
            ModelNotFoundError: There is no such model, version or promoted environment.
            SignatureMismatchError: A row does not fit.
        """
        with self._table.using(self.resolve(model_id, version=version, environment=environment)) as model:
            return self.predictor.predict(model, input_data, use_cache=use_cache)

    def predict_proba(
        self, model_id: str, input_data: Any, *, version: str | None = None, environment: str | None = None
    ) -> Any:
        """Class → probability for one row, or a list of these for many; arguments as for ``predict``.

        Raises:
            PredictionError: The model has no probabilities.
        """
        with self._table.using(self.resolve(model_id, version=version, environment=environment)) as model:
            return self.predictor.predict_proba(model, input_data)

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

    async def predict_async(self, model_id: str, input_data: Any, use_cache: bool = True, **where: Any) -> Any:
        """As ``predict``, in a thread, without blocking the event loop."""
        return await asyncio.to_thread(self.predict, model_id, input_data, use_cache, **where)

    def promote(
        self,
        model_id: str,
        version: str,
        environment: str = "production",
        *,
        expected_generation: int | None = None,
        actor: str = "python",
        reason: str = "",
    ) -> Pointer:
        """Point an environment to a version.

        Args:
            model_id: The model.
            version: The version to serve.
            environment: The pointer to move.
            expected_generation: Refuse unless the pointer still stands there.
            actor: Who moves it, for the history.
            reason: Why, for the history.

        Raises:
            PromotionConflictError: Somebody else moved the pointer first.
            ModelNotFoundError: There is no such version, or it is archived.
            InvalidRequestError: The version uses types of your own, which servers refuse.
        """
        return self._environments.promote(
            ModelId(model_id),
            VersionId(version),
            EnvironmentName(environment),
            expected_generation=expected_generation,
            actor=actor,
            reason=reason,
        )

    def rollback(
        self, model_id: str, environment: str = "production", *, actor: str = "python", reason: str = ""
    ) -> Pointer:
        """Point an environment back to the version that it served before."""
        return self._environments.rollback(ModelId(model_id), EnvironmentName(environment), actor=actor, reason=reason)

    def compare(self, model_id: str, version1: str, version2: str) -> dict[str, Any]:
        """What differs between two versions, and which is better in each metric."""
        return self.registry.compare_versions(model_id, version1, version2)

    def versions(self, model_id: str) -> Sequence[ModelVersion]:
        """The versions of a model, newest first."""
        return self.registry.list_versions(model_id)

    def create_model(
        self, model_id: str, model_type: str, model_path: str, metadata: Mapping[str, Any] | None = None
    ) -> str:
        """Register a model from a file, see ``ModelManager.register_model``."""
        return self.models.register_model(model_id, model_type, model_path, metadata=metadata or {})

    def update_model(self, model_id: str, metadata: Mapping[str, Any], version: str | None = None) -> Any:
        """Merge metadata into a version, see ``ModelManager.update_model``."""
        return self.models.update_model(model_id, metadata, version=version)

    def archive_model(self, model_id: str, version: str | None = None) -> Any:
        """Hide a model or a version, see ``ModelManager.archive_model``."""
        return self.models.archive_model(model_id, version=version)

    def delete_model(self, model_id: str, version: str | None = None) -> Any:
        """Delete a model or a version, see ``ModelManager.delete_model``."""
        return self.models.delete_model(model_id, version=version)

    def resolve(self, model_id: str, *, version: str | None = None, environment: str | None = None) -> ServableVersion:
        """The version that a prediction with these arguments asks.

        Raises:
            ModelNotFoundError: There is no such model, version or promoted environment.
        """
        model = ModelId(model_id)
        if version is not None:
            chosen = VersionId(version)
        elif environment is not None:
            chosen = self._environments.pointed(model, EnvironmentName(environment))
        else:
            chosen = self._environments.resolve(model)
        return self._versions.servable(model, chosen)

    def _empty_table(self) -> ModelTable:
        return ModelTable(self._load, max_memory_bytes=self._max_memory_bytes)

    def _load(self, version: ServableVersion) -> LoadedModel:
        # Types of the caller's own load here if this very process trained with them; a server refuses them.
        return load_version(self.models.store, version, own_types=own_types.known())
