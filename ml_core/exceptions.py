"""The error tree of ML Core.

::

    MLFrameworkError                    message, remedy, action, internal, tenant_id, details
    ├── TrainingError                   model_id, stage
    ├── PredictionError                 model_id, version
    │   ├── SignatureMismatchError      row, column
    │   ├── QueueFullError              retry_after_s
    │   ├── DeadlineExceededError       deadline_ms
    │   └── ModelNotReadyError          retry_after_s
    ├── ModelLoadError                  model_id, version, digest
    │   ├── ArtifactIntegrityError
    │   └── UnsafeArtifactError         types
    │       └── RefusedArtifactError
    ├── ModelSaveError                  model_id, version
    │   ├── StorageFullError
    │   ├── ModelVersionConflictError
    │   └── VersionInUseError           used_by
    ├── DataProcessingError             column, stage
    ├── ModelNotFoundError              model_id, version
    ├── DatasetNotFoundError            dataset_id, number
    ├── DatasetInUseError               dataset_id, number, used_by
    ├── TenantNotFoundError
    ├── TenantExistsError
    ├── PromotionConflictError          model_id, environment, expected_generation, actual_generation, moved_by
    ├── InvalidTransitionError          model_id, environment, phase, trigger
    ├── PromotionRefusedError           model_id, version, environment, gates
    ├── RunNotFoundError                run_id
    ├── RunStateError                   run_id, status, trigger
    ├── RunInUseError                   run_id, used_by
    ├── ExperimentNotFoundError         experiment
    ├── ExperimentExistsError           experiment
    ├── JobNotFoundError                job_id
    ├── JobStateError                   job_id, state, trigger
    ├── QuotaExceededError              quota, limit, left, retry_after_s
    ├── ScheduleNotFoundError           schedule
    ├── ScheduleExistsError             schedule
    ├── InvalidNameError                kind, value
    ├── InvalidRequestError             field
    │   ├── UnsupportedEncodingError
    │   └── KeyNotFoundError
    ├── RequestTooLargeError            limit, actual
    ├── RequestTimeoutError             deadline_ms
    ├── IdempotencyConflictError        key
    ├── AuthenticationError
    ├── PermissionDeniedError           scope
    ├── RegistryUnavailableError
    ├── IssuerUnavailableError           retry_after_s
    ├── SchemaOutOfDateError            current, wanted
    ├── ConfigurationError              setting
    └── PlatformError                   component
        └── ClusterUnavailableError

The attributes of an error say what happened, ``remedy`` says what to do, and ``action`` names the operation that does
it. ``internal`` has what only the operator of the platform may see: paths, hosts, buckets, texts of unknown exceptions.
``STATUS`` maps errors to HTTP statuses. Errors can be pickled, because Ray passes them between processes.
"""

from __future__ import annotations

import copy
import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar, Self

# Bounds the cost of a caller's value in a message, also of a deeply nested one.
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3

_REPORT = "Report the id of the request or run to the operator of the platform, whose log has the cause."
# The text of such an exception is about data or arguments, unless it names a place: a path, a URL.
_ABOUT_DATA = (ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError)
_MAX_TEXT = 1_000
_PLACE = re.compile(r"(?<![\w.])(/[\w.+-]+){2,}|\w://")


@dataclass(frozen=True, slots=True)
class Action:
    """An operation that corrects an error. The CLI prints it as a command, the console as a link.

    Attributes:
        operation: The operation id in the OpenAPI document, such as ``keys.create``, or a local verb of the CLI, such
            as ``db.upgrade``.
        arguments: Parameter → JSON-compatible value. The user supplies parameters that are absent.
    """

    operation: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, operation: str, **arguments: Any) -> Self:
        """Create an action from keyword arguments; those that are None are omitted."""
        return cls(operation, {name: value for name, value in arguments.items() if value is not None})

    def to_json(self) -> dict[str, Any]:
        """The JSON form in an error response."""
        return {"operation": self.operation, "arguments": dict(self.arguments)}


