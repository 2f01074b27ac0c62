"""What a job executes, as data: one class for each kind of job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Self

from ml_core.domain.document import Document
from ml_core.domain.job import JobKind
from ml_core.domain.specification import Specification
from ml_core.domain.train_spec import TrainSpec
from ml_core.domain.tune_spec import TuneSpec
from ml_core.exceptions import InvalidRequestError, shown
from ml_core.ids import DatasetId, EnvironmentName, ModelId, VersionId

_FORMAT = "format"
_NEWEST = 1


class OnError(StrEnum):
    """What a row does that does not fit the signature: fail the job, or have no prediction."""

    FAIL = "fail"
    NULL = "null"


@dataclass(frozen=True, slots=True)
class JobSpec(Specification):
    """Base class of what a job executes.

    Attributes:
        kind: The kind of the job.
    """

    kind: ClassVar[JobKind]

    def to_json(self) -> dict[str, Any]:
        """The spec as a JSON object with its format; ``from_json`` reads it back."""
        return {_FORMAT: _NEWEST, **Document.to_json(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a spec from a JSON object, as ``Specification`` does.

        Raises:
            InvalidRequestError: It is of a newer format.
        """
        number = data.get(_FORMAT, _NEWEST) if isinstance(data, Mapping) else _NEWEST
        if number != _NEWEST or isinstance(number, bool):
            raise InvalidRequestError(
                f"{cls.noun} has the format {shown(number)}; this release reads {_NEWEST}.",
                remedy="Use the release that wrote it.",
                field=_FORMAT,
            )
        members = {name: data[name] for name in data if name != _FORMAT} if isinstance(data, Mapping) else data
        return super(JobSpec, cls).from_json(members)


@dataclass(frozen=True, slots=True)
class TrainJobSpec(JobSpec):
    """A training on a registered dataset, and what follows it.

    Attributes:
        model_id: The model; it is created with its first version.
        training: How it is trained; names a dataset.
        promote_to: The environment whose pointer moves to the new version; None: none does.
    """

    kind = JobKind.TRAIN
    noun = "A training job"

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
    noun = "A search job"

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
    noun = "A prediction job"

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
            raise InvalidRequestError(
                f"{self.noun} has a version and an environment.", remedy="Give one of them.", field="environment"
            )


def _require_dataset(training: TrainSpec) -> None:
    if training.dataset is None:
        raise InvalidRequestError(
            "The job names no dataset.", remedy="Give the field dataset, such as tickets_2026@3.", field="dataset"
        )
