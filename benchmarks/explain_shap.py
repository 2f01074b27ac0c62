"""shap's values and times, in an environment of its own: see ``explain.py``.

python explain_shap.py CASES
"""

from __future__ import annotations

import json
import os
import pickle
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightgbm
import numpy as np
import shap


def us(call: Callable[[], object], calls: int) -> float:
    """Median microseconds of processor time of a call."""
    taken = []
    for _ in range(calls):
        started = time.process_time()
        call()
        taken.append(time.process_time() - started)
    return statistics.median(taken) * 1e6


def main(path: str) -> None:
    """Print figures and differences as JSON."""
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {}
    for name, case in pickle.loads(Path(path).read_bytes()).items():
        model, X, ours = case["model"], case["X"], case["values"]
        if isinstance(model, str):
            model = lightgbm.Booster(model_str=model)

        def prepare(model: Any = model, reference: Any = case["reference"]) -> Any:
            if hasattr(model, "coef_"):
                return shap.LinearExplainer(model, reference[None, :])
            return shap.TreeExplainer(model, feature_perturbation="tree_path_dependent")

        explainer = prepare()
        options = {} if hasattr(model, "coef_") else {"check_additivity": False}
        values = np.asarray(explainer.shap_values(X, **options))
        if values.ndim == 2:
            values = values[:, :, None]
        values = values[:, :, -1:] if ours.shape[2] == 1 else values
        found[name] = {
            "prepare_us": us(prepare, 3),
            "one_row_us": us(lambda: explainer.shap_values(X[:1], **options), 25),  # noqa: B023 - called at once
            "of_100_us": us(lambda: explainer.shap_values(X, **options), 3) / len(X),  # noqa: B023
            "difference": float(np.abs(values - ours).max()),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
