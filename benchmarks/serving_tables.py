"""The tables of the serving benchmark, and the pipelines that its peers serve. Needs numpy, pandas and scikit-learn."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

LINEAR, FOREST, TICKET = "logistic_regression", "forest_of_100_trees", "raw_ticket"
ALGORITHMS = {LINEAR: "logistic_regression", FOREST: "random_forest", TICKET: "logistic_regression"}
_WORDS = ["login", "password", "invoice", "refund", "crash", "slow", "error", "printer", "network", "email"]


def tables(n_rows: int = 1000) -> dict[str, tuple[pd.DataFrame, pd.Series[Any]]]:
    """Model → rows and labels: 20 numbers for two algorithms, and tickets of two texts, a date and three categories."""
    random = np.random.default_rng(0)
    numbers = pd.DataFrame(random.normal(size=(n_rows, 20)), columns=[f"x{i}" for i in range(20)])
    sign = pd.Series(np.where(numbers.x0 + numbers.x1 > 0, "yes", "no"))
    tickets = pd.DataFrame(
        {
            "subject": [" ".join(random.choice(_WORDS, 5)) for _ in range(n_rows)],
            "body": [" ".join(random.choice(_WORDS, 20)) for _ in range(n_rows)],
            "opened": [f"2026-{month:02}-01" for month in random.integers(1, 13, n_rows)],
            "priority": random.choice(["low", "middle", "high"], n_rows),
            "channel": random.choice(["mail", "web"], n_rows),
            "team": random.choice(["a", "b", "c", "d"], n_rows),
        }
    )
    kind = pd.Series(np.where(tickets.body.str.contains("invoice"), "billing", "it"))
    return {LINEAR: (numbers, sign), FOREST: (numbers, sign), TICKET: (tickets, kind)}


def days(opened: pd.DataFrame) -> Any:
    """Dates as days since 1970-01-01, ``(n_rows, 1)``; a step of the pipeline."""
    return pd.to_datetime(opened.iloc[:, 0]).to_numpy().astype("datetime64[D]").astype(float).reshape(-1, 1)


def pipelines() -> dict[str, Any]:
    """Model → a fitted scikit-learn pipeline, as a user of the peers would write it."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    mixed = ColumnTransformer(
        [
            ("subject", TfidfVectorizer(), "subject"),
            ("body", TfidfVectorizer(), "body"),
            ("opened", make_pipeline(FunctionTransformer(days), StandardScaler()), ["opened"]),
            ("rest", OneHotEncoder(handle_unknown="ignore"), ["priority", "channel", "team"]),
        ]
    )
    made = {
        LINEAR: make_pipeline(StandardScaler(), LogisticRegression()),
        FOREST: RandomForestClassifier(100, random_state=0),
        TICKET: make_pipeline(mixed, LogisticRegression()),
    }
    return {
        name: made[name].fit(rows if name == TICKET else rows.to_numpy(), labels)
        for name, (rows, labels) in tables().items()
    }


def title(model: str) -> str:
    """The name of a model in tables."""
    return re.sub("_", " ", model)
