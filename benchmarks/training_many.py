"""One small model for each of many tenants: a batch of jobs, a plain scikit-learn loop, and joblib with two processes.

    .venv/bin/python benchmarks/training_many.py [--tenants 1000] [--cores 2] [--profile 100] [--json FILE]

Each tenant has a table of 200 rows: a text, a category and two numbers. The loop reads its Parquet file, splits it,
fits the pipeline of scikit-learn that is equal to the platform's, measures it on both parts and writes it with joblib.
The batch does what a job does: its turn, its run, the proof of the stored bytes, the version, the audit. All times are
of one run on one machine, one after the other. ``--profile`` executes so many jobs in this process first and lists what
a job costs. Ray is not involved.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job_spec import TrainJobSpec
from ml_core.jobs.dispatcher import Dispatcher
from ml_core.jobs.processes import ProcessRunner
from ml_core.jobs.submission import submit_batch
from ml_core.jobs.worker import work
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobBatchRepository, JobQueue
from ml_core.registry.tenants import TenantRepository
from ml_core.settings import PlatformSettings, Settings

_WORDS = ("invoice", "login", "crash", "refund", "password", "export", "payment", "error", "update", "account")
_ROWS = 200
_PARTS = {
    "claim the next job": ("queue.py", "_claim"),
    "begin and end the job": ("lifecycle.py", "move"),
    "record the run": ("repository.py", "start"),
    "plan: checks and reading": ("plan.py", "plan"),
    "read and split": ("table.py", "read_training_table"),
    "fit": ("fit.py", "_fit"),
    "evaluate and self-test": ("fit.py", "_evaluate"),
    "serialize": ("skops_format.py", "dump"),
    "prove the bytes": ("registration.py", "_prove"),
    "store and publish": ("repository.py", "publish"),
    "all transactions": ("connection.py", "_take_role"),
    "the whole job": ("execution.py", "execute"),
}
"""Part → the function whose time it is; some are parts of others."""


def table(seed: int) -> pd.DataFrame:
    """Tickets of one tenant, whose first word decides the label."""
    random = np.random.default_rng(seed)
    words = random.choice(_WORDS, (_ROWS, 8))
    frame = pd.DataFrame(
        {"subject": [" ".join(row) for row in words], "priority": random.choice(["low", "high"], _ROWS)}
    )
    frame["minutes"], frame["amount"] = random.integers(1, 5_000, _ROWS), random.normal(size=_ROWS)
    frame["label"] = np.where(np.isin(words[:, 0], _WORDS[:5]), "a", "b")
    return frame


def train_plainly(path: Path) -> float:
    """What a script does for one tenant; the accuracy on the held-out rows."""
    from sklearn.compose import make_column_transformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score, log_loss
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = pd.read_parquet(path)
    X, y = frame.drop(columns=["label"]), frame["label"]
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    encode = make_column_transformer(
        (TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), "subject"),
        (OneHotEncoder(handle_unknown="ignore"), ["priority"]),
        (StandardScaler(), ["minutes", "amount"]),
    )
    pipeline = make_pipeline(encode, LogisticRegression(max_iter=1_000)).fit(X_train, y_train)
    scores = []
    for features, target in ((X_train, y_train), (X_test, y_test)):
        labels, probabilities = pipeline.predict(features), pipeline.predict_proba(features)
        f1_score(target, labels, average="macro"), log_loss(target, probabilities)
        scores.append(accuracy_score(target, labels))
    joblib.dump(pipeline, path.with_suffix(".joblib"))
    return float(scores[1])


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds that it takes, and seconds of the processor in this process."""
    started, used = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - used}


def spec() -> TrainJobSpec:
    """The training of each tenant."""
    training = {"dataset": "tickets", "target": "label", "hyperparameters": {"algorithm": "logistic_regression"}}
    return TrainJobSpec.from_json({"model_id": "tickets", "training": training})


