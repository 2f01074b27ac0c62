"""Explanations: how much each input column added to the score of a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.signature import Label
from ml_core.domain.values import category_text
from ml_core.exceptions import InvalidRequestError, listed

if TYPE_CHECKING:
    import pandas as pd

MAX_EXPLAINED_ROWS = 100
"""Rows that one request may have explained."""
_SHOWN_ROWS = 5
_SHOWN_COLUMNS = 4


class Method(StrEnum):
    """How contributions were computed: exactly for ``linear`` and ``tree``, by sampling for ``permutation``."""

    LINEAR = "linear"
    TREE = "tree"
    PERMUTATION = "permutation"


class Unit(StrEnum):
    """The unit of scores, bases and contributions.

    ``probability``; ``log-odds``, ln(p / (1 - p)); ``logit``, the input of a softmax, so a difference of two classes is
    their log-odds; ``decision function``, as scikit-learn has it; ``anomaly score``, as of ``predict_scores``;
    ``target``, the unit of the target; ``log of the target``; ``agreement``, 1 for the answer of the row and 0 for
    another answer.
    """

    PROBABILITY = "probability"
    LOG_ODDS = "log-odds"
    LOGIT = "logit"
    DECISION = "decision function"
    ANOMALY = "anomaly score"
    TARGET = "target"
    LOG_TARGET = "log of the target"
    AGREEMENT = "agreement"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Explanation:
    """The explanation of the scores of rows: ``base + contributions.sum(axis=1)`` are the scores.

    Attributes:
        method: How it was computed.
        unit: The unit of all numbers.
        columns: The input columns of the signature.
        classes: What the scores are of, such as the classes of a classifier; empty for a single score.
        predictions: The answer to each row.
        base: ``(n_rows, n_scores)`` float64: the scores when no column is known.
        contributions: ``(n_rows, n_columns, n_scores)`` float64.
        words: For each row, text column → word → its part of the contribution to the answer's score; the strongest
            words that the text has.
    """

    method: Method
    unit: Unit
    columns: tuple[str, ...]
    classes: tuple[Label, ...]
    predictions: Sequence[Any]
    base: NDArray[np.float64]
    contributions: NDArray[np.float64]
    words: Sequence[Mapping[str, Mapping[str, float]]]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.base)

    @property
    def scores(self) -> NDArray[np.float64]:
        """``(n_rows, n_scores)``: the scores of the rows."""
        scores: NDArray[np.float64] = self.base + self.contributions.sum(axis=1)
        return scores

    def of_answers(self) -> NDArray[np.float64]:
        """``(n_rows, n_columns)``: the contributions to the score of each row's answer."""
        answered: NDArray[np.float64] = self.contributions[np.arange(len(self)), :, self._answered()]
        return answered

    def to_frame(self, label: Label | None = None) -> pd.DataFrame:
        """The contributions as a table of rows by input columns.

        Args:
            label: The class whose score is explained; None: for each row the class that was predicted.

        Raises:
            InvalidRequestError: There is no such class.
        """
        import pandas as pd

        if label is None:
            return pd.DataFrame(self.of_answers(), columns=list(self.columns))
        if label not in self.classes:
            raise InvalidRequestError(
                f"There is no class {label!r}.",
                remedy=f"Known classes: {listed(map(str, self.classes))}.",
                field="label",
            )
        return pd.DataFrame(self.contributions[:, :, self.classes.index(label)], columns=list(self.columns))

    def to_json(self) -> list[dict[str, Any]]:
        """One JSON object a row: ``prediction``, ``outputs`` (one for each score) and ``words``."""
        labels: list[str | None] = [*map(category_text, self.classes)] or [None]
        scores, base, parts = self.scores.tolist(), self.base.tolist(), self.contributions.swapaxes(1, 2).tolist()
        return [
            {
                "prediction": self.predictions[row],
                "outputs": [
                    {
                        "label": label,
                        "score": scores[row][number],
                        "base": base[row][number],
                        "contributions": dict(zip(self.columns, parts[row][number], strict=True)),
                    }
                    for number, label in enumerate(labels)
                ],
                "words": self.words[row],
            }
            for row in range(len(self))
        ]

    def __repr__(self) -> str:
        shown, answered, parts = self.scores, self._answered(), self.of_answers()
        lines = [f"Explanation({len(self)} rows, method={self.method.value}, unit={self.unit.value})"]
        for row in range(min(len(self), _SHOWN_ROWS)):
            largest = np.argsort(-np.abs(parts[row]), kind="stable")[:_SHOWN_COLUMNS]
            named = "  ".join(f"{self.columns[column]} {parts[row, column]:+.3g}" for column in largest)
            score, base = shown[row, answered[row]], self.base[row, answered[row]]
            lines.append(f"  {self.predictions[row]}: {score:.3g} = {base:.3g}  {named}")
        if len(self) > _SHOWN_ROWS:
            lines.append("  …")
        return "\n".join(lines)

    def _answered(self) -> NDArray[np.intp]:
        """The number of the score of each row's answer."""
        numbers = {label: number for number, label in enumerate(self.classes)}
        return np.array([numbers.get(answer, 0) for answer in self.predictions], dtype=np.intp)


def joined(parts: Sequence[Explanation]) -> Explanation:
    """Explanations of one model, one row after another."""
    first = parts[0]
    return Explanation(
        first.method,
        first.unit,
        first.columns,
        first.classes,
        [answer for part in parts for answer in part.predictions],
        np.concatenate([part.base for part in parts]),
        np.concatenate([part.contributions for part in parts]),
        [words for part in parts for words in part.words],
    )
