"""Compiled inference: what each algorithm costs as scikit-learn's original, by its formula, and as a compiled graph.

    .venv/bin/python benchmarks/compiled.py [--rows 2000] [--algorithms random_forest,...] [--json FILE]

Each model is trained on 20 numbers and compiled and proved as at its registration. Times are CPU time of this thread,
the least of some calls. `scikit-learn` calls the estimator as before there were formulas; `served` is
`LoadedModel.predict_both` with the encoder, in the form that was chosen. `session` is the growth of the resident memory
by a session, measured in a process of its own, and `counted` what a replica counts for it; `load` is the time to check
and open the graph. The forest of classifiers is also converted by skl2onnx, whose sums are in single precision.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from ml_core.data.encoding.table import TableEncoder
from ml_core.domain.columns import ColumnKind, Columns, take
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.domain.version import SelfTest, ServableVersion
from ml_core.ids import Digest, ModelId, TenantId, VersionId, VersionRef
from ml_core.models.algorithms import ALGORITHMS
from ml_core.models.compiling import compile_model
from ml_core.models.graph import tune_for_serving
from ml_core.models.loading import LoadedModel
from ml_core.models.sessions import memory_of, open_session, session_of

WIDTH = 20
SIZES = (1, 64, 1000)
_TIMED_S = 0.05
_SESSIONS = 8


def microseconds(call: Callable[[], Any]) -> float:
    """CPU time of a call: the least of those that fit into a fraction of a second, at least three."""
    call()
    best, began, calls = np.inf, time.thread_time(), 0
    while calls < 3 or time.thread_time() - began < _TIMED_S:
        start = time.thread_time_ns()
        call()
        best, calls = min(best, (time.thread_time_ns() - start) / 1e3), calls + 1
    return round(float(best), 1)


def model_of(kind: str, name: str, rows: int) -> tuple[LoadedModel, Columns, float]:
    """A model as a replica has it, the rows that it was not fitted on, and the seconds of CPU of its fit."""
    random = np.random.default_rng(0)
    values = random.normal(size=(rows + 1000, WIDTH))
    columns = {f"x{i}": values[:, i].copy() for i in range(WIDTH)}
    score = values[:, 0] + values[:, 1] + random.normal(size=len(values)) * 0.5
    target = np.where(score > 0, "yes", "no") if kind == "classification" else score
    encoder = TableEncoder([(column, "number") for column in columns])
    pipeline = Pipeline([("encode", encoder), ("model", ALGORITHMS[kind][name].build({}))])
    start = time.thread_time()
    pipeline.fit(take(columns, slice(0, rows)), target[:rows] if kind in ("classification", "regression") else None)
    fit_s = time.thread_time() - start
    tune_for_serving(pipeline)
    inputs = tuple(InputColumn(column, ColumnKind.NUMBER, nullable=True) for column in columns)
    output = Output(OutputKind.CLASSES, ("no", "yes")) if kind == "classification" else Output(OutputKind.NUMBER)
    ref = VersionRef(TenantId("benchmark"), ModelId(name), VersionId("1"))
    servable = ServableVersion(ref, kind, Digest("0" * 64), 0, "skops/2", Signature(inputs, output), SelfTest((), ()))
    return LoadedModel(servable, pipeline), take(columns, slice(rows, rows + 1000)), fit_s


def measure(kind: str, name: str, rows: int) -> dict[str, Any]:
    """One line of the table."""
    model, held_out, fit_s = model_of(kind, name, rows)
    encoder, estimator = model.pipeline[0], model.pipeline[-1]
    features = encoder.transform(held_out)
    plain = estimator.predict_proba if hasattr(estimator, "predict_proba") else estimator.predict
    start = time.thread_time()
    found = compile_model(model, held_out)
    line: dict[str, Any] = {"algorithm": name, "kind": kind, "fit_s": round(fit_s, 2)}
    line["compile_s"] = round(time.thread_time() - start, 2)
    line["scikit_learn_us"] = [microseconds(lambda n=n: plain(features[:n])) for n in SIZES]
    line["encoder_us"] = [microseconds(lambda n=n: encoder.transform(take(held_out, slice(0, n)))) for n in SIZES]
    line |= found.compilation.to_json()
    if found.data is not None and (form := found.compilation.form) is not None:
        data = found.data
        start = time.thread_time()
        run = session_of(data, form, WIDTH)
        line["load_ms"] = round(1e3 * (time.thread_time() - start), 1)
        line["graph_us"] = [microseconds(lambda n=n: run(features[:n])) for n in SIZES]
        line["session_bytes"], line["counted_bytes"] = session_bytes(data), memory_of(len(data))
        model.use_compiled(run, form)
        if name == "random_forest" and kind == "classification":
            line["skl2onnx"] = of_skl2onnx(estimator, features)
    line["served_us"] = [microseconds(lambda n=n: model.predict_both(take(held_out, slice(0, n)))) for n in SIZES]
    return line


def session_bytes(data: bytes) -> int:
    """By how much a session makes a fresh process larger, the mean of some."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return int(pool.apply(_growth, (data,)))


