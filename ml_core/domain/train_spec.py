"""The specification of a training, as the CLI, the control API and jobs pass it to ``Trainer.train_spec``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from ml_core.domain.columns import ColumnKind
from ml_core.domain.dataset import parse_reference
from ml_core.domain.keywords import nearest, texts
from ml_core.domain.specification import FORM, Specification
from ml_core.exceptions import DataProcessingError, InvalidRequestError, TrainingError, shown
from ml_core.ids import VersionId

TRAINING_RECORD = "training"
"""The metadata key of a version under which the record of its training is stored; callers can't use it."""

SELECTION_SECONDS = 20.0
_MAX_SELECTION_SECONDS = 86_400.0

_LEARN_A_TARGET = ("classification", "regression")
_MIN_ROWS_OF_A_CLASS = 2  # so that it can be both trained on and held out
_RARE_FORMS = "Give keep, drop, drop:5, merge:other or merge:other:5; a class with fewer rows than the number is rare."

CALIBRATION_FOLDS = 5
SPLIT_SEED = 42
MAX_FOLDS, MAX_SEED = 20, 2**31


class Calibration(StrEnum):
    """How scores become probabilities, see ``sklearn.calibration.CalibratedClassifierCV``."""

    SIGMOID = "sigmoid"
    ISOTONIC = "isotonic"
    TEMPERATURE = "temperature"


def needs_target(model_type: str | None) -> bool:
    """Whether a model type requires a target. None means classification or regression; other types may do without."""
    return model_type is None or model_type in _LEARN_A_TARGET


