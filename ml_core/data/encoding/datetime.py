"""Datetimes: the time, and the position in the year, month, week and day."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ml_core.data.encoding.number import center_and_scale
from ml_core.domain.columns import Columns

# The parts that come round again, with their period; each is given as a fraction of it and as sine and cosine, because
# trees split on the first and linear models need the others (December lies next to January).
PARTS = (("month", 12), ("day", 31), ("weekday", 7), ("hour", 24))
FEATURES = ("time", *(f"{part}{form}" for part, _ in PARTS for form in ("", " sin", " cos")))

_DAY_S = 86_400.0


def calendar_parts(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Month (0 to 11), day of the month (0 to 30), weekday (0 is Monday) and hour (0 to 23), in UTC.

    Of ``(n_rows,)`` seconds since 1970-01-01 UTC without NaN; ``(n_rows, 4)`` float64.
    """
    days = np.floor(seconds / _DAY_S)  # not towards zero: before 1970 that would be the next day
    dates = days.astype(np.int64).astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    parts = np.empty((len(seconds), len(PARTS)), dtype=np.float64)
    parts[:, 0] = months.astype(np.int64) % 12
    parts[:, 1] = (dates - months).astype(np.int64)
    parts[:, 2] = (days + 3) % 7  # 1970-01-01 was a Thursday
    parts[:, 3] = np.floor((seconds - days * _DAY_S) / 3600.0)
    return parts


class DatetimeEncoder:
    """All datetime columns: ``FEATURES`` for each, then a flag for each where training had missing values."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)

    def learn(self, values: NDArray[np.float64]) -> tuple[float, float, float, bool]:
        """Of the ``(n_rows,)`` values of one column: the median, mean, spread and whether some are missing."""
        present = values[~np.isnan(values)]
        if not len(present):
            return 0.0, 0.0, 1.0, len(values) > 0
        center, scale = center_and_scale(present.reshape(-1, 1), "standard")
        return float(np.median(present)), float(center[0]), float(scale[0]), len(present) < len(values)

    def set_learned(self, learned: Sequence[tuple[float, float, float, bool]]) -> None:
        """Set what ``learn`` returned of each column, in the order of the names."""
        self.fill_, self.center_, self.scale_, self.flagged_ = map(np.array, zip(*learned, strict=True))

    @property
    def feature_names(self) -> list[str]:
        """One a feature."""
        flags = [f"{name} is missing" for name, flag in zip(self.names, self.flagged_, strict=True) if flag]
        return [f"{name} {feature}" for name in self.names for feature in FEATURES] + flags

    @property
    def feature_columns(self) -> list[str]:
        """The column of each feature."""
        flagged = [name for name, flag in zip(self.names, self.flagged_, strict=True) if flag]
        return [name for name in self.names for _ in FEATURES] + flagged

    @property
    def width(self) -> int:
        """The number of features."""
        return len(self.names) * len(FEATURES) + int(self.flagged_.sum())

    @property
    def reference(self) -> NDArray[np.float64]:
        """The features of a typical row: the mean time, and of each part the mean over its period."""
        parts = np.array([[(period - 1) / (2 * period), 0.0, 0.0] for _, period in PARTS])
        return np.concatenate([np.tile([0.0, *parts.ravel()], len(self.names)), np.zeros(int(self.flagged_.sum()))])

    def encode(self, columns: Columns, out: NDArray[np.float64]) -> None:
        """Write the features of ``(n_rows,)`` columns to ``out``, ``(n_rows, width)`` float64 of zeros."""
        flag = len(self.names) * len(FEATURES)
        for index, name in enumerate(self.names):
            seconds = columns[name]
            missing = np.isnan(seconds)
            if missing.any():
                seconds = np.where(missing, self.fill_[index], seconds)
            start = index * len(FEATURES)
            out[:, start] = (seconds - self.center_[index]) / self.scale_[index]
            _write_parts(calendar_parts(seconds), out[:, start + 1 : start + len(FEATURES)])
            if self.flagged_[index]:
                out[:, flag] = missing
                flag += 1


def _write_parts(parts: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    fractions = parts / _PERIODS
    angles = fractions * (2.0 * np.pi)
    out[:, 0::3] = fractions
    out[:, 1::3] = np.sin(angles)
    out[:, 2::3] = np.cos(angles)


_PERIODS = np.array([period for _, period in PARTS], dtype=np.float64)
