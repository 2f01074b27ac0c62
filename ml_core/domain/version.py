"""Versions: the record of an immutable, registered model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson

from ml_core.domain.document import Document
from ml_core.domain.notebook import fields_of, record_html
from ml_core.domain.rollout import Use
from ml_core.domain.signature import InputColumn, Row, Signature
from ml_core.domain.train_spec import TRAINING_RECORD
from ml_core.exceptions import MLFrameworkError, ModelLoadError
from ml_core.ids import Digest, ModelId, TenantId, VersionId, VersionRef

SELF_TEST_ROWS = 5
"""Rows in a self-test: enough for the classes of a small problem and for most branches of an encoder."""
SELF_TEST_CHARACTERS = 300
"""Maximum length of a text in a self-test. The recorded prediction is that for the truncated text."""
_HEADLINES = ("accuracy", "r2")


@dataclass(frozen=True, slots=True)
class SelfTest(Document):
    """Raw rows and the version's predictions for them in training; a replica repeats them before it serves the version.

    ``probabilities`` has one list per row, in the order of the signature's classes; empty if the model has none.
    """

    rows: tuple[Row, ...]
    predictions: tuple[Any, ...]
    probabilities: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class RequiredModule(Document):
    """A module with types of an artifact that are not on the platform's list.

    ``distribution`` and ``version`` are of the installed distribution that it was of when the artifact was registered;
    None: it was of none, such as a script.
    """

    module: str
    distribution: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return self.module if self.distribution is None else f"{self.module} of {self.distribution} {self.version}"


@dataclass(frozen=True, slots=True)
class CompiledForm(Document):
    """The estimator of a version as an ONNX graph: an artifact of the same tenant, derived from the version's own.

    Attributes:
        runtime: The version of onnxruntime with which it was proved; no other one runs it.
        max_rows: It answers requests of at most so many rows, as it was measured to be slower with more. None: of any.
    """

    digest: Digest
    size_bytes: int
    runtime: str
    max_rows: int | None = None


@dataclass(frozen=True, slots=True)
class ParityProof(Document):
    """How the compiled form was compared with scikit-learn's answers.

    Attributes:
        rows: Rows that both answered: held-out ones, those with missing, unseen and extreme values, and those below.
        thresholds: Splits of trees that were tested, each with a row at the threshold and one an ulp on either side.
        max_difference: The largest absolute difference of probabilities, values or scores; None: it was not finite.
        flips: Rows with another label.
        runtime: The version of onnxruntime.
    """

    rows: int
    thresholds: int
    max_difference: float | None
    flips: int
    runtime: str


@dataclass(frozen=True, slots=True)
class FormCost(Document):
    """What a form costs a replica: bytes in memory, and microseconds of CPU time for requests of 1 and of 64 rows."""

    memory_bytes: int
    row_us: float
    rows_64_us: float


@dataclass(frozen=True, slots=True)
class Compilation(Document):
    """Which form of the estimator answers, and why, as decided when the version was registered.

    Attributes:
        reason: Why, in a sentence.
        form: The compiled form, if that one answers.
        proof: Of the compiled form, if there was one.
        original_cost: What the original was measured to cost; None if nothing was compiled.
        compiled_cost: The same of the compiled form.
    """

    reason: str = "It was not trained by this platform."
    form: CompiledForm | None = None
    proof: ParityProof | None = None
    original_cost: FormCost | None = None
    compiled_cost: FormCost | None = None

    @property
    def answers(self) -> str:
        """The form that answers: ``compiled`` or ``original``."""
        return "original" if self.form is None else "compiled"


@dataclass(frozen=True, slots=True)
class ServableVersion:
    """The part of a version that the assignment carries: enough to fetch, verify, load and self-test it."""

    ref: VersionRef
    model_type: str
    digest: Digest
    size_bytes: int
    format: str
    signature: Signature
    self_test: SelfTest
    modules: tuple[RequiredModule, ...] = ()
    compiled: CompiledForm | None = None

    @property
    def long_bytes(self) -> int:
        """See ``long_bytes``; 0 of a version that was not read for a cell."""
        return 0

    def opened(self) -> ServableVersion:
        """The version with its signature at hand."""
        return self


# What reading a document raises that no release of the platform wrote, or a later one did.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, MLFrameworkError)


SHARED_BYTES = 16_384
"""Of a document: larger ones, which may have megabytes, are not kept to be shared between versions."""


def long_bytes(*documents: str | None) -> int:
    """Of the texts of a version's documents what is beyond ``SHARED_BYTES``: of a usual version nothing.

    Replicas keep them as long as a pointer names the version, so they are bounded for each tenant.
    """
    texts = [*filter(None, documents)]
    if sum(map(len, texts)) <= SHARED_BYTES // 4:  # of nearly all versions; no character takes more bytes in UTF-8
        return 0
    return max(0, sum(len(text.encode()) for text in texts) - SHARED_BYTES)


class PackedVersion(ServableVersion):
    """A version whose signature and self-test are JSON text, a quarter of the size of the values.

    Each access to one of them reads its text, which takes 0.1 ms; ``opened`` keeps the signature.

    Args:
        named: ``ref``, ``model_type``, ``digest``, ``size_bytes`` and ``format`` of ``ServableVersion``.
        signature: The JSON text of the signature, UTF-8.
        self_test: The JSON text of the self-test, UTF-8.
        modules: As of ``ServableVersion``.
        compiled: As of ``ServableVersion``.
        long_bytes: See ``long_bytes``.
    """

    __slots__ = ("_self_test_text", "_signature_text", "long_bytes")
    _signature_text: bytes
    _self_test_text: bytes
    long_bytes: int

    def __init__(
        self,
        named: tuple[VersionRef, str, Digest, int, str],
        signature: bytes,
        self_test: bytes,
        modules: tuple[RequiredModule, ...] = (),
        compiled: CompiledForm | None = None,
        long_bytes: int = 0,
    ) -> None:
        # The slots of the two documents stay empty, so that ``__getattr__`` is asked for them.
        for name, value in zip(("ref", "model_type", "digest", "size_bytes", "format"), named, strict=True):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "modules", modules)
        object.__setattr__(self, "compiled", compiled)
        object.__setattr__(self, "_signature_text", signature)
        object.__setattr__(self, "_self_test_text", self_test)
        object.__setattr__(self, "long_bytes", long_bytes)

    def __getattr__(self, name: str) -> Any:
        if name == "signature":
            return self._read(read_signature, self._signature_text)
        if name == "self_test":
            return self._read(_self_test, self._self_test_text)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _read(self, read: Callable[[bytes], Any], text: bytes) -> Any:
        try:
            return read(text)
        except UNREADABLE as error:
            raise ModelLoadError(
                f"What the registry says of {self.ref} can't be read.",
                internal=f"{type(error).__name__}: {error}",
                remedy="Use another version, or train and register the model again.",
                **self.ref.attributes,
            ) from error

    def opened(self) -> ServableVersion:
        """A copy that keeps its signature, for a model that is loaded.

        Raises:
            ModelLoadError: A document can't be read.
        """
        named = (self.ref, self.model_type, self.digest, self.size_bytes, self.format)
        texts = (self._signature_text, self._self_test_text)
        opened = PackedVersion(named, *texts, self.modules, self.compiled, self.long_bytes)
        object.__setattr__(opened, "signature", self.signature)
        return opened

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServableVersion):
            return NotImplemented
        if isinstance(other, PackedVersion):
            return all(getattr(self, name) == getattr(other, name) for name in _PACKED)
        return all(getattr(self, each.name) == getattr(other, each.name) for each in fields(ServableVersion))

    def __hash__(self) -> int:
        return hash((self.ref, self.digest))

    def __repr__(self) -> str:
        return f"PackedVersion({self.ref})"

    def __reduce__(self) -> tuple[Any, ...]:
        values = (getattr(self, each.name) for each in fields(ServableVersion))
        return ServableVersion, tuple(values)


_PACKED = ("ref", "model_type", "digest", "size_bytes", "format", "modules", "compiled", *PackedVersion.__slots__)


def read_signature(text: bytes | str) -> Signature:
    """A signature from its JSON text. Versions that were trained on the same columns share the value."""
    return _signature(text) if len(text) <= SHARED_BYTES else Signature.from_json(orjson.loads(text))


@lru_cache(maxsize=256)
def _signature(text: bytes | str) -> Signature:
    signature = Signature.from_json(orjson.loads(text))
    return dataclasses.replace(signature, inputs=tuple(map(_shared, signature.inputs)))


@lru_cache(maxsize=4096)  # of the models of many tenants, most columns are equal
def _shared(column: InputColumn) -> InputColumn:
    return column


def _self_test(text: bytes) -> SelfTest:
    return SelfTest.from_json(orjson.loads(text))


@dataclass(frozen=True, slots=True)
class Lineage:
    """The origin of a version. Every field may be unknown (None).

    Attributes:
        dataset_digest: sha256 of the file of the registered dataset that it was trained on.
        parent_version: The version of the same model from which it is derived.
        code_commit: The git commit of the training code.
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
    """A registered version with all its recorded fields.

    Attributes:
        servable: The part that serving needs.
        metrics: Split (``train``, ``validation``) → metric → value.
        hyperparameters: The hyperparameters that the caller gave, without defaults.
        metadata: The caller's metadata; may change.
        created_at: When it was registered, UTC.
        created_by: Who registered it.
        archived_at: When it was archived, or None.
        outside_types: Types in its artifact outside the allow-list; a server loads them if it trusts ``modules``.
        tags: Key → value, for searches; may change.
        uses: The environments that use it, by name; may change.
        compilation: Which form of its estimator answers, and why.
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
    uses: Sequence[Use] = ()
    compilation: Compilation = Compilation()

    def __repr__(self) -> str:
        return _in_a_line(self, str(self.servable.ref))

    def _repr_html_(self) -> str:
        return record_html(str(self.servable.ref), self.shown_fields())

    def shown_fields(self) -> dict[str, Any]:
        """The fields of ``VersionSummary``, without larger documents."""
        return {field.name: getattr(self, field.name) for field in fields(VersionSummary)}

    @property
    def tenant_id(self) -> TenantId:
        """The tenant that owns it."""
        return self.servable.ref.tenant_id

    @property
    def model_id(self) -> ModelId:
        """The model."""
        return self.servable.ref.model_id

    @property
    def version(self) -> VersionId:
        """The name of the version."""
        return self.servable.ref.version

    @property
    def model_type(self) -> str:
        """The model type, such as ``classification``."""
        return self.servable.model_type

    @property
    def digest(self) -> Digest:
        """sha256 of the artifact."""
        return self.servable.digest

    @property
    def size_bytes(self) -> int:
        """Size of the artifact."""
        return self.servable.size_bytes

    @property
    def format(self) -> str:
        """Format of the artifact, such as ``skops/2``."""
        return self.servable.format

    @property
    def signature(self) -> Signature:
        """The input columns and the output."""
        return self.servable.signature

    @property
    def modules(self) -> tuple[RequiredModule, ...]:
        """The modules of ``outside_types``."""
        return self.servable.modules

    @property
    def training(self) -> Mapping[str, Any]:
        """What training recorded of itself; empty for a model file that was registered."""
        record = self.metadata.get(TRAINING_RECORD)
        return record if isinstance(record, Mapping) else {}  # a caller of the database may have stored anything

    @property
    def algorithm(self) -> str | None:
        """What was fitted; None for a model file that was registered."""
        return self.training.get("algorithm")


@dataclass(frozen=True, slots=True, repr=False)
class VersionSummary:
    """What a search returns of a version: the attributes of ``ModelVersion`` without its larger documents."""

    model_id: ModelId
    version: VersionId
    model_type: str
    algorithm: str | None
    digest: Digest
    size_bytes: int
    format: str
    metrics: Mapping[str, Mapping[str, float]]
    hyperparameters: Mapping[str, Any]
    tags: Mapping[str, str]
    uses: Sequence[Use]
    created_at: datetime
    created_by: str
    archived_at: datetime | None

    def __repr__(self) -> str:
        return _in_a_line(self, f"{self.model_id}@{self.version}")

    def _repr_html_(self) -> str:
        return record_html(f"{self.model_id} {self.version}", fields_of(self))


def _in_a_line(version: ModelVersion | VersionSummary, name: str) -> str:
    parts = [name, version.model_type]
    if (headline := headline_metric(version.metrics.get("validation", {}))) is not None:
        parts.append("{} {:.4g}".format(*headline))
    if version.archived_at is not None:
        parts.append("archived")
    return f"{type(version).__name__}({', '.join(parts)})"


def headline_metric(metrics: Mapping[str, float]) -> tuple[str, float] | None:
    """The metric to show first, and its value; None if there are no metrics."""
    name = next((name for name in (*_HEADLINES, *metrics) if name in metrics), None)
    return None if name is None else (name, metrics[name])


@dataclass(frozen=True, slots=True)
class VersionDraft:
    """A version to register; the registry adds digest, size, number and time.

    Attributes:
        model_id: The model; the first registration creates it.
        version: The name of the version; None: the next number.
        outside_types: Types in its artifact outside the allow-list.
        modules: The modules of ``outside_types``.
        tags: Key → value, for searches.
        compilation: Which form of its estimator answers, and why; the bytes of a compiled form are in the store.
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
    modules: tuple[RequiredModule, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    compilation: Compilation = Compilation()


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact in the store: its sha256, computed by the platform, its size and its format."""

    digest: Digest
    size_bytes: int
    format: str