class MLFrameworkError(Exception):
    """Base class of the errors of ML Core.

    Args:
        message: What happened, in one sentence.
        remedy: What the user can do, as a sentence; ``str()`` appends it to the message.
        action: The operation that does it, if there is one.
        internal: The part of the cause that only the operator may see, as a clause that follows the message. The remedy
            and the action are for the operator then, too.
        tenant_id: The tenant concerned, if any.
        details: Further JSON-compatible facts.
        **attributes: The attributes that the class lists in ``fields``; the others are None.

    Raises:
        TypeError: An attribute is not in ``fields``.
    """

    code: ClassVar[str] = "internal"
    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        message: str,
        *,
        remedy: str | None = None,
        action: Action | None = None,
        internal: str | None = None,
        tenant_id: str | None = None,
        details: Mapping[str, Any] | None = None,
        **attributes: Any,
    ) -> None:
        unknown = attributes.keys() - set(self.fields)
        if unknown:
            raise TypeError(f"{type(self).__name__} has no attribute {', '.join(sorted(unknown))}")
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.action = action
        self.internal = internal
        self.tenant_id = tenant_id
        self.details: dict[str, Any] = dict(details or {})
        for name in self.fields:
            setattr(self, name, attributes.get(name))

    def __str__(self) -> str:
        return f"{self.cause} {self.remedy}" if self.remedy else self.cause

    @property
    def cause(self) -> str:
        """The message with its internal part, without the remedy. For operators and logs."""
        return self.message if self.internal is None else f"{self.message.rstrip('.')}: {self.internal.rstrip('.')}."

    def public(self) -> Self:
        """The error as a tenant may see it: this one, or a copy without the internal part and what goes with it."""
        if self.internal is None:
            return self
        public = copy.copy(self)
        remedy = f"Try again in a moment. {_REPORT}" if isinstance(self, RegistryUnavailableError) else _REPORT
        public.internal, public.action, public.remedy = None, None, remedy
        return public

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own would pass the message only and lose the keyword arguments.
        return _rebuild, (type(self), self.message, self.__dict__)

    def attributes(self) -> dict[str, Any]:
        """The attributes of the class that are set, and ``details``; JSON-compatible."""
        own = {name: getattr(self, name) for name in self.fields if getattr(self, name) is not None}
        return {**own, **self.details}

    def to_json(self) -> dict[str, Any]:
        """The fields of an error response, and the internal part, if any; ``error_from_json`` reads it back."""
        document = {"code": self.code, "message": str(self), "details": self.attributes()}
        if self.action is not None:
            document["action"] = self.action.to_json()
        if self.internal is not None:  # the remedy goes with it, see ``public``
            internal = f"{self.internal.rstrip('.')}. {self.remedy or ''}".rstrip()
            document |= {"message": self.message, "internal": internal}
        return document

    @classmethod
    def wrap(cls, cause: BaseException, message: str, **attributes: Any) -> Self:
        """Create this error for another exception, with its type and text. Use with ``raise … from``.

        They are in the message if the text is about data, such as most of scikit-learn's, and else internal.
        """
        text = f"{type(cause).__name__}: {_text(cause)}"
        if is_public(cause):
            return cls(f"{message}: {text.rstrip('.')}.", **attributes)
        return cls(f"{message}.", internal=text, **attributes)


def public_text(error: BaseException) -> str:
    """Type and text of an exception as a tenant may see them."""
    name = type(error).__name__
    if isinstance(error, MLFrameworkError):
        return f"{name}: {error.public()}"
    return f"{name}: {_text(error)}" if is_public(error) else f"{name}. {_REPORT}"


def is_public(error: BaseException) -> bool:
    """Whether a tenant may see the text of an exception as it is."""
    if isinstance(error, MLFrameworkError):
        return error.internal is None
    return isinstance(error, _ABOUT_DATA) and not _PLACE.search(_text(error))


def _text(error: BaseException) -> str:
    """The text of an exception, which code of a tenant may have raised: bounded, and its ``__str__`` may fail."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - reporting an error must not raise another
        return "it has no text"
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def shown(value: object, width: int = 40) -> str:
    """Format a caller's value for a message: its ``repr``, truncated to ``width`` characters, at a bounded cost."""
    try:
        text = repr(value[:width]) if isinstance(value, str | bytes) else _SHORT.repr(value)
    except ValueError:  # an integer with more digits than Python prints
        text = f"<{type(value).__name__}>"
    is_whole = len(text) <= width and not (isinstance(value, str | bytes) and len(value) > width)
    return text if is_whole else f"{text[: width - 3]}…"