def by_batch(db: DatabaseConnection, cores: int) -> dict[str, Any]:
    """Submit a batch and dispatch it until all of its jobs have ended; ``cpu_s`` is that of its processes."""
    batches, runner = JobBatchRepository(db), ProcessRunner(db)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    batch = submit_batch(db, spec())
    submitted_s = time.perf_counter() - started
    dispatcher, stopped = Dispatcher(db, runner, cpus=cores, name="benchmark"), threading.Event()
    thread = threading.Thread(target=dispatcher.run, args=(stopped,))
    thread.start()
    try:
        while not (batch := batches.get(batch.batch_id)).is_final:
            stopped.wait(0.1)
    finally:
        stopped.set()
        thread.join()
        runner.close()
    elapsed_s = time.perf_counter() - started
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = ended.ru_utime + ended.ru_stime - before.ru_utime - before.ru_stime
    states = {state.value: count for state, count in batch.states.items()}
    return {"seconds": elapsed_s, "cpu_s": cpu_s, "submit_s": submitted_s, "states": states}


def profiled(db: DatabaseConnection, jobs: int) -> dict[str, float]:
    """Processor time of each part of a job in milliseconds, of this process only and with what the profiler adds."""
    batch, queue = submit_batch(db, spec()), JobQueue(db)
    profiler, done = cProfile.Profile(time.process_time), 0
    first = queue.claim("profile", 1, 600)
    assert first is not None
    following = queue.claim_following

    def claim(*given: Any) -> Any:
        nonlocal done
        done += 1
        return following(*given) if done < jobs else None

    queue_class: Any = JobQueue
    queue_class.claim_following, kept = lambda _self, *given: claim(*given), queue_class.claim_following
    try:
        profiler.runcall(work, db, first)
    finally:
        queue_class.claim_following = kept
        JobBatchRepository(db).cancel(batch.batch_id)
    entries = pstats.Stats(profiler).stats.items()  # type: ignore[attr-defined]
    found = {}
    for part, (file, function) in _PARTS.items():
        seconds = sum(row[3] for (path, _, name), row in entries if name == function and Path(path).name == file)
        found[part] = round(1_000 * seconds / done, 2)
    transactions = sum(row[0] for (path, _, name), row in entries if name == "_take_role")
    statements = sum(row[0] for (path, _, name), row in entries if name == "execute" and "psycopg/cursor.py" in path)
    return {**found, "transactions of a job": transactions / done, "statements of a job": statements / done}


def main() -> None:
    """Run the benchmark and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, default=1_000)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--profile", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    result: dict[str, Any] = {"tenants": given.tenants, "cores": given.cores, "rows": _ROWS}
    with tempfile.TemporaryDirectory(prefix="mlcore-bench-") as folder:
        home = Path(folder)
        home.chmod(0o711)
        with DatabaseConnection(settings=Settings(platform=PlatformSettings(home=home))) as db:
            paths = [home / f"{index}.parquet" for index in range(given.tenants)]
            for index, path in enumerate(paths):
                frame = table(index)
                frame.to_parquet(path)
                TenantRepository(db).create(f"t{index}")
                DatasetRepository(db, f"t{index}").create("tickets", frame)
            if given.profile:
                result["profile_ms"] = profiled(db, given.profile)
            train_plainly(paths[0])  # the imports
            result["loop"] = timed(lambda: [train_plainly(path) for path in paths])
            parallel = joblib.Parallel(n_jobs=given.cores)
            result["joblib"] = timed(lambda: parallel(joblib.delayed(train_plainly)(path) for path in paths))
            result["batch"] = by_batch(db, given.cores)
    seconds = {name: result[name]["seconds"] for name in ("loop", "joblib", "batch")}
    result["times_the_loop"] = {name: seconds["loop"] / seconds[name] for name in ("joblib", "batch")}
    result["of_cores"] = result["times_the_loop"]["batch"] / given.cores
    text = json.dumps(result, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text)


if __name__ == "__main__":
    main()
