"""Quality without hyperparameters: ours beside hand-written pipelines, skrub and FLAML, on the same folds.

    .venv/bin/python benchmarks/quality.py [--tables wine,digits] [--folds 5] [--json FILE]

The score is log loss for classes, where less is better, and R² for numbers: mean and standard deviation over folds.
The hand-written pipelines are scikit-learn's defaults behind imputation, scaling and one-hot or tf-idf encoding; which
columns are texts, categories and times is told by hand. FLAML may take the seconds that ours took, and at least one;
skrub and FLAML have environments of their own. All fit on one core. ``rank`` is the mean over the tables of the place
among all but the constant answer (1: the best); one that fails on a table has the last place.

Our candidates were chosen by these tables, so ours is in sample as far as they go; which of them is fitted is chosen by
each fold's own training rows.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from peers import peer_python
from quality_tables import tables
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, r2_score
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from ml_core.ids import ModelId
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest

PEERS = {"skrub": ["skrub==0.11.0"], "flaml": ["flaml[automl]==2.8.0", "pandas<3"]}
RANKED = ("ours", "hand, linear", "hand, boosting", "hand, forest", "skrub", "FLAML")
_LONG_TEXT = 25  # characters on average
Fold = tuple[pd.DataFrame, Any, pd.DataFrame, Any]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tables", help="Names, separated by commas; default: all.")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wanted = None if options.tables is None else options.tables.split(",")
    found = {}
    for name, is_class, (X, y) in tables():
        if wanted is None or name in wanted:
            found[name] = {"is_class": is_class, **_measured(X, y, is_class, options.folds, not options.without_peers)}
            _print(name, found[name])
    ranks = _ranks(found)
    print("\nmean rank: " + ", ".join(f"{name} {rank:.2f}" for name, rank in ranks.items()))
    below = [name for name, of in found.items() if _is_below(of)]
    print(f"below the best hand-written pipeline by more than its deviation: {', '.join(below) or 'none'}")
    if options.json:
        result = {"tables": found, "mean_rank": ranks, "below": below}
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


def _measured(X: pd.DataFrame, y: Any, is_class: bool, folds: int, with_peers: bool) -> dict[str, Any]:
    splitter = (StratifiedKFold if is_class else KFold)(folds, shuffle=True, random_state=0)
    parts = [
        (X.iloc[train].reset_index(drop=True), y.iloc[train].reset_index(drop=True), X.iloc[test], y.iloc[test])
        for train, test in splitter.split(X, y if is_class else None)
    ]
    scores: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for part in parts:
        for name, score in _contenders(X, is_class).items():
            started = time.perf_counter()
            with threadpool_limits(1), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scores.setdefault(name, []).append(score(part))
            seconds.setdefault(name, []).append(time.perf_counter() - started)
    if with_peers:
        for name, (of, took) in _of_peers(parts, is_class, float(np.mean(seconds["ours"]))).items():
            scores[name], seconds[name] = of, took
    return {
        "scores": scores,
        "mean": {name: float(np.mean(of)) for name, of in scores.items()},
        "sd": {name: float(np.std(of)) for name, of in scores.items()},
        "seconds": {name: float(np.mean(of)) for name, of in seconds.items()},
    }


def _contenders(X: pd.DataFrame, is_class: bool) -> Mapping[str, Callable[[Fold], float]]:
    constant = DummyClassifier(strategy="prior") if is_class else DummyRegressor()
    linear = LogisticRegression(max_iter=1_000) if is_class else Ridge()
    boosting = HistGradientBoostingClassifier if is_class else HistGradientBoostingRegressor
    forest = RandomForestClassifier if is_class else RandomForestRegressor
    return {
        "ours": lambda part: _ours(part, is_class),
        "constant": lambda part: _score(constant, part, is_class),
        "hand, linear": lambda part: _score(_by_hand(X, linear), part, is_class),
        "hand, boosting": lambda part: _score(_by_hand(X, boosting(random_state=0)), part, is_class),
        "hand, forest": lambda part: _score(_by_hand(X, forest(random_state=0)), part, is_class),
    }


def _ours(part: Fold, is_class: bool) -> float:
    X, y, X_test, y_test = part
    fitted = fit_model(TrainingRequest(ModelId("m"), None, (X, y), (X_test, y_test)))
    assert fitted.model_type == ("classification" if is_class else "regression")
    return float(fitted.metrics["validation"]["log_loss" if is_class else "r2"])


def _by_hand(X: pd.DataFrame, estimator: Any) -> Any:
    """The pipeline that a careful user writes for a table."""
    numbers = X.select_dtypes("number").columns.tolist()
    times = X.select_dtypes("datetime").columns.tolist()
    strings = [name for name in X if name not in [*numbers, *times]]
    texts = [name for name in strings if X[name].str.len().mean() > _LONG_TEXT or X[name].nunique() > len(X) / 2]
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    encoder = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
        (make_pipeline(FunctionTransformer(_parts_of_time), StandardScaler()), times),
        (one_hot, [name for name in strings if name not in texts]),
        *[(TfidfVectorizer(), name) for name in texts],
        sparse_threshold=0.0,
    )
    return make_pipeline(encoder, estimator)


def _parts_of_time(frame: pd.DataFrame) -> Any:
    parts = [(of.astype("int64"), of.dt.month, of.dt.dayofweek, of.dt.hour) for _, of in frame.items()]
    return np.column_stack([part for of in parts for part in of])


def _score(model: Any, part: Fold, is_class: bool) -> float:
    X, y, X_test, y_test = part
    model.fit(X, y)
    if not is_class:
        return float(r2_score(y_test, model.predict(X_test)))
    return float(log_loss(y_test, model.predict_proba(X_test), labels=model.classes_))


def _of_peers(parts: list[Fold], is_class: bool, seconds: float) -> dict[str, tuple[list[float], list[float]]]:
    """The scores and seconds of each peer on the folds; one that fails on a table has none."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "parts"
        given.write_bytes(pickle.dumps([[_plain(each) for each in part] for part in parts]))
        for name, requirements in PEERS.items():
            script = Path(__file__).with_name("quality_peers.py")
            command = [peer_python(name, requirements), script, name, given, str(int(is_class)), str(max(1.0, seconds))]
            one_core = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": "1"}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=one_core)
            if done.returncode:
                print(f"  {name}: {done.stderr.strip().splitlines()[-1]}")
                continue
            for contender, of in json.loads(done.stdout.splitlines()[-1]).items():
                found[contender] = (of["scores"], of["seconds"])
    return found