def listed(values: Iterable[object], most: int = 20) -> str:
    """Format values for a message, separated by commas; an ellipsis replaces those after the first ``most``."""
    texts = [str(value) for value in islice(values, most + 1)]
    return ", ".join(texts if len(texts) <= most else [*texts[:most], "…"])


def did_you_mean(wanted: str, known: Iterable[str]) -> str:
    """``Did you mean tickets? `` with a space at its end; nothing if no known name is near or begins like it."""
    names = [str(name) for name in known]
    start = wanted.casefold()
    close = difflib.get_close_matches(wanted, names, n=1) or [n for n in names if n.casefold().startswith(start)]
    return f"Did you mean {close[0]}? " if close else ""


def _rebuild(cls: type[MLFrameworkError], message: str, state: dict[str, Any]) -> MLFrameworkError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class TrainingError(MLFrameworkError):
    """Training could not start or finish. ``stage`` is ``validate``, ``fit``, ``evaluate`` or ``register``."""

    code = "training_failed"
    fields = ("model_id", "stage", "column")


class PredictionError(MLFrameworkError):
    """A loaded model failed to predict."""

    code = "prediction_failed"
    fields: ClassVar[tuple[str, ...]] = ("model_id", "version")


class SignatureMismatchError(PredictionError):
    """A row does not fit the signature; ``row`` counts from 0."""

    code = "signature_mismatch"
    fields = (*PredictionError.fields, "row", "column")


class QueueFullError(PredictionError):
    """The queue of the model is full; try again after ``retry_after_s`` seconds."""

    code = "queue_full"
    fields = (*PredictionError.fields, "retry_after_s")


class DeadlineExceededError(PredictionError):
    """The request was not answered within its deadline."""

    code = "deadline_exceeded"
    fields = (*PredictionError.fields, "deadline_ms")


class ModelNotReadyError(PredictionError):
    """The model is not loaded yet; try again after ``retry_after_s`` seconds."""

    code = "not_ready"
    fields = (*PredictionError.fields, "retry_after_s")


class ModelLoadError(MLFrameworkError):
    """The artifact of a version could not be loaded as a model."""

    code = "model_load_failed"
    fields: ClassVar[tuple[str, ...]] = ("model_id", "version", "digest")


class ArtifactIntegrityError(ModelLoadError):
    """The artifact is missing or does not have the recorded digest."""

    code = "artifact_corrupt"


class UnsafeArtifactError(ModelLoadError):
    """The artifact is of an unsafe format or contains types outside the platform's allow-list."""

    code = "artifact_unsafe"
    fields = (*ModelLoadError.fields, "types")


class RefusedArtifactError(UnsafeArtifactError):
    """An artifact that a caller sent to be registered is unsafe."""


class ModelSaveError(MLFrameworkError):
    """The artifact or row of a version could not be stored; nothing was stored in part."""

    code = "model_save_failed"
    fields: ClassVar[tuple[str, ...]] = ("model_id", "version")


class StorageFullError(ModelSaveError):
    """The disk is full; nothing was stored."""

    code = "storage_full"


class ModelVersionConflictError(ModelSaveError):
    """The version exists with another artifact; versions are immutable."""

    code = "version_conflict"


class VersionInUseError(ModelSaveError):
    """The version can't be deleted or archived: ``used_by`` lists the environments or versions that need it."""

    code = "version_in_use"
    fields = (*ModelSaveError.fields, "used_by")


class DataProcessingError(MLFrameworkError):
    """Data could not be read, cleaned or encoded."""

    code = "data_processing_failed"
    fields = ("column", "stage")


class ModelNotFoundError(MLFrameworkError):
    """The tenant has no such model, version or promoted environment."""

    code = "not_found"
    fields = ("model_id", "version")


class DatasetNotFoundError(MLFrameworkError):
    """The tenant has no such dataset or version of it."""

    code = "not_found"
    fields = ("dataset_id", "number")


class DatasetInUseError(MLFrameworkError):
    """The dataset version can't be deleted: ``used_by`` lists the model versions or gates that need it."""

    code = "dataset_in_use"
    fields = ("dataset_id", "number", "used_by")


