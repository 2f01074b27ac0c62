"""What an explanation costs in processor time, beside the package shap, and the largest difference of the values.

python benchmarks/explain.py [--rows 2000] [--json explain.json]

Both explain the same encoded rows of the same fitted estimators. ``prepare`` is from an estimator to something that
explains: shap's ``TreeExplainer`` or ``LinearExplainer``, and what a replica does for each request. ``one row`` is the
median of calls with one row, ``a row of 100`` a call with 100 rows divided by 100. ``request`` is a whole request of
one row, encoding and prediction included. One thread; shap has an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded

import numpy as np
import pandas as pd
from peers import peer_python
from threadpoolctl import threadpool_limits

from ml_core.domain.version import ServableVersion
from ml_core.evaluation.exact_contributions import exact
from ml_core.evaluation.explaining import Explainer
from ml_core.ids import Digest, ModelId, TenantId, VersionId, VersionRef
from ml_core.models.graph import tune_for_serving
from ml_core.models.loading import LoadedModel
from ml_core.training.fit import FittedModel, fit_model
from ml_core.training.request import TrainingRequest

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "forest, 100 trees": ("class", {"algorithm": "random_forest"}),
    "forest, 100 trees, 4 classes": ("classes", {"algorithm": "random_forest"}),
    "forest, 100 trees, number, leaves of one": ("number", {"algorithm": "random_forest", "min_samples_leaf": 1}),
    "extra trees, 100": ("class", {"algorithm": "extra_trees"}),
    "decision tree": ("class", {"algorithm": "decision_tree"}),
    "boosting, 100 rounds": ("class", {"algorithm": "gradient_boosting"}),
    "boosting, 100 rounds, 4 classes": ("classes", {"algorithm": "gradient_boosting"}),
    "LightGBM, 100 rounds": ("class", {"algorithm": "lightgbm"}),
    "logistic regression": ("class", {"algorithm": "logistic_regression"}),
    "naive Bayes (sampled)": ("class", {"algorithm": "naive_bayes"}),
}
EXPLAINED = 100


def table(rows: int) -> tuple[pd.DataFrame, dict[str, pd.Series[Any]]]:
    """Twelve numbers, three categories, a date, and targets with interactions and noise."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(rows, 12)), columns=[f"n{number}" for number in range(12)])
    for number in range(3):
        frame[f"c{number}"] = random.choice(list("abcdef"), rows)
    frame["opened"] = pd.date_range("2025-01-01", periods=rows, freq="3h")
    number = frame["n0"] + frame["n1"] * frame["n2"] + (frame["c0"] == "a") * 2 + random.normal(size=rows)
    quarters = pd.Series(pd.qcut(number, 4, labels=False)).map("q{}".format)
    return frame, {"class": number > 0, "classes": quarters, "number": number}


def fitted(frame: pd.DataFrame, target: pd.Series[Any], kind: str, hyperparameters: dict[str, Any]) -> FittedModel:
    """A model of the table."""
    model_type = "regression" if kind == "number" else "classification"
    return fit_model(TrainingRequest(ModelId("m"), model_type, (frame, target), hyperparameters=hyperparameters))


def us(call: Callable[[], object], calls: int) -> float:
    """Median microseconds of processor time of a call."""
    taken = []
    for _ in range(calls):
        started = time.process_time()
        call()
        taken.append(time.process_time() - started)
    return statistics.median(taken) * 1e6


def measure(model: FittedModel) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Our figures, and what shap needs to repeat them; None for what is sampled."""
    tune_for_serving(model.pipeline)
    ref = VersionRef(TenantId("acme"), ModelId("m"), VersionId("1"))
    version = ServableVersion(ref, model.model_type, Digest("0" * 64), 0, "", model.signature, model.self_test)
    loaded = LoadedModel(version, model.pipeline)
    rows = model.signature.columns_from_rows(list(model.self_test.rows[:1]))
    figures: dict[str, Any] = {"request_us": us(lambda: Explainer(loaded).explain(rows), 15)}
    figures["work_per_row"] = Explainer(loaded).work_per_row
    encoder, estimator = (step for _, step in model.pipeline.steps)
    found = exact(estimator, encoder.reference)
    if found is None:
        return figures, None
    # As the trees compare: else a value at a threshold goes another way in shap.
    X = encoder.transform(table(EXPLAINED)[0]).astype(np.float32).astype(np.float64)
    figures["prepare_us"] = us(lambda: exact(estimator, encoder.reference), 5)
    figures["one_row_us"] = us(lambda: found.contributions(X[:1]), 25)
    figures["of_100_us"] = us(lambda: found.contributions(X), 3) / EXPLAINED
    values = found.contributions(X).transpose(1, 0, 2)
    booster = getattr(estimator, "_booster", None)
    if booster is not None:
        estimator = booster.model_to_string()
    return figures, {"model": estimator, "X": X, "values": values, "base": found.base, "reference": encoder.reference}


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000, help="rows of the training table")
    parser.add_argument("--json", default="explain.json")
    parser.add_argument("--shap", default="0.51.0", help="the version of shap; empty: leave it out")
    options = parser.parse_args()
    frame, targets = table(options.rows)
    results: dict[str, dict[str, Any]] = {}
    given: dict[str, Any] = {}
    with threadpool_limits(1):
        for name, (kind, hyperparameters) in CASES.items():
            results[name], case = measure(fitted(frame, targets[kind], kind, hyperparameters))
            if case is not None:
                given[name] = case
    if options.shap:
        for name, theirs in beside_shap(given, options.shap).items():
            results[name]["shap"] = theirs
    print(f"{'':42}{'prepare':>16}{'one row':>16}{'a row of 100':>16}{'request':>10}{'difference':>12}")
    for name, ours in results.items():
        theirs = ours.get("shap", {})
        pairs = [
            f"{ours[figure]:.0f} / {theirs[figure]:.0f}" if figure in theirs else f"{ours.get(figure, 0):.0f}"
            for figure in ("prepare_us", "one_row_us", "of_100_us")
        ]
        print(f"{name:42}" + "".join(f"{pair:>16}" for pair in pairs), end="")
        print(f"{ours['request_us']:>10.0f}{theirs.get('difference', float('nan')):>12.1e}")
    print("microseconds, ours / shap; difference: the largest of any feature's value, of scores up to ten")
    Path(options.json).write_text(json.dumps(results, indent=2), encoding="utf-8")


def beside_shap(given: dict[str, Any], version: str) -> dict[str, dict[str, float]]:
    """Shap's figures and the differences, from an environment of its own."""
    same = [f"{name}=={metadata.version(name)}" for name in ("scikit-learn", "lightgbm", "scipy")]
    python = peer_python("shap", [f"shap=={version}", *same])
    with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
        file.write(pickle.dumps(given))
        file.flush()
        script = Path(__file__).with_name("explain_shap.py")
        done = subprocess.run([str(python), str(script), file.name], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    main()