@dataclass(frozen=True, slots=True)
class RareClasses:
    """The rule for rare classes.

    Attributes:
        label: The class into which they are merged; None: their rows are dropped.
        minimum: A class with fewer rows in the training data is rare.
        is_kept: They are trained on as they are, and those of one row are not measured.
    """

    label: str | None
    minimum: int = _MIN_ROWS_OF_A_CLASS
    is_kept: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``keep``, ``drop``, ``drop:5``, ``merge:other`` or ``merge:other:5``; the number is 2 by default.

        Raises:
            TrainingError: The text has another form; ``stage`` is ``validate``.
        """
        if text == "keep":
            return cls(None, is_kept=True)
        action, _, rest = str(text).partition(":")
        label, separator, number = rest.rpartition(":") if action == "merge" else (None, ":", rest)
        if action == "merge" and not separator:
            label, number = rest, ""
        is_number = number.isascii() and number.isdigit() and int(number) >= _MIN_ROWS_OF_A_CLASS
        if action not in ("drop", "merge") or label == "" or (number and not is_number) or text.endswith(":"):
            raise TrainingError(f"rare_classes is {text!r}.", remedy=_RARE_FORMS, stage="validate")
        return cls(label, int(number) if number else _MIN_ROWS_OF_A_CLASS)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec(Specification):
    """The specification of one training.

    Construction checks the form of every field. Planning the training checks that the dataset, the columns, the
    hyperparameters and the parent version exist.

    Attributes:
        model_type: ``classification``, ``regression``, ``clustering``, ``anomaly_detection`` or a type registered with
            ``ModelFactory``; None: classification or regression, by the target.
        dataset: The registered dataset to train on, such as ``tickets_2026@3``; without a number its newest version.
        target: The column of the dataset to predict.
        validation_dataset: A registered dataset with the same columns for validation; None: a fifth of the rows is
            held out.
        group: A column whose equal values are held out together, such as a customer; it is no input of the model.
        time: A column of dates or numbers by which the latest rows are held out; it remains an input.
        weight: A column of weights from 0 up, with which rows count in the fit, not in the metrics; it is no input.
        ignore: Columns of the dataset to ignore.
        hyperparameters: ``algorithm`` and the parameters of the estimator; none, or the algorithm ``auto``: selected by
            cross-validation. Parameters without an algorithm are those of a random forest.
        selection_seconds: About how long that may take on one core; the rows are bounded, by an estimate.
        kinds: Column name → kind, to override the inferred kind.
        rare_classes: The rule for rare classes, see ``RareClasses.parse``; None: a class with one row is refused.
        calibration: How probabilities are calibrated, in five folds of the training rows; None: they are not.
        cross_validation: The number of folds of the training rows in which the training is repeated and measured; None:
            it is measured on the held-out rows only.
        split_seed: Of the rows that are held out. An algorithm has ``random_state`` for its own.
        version: The name of the version to register; None: the next number of the model.
        parent_version: The version of the same model from which it is derived, for the lineage.
        metadata: The metadata of the version.

    Raises:
        InvalidRequestError, InvalidNameError: A reference, a version or the metadata is invalid.
        DataProcessingError: A kind is invalid.
        TrainingError: The rule for rare classes is invalid.
    """

    noun = "A training"

    model_type: str | None = None
    dataset: str | None = None
    target: str | None = None
    validation_dataset: str | None = None
    group: str | None = None
    time: str | None = None
    weight: str | None = None
    ignore: tuple[str, ...] = field(default=(), metadata={FORM: "a list of column names"})
    hyperparameters: Mapping[str, Any] = field(default_factory=dict, metadata={FORM: "an object of name and value"})
    kinds: Mapping[str, ColumnKind] = field(default_factory=dict, metadata={FORM: "an object of column name and kind"})
    selection_seconds: float = SELECTION_SECONDS
    rare_classes: str | None = None
    calibration: Calibration | None = None
    cross_validation: int | None = None
    split_seed: int = SPLIT_SEED
    version: VersionId | None = None
    parent_version: VersionId | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.refuse_other_types("model_type", "dataset", "validation_dataset", "rare_classes", "selection_seconds")
        self.refuse_other_types("hyperparameters", "metadata")
        if not isinstance(self.kinds, Mapping):
            raise self._refused("kinds", self.kinds, "")
        for reference in (self.dataset, self.validation_dataset):
            if reference is not None:
                parse_reference(reference)
        if self.rare_classes is not None:
            RareClasses.parse(self.rare_classes)
        if not 0 < self.selection_seconds <= _MAX_SELECTION_SECONDS:
            raise InvalidRequestError(
                f"The field 'selection_seconds' of a training is {shown(self.selection_seconds)}.",
                remedy=f"Give a number above 0, up to {_MAX_SELECTION_SECONDS:,.0f}.",
                field="selection_seconds",
            )
        self.refuse_outside(cross_validation=(2, MAX_FOLDS), split_seed=(0, MAX_SEED))
        if self.calibration is not None and self.calibration not in list(Calibration):
            raise InvalidRequestError(
                f"There is no calibration {shown(self.calibration)}.",
                remedy=nearest(self.calibration, Calibration),
                field="calibration",
            )
        if self.group is not None and self.time is not None:
            raise InvalidRequestError(
                "A training has a group and a time.", remedy="Hold rows out by one of them.", field="time"
            )
        if TRAINING_RECORD in self.metadata:
            raise InvalidRequestError(
                f"The metadata key {TRAINING_RECORD!r} is reserved for the record of the training.",
                remedy="Use another key.",
                field="metadata",
            )
        parsed = {
            **{  # as dataset columns are named
                name: None if (column := getattr(self, name)) is None else str(column)
                for name in ("target", "group", "time", "weight")
            },
            "calibration": None if self.calibration is None else Calibration(self.calibration),
            "ignore": tuple(texts("ignore", self.ignore)),
            "kinds": {str(name): _kind(kind) for name, kind in self.kinds.items()},
            "version": None if self.version is None else VersionId(self.version),
            "parent_version": None if self.parent_version is None else VersionId(self.parent_version),
        }
        for name, value in parsed.items():
            object.__setattr__(self, name, value)  # the class is frozen

    def options(self) -> dict[str, Any]:
        """The fields beside the hyperparameters that change what is fitted or measured, where they are given."""
        return {name: value for name, default in _OPTIONS.items() if (value := getattr(self, name)) != default}


_OPTIONS: Mapping[str, Any] = dict.fromkeys(
    ("rare_classes", "group", "time", "weight", "calibration", "cross_validation")
) | {"split_seed": SPLIT_SEED}


def _kind(value: Any) -> ColumnKind:
    try:
        return ColumnKind(value)
    except ValueError:
        raise DataProcessingError(
            f"{value!r} is not a kind of column.", remedy=nearest(value, ColumnKind), stage="validate"
        ) from None
