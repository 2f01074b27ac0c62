"""What a job executes, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ml_core.domain.train_spec import TrainSpec
from ml_core.exceptions import InvalidRequestError, shown
from ml_core.ids import EnvironmentName, ModelId

_FORMAT = 1
_TRAINING = "training"
_MEMBERS = ("format", "model_id", _TRAINING, "promote_to")


@dataclass(frozen=True, slots=True)
class TrainJobSpec:
    """A training on a registered dataset, and what follows it.

    Attributes:
        model_id: The model; it is created with its first version.
        training: How it is trained; names a dataset.
        promote_to: The environment whose pointer moves to the new version; None: none does.
    """

    model_id: ModelId
    training: TrainSpec
    promote_to: EnvironmentName | None = None

    def to_json(self) -> dict[str, Any]:
        """The spec as a JSON object; ``from_json`` reads it back."""
        return {
            "format": _FORMAT,
            "model_id": str(self.model_id),
            _TRAINING: self.training.to_json(),
            "promote_to": None if self.promote_to is None else str(self.promote_to),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read a spec from a JSON object.

        Raises:
            InvalidRequestError: It is of a newer format, or a member is missing, unknown or of another type.
            MLFrameworkError: As ``TrainSpec.from_json``.
        """
        if not isinstance(document, Mapping):
            raise InvalidRequestError("The specification is not a JSON object.", remedy="Give an object.", field="spec")
        if document.get("format", _FORMAT) != _FORMAT:
            raise InvalidRequestError(
                f"The specification has the format {shown(document['format'])}; this release reads {_FORMAT}.",
                remedy="Use the release that wrote it.",
                field="format",
            )
        unknown = [name for name in document if name not in _MEMBERS]
        missing = [name for name in ("model_id", _TRAINING) if name not in document]
        if unknown or missing:
            what = f"has no member {missing[0]!r}" if missing else f"has an unknown member {shown(unknown[0])}"
            raise InvalidRequestError(
                f"The specification of a training {what}.",
                remedy=f"Its members are: {', '.join(_MEMBERS)}.",
                field=str((missing or unknown)[0]),
            )
        target = document.get("promote_to")
        environment = None if target is None else EnvironmentName(target)
        return cls(ModelId(document["model_id"]), TrainSpec.from_json(document[_TRAINING]), environment)
