"""``Measuring``: the scores of live versions by their labels, and samples of their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ml_core.domain.quality import Score
from ml_core.domain.signature import OutputKind
from ml_core.domain.values import category_text
from ml_core.evaluation.live import LabelCount, measure_classes, measure_numbers
from ml_core.evaluation.metrics import Metrics
from ml_core.ids import VersionId
from ml_core.registry.predictions.live import MAX_LABEL_PAIRS, LiveRows, Window

MAX_SAMPLE = 10_000
"""Rows that a distribution, or a metric of numbers, is estimated from: the standard error of a share is then 0.005 at
most."""


class Measuring(LiveRows):
    """Measures versions in windows of any length, a day at a time."""

    def draw(
        self, window: Window, version: VersionId, *, with_labels: bool = False
    ) -> tuple[int, list[tuple[Any, Any, Any]]]:
        """How many rows a version answered, and a sample of them as ``LiveRows.sample`` has them."""
        count: Callable[[Window], Mapping[VersionId, int]] = self.labelled if with_labels else self.answered
        days = [(day, rows) for day in window.days() if (rows := count(day).get(version, 0))]
        total = sum(rows for _, rows in days)
        drawn: list[tuple[Any, Any, Any]] = []
        for day, rows in days:
            limit = -(-MAX_SAMPLE * rows // max(total, MAX_SAMPLE))  # of each day its share, rounded up
            drawn += self.sample(day, version, rows, limit, with_labels=with_labels)
        return total, drawn

    def measure(
        self, window: Window, version: VersionId, output: OutputKind, notes: list[str]
    ) -> tuple[Metrics, Score] | None:
        """The metrics of a version's labelled rows; None if it has none, or answers neither classes nor numbers."""
        if output is OutputKind.CLASSES:
            return measure_classes(self._counted(window, version, notes))
        if output is OutputKind.NUMBER:
            _, drawn = self.draw(window, version, with_labels=True)
            pairs = np.array([pair for _, *pair in drawn if all(map(_is_number, pair))], dtype=np.float64).reshape(
                -1, 2
            )
            if len(pairs) < len(drawn):
                notes.append(
                    f"{len(drawn) - len(pairs)} labels of version {version} are not numbers; they do not count."
                )
            return measure_numbers(pairs[:, 1], pairs[:, 0])
        return None

    def _counted(self, window: Window, version: VersionId, notes: list[str]) -> Sequence[LabelCount]:
        found = []
        for day in window.days():
            pairs = self.pairs(day, version)
            if len(pairs) == MAX_LABEL_PAIRS:
                notes.append(
                    f"Version {version} has more pairs of prediction and label than {MAX_LABEL_PAIRS:,} a day."
                )
            # Texts, as in the file of a dataset: a client may send the class 1 as "1".
            found += [
                LabelCount(category_text(each.prediction), category_text(each.label), each.rows) for each in pairs
            ]
        return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
