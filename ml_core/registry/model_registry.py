"""``ModelRegistry``: the versions and environments of one tenant, and the repositories that hold the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.signature import Signature
from ml_core.domain.version import Lineage, ModelVersion, SelfTest
from ml_core.ids import TenantId, VersionId
from ml_core.models.store import open_store
from ml_core.registry.collection.holds import HoldRepository
from ml_core.registry.pages import every
from ml_core.registry.promotion.environments import EnvironmentRepository, Move, Pointer
from ml_core.registry.promotion.gates import GateRepository
from ml_core.registry.promotion.moving import GatedMoveOptions, MoveOptions
from ml_core.registry.promotion.rollouts import RolloutRepository
from ml_core.registry.versions.intake import Submission, read_file
from ml_core.registry.versions.lists import VersionList
from ml_core.registry.versions.models import ModelRepository
from ml_core.registry.versions.repository import VersionRepository


class ModelRegistry:
    """Versions, environments and lineage of one tenant.

    On the embedded server the first version creates the tenant.

    Attributes:
        versions: Search, tags, metadata, archiving and deletion of versions.
        models: Models as a whole.
        environments: What each environment serves, its history, its replicas, and protected environments.
        rollouts: Canaries and shadows.
        gates: What a promotion has to pass: gates and approvals.
        holds: Versions that must be kept.

    Args:
        db: The registry's database.
        tenant_id: The tenant.
        storage_path: Folder that gets a copy of each artifact beside the platform's store; None: no copy.

    Raises:
        InvalidNameError: The tenant's name is not valid.
    """

    def __init__(
        self, db: DatabaseConnection, tenant_id: str = "default", *, storage_path: str | Path | None = None
    ) -> None:
        self.tenant_id = TenantId(tenant_id)
        store = open_store(storage_path, db.settings)
        self._db = db
        self.versions = VersionRepository(db, self.tenant_id, store)
        self.models = ModelRepository(db, self.tenant_id, store)
        self.environments = EnvironmentRepository(db, self.tenant_id, store)
        self.rollouts = RolloutRepository(db, self.tenant_id, store)
        self.gates = GateRepository(db, self.tenant_id)
        self.holds = HoldRepository(db, self.tenant_id)

    def __repr__(self) -> str:
        return f"ModelRegistry({self._db!r}, tenant_id={str(self.tenant_id)!r})"

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
        sample: Any = None,
        actor: str | None = None,
    ) -> VersionId:
        """Register a ``.skops`` file as an immutable version; the bytes are copied into the artifact store.

        A signature that is not given is that of the tenant's version with the same bytes, or else read from the model:
        a pipeline of the platform knows its columns, a sample shows those of any other, and without one it is taken for
        an estimator over numbers if it answers such. Failing that the version is registered without one, and can't be
        promoted.

        Args:
            model_id: The model; made with its first version.
            version: Such as ``1.0.0``; None means the model's next number.
            model_path: The file. It is audited, and refused if it holds a type that servers do not load.
            metrics: Metric → value (taken for the validation rows), or split → metric → value.
            hyperparameters: As given to training.
            model_type: None means that of the model, or what kind of estimator it is.
            signature: What the version accepts and answers.
            self_test: Rows and the answers that a loaded copy must give.
            metadata: Notes of the caller's own.
            lineage: Where it came from.
            sample: A few rows of what the model was fitted on, without the target: a data frame, a Series of texts, or
                a 2-d array. It shows the columns of a model that was fitted elsewhere.
            actor: For whom an operator registers it; None: the connection's principal.

        Returns:
            The version's name.

        Raises:
            ModelVersionConflictError: The version exists with other bytes.
            ModelSaveError: The file can't be read or stored, or the model is of another type or archived.
            UnsafeArtifactError: The file is not a skops archive or holds types that are not allowed.
            DataProcessingError: The sample does not fit, or the model was never fitted or predicts several targets.
        """
        submission = Submission(
            model_id=model_id,
            version=version,
            model_type=model_type,
            signature=signature,
            self_test=self_test,
            lineage=lineage,
            metrics=metrics or {},
            hyperparameters=hyperparameters or {},
            metadata=metadata or {},
            sample=sample,
        )
        data = read_file(model_path, self.tenant_id, model_id)
        return self.versions.submit(submission, data, actor=actor).version

    def get_model_version(self, model_id: str, version: str | None = None) -> ModelVersion:
        """A version; without a name the newest that is not archived.

        Raises:
            ModelNotFoundError: There is no such version.
        """
        return self.versions.get(model_id, version)

    def list_versions(self, model_id: str, *, limit: int | None = None) -> VersionList:
        """A model's versions that are not archived, newest first; empty if there is no such model."""
        found = every(lambda most, cursor: self.versions.list(model_id, limit=most, cursor=cursor), limit)
        return VersionList(found)

    def promote_version(
        self, model_id: str, version: str, environment: str, **options: Unpack[GatedMoveOptions]
    ) -> Pointer:
        """Point an environment to a version, so that it is served from now on; as ``environments.promote``."""
        return self.environments.promote(model_id, version, environment, **options)

    def rollback(self, model_id: str, environment: str, **options: Unpack[MoveOptions]) -> Pointer:
        """Point an environment back to the version that it served before; as ``environments.rollback``."""
        return self.environments.rollback(model_id, environment, **options)

    def withdraw(self, model_id: str, environment: str, **options: Unpack[MoveOptions]) -> Pointer:
        """Let an environment serve nothing; as ``environments.withdraw``."""
        return self.environments.withdraw(model_id, environment, **options)

    def history(self, model_id: str, environment: str, *, limit: int = 100) -> Sequence[Move]:
        """The last moves of an environment's pointer, newest first; ``environments.history`` returns them in pages.

        Raises:
            InvalidRequestError: There is no such environment, or the limit is not a whole number of at least 1.
        """
        read = self.environments.history
        return list(every(lambda most, cursor: read(model_id, environment, limit=most, cursor=cursor), limit))

    def compare_versions(self, model_id: str, version1: str, version2: str) -> dict[str, Any]:
        """Two versions side by side.

        Returns:
            ``model_id``, ``version1``, ``version2``; ``metrics``: split → metric → ``version1``, ``version2`` (None
            where one has none), ``difference`` (second minus first) and ``better`` (the better version's name; None if
            equal or the direction is unknown); ``hyperparameters`` and ``libraries``: those that differ, both values;
            ``data``: a digest of what each was trained on, and whether it is the ``same`` (None: not known);
            ``signature``: columns ``added``, ``removed``, ``changed``, and ``same_output``.

        Raises:
            ModelNotFoundError: One of them does not exist.
        """
        return self.versions.compare(model_id, version1, version2)

    def get_lineage(self, model_id: str, version: str) -> dict[str, Any]:
        """Where a version came from and what was made from it.

        Returns:
            ``digest``, ``run_id``, ``dataset_digest``, ``data_digest``, ``parent_version``, ``code_commit``,
            ``libraries``, ``created_at``, ``created_by``; upstream ``run`` (``run_id``, ``kind``, ``status``),
            ``datasets`` (as ``name@number``) and ``ancestors`` (parent first); downstream ``children`` (versions made
            from it), ``descendants`` (theirs as well, oldest first) and ``environments`` (that serve it, as stable
            version, canary or shadow). Of versions the nearest 1,000 in each direction.

        Raises:
            ModelNotFoundError: There is no such version.
        """
        return self.versions.lineage(model_id, version)
