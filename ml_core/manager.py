"""``ModelManager``: registers model files of a tenant, and loads their versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import ModelVersion
from ml_core.ids import ModelId, TenantId
from ml_core.models import own_types
from ml_core.models.formats import joblib_import, skops_format
from ml_core.models.loading import LoadedModel, load_version
from ml_core.models.store import open_store
from ml_core.registry.pages import every
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.versions.intake import Submission, path_of, read_file
from ml_core.registry.versions.models import ModelRepository, ModelSummary
from ml_core.registry.versions.repository import VersionRepository


class ModelManager:
    """Registers, lists, annotates, hides, deletes and loads the models of one tenant.

    Args:
        db: The registry's database.
        storage_path: Folder that gets a copy of each artifact. The artifacts themselves are in the platform's store
            (that of ``DatabaseConnection.settings``), from which replicas serve them.
        tenant_id: The tenant; it must exist, except on the embedded server, where its first model creates it.

    Raises:
        InvalidNameError: The tenant's name is not valid.
    """

    def __init__(
        self, db: DatabaseConnection, storage_path: str | Path = "./models", tenant_id: str = "default"
    ) -> None:
        self.tenant_id = TenantId(tenant_id)
        self._db = db
        self.store = open_store(storage_path, db.settings)
        self._models = ModelRepository(db, self.tenant_id, self.store)
        self._versions = VersionRepository(db, self.tenant_id, self.store)
        self._environments = EnvironmentRepository(db, self.tenant_id)

    def __repr__(self) -> str:
        return f"ModelManager({self._db!r}, tenant_id={str(self.tenant_id)!r})"

    def register_model(
        self,
        model_id: str,
        model_type: str,
        model_path: str | Path,
        metadata: Mapping[str, Any] | None = None,
        version: str | None = None,
        *,
        sample: Any = None,
        actor: str | None = None,
    ) -> ModelId:
        """Copy a model file into the artifact store and register it as a version.

        A ``.joblib`` is a pickle: opening it runs its code, here, in the caller's own process, so give only files that
        you made. It is stored as skops if all its types are on the platform's list or of a
        trusted module (``MLCORE_TRUSTED_MODULES``).

        Args:
            model_id: The model; made with its first version.
            model_type: Such as ``classification``.
            model_path: A ``.skops`` or ``.joblib`` file.
            metadata: Notes of the caller's own.
            version: Its name; None means the model's next number.
            sample: A few rows of what the model was fitted on, without the target: a data frame, a Series of texts, or
                a 2-d array. It gives a model that was fitted elsewhere its signature, and raw rows are then answered as
                the model answers the same rows in a frame. None: the platform's own pipelines know their columns; any
                other model is taken for one over numbers, named by ``feature_names_in_`` or ``x0``, ``x1``, ….
            actor: For whom an operator registers it; None: the connection's principal.

        Returns:
            The model's id.

        Raises:
            ModelVersionConflictError: The version exists with other bytes.
            ModelSaveError: The file can't be read or stored, or the model is of another type or archived.
            UnsafeArtifactError: It holds other types.
            DataProcessingError: The sample does not fit, or the model was never fitted or predicts several targets.
            InvalidNameError: A name is not valid.
        """
        submission = Submission(
            model_id=model_id, version=version, model_type=model_type, metadata=metadata or {}, sample=sample
        )
        path = path_of(model_path)
        if path.suffix.lower() in joblib_import.SUFFIXES:
            data = skops_format.dump(joblib_import.read_joblib(path))
        else:
            data = read_file(path, self.tenant_id, model_id)
        return self._versions.submit(submission, data, actor=actor).model_id

    def list_models(self, model_type: str | None = None) -> Sequence[ModelSummary]:
        """The models that are not archived, by name."""
        return list(every(lambda limit, cursor: self._models.list(model_type=model_type, limit=limit, cursor=cursor)))

    def get_model(self, model_id: str, version: str | None = None) -> ModelVersion:
        """A version of a model; without a name the newest that is not archived.

        Raises:
            ModelNotFoundError: There is no such version.
        """
        return self._versions.get(model_id, version)

    def update_model(self, model_id: str, metadata: Mapping[str, Any], version: str | None = None) -> ModelVersion:
        """Merge notes into the metadata of a version; a key that is there is replaced.

        Args:
            model_id: The model.
            metadata: The notes.
            version: Its name; None: the notes are the model's, and ``get_model`` shows them with each of its versions,
                also those that are registered later.

        Returns:
            The version; without a name, the newest.

        Raises:
            ModelNotFoundError: There is no such version.
            InvalidRequestError: The notes have no JSON form, or are too large.
        """
        return self._versions.update_metadata(model_id, metadata, version)

    def archive_model(self, model_id: str, version: str | None = None) -> None:
        """Hide a version, or the whole model; ``restore_model`` shows it again.

        Raises:
            ModelNotFoundError: There is no such version.
            VersionInUseError: An environment points to it.
        """
        if version is None:
            self._models.archive(model_id)
        else:
            self._versions.archive(model_id, version)

    def restore_model(self, model_id: str, version: str | None = None) -> None:
        """Show an archived version, or the whole model, again.

        Raises:
            ModelNotFoundError: There is no such version.
        """
        if version is None:
            self._models.restore(model_id)
        else:
            self._versions.restore(model_id, version)

    def delete_model(self, model_id: str, version: str | None = None) -> None:
        """Delete a version, or the whole model; bytes go when no version of the tenant needs them.

        Raises:
            ModelNotFoundError: There is no such version.
            VersionInUseError: An environment points to it, another version was made from it, or a hold forbids it.
        """
        if version is None:
            self._models.delete(model_id)
        else:
            self._versions.delete(model_id, version)

    def load_model(self, model_id: str, version: str | None = None) -> LoadedModel:
        """Load a version, verified and self-tested; without a name that of ``production``, else the newest.

        Types of the caller's own are loaded if their module is trusted, or this very process trained with them.

        Raises:
            ModelNotFoundError: There is no such version, or it is archived.
            ModelLoadError: Its bytes are missing, damaged or unsafe, or it fails its self-test.
        """
        servable = self._versions.servable(model_id, version or self._environments.resolve(ModelId(model_id)))
        return load_version(self.store, servable, own_types.known(self._db.settings))
