"""Versions of models."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ml_core.api.schemas.base import Input, Schema
from ml_core.domain.notebook import version_comparison_html
from ml_core.domain.rollout import Role

Metrics = dict[str, dict[str, float | None]]
"""Split (``train``, ``validation``) → metric → value."""


class Use(Schema):
    """An environment that uses a version."""

    environment: str = Field(examples=["production"])
    role: Role


class Version(Schema):
    """An immutable version of a model."""

    model_id: str = Field(examples=["tickets"])
    version: str = Field(examples=["3"])
    model_type: str = Field(examples=["classification"])
    algorithm: str | None = Field(default=None, description="What was fitted; null for a file that was registered.")
    metrics: Metrics
    hyperparameters: dict[str, Any] = Field(description="As given to training.")
    digest: str = Field(description="sha256 of the artifact.")
    size_bytes: int
    format: str = Field(description="Of the artifact, such as `skops/2`.")
    tags: dict[str, str]
    uses: list[Use] = Field(description="The environments that use it.")
    created_at: datetime
    created_by: str
    archived_at: datetime | None = None


class Lineage(Schema):
    """Where a version came from. What is not known is null."""

    run_id: str | None = None
    dataset_digest: str | None = None
    data_digest: str | None = Field(default=None, description="sha256 of the rows and targets as the model saw them.")
    parent_version: str | None = None
    code_commit: str | None = None
    libraries: dict[str, str] = Field(default_factory=dict)


class RequiredModule(Schema):
    """A module of the operator's whose classes a version holds, as it was installed at registration."""

    module: str = Field(examples=["acme_models"])
    distribution: str | None = Field(description="Null: it was of no installed distribution, such as a script.")
    version: str | None = Field(description="Of the distribution.")


class CompiledForm(Schema):
    """The estimator as an ONNX graph, an artifact derived from that of the version."""

    digest: str = Field(description="sha256 of the graph.")
    size_bytes: int
    runtime: str = Field(description="The version of onnxruntime; with another one the original answers.")
    max_rows: int | None = Field(description="The original answers requests of more rows. Null: of none.")


class ParityProof(Schema):
    """How the compiled form was compared with scikit-learn's answers."""

    rows: int = Field(description="Rows that both answered.")
    thresholds: int = Field(description="Splits of trees that were tested at the threshold and on either side of it.")
    max_difference: float | None = Field(description="Null: not finite. Of probabilities, numbers or scores.")
    flips: int = Field(description="Rows with another label.")
    runtime: str = Field(description="The version of onnxruntime.")


class FormCost(Schema):
    """What a form costs a replica."""

    memory_bytes: int
    row_us: float = Field(description="CPU time of a request of one row, in microseconds.")
    rows_64_us: float = Field(description="The same of 64 rows.")


class Compilation(Schema):
    """Which form of the estimator answers, and why."""

    answers: str = Field(description="`compiled` or `original`.")
    reason: str
    form: CompiledForm | None
    proof: ParityProof | None
    original_cost: FormCost | None
    compiled_cost: FormCost | None


class VersionDetail(Version):
    """A version with everything that the registry knows of it."""

    signature: dict[str, Any] = Field(description="`inputs` (name, kind, nullable, categories) and `output`.")
    lineage: Lineage
    metadata: dict[str, Any] = Field(description="Notes of the caller's own, and what training recorded.")
    effective_hyperparameters: dict[str, Any] = Field(description="Of the fitted estimator, defaults filled in.")
    modules: list[RequiredModule] = Field(
        description="Those that `MLCORE_TRUSTED_MODULES` must name where the version is served."
    )
    compilation: Compilation


class VersionChanges(Input):
    """What to change of a version's notes; the version itself never changes."""

    tags: dict[str, str | None] | None = Field(
        default=None, description="Key → value; null removes the tag. Others stay."
    )
    metadata: dict[str, Any] | None = Field(default=None, description="Notes to merge into those there are.")


class NewVersion(Input):
    """What is recorded of an uploaded artifact: the part `version` of the form, beside the part `artifact`."""

    version: str | None = Field(default=None, description="Its name; null means the model's next number.")
    model_type: str | None = None
    metrics: dict[str, Any] = Field(default_factory=dict)
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    metadata: dict[str, Any] = Field(default_factory=dict)
    parent_version: str | None = None
    sample: list[dict[str, Any]] | None = Field(
        default=None,
        description="A few rows of what the model was fitted on, without the target: they show its columns.",
    )


class FullLineage(Lineage):
    """Where a version came from, and what came of it."""

    model_id: str
    version: str
    digest: str
    created_at: datetime
    created_by: str
    run: dict[str, Any] | None = Field(default=None, description="`run_id`, `kind`, `status`.")
    datasets: list[str] = Field(description="Registered datasets of these bytes, such as `tickets_2026@3`.")
    ancestors: list[str] = Field(description="The parent first; at most 1,000.")
    children: list[str] = Field(description="Oldest first; at most 1,000.")
    descendants: list[str] = Field(description="Oldest first; the nearest 1,000 at most.")
    environments: list[str]
    modules: list[RequiredModule] = Field(description="As of the version.")


class Difference(Schema):
    """A value in two versions."""

    version1: Any = None
    version2: Any = None


class MetricDifference(Schema):
    """A metric in two versions."""

    version1: float | None
    version2: float | None
    difference: float | None = Field(description="The second minus the first.")
    better: str | None = Field(description="The better version; null if equal, or the direction is not known.")


class DataComparison(Schema):
    """Whether two versions saw the same data."""

    version1: str | None
    version2: str | None
    same: bool | None = Field(description="Null: not known.")


class SignatureComparison(Schema):
    """How two signatures differ, by names of columns."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    same_output: bool


class VersionComparison(Schema):
    """Two versions of a model side by side."""

    model_id: str
    version1: str
    version2: str
    metrics: dict[str, dict[str, MetricDifference]]
    hyperparameters: dict[str, Difference] = Field(description="Those that differ.")
    libraries: dict[str, Difference] = Field(description="Those that differ.")
    data: DataComparison
    signature: SignatureComparison

    def _repr_html_(self) -> str:
        return version_comparison_html(self.model_dump())


class Metric(Schema):
    """A metric that versions have."""

    split: str = Field(examples=["validation"])
    metric: str = Field(examples=["accuracy"])
    higher_is_better: bool | None = Field(description="Null: it has no direction, or one that is not known.")


class VersionFilter(Input):
    """Which versions to list; what is left out does not restrict."""

    model_type: str | None = Field(default=None, description="Of models of this type.")
    tag: list[str] = Field(default_factory=list, description="`key=value`; with all of these.")
    metric: list[str] = Field(default_factory=list, description="Bounds, such as `accuracy>=0.8` or `train/mae<=3`.")
    text: str | None = Field(default=None, description="With this text in a name, a note or a tag.")
    name: str | None = Field(default=None, description="With this text in the version's name.")
    include_archived: bool = Field(default=False, description="Archived ones too.")
    sort: str = Field(default="created", description="`created`, or a metric such as `validation/accuracy`.")
    descending: bool | None = Field(default=None, description="Null: the newest, or the best of the metric, first.")
    limit: int = Field(default=50, ge=1, le=1000, description="At most so many items.")
    cursor: str | None = Field(default=None, description="`next_cursor` of the page before.")
