"""skrub's and FLAML's scores on folds, in an environment of their own: see ``quality.py``.

python quality_peers.py skrub|flaml PARTS IS_CLASS SECONDS
"""

from __future__ import annotations

import json
import logging
import pickle
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.metrics import log_loss, r2_score


def main(peer: str, given: str, is_class: bool, seconds: float) -> None:
    """Print the scores and seconds of a peer on each fold as JSON."""
    warnings.simplefilter("ignore")
    makers = _skrub(is_class) if peer == "skrub" else _flaml(is_class, seconds)
    found: dict[str, Any] = {name: {"scores": [], "seconds": []} for name in makers}
    for part in pickle.loads(Path(given).read_bytes()):
        X, y, X_test, y_test = (pd.DataFrame(each) if isinstance(each, dict) else pd.Series(each) for each in part)
        for name, fit in makers.items():
            started = time.perf_counter()
            model, classes = fit(X, y)
            if is_class:
                score = log_loss(y_test, model.predict_proba(X_test), labels=classes)
            else:
                score = r2_score(y_test, model.predict(X_test))
            found[name]["scores"].append(float(score))
            found[name]["seconds"].append(time.perf_counter() - started)
    print(json.dumps(found))


def _skrub(is_class: bool) -> dict[str, Any]:
    import skrub

    def fit(X: pd.DataFrame, y: Any) -> Any:
        model = skrub.tabular_pipeline("classifier" if is_class else "regressor").fit(X, y)
        return model, getattr(model, "classes_", None)

    return {"skrub": fit}


def _flaml(is_class: bool, seconds: float) -> dict[str, Any]:
    import flaml

    logging.disable()

    def fit(X: pd.DataFrame, y: Any) -> Any:
        model = flaml.AutoML()
        settings = (
            {"task": "classification", "metric": "log_loss"} if is_class else {"task": "regression", "metric": "r2"}
        )
        model.fit(X, y, time_budget=seconds, n_jobs=1, seed=0, verbose=0, **settings)
        return model, model.classes_ if is_class else None

    return {"FLAML": fit}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3] == "1", float(sys.argv[4]))
