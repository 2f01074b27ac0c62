"""Intake: what becomes of a model file that a caller brings: audited, described, and drafted as a version."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ml_core.domain.columns import check_lengths
from ml_core.domain.signature import Signature
from ml_core.domain.version import Compilation, Lineage, ModelVersion, RequiredModule, SelfTest, VersionDraft
from ml_core.exceptions import ModelSaveError, RefusedArtifactError, UnsafeArtifactError
from ml_core.ids import Digest, ModelId, TenantId, VersionId
from ml_core.models import own_types


@dataclass(frozen=True, slots=True)
class Submission:
    """What a caller says of a model file, as the arguments of ``ModelRegistry.register_version``, and its tags.

    None: as known of the same bytes, or as the model describes itself.
    """

    model_id: str
    version: str | None = None
    model_type: str | None = None
    signature: Signature | None = None
    self_test: SelfTest | None = None
    lineage: Lineage | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    sample: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "model_id", ModelId(self.model_id))
        object.__setattr__(self, "version", None if self.version is None else VersionId(self.version))


def draft_of(
    submission: Submission,
    data: bytes,
    digest: Digest,
    model_type: str | None,
    twin: ModelVersion | None,
    trust: own_types.Trust,
) -> tuple[VersionDraft, bytes]:
    """The version that a skops archive becomes, and the archive to store: with a sample, of another pipeline.

    Args:
        submission: What the caller says of it.
        data: The archive.
        digest: Of the archive.
        model_type: As the caller or the registry says; None: not known.
        twin: The tenant's version with the same bytes, if there is one.
        trust: The types outside the platform's list that this process loads.

    Raises:
        RefusedArtifactError: It is not a skops archive, or holds types that are not allowed.
        DataProcessingError: The sample does not fit, or the model was never fitted or predicts several targets.
    """
    from ml_core.models.formats import skops_format
    from ml_core.registry.versions.describe import Description, describe, describe_with_sample, with_sample

    lineage, compilation = Lineage(), Compilation()
    if submission.sample is not None:
        pipeline, outside = _load(data, trust)
        pipeline, table = with_sample(pipeline, submission.sample)
        data = skops_format.dump(pipeline)
        known = describe_with_sample(pipeline, table, Digest(hashlib.sha256(data).hexdigest()), model_type)
    elif twin is not None:
        known = Description(model_type or twin.model_type, twin.signature, twin.servable.self_test)
        compilation = twin.compilation
        outside = twin.outside_types, twin.modules
        is_same_model = twin.model_id == submission.model_id
        lineage = twin.lineage if is_same_model else replace(twin.lineage, parent_version=None)
    else:
        pipeline, outside = _load(data, trust)
        known = describe(pipeline, digest, model_type)
    signature = submission.signature or known.signature
    check_lengths(column.name for column in signature.inputs)
    self_test = submission.self_test
    if self_test is None:  # a self-test of other columns than the caller's signature proves nothing
        self_test = known.self_test if submission.signature is None else SelfTest((), ())
    draft = VersionDraft(
        model_id=ModelId(submission.model_id),
        model_type=known.model_type,
        signature=signature,
        self_test=self_test,
        version=None if submission.version is None else VersionId(submission.version),
        metrics=split_metrics(submission.metrics),
        hyperparameters=submission.hyperparameters,
        metadata=submission.metadata,
        lineage=submission.lineage or lineage,
        outside_types=outside[0],
        modules=outside[1],
        tags=submission.tags,
        compilation=compilation,
    )
    return draft, data


def _load(data: bytes, trust: own_types.Trust) -> tuple[Any, tuple[tuple[str, ...], tuple[RequiredModule, ...]]]:
    """The pipeline of an archive, its types that are not on the platform's list but loaded here, and their modules.

    Raises:
        RefusedArtifactError: It holds other types, or is no skops archive.
    """
    from ml_core.models.formats import skops_format

    try:
        return skops_format.load(data), ((), ())
    except UnsafeArtifactError as error:
        types = tuple(sorted(error.attributes().get("types", ())))
        if not types or not all(name in trust for name in types):
            raise _refused(error) from error
    try:
        return skops_format.load(data, trust), (types, own_types.required_by(types))
    except UnsafeArtifactError as error:
        raise _refused(error) from error


def _refused(error: UnsafeArtifactError) -> RefusedArtifactError:
    types = error.attributes().get("types")
    return RefusedArtifactError(error.message, remedy=error.remedy, details=error.details, types=types)


def path_of(given: Any) -> Path:
    """The path of a model file.

    Raises:
        ModelSaveError: It is none, such as the model itself.
    """
    try:
        return Path(given)
    except TypeError:
        what = f"The path of the model file is a {type(given).__name__}."
        raise ModelSaveError(what, remedy="Write the model with joblib.dump, and give the file's path.") from None


def read_file(path: str | Path, tenant_id: TenantId, model_id: str) -> bytes:
    """The bytes of a model file.

    Raises:
        ModelSaveError: It can't be read.
    """
    file = path_of(path)
    try:
        return file.read_bytes()
    except OSError as error:
        raise ModelSaveError(
            "The model file can't be read.",
            internal=f"{path}: {error.strerror or error}",
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