class TenantNotFoundError(MLFrameworkError):
    """The tenant does not exist, or the caller has no access to it."""

    code = "not_found"


class TenantExistsError(MLFrameworkError):
    """The tenant exists already."""

    code = "tenant_exists"


class PromotionConflictError(MLFrameworkError):
    """Another move changed the pointer first."""

    code = "promotion_conflict"
    fields = (
        "model_id",
        "environment",
        "expected_generation",
        "actual_generation",
        "moved_by",
    )


class PromotionRefusedError(MLFrameworkError):
    """A gate failed; ``gates`` has the result of each gate, see ``ml_core.domain.gates.GateResult``."""

    code = "promotion_refused"
    fields = ("model_id", "version", "environment", "gates")


class InvalidTransitionError(MLFrameworkError):
    """The state of an environment (``phase``) does not permit the change (``trigger``)."""

    code = "invalid_transition"
    fields = ("model_id", "environment", "phase", "trigger")


class RunNotFoundError(MLFrameworkError):
    """The tenant has no such run, or the run has no such series or file."""

    code = "not_found"
    fields = ("run_id",)


class RunStateError(MLFrameworkError):
    """The state of the run (``status``) does not permit the change (``trigger``)."""

    code = "run_state"
    fields = ("run_id", "status", "trigger")


class RunInUseError(MLFrameworkError):
    """The run can't be deleted: ``used_by`` lists its versions or its child runs."""

    code = "run_in_use"
    fields = ("run_id", "used_by")


class ExperimentNotFoundError(MLFrameworkError):
    """The tenant has no such experiment."""

    code = "not_found"
    fields = ("experiment",)


class ExperimentExistsError(MLFrameworkError):
    """The tenant has an experiment of this name."""

    code = "experiment_exists"
    fields = ("experiment",)


class JobNotFoundError(MLFrameworkError):
    """The tenant has no such job."""

    code = "not_found"
    fields = ("job_id",)


class JobStateError(MLFrameworkError):
    """The state of the job (``state``) does not permit the change (``trigger``)."""

    code = "job_state"
    fields = ("job_id", "state", "trigger")


class QuotaExceededError(MLFrameworkError):
    """A quota of the tenant (``quota``) does not permit the job or request: ``limit``, of which ``left`` is left.

    A prediction that is asked for again after ``retry_after_s`` seconds is within its quota.
    """

    code = "quota_exceeded"
    fields = ("quota", "limit", "left", "retry_after_s")


class ScheduleNotFoundError(MLFrameworkError):
    """The tenant has no such schedule."""

    code = "not_found"
    fields = ("schedule",)


class ScheduleExistsError(MLFrameworkError):
    """The tenant has a schedule of this name."""

    code = "schedule_exists"
    fields = ("schedule",)


class InvalidNameError(MLFrameworkError):
    """A name does not match its grammar; ``kind`` is the kind of name (tenant, model, version, …)."""

    code = "invalid_name"
    fields = ("kind", "value")


class InvalidRequestError(MLFrameworkError):
    """A request is malformed; ``field`` is the path of the invalid field."""

    code = "invalid_request"
    fields = ("field",)


class UnsupportedEncodingError(InvalidRequestError):
    """The encoding of a body is not supported."""

    code = "unsupported_encoding"


class KeyNotFoundError(InvalidRequestError):
    """The tenant has no such API key."""

    code = "not_found"


class RequestTooLargeError(MLFrameworkError):
    """A request exceeds a limit of rows or bytes."""

    code = "too_large"
    fields = ("limit", "actual")


class RequestTimeoutError(MLFrameworkError):
    """The client did not send its request's body in time."""

    code = "request_timeout"
    fields = ("deadline_ms",)


class IdempotencyConflictError(MLFrameworkError):
    """The idempotency key belongs to another request, or the request with that key is still running."""

    code = "idempotency_conflict"
    fields = ("key",)


class AuthenticationError(MLFrameworkError):
    """The key or token is missing, malformed, unknown, expired or revoked."""

    code = "unauthenticated"


class PermissionDeniedError(MLFrameworkError):
    """The key or token is valid but lacks ``scope``."""

    code = "permission_denied"
    fields = ("scope",)


