"""Intake: a model file that somebody brings becomes a version, audited and described on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.signature import Signature
from ml_core.domain.version import Lineage, ModelVersion, SelfTest, VersionDraft
from ml_core.exceptions import ModelSaveError, UnsafeArtifactError
from ml_core.ids import Digest, ModelId, TenantId, VersionId
from ml_core.models.store import ArtifactStore
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.models import ModelRepository
from ml_core.registry.versions.publishing import Publisher
from ml_core.registry.versions.repository import VersionRepository


@dataclass(frozen=True, slots=True)
class Submission:
    """What a caller says of a model file. None: what is known of the same bytes, or what the model says of itself."""

    model_id: ModelId
    version: VersionId | None = None
    model_type: str | None = None
    signature: Signature | None = None
    self_test: SelfTest | None = None
    lineage: Lineage | None = None
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sample: Any = None


class Intake:
    """Takes model files of one tenant; on the embedded server the first file creates the tenant.

    Args:
        db: The registry.
        tenant_id: The tenant.
        store: Where the bytes go.
    """

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId, store: ArtifactStore) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._store = store

    def accept(self, submission: Submission, data: bytes, *, actor: str | None = None) -> ModelVersion:
        """Audit, describe, store and register a skops archive.

        Raises:
            TenantNotFoundError: There is no such tenant.
            UnsafeArtifactError: It is no skops archive or holds types that are not allowed.
            ModelVersionConflictError: The version exists with other bytes.
            ModelSaveError: It can't be stored, or the model is of another type or archived.
            DataProcessingError: The sample does not fit, or the model was never fitted or predicts several targets.
        """
        from ml_core.models.formats import skops_format

        TenantRepository(self._db).ensure(self._tenant_id)
        if submission.sample is None:
            known = self._known_or_described(submission, data)
        else:
            data, known = self._described_by_sample(submission, data)
        draft = VersionDraft(
            model_id=submission.model_id,
            model_type=known.model_type,
            signature=submission.signature or known.signature,
            # A self-test of other columns than the caller's signature proves nothing.
            self_test=submission.self_test or (known.self_test if submission.signature is None else SelfTest((), ())),
            version=submission.version,
            metrics=submission.metrics,
            hyperparameters=submission.hyperparameters,
            metadata=submission.metadata,
            lineage=submission.lineage or known.lineage,
            outside_types=known.outside_types,
        )
        publisher = Publisher(self._db, self._tenant_id, self._store)
        return publisher.publish(draft, data, skops_format.FORMAT, actor=actor)

    def _described_by_sample(self, submission: Submission, data: bytes) -> tuple[bytes, VersionDraft]:
        """The archive of a pipeline that takes raw rows like those of the sample, and its description."""
        from ml_core.models.formats import skops_format
        from ml_core.registry.versions.describe import describe_with_sample, with_sample

        pipeline, outside = _load(data)
        pipeline, table = with_sample(pipeline, submission.sample)
        data = skops_format.dump(pipeline)
        found = describe_with_sample(pipeline, table, _digest(data), self._model_type(submission))
        draft = VersionDraft(
            submission.model_id, found.model_type, found.signature, found.self_test, outside_types=outside
        )
        return data, draft

    def _model_type(self, submission: Submission) -> str | None:
        return submission.model_type or ModelRepository(self._db, self._tenant_id).model_type(submission.model_id)

    def _known_or_described(self, submission: Submission, data: bytes) -> VersionDraft:
        from ml_core.registry.versions.describe import describe

        kind = self._model_type(submission)
        digest = _digest(data)
        twin = VersionRepository(self._db, self._tenant_id).find_by_digest(digest)
        if twin is not None:
            is_same_model = twin.model_id == submission.model_id
            parent = twin.lineage.parent_version if is_same_model else None
            lineage = replace(twin.lineage, parent_version=parent)
            proof = twin.servable
            return VersionDraft(
                submission.model_id,
                kind or proof.model_type,
                proof.signature,
                proof.self_test,
                lineage=lineage,
                outside_types=twin.outside_types,
            )
        pipeline, outside = _load(data)
        found = describe(pipeline, digest, kind)
        return VersionDraft(
            submission.model_id, found.model_type, found.signature, found.self_test, outside_types=outside
        )


def _digest(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def _load(data: bytes) -> tuple[Any, tuple[str, ...]]:
    """The pipeline of an archive, and its types that are not on the platform's list but this process vouches for.

    Raises:
        UnsafeArtifactError: It holds other types, or is no skops archive.
    """
    from ml_core.models.formats import skops_format
    from ml_core.models.own_types import known

    try:
        return skops_format.load(data), ()
    except UnsafeArtifactError as error:
        outside = tuple(sorted(error.attributes().get("types", ())))
        if not outside or not known():
            raise
    return skops_format.load(data, own_types=known()), outside


def read_file(path: str | Path, tenant_id: TenantId, model_id: ModelId) -> bytes:
    """The bytes of a model file.

    Raises:
        ModelSaveError: It can't be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ModelSaveError(
            f"The model file {path} can't be read: {error.strerror or error}.",
            remedy="Give the path of a .skops file.",
            tenant_id=tenant_id,
            model_id=model_id,
        ) from error


def split_metrics(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Metrics by split; those given flat are taken for the validation rows."""
    flat = {name: value for name, value in metrics.items() if not isinstance(value, Mapping)}
    nested = {name: dict(value) for name, value in metrics.items() if isinstance(value, Mapping)}
    if flat:
        nested["validation"] = {**flat, **nested.get("validation", {})}
    return nested
