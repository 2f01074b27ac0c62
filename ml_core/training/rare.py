"""Rare classes: leaving them out, or merging them into one, as a caller says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ml_core.training.targets import Target, invalid

_MINIMUM = 2  # so many rows can be both trained on and held out
_SHOWN = 5
_FORMS = "Give drop, drop:5, merge:other or merge:other:5; the number is the fewest rows of a class that stays."


@dataclass(frozen=True, slots=True)
class RareClasses:
    """What is done with classes of few rows.

    Attributes:
        label: The class that they become; None: their rows are left out.
        minimum: Rows of a class that is not rare, in the training data.
    """

    label: str | None
    minimum: int = _MINIMUM

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``drop``, ``drop:5``, ``merge:other`` or ``merge:other:5``; without a number it is 2.

        Raises:
            TrainingError: There is no such way; ``stage`` is ``validate``.
        """
        action, _, rest = str(text).partition(":")
        label, separator, number = rest.rpartition(":") if action == "merge" else (None, ":", rest)
        if action == "merge" and not separator:
            label, number = rest, ""
        is_number = number.isascii() and number.isdigit() and int(number) >= _MINIMUM
        if action not in ("drop", "merge") or label == "" or (number and not is_number) or text.endswith(":"):
            raise invalid(f"rare_classes is {text!r}.", _FORMS)
        return cls(label, int(number) if number else _MINIMUM)

    def find(self, target: Target) -> NDArray[Any]:
        """The classes of a training target that are rare."""
        classes, counts = np.unique(target.values, return_counts=True)
        return classes[counts < self.minimum]

    def apply(self, target: Target, rare: NDArray[Any], what: str, notes: list[str], *, shown: bool = True) -> Target:
        """A target without the rare classes.

        Args:
            target: Of the training or the validation data.
            rare: The rare classes of the training data.
            what: Which data it is, for the note.
            notes: Get a sentence if a row is concerned.
            shown: Whether it names the classes.

        Raises:
            TrainingError: The label can't be a class among the others, or no row is left.
        """
        is_rare = np.isin(target.values, rare)
        if not is_rare.any():
            return target
        found, counts = np.unique(target.values[is_rare], return_counts=True)
        named = zip(found[:_SHOWN].tolist(), counts[:_SHOWN], strict=True)
        names = ": " + ", ".join(f"{label!r} ({count})" for label, count in named)
        names += ", …" if len(found) > _SHOWN else ""
        rows = f"{int(is_rare.sum()):,} of {len(is_rare):,} {what} rows, of {len(found)} class(es) with fewer than "
        rows += f"{self.minimum} training rows{names if shown else ''}"
        if self.label is not None:
            notes.append(f"Merged into {self.label!r}: {rows}.")
            return Target(np.where(is_rare, _as_class(self.label, target), target.values), target.kept, target.column)
        if is_rare.all():
            raise invalid(f"{target} has no class with {self.minimum} rows.", "Give a lower number.", target.column)
        notes.append(f"Left out {rows}.")
        kept = target.kept.copy()
        kept[kept] = ~is_rare
        return Target(target.values[~is_rare], kept, target.column)


def _as_class(label: str, target: Target) -> Any:
    """The label in the type of the target's classes."""
    kind = target.values.dtype.kind
    try:
        return {"U": str, "i": int, "f": float}[kind](label)
    except (KeyError, ValueError):
        raise invalid(
            f"{target} has classes of the type {target.values.dtype.name}, so {label!r} can't be one of them.",
            "Merge into a label of that type, such as merge:-1, or use drop."
            if kind in "if"
            else "Two classes need no merging: use drop, or give more rows.",
            target.column,
        ) from None
