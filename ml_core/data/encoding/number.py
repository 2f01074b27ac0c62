"""Numbers and booleans: impute the median, flag what was missing, scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import Columns

Scaling = Literal["standard", "minmax", "robust", "none"]
SCALINGS: tuple[Scaling, ...] = ("standard", "minmax", "robust", "none")


def center_and_scale(matrix: NDArray[np.float64], scaling: Scaling) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What to subtract and what to divide by, two arrays ``(n_columns,)``, of ``(n_rows, n_columns)`` without NaN.

    ``standard``: mean and standard deviation; ``minmax``: minimum and range; ``robust``: median and interquartile
    range; ``none``: 0 and 1. A column that does not vary is divided by 1.
    """
    if scaling == "standard":
        center, scale = matrix.mean(axis=0), matrix.std(axis=0)
    elif scaling == "minmax":
        center = matrix.min(axis=0)
        scale = matrix.max(axis=0) - center
    elif scaling == "robust":
        low, center, high = np.percentile(matrix, [25.0, 50.0, 75.0], axis=0)
        scale = high - low
    else:
        center, scale = np.zeros(matrix.shape[1]), np.ones(matrix.shape[1])
    # A spread within the rounding error of the values counts as zero.
    flat = ~(scale > 10 * np.finfo(np.float64).eps * np.abs(center)) | ~np.isfinite(scale)
    return center, np.where(flat, 1.0, scale)


# Trees compare in float32. A feature beyond it they refuse or take for infinite, as scikit-learn's settings have it.
# Zero-dimensional arrays: NumPy would convert a plain number on each call.
_LARGEST = np.array(np.finfo(np.float32).max, dtype=np.float64)
_SMALLEST = -_LARGEST
_MOST = float(_LARGEST)


class NumberEncoder:
    """All number and boolean columns: one scaled feature each, and a flag where training had missing values.

    A feature beyond the range of float32 becomes the end of that range: every estimator can take it. See
    ``center_and_scale`` for the scaling.
    """

    def __init__(self, names: Sequence[str], scaling: Scaling) -> None:
        self.names = list(names)
        self.scaling = scaling

    def learn(self, values: NDArray[np.float64]) -> tuple[float, float, float, bool]:
        """Of the ``(n_rows,)`` values of one column: the median, center, scale and whether some are missing."""
        values = np.clip(values, _SMALLEST, _LARGEST)  # the square of more is infinite
        missing = np.isnan(values)
        fill = float(np.median(values[~missing])) if not missing.all() else 0.0
        center, scale = center_and_scale(np.where(missing, fill, values).reshape(-1, 1), self.scaling)
        return fill, float(center[0]), float(scale[0]), bool(missing.any())

    def set_learned(self, learned: Sequence[tuple[float, float, float, bool]]) -> None:
        """Set what ``learn`` returned of each column, in the order of the names."""
        self.fill_, self.center_, self.scale_, flags = map(np.array, zip(*learned, strict=True))
        self.flagged_ = np.flatnonzero(flags)
        self._build()

    def _build(self) -> None:
        """The same as plain numbers, which are derived from the state and not stored."""
        self._plain = [
            (float(f), float(c), float(s)) for f, c, s in zip(self.fill_, self.center_, self.scale_, strict=True)
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "scale_" in state:
            self._build()

    @property
    def feature_names(self) -> list[str]:
        """One a feature."""
        return self.names + [f"{self.names[i]} is missing" for i in self.flagged_]

    @property
    def feature_columns(self) -> list[str]:
        """The column of each feature."""
        return self.names + [self.names[i] for i in self.flagged_]

    @property
    def width(self) -> int:
        """The number of features."""
        return len(self.names) + len(self.flagged_)

    @property
    def reference(self) -> NDArray[np.float64]:
        """The features of a typical row: the mean where the scaling has it, else the median; nothing is missing."""
        typical = (self.fill_ - self.center_) / self.scale_ * (self.scaling != "standard")
        return np.concatenate([typical, np.zeros(len(self.flagged_))])

    def encode(self, columns: Columns, out: NDArray[np.float64]) -> None:
        """Write the features of ``(n_rows,)`` columns to ``out``, ``(n_rows, width)`` float64 of zeros."""
        if len(out) == 1:
            self._encode_row(columns, out)
            return
        matrix = self._stack(columns)
        missing = np.isnan(matrix)
        if missing.any():
            matrix = np.where(missing, self.fill_, matrix)
        features = out[:, : len(self.names)]
        with np.errstate(over="ignore"):
            np.divide(matrix - self.center_, self.scale_, out=features)
        np.minimum(features, _LARGEST, out=features)
        np.maximum(features, _SMALLEST, out=features)
        if len(self.flagged_):
            out[:, len(self.names) :] = missing[:, self.flagged_]

    def _encode_row(self, columns: Columns, out: NDArray[np.float64]) -> None:
        """The same of one row, the usual request: arrays of one row would cost more than the arithmetic."""
        features, missing = [], []
        for name, (fill, center, scale) in zip(self.names, self._plain, strict=True):
            value = columns[name].item()
            is_missing = value != value
            missing.append(is_missing)
            feature = ((fill if is_missing else value) - center) / scale
            features.append(_MOST if feature > _MOST else -_MOST if feature < -_MOST else feature)
        out[0, : len(features)] = features
        for place, index in enumerate(self.flagged_.tolist(), len(features)):
            out[0, place] = missing[index]

    def _stack(self, columns: Columns) -> NDArray[np.float64]:
        matrix = np.empty((len(columns[self.names[0]]), len(self.names)), dtype=np.float64)
        for index, name in enumerate(self.names):
            matrix[:, index] = columns[name]
        return matrix