class RegistryUnavailableError(MLFrameworkError):
    """PostgreSQL can't be reached or refused the connection."""

    code = "registry_unavailable"


class IssuerUnavailableError(MLFrameworkError):
    """The token can't be verified because the keys of the issuer can't be read; try again after ``retry_after_s``."""

    code = "issuer_unavailable"
    fields = ("retry_after_s",)


class SchemaOutOfDateError(MLFrameworkError):
    """The schema of the database is not that of this release."""

    code = "schema_out_of_date"
    fields = ("current", "wanted")


class ConfigurationError(MLFrameworkError):
    """A setting has an invalid value."""

    code = "bad_configuration"
    fields = ("setting",)


class PlatformError(MLFrameworkError):
    """The local platform could not start, stop or be reached."""

    code = "platform_failed"
    fields = ("component",)


class ClusterUnavailableError(PlatformError):
    """The Ray cluster does not answer, or lost the work; it may go on later."""

    code = "cluster_unavailable"


STATUS: dict[type[MLFrameworkError], int] = {
    InvalidRequestError: 400,
    InvalidNameError: 400,
    AuthenticationError: 401,
    PermissionDeniedError: 403,
    TenantNotFoundError: 404,
    ModelNotFoundError: 404,
    DatasetNotFoundError: 404,
    RunNotFoundError: 404,
    ExperimentNotFoundError: 404,
    JobNotFoundError: 404,
    KeyNotFoundError: 404,
    ScheduleNotFoundError: 404,
    ScheduleExistsError: 409,
    TenantExistsError: 409,
    RunStateError: 409,
    RunInUseError: 409,
    ExperimentExistsError: 409,
    JobStateError: 409,
    PromotionConflictError: 409,
    InvalidTransitionError: 409,
    PromotionRefusedError: 409,
    ModelVersionConflictError: 409,
    VersionInUseError: 409,
    DatasetInUseError: 409,
    IdempotencyConflictError: 409,
    RequestTimeoutError: 408,
    RequestTooLargeError: 413,
    UnsupportedEncodingError: 415,
    DataProcessingError: 422,
    TrainingError: 422,
    # The version passed its self-test when it was loaded, so the rows of the request are the cause.
    PredictionError: 422,
    QueueFullError: 429,
    QuotaExceededError: 429,
    RefusedArtifactError: 422,
    ModelLoadError: 503,
    ModelNotReadyError: 503,
    RegistryUnavailableError: 503,
    IssuerUnavailableError: 503,
    SchemaOutOfDateError: 503,
    ClusterUnavailableError: 503,
    DeadlineExceededError: 504,
    StorageFullError: 507,
    ModelSaveError: 500,
    ConfigurationError: 500,
    PlatformError: 500,
    MLFrameworkError: 500,
}
"""Error class → HTTP status; a class that is not listed has that of its nearest base class."""


def status_of(error: MLFrameworkError) -> int:
    """The HTTP status of an error."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def is_unavailable(error: MLFrameworkError) -> bool:
    """Whether the same may succeed later, since something that it needs is away."""
    return status_of(error) == 503


def error_from_json(document: Mapping[str, Any]) -> MLFrameworkError:
    """The error that ``MLFrameworkError.to_json`` described; the base class for an unknown code.

    Raises:
        KeyError, TypeError: The document does not describe an error.
    """
    details, action = dict(document.get("details") or {}), document.get("action")
    kinds = [kind for kind in _subclasses(MLFrameworkError) if kind.code == document["code"]]
    # Classes may share a code, such as not_found: the attributes tell them apart, and a tenant has none.
    kind = next((kind for kind in kinds if set(kind.fields[:1]) & details.keys()), None)
    kind = kind or next((kind for kind in kinds if not kind.fields), kinds[0] if kinds else MLFrameworkError)
    own = {name: details.pop(name) for name in kind.fields if name in details}
    mending = None if action is None else Action(action["operation"], action["arguments"])
    error = kind(document["message"], action=mending, internal=document.get("internal"), details=details, **own)
    if not kinds:
        error.__dict__["code"] = document["code"]
    return error


def _subclasses(cls: type[MLFrameworkError]) -> list[type[MLFrameworkError]]:
    return [found for child in cls.__subclasses__() for found in (child, *_subclasses(child))]
