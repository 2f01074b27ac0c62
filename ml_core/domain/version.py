"""Versions: what is recorded of an immutable, registered model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ml_core.domain.signature import Row, Signature
from ml_core.ids import Digest, ModelId, TenantId, VersionId, VersionRef

SELF_TEST_ROWS = 5
"""Enough to touch every class of a small problem and most branches of an encoder; the rows are kept in the registry."""
SELF_TEST_CHARACTERS = 300
"""Of a text in a self-test, which need not carry a whole document: the answer recorded is that to the text as cut."""
_HEADLINES = ("accuracy", "r2")


@dataclass(frozen=True, slots=True)
class SelfTest:
    """A few raw rows and what the version answered to them when it was trained.

    A replica asks a loaded version the same rows before it serves it. ``probabilities`` is empty where the model has
    none; otherwise one list a row, in the order of the signature's classes.
    """

    rows: tuple[Row, ...]
    predictions: tuple[Any, ...]
    probabilities: tuple[tuple[float, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON-compatible description; ``from_json`` reads it back."""
        return {
            "rows": [dict(row) for row in self.rows],
            "predictions": list(self.predictions),
            "probabilities": [list(row) for row in self.probabilities],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SelfTest:
        """The self-test that ``to_json`` described."""
        return cls(
            rows=tuple(data["rows"]),
            predictions=tuple(data["predictions"]),
            probabilities=tuple(tuple(row) for row in data["probabilities"]),
        )


@dataclass(frozen=True, slots=True)
class ServableVersion:
    """All that is needed to fetch, verify, load and prove a version: what the assignment carries of it."""

    ref: VersionRef
    model_type: str
    digest: Digest
    size_bytes: int
    format: str
    signature: Signature
    self_test: SelfTest


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a version came from. Every field may be unknown (None).

    Attributes:
        run_id: The run that made it.
        dataset_digest: sha256 of the registered dataset's file that it was trained on.
        parent_version: The version of the same model that it was made from.
        code_commit: Git commit of the code that trained it.
        libraries: Distribution → version.
        data_digest: sha256 of the rows and targets as the model saw them: equal for a file, a data frame and a
            registered dataset with the same content, if the same columns are used.
    """

    run_id: str | None = None
    dataset_digest: str | None = None
    parent_version: str | None = None
    code_commit: str | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)
    data_digest: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class ModelVersion:
    """A registered version with everything that the registry knows of it. Printed, it is one short line.

    Attributes:
        servable: The part that serving needs.
        metrics: Split (``train``, ``validation``) → metric → value.
        hyperparameters: As given to training, defaults not filled in.
        metadata: The caller's own notes; may change.
        lineage: Where it came from.
        created_at: When it was registered, UTC.
        created_by: Who registered it.
        archived_at: When it was hidden, or None.
        outside_types: Types in its artifact that are not on the platform's list: with one, no server loads it.
        tags: Key → value, to find it by; may change.
    """

    servable: ServableVersion
    metrics: Mapping[str, Mapping[str, float]]
    hyperparameters: Mapping[str, Any]
    metadata: Mapping[str, Any]
    lineage: Lineage
    created_at: datetime
    created_by: str
    archived_at: datetime | None = None
    outside_types: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = [str(self.servable.ref), self.servable.model_type]
        if (headline := headline_metric(self.metrics.get("validation", {}))) is not None:
            parts.append("{} {:.4g}".format(*headline))
        if self.archived_at is not None:
            parts.append("archived")
        return f"ModelVersion({', '.join(parts)})"

    @property
    def tenant_id(self) -> TenantId:
        """The tenant that owns it."""
        return self.servable.ref.tenant_id

    @property
    def model_id(self) -> ModelId:
        """The model that it is a version of."""
        return self.servable.ref.model_id

    @property
    def version(self) -> VersionId:
        """Its own name."""
        return self.servable.ref.version

    @property
    def model_type(self) -> str:
        """Such as ``classification``."""
        return self.servable.model_type

    @property
    def digest(self) -> Digest:
        """sha256 of its artifact."""
        return self.servable.digest

    @property
    def size_bytes(self) -> int:
        """Size of its artifact."""
        return self.servable.size_bytes

    @property
    def format(self) -> str:
        """Of its artifact, such as ``skops/2``."""
        return self.servable.format

    @property
    def signature(self) -> Signature:
        """What it accepts and answers."""
        return self.servable.signature

    @property
    def training(self) -> Mapping[str, Any]:
        """What training recorded of itself; empty for a model file that was registered."""
        record = self.metadata.get("training")
        return record if isinstance(record, Mapping) else {}


def headline_metric(metrics: Mapping[str, float]) -> tuple[str, float] | None:
    """The metric that people ask for first, and its value; None without one."""
    name = next((name for name in (*_HEADLINES, *metrics) if name in metrics), None)
    return None if name is None else (name, metrics[name])


@dataclass(frozen=True, slots=True)
class VersionDraft:
    """What a caller brings to register a version; the registry adds digest, size, number and time.

    Attributes:
        model_id: The model, created on first registration.
        model_type: Such as ``classification``.
        signature: What the version accepts and answers.
        self_test: What proves a loaded copy.
        version: The caller's own name for it, or None for the next number.
        outside_types: Types in its artifact that are not on the platform's list.
        tags: Key → value, to find it by.
    """

    model_id: ModelId
    model_type: str
    signature: Signature
    self_test: SelfTest
    version: VersionId | None = None
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    lineage: Lineage = field(default_factory=Lineage)
    outside_types: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """Bytes that are in the artifact store: their sha256, computed by us, their size and format."""

    digest: Digest
    size_bytes: int
    format: str