def _growth(data: bytes) -> float:
    import psutil

    rows = np.zeros((64, WIDTH))
    open_session(data)(rows)  # what the first session of a process takes is not one of a model
    process = psutil.Process()
    before, kept = process.memory_info().rss, []
    for _ in range(_SESSIONS):
        kept.append(open_session(data))
        kept[-1](rows)
    return float((process.memory_info().rss - before) / _SESSIONS)


def of_skl2onnx(estimator: Any, features: Any) -> dict[str, Any]:
    """The same forest as skl2onnx converts it."""
    import onnxruntime
    from skl2onnx import to_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    made = to_onnx(estimator, features[:1], options={"zipmap": False}, target_opset={"": 17, "ai.onnx.ml": 3})
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(rows: Any) -> Any:
        return session.run(["probabilities"], {"X": rows})[0]

    difference = np.abs(run(features) - estimator.predict_proba(features)).max()
    return {"us": [microseconds(lambda n=n: run(features[:n])) for n in SIZES], "max_difference": float(difference)}


def table_of(lines: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of the table, in microseconds for 1 / 64 / 1000 rows."""
    yield (
        f"{'algorithm':34}{'scikit-learn':>24}{'graph':>24}{'served':>24}{'graph kB':>9}{'session':>9}{'counted':>9}"
        f"{'load ms':>8}{'difference':>11}{'flips':>6}{'fit s':>7}{'compile s':>10}  answers"
    )
    for line in lines:
        proof, form = line["proof"] or {}, line["form"] or {}
        times = "".join(f"{_triple(line.get(part)):>24}" for part in ("scikit_learn_us", "graph_us", "served_us"))
        sizes = [form.get("size_bytes"), line.get("session_bytes"), line.get("counted_bytes")]
        kilobytes = "".join(f"{'' if size is None else f'{size / 1024:,.0f}':>9}" for size in sizes)
        yield (
            f"{line['kind'][:12] + ' ' + line['algorithm']:34}{times}{kilobytes}{line.get('load_ms', ''):>8}"
            f"{proof.get('max_difference', ''):>11}{proof.get('flips', ''):>6}{line['fit_s']:>7}{line['compile_s']:>10}"
            f"  {line['reason']}"
        )


def _triple(numbers: list[float] | None) -> str:
    return "" if numbers is None else " / ".join(f"{number:,.0f}" for number in numbers)


def main() -> None:
    """Measure the algorithms and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000, help="of training")
    parser.add_argument("--algorithms", default="", help="names, separated by commas; all without")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wanted = [name for name in options.algorithms.split(",") if name]
    warnings.simplefilter("ignore")
    sklearn.set_config(assume_finite=True, skip_parameter_validation=True)  # as a replica does
    lines = []
    with threadpool_limits(limits=1):
        for kind, algorithms in ALGORITHMS.items():
            for name in algorithms:
                if not wanted or name in wanted:
                    lines.append(measure(kind, name, options.rows))
                    print(f"{kind} {name}: {lines[-1]['reason']}", flush=True)
    print("\n".join(table_of(lines)))
    if options.json:
        options.json.write_text(json.dumps(lines, indent=2))


if __name__ == "__main__":
    main()