def _plain(values: Any) -> Any:
    """Columns as arrays, which every version of pandas takes."""
    return {name: values[name].to_numpy() for name in values} if isinstance(values, pd.DataFrame) else values.to_numpy()


def _print(name: str, of: Mapping[str, Any]) -> None:
    print(f"\n{name} ({'log loss' if of['is_class'] else 'R²'})")
    for contender, mean in of["mean"].items():
        print(f"  {contender:24} {mean:8.4f} ± {of['sd'][contender]:.4f} {of['seconds'][contender]:8.2f} s")


def _loss(of: Mapping[str, Any], name: str) -> float:
    return float(of["mean"][name]) * (1.0 if of["is_class"] else -1.0)


def _ranks(found: Mapping[str, Any]) -> dict[str, float]:
    ranks: dict[str, list[float]] = {}
    for of in found.values():
        losses = pd.Series({name: _loss(of, name) if name in of["mean"] else np.inf for name in RANKED})
        for name, rank in losses.rank().items():
            ranks.setdefault(str(name), []).append(float(rank))
    return {name: float(np.mean(of)) for name, of in ranks.items()}


def _is_below(of: Mapping[str, Any]) -> bool:
    best = min((name for name in of["mean"] if name.startswith("hand")), key=lambda name: _loss(of, name))
    return _loss(of, "ours") - _loss(of, best) > of["sd"][best]


if __name__ == "__main__":
    main()
