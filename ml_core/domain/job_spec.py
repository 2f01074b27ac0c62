"""What a job executes, as data: one class for each kind of job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar, Self

from ml_core.domain.document import Document
from ml_core.domain.job import JobKind
from ml_core.domain.keywords import nearest
from ml_core.domain.train_spec import TrainSpec
from ml_core.domain.tune_spec import TuneSpec
from ml_core.exceptions import InvalidRequestError, shown
from ml_core.ids import DatasetId, EnvironmentName, ModelId, VersionId

_FORMAT = 1


class OnError(StrEnum):
    """What a row does that does not fit the signature: fail the job, or have no prediction."""

    FAIL = "fail"
    NULL = "null"


@dataclass(frozen=True, slots=True)
class JobSpec(Document):
    """Base class of what a job executes.

    Attributes:
        kind: The kind of the job.
    """

    kind: ClassVar[JobKind]

    def to_json(self) -> dict[str, Any]:
        """The spec as a JSON object with its format; ``from_json`` reads it back."""
        return {"format": _FORMAT, **Document.to_json(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read a spec from a JSON object.

        Raises:
            InvalidRequestError: It is of a newer format, or a member is missing, unknown or of another type.
            MLFrameworkError: As the constructors of the members.
        """
        if not isinstance(document, Mapping):
            raise InvalidRequestError("The specification is not a JSON object.", remedy="Give an object.", field="spec")
        members = dict(document)
        if (number := members.pop("format", _FORMAT)) != _FORMAT:
            raise InvalidRequestError(
                f"The specification has the format {shown(number)}; this release reads {_FORMAT}.",
                remedy="Use the release that wrote it.",
                field="format",
            )
        own = {each.name: each for each in fields(cls)}
        for name in members:
            if name not in own:
                raise cls._invalid(f"has an unknown member {shown(name)}", nearest(name, own), str(name))
        for name, each in own.items():
            if each.default is MISSING and each.default_factory is MISSING and members.get(name) is None:
                raise cls._invalid(f"has no member {name!r}", f"Its members are: {', '.join(own)}.", name)
        return super(JobSpec, cls).from_json({name: value for name, value in members.items() if value is not None})

    @classmethod
    def _invalid(cls, what: str, remedy: str, field: str) -> InvalidRequestError:
        return InvalidRequestError(f"The specification of a job {cls.kind.value} {what}.", remedy=remedy, field=field)


@dataclass(frozen=True, slots=True)
class TrainJobSpec(JobSpec):
    """A training on a registered dataset, and what follows it.

    Attributes:
        model_id: The model; it is created with its first version.
        training: How it is trained; names a dataset.
        promote_to: The environment whose pointer moves to the new version; None: none does.
    """

    kind = JobKind.TRAIN

    model_id: ModelId
    training: TrainSpec
    promote_to: EnvironmentName | None = None

    def __post_init__(self) -> None:
        _require_dataset(self.training)


@dataclass(frozen=True, slots=True)
class TuneJobSpec(JobSpec):
    """A search for the hyperparameters of a training on a registered dataset, and what follows it.

    Attributes:
        model_id: The model; it is created with its first version.
        training: What is trained; names a dataset. Its hyperparameters are the same in all trials.
        search: How to search for the others.
        promote_to: The environment whose pointer moves to the new version; None: none does.
    """

    kind = JobKind.TUNE

    model_id: ModelId
    training: TrainSpec
    search: TuneSpec = field(default_factory=TuneSpec)
    promote_to: EnvironmentName | None = None

    def __post_init__(self) -> None:
        _require_dataset(self.training)


@dataclass(frozen=True, slots=True)
class PredictJobSpec(JobSpec):
    """The prediction of every row of a registered dataset.

    Attributes:
        model_id: The model.
        dataset: The rows, such as ``inbox@7``; without a number the newest version of the dataset.
        output: The dataset that gets the predictions as its next version.
        version: The version that predicts, whatever environments serve.
        environment: The environment whose version predicts; None: ``production``, or the newest version if that serves
            nothing.
        proba: Whether the probability of each class is a column.
        keep: Columns of the rows to repeat, such as a key.
        on_error: For ``null`` a column says why a row has no prediction.
    """

    kind = JobKind.PREDICT

    model_id: ModelId
    dataset: str
    output: DatasetId
    version: VersionId | None = None
    environment: EnvironmentName | None = None
    proba: bool = False
    keep: tuple[str, ...] = ()
    on_error: OnError = OnError.FAIL

    def __post_init__(self) -> None:
        if self.version is not None and self.environment is not None:
            raise self._invalid("has a version and an environment", "Give one of them.", "environment")


def _require_dataset(training: TrainSpec) -> None:
    if training.dataset is None:
        raise InvalidRequestError(
            "The job names no dataset.", remedy="Give the field dataset, such as tickets_2026@3.", field="dataset"
        )
