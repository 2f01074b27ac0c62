"""``ModelRegistry``: the public face of the registry for one tenant, in plain names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.signature import Signature
from ml_core.domain.version import Lineage, ModelVersion, SelfTest
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.models.mirrored_store import open_store
from ml_core.registry.comparison import compare
from ml_core.registry.environments import EnvironmentRepository, HistoryEntry, Pointer
from ml_core.registry.intake import Intake, Submission, read_file, split_metrics
from ml_core.registry.versions import VersionRepository


class ModelRegistry:
    """Versions, environments and lineage of one tenant. The tenant is created with its first version.

    Args:
        db: The registry's database.
        tenant_id: The tenant.
        storage_path: Folder that gets a copy of each artifact beside the platform's store; None: no copy.

    Raises:
        InvalidNameError: The tenant's name can't be one.
    """

    def __init__(
        self, db: DatabaseConnection, tenant_id: str = "default", *, storage_path: str | Path | None = None
    ) -> None:
        self.tenant_id = TenantId(tenant_id)
        store = open_store(storage_path, db.settings.platform.artifact_root)
        self._principal = db.principal
        self._intake = Intake(db, self.tenant_id, store)
        self._versions = VersionRepository(db, self.tenant_id)
        self._environments = EnvironmentRepository(db, self.tenant_id)

    def register_version(
        self,
        model_id: str,
        version: str | None,
        model_path: str | Path,
        metrics: Mapping[str, Any] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        *,
        model_type: str | None = None,
        signature: Signature | None = None,
        self_test: SelfTest | None = None,
        metadata: Mapping[str, Any] | None = None,
        lineage: Lineage | None = None,
        actor: str | None = None,
    ) -> VersionId:
        """Register a ``.skops`` file as an immutable version; the bytes are copied into the artifact store.

        A signature that is not given is that of the tenant's version with the same bytes, or else read from the model:
        a pipeline of the platform knows its columns; any other estimator is taken for one over numbers if it answers
        such. Failing that the version is registered without one, and can't be promoted.

        Args:
            model_id: The model; made with its first version.
            version: Such as ``1.0.0``; None means the model's next number.
            model_path: The file. It is audited, and refused if it holds a type that is not on the platform's list.
            metrics: Metric → value (taken for the validation rows), or split → metric → value.
            hyperparameters: As given to training.
            model_type: None means that of the model, or what kind of estimator it is.
            signature: What the version accepts and answers.
            self_test: Rows and the answers that a loaded copy must give.
            metadata: Notes of the caller's own.
            lineage: Where it came from.
            actor: Who registers it; None means the operating system's user.

        Returns:
            The version's name.

        Raises:
            ModelVersionConflictError: The version exists with other bytes.
            ModelSaveError: The file can't be read or stored, or the model is of another type or archived.
            UnsafeArtifactError: The file is no skops archive or holds types that are not allowed.
            InvalidNameError: A name is not valid.
        """
        submission = Submission(
            model_id=ModelId(model_id),
            version=None if version is None else VersionId(version),
            model_type=model_type,
            signature=signature,
            self_test=self_test,
            lineage=lineage,
            metrics=split_metrics(metrics or {}),
            hyperparameters=dict(hyperparameters or {}),
            metadata=dict(metadata or {}),
        )
        data = read_file(model_path, self.tenant_id, submission.model_id)
        return self._intake.accept(submission, data, actor=actor).version

    def get_model_version(self, model_id: str, version: str | None = None) -> ModelVersion:
        """A version; without a name the newest that is not archived.

        Raises:
            ModelNotFoundError: There is no such version.
        """
        return self._versions.get(ModelId(model_id), None if version is None else VersionId(version))

    def list_versions(self, model_id: str, *, limit: int | None = None) -> Sequence[ModelVersion]:
        """A model's versions that are not archived, newest first; none if there is no such model."""
        return self._versions.list(ModelId(model_id), limit=limit)

    def promote_version(
        self,
        model_id: str,
        version: str,
        environment: str,
        *,
        expected_generation: int | None = None,
        actor: str | None = None,
        reason: str = "",
    ) -> Pointer:
        """Point an environment to a version, see ``EnvironmentRepository.promote``.

        Raises:
            PromotionConflictError: Somebody else moved the pointer meanwhile.
            ModelNotFoundError: There is no such version, or it is archived.
            InvalidRequestError: There is no such environment, or the version has no signature.
        """
        return self._environments.promote(
            ModelId(model_id),
            VersionId(version),
            EnvironmentName(environment),
            expected_generation=expected_generation,
            actor=actor or self._principal.name,
            reason=reason,
        )

    def rollback(self, model_id: str, environment: str, *, actor: str | None = None, reason: str = "") -> Pointer:
        """Point an environment back to the version that it served before.

        Raises:
            PromotionConflictError: Somebody else moved the pointer meanwhile.
            ModelNotFoundError: There was none.
        """
        name = EnvironmentName(environment)
        return self._environments.rollback(ModelId(model_id), name, actor=actor or self._principal.name, reason=reason)

    def history(self, model_id: str, environment: str, *, limit: int = 100) -> Sequence[HistoryEntry]:
        """The moves of an environment's pointer, newest first."""
        return self._environments.history(ModelId(model_id), EnvironmentName(environment), limit=limit)

    def compare_versions(self, model_id: str, version1: str, version2: str) -> dict[str, Any]:
        """Two versions side by side, see ``ml_core.registry.comparison.compare``.

        Raises:
            ModelNotFoundError: One of them does not exist.
        """
        return compare(self.get_model_version(model_id, version1), self.get_model_version(model_id, version2))

    def get_lineage(self, model_id: str, version: str) -> dict[str, Any]:
        """Where a version came from and what came of it.

        Returns:
            ``digest``, ``run_id``, ``dataset_digest``, ``parent_version``, ``code_commit``, ``libraries``,
            ``created_at``, ``created_by``; downstream ``children`` (versions made from it) and ``environments``
            (that point to it).

        Raises:
            ModelNotFoundError: There is no such version.
        """
        found = self.get_model_version(model_id, version)
        lineage = found.lineage
        pointers = self._environments.list(found.model_id)
        return {
            "model_id": str(found.model_id),
            "version": str(found.version),
            "digest": str(found.servable.digest),
            "run_id": lineage.run_id,
            "dataset_digest": lineage.dataset_digest,
            "parent_version": lineage.parent_version,
            "code_commit": lineage.code_commit,
            "libraries": dict(lineage.libraries),
            "created_at": found.created_at,
            "created_by": found.created_by,
            "children": [str(child) for child in self._versions.children(found.model_id, found.version)],
            "environments": [str(pointer.environment) for pointer in pointers if pointer.version == found.version],
        }
