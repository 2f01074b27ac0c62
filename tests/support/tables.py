"""Small tables with every kind of column, made the same way each time."""

from __future__ import annotations

import numpy as np
import pandas as pd

_SUBJECTS = {
    "account": ["I can't log in to my account", "Password reset mail never arrives", "Please unlock my user"],
    "billing": ["The invoice shows the wrong amount", "I was charged twice this month", "Need a refund for my payment"],
    "bug": ["The page crashes when I save", "An error appears after the update", "The export button does nothing"],
}


def tickets(rows: int = 240, seed: int = 0) -> pd.DataFrame:
    """Tickets with text, a date, categories, numbers and missing values; ``category`` follows from ``subject``."""
    random = np.random.default_rng(seed)
    labels = random.choice(list(_SUBJECTS), rows)
    frame = pd.DataFrame(
        {
            "subject": [
                f"{random.choice(_SUBJECTS[label])} since {random.choice(['today', 'Monday', 'noon'])}"
                for label in labels
            ],
            "opened": pd.date_range("2026-01-01", periods=rows, freq="7h").strftime("%Y-%m-%dT%H:%M:%S"),
            "priority": random.choice(["low", "normal", "high"], rows),
            "minutes_open": random.integers(1, 5000, rows).astype(float),
            "is_paying": random.choice([True, False], rows),
            "category": labels,
        }
    )
    frame.loc[random.random(rows) < 0.1, "minutes_open"] = np.nan
    frame.loc[random.random(rows) < 0.1, "priority"] = None
    return frame


def measures(rows: int = 200, seed: int = 0) -> pd.DataFrame:
    """Twelve numbers and a label that two of them decide."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, 12)).round(4)
    frame = pd.DataFrame(values, columns=[f"m{index}" for index in range(12)])
    frame["outcome"] = np.where(values[:, 0] + values[:, 1] > 0, "yes", "no")
    return frame


def split_target(frame: pd.DataFrame, target: str) -> tuple[pd.DataFrame, pd.Series]:
    """The frame without the target, and the target."""
    return frame.drop(columns=[target]), frame[target]
