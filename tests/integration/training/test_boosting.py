"""LightGBM through Ray Train: the trees of one process, early stopping, and a worker that is killed."""

import os
import signal
import stat
import threading

import numpy as np
import psutil
import pytest
from sklearn.base import clone

from ml_core.models.lightgbm_estimators import LightGBMClassifier
from support.waiting import wait_until

pytestmark = [pytest.mark.alone, pytest.mark.filterwarnings("ignore")]  # of Ray
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(20_000, 8)).round(2)  # so that workers find about the same bins
SCORE = X[:, 0] + X[:, 1] * X[:, 2] + RANDOM.normal(size=len(X))


@pytest.fixture(scope="module", autouse=True)
def cluster():
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def fitted(estimator, X, y, folder, **options):
    from ml_core.training.distributed.boosting import fit_boosting, put_rows

    return fit_boosting(estimator, put_rows(X, y, 2), folder, workers=2, **options)


def trees(text):
    return text.partition("\nTree=")[2].split("\nTree=")


def test_a_killed_worker_is_replaced_and_the_training_goes_on(tmp_path):
    """At its last checkpoint: the trees until then are those of the checkpoint, in a folder that only we can open."""
    folder = tmp_path / "boosting"
    estimator = LightGBMClassifier(n_estimators=150, random_state=0)
    found = {}

    def kill():
        saved = wait_until(lambda: next(iter(folder.rglob("model.txt")), None), timeout_s=120)
        found["mode"], found["text"] = stat.S_IMODE(folder.stat().st_mode), saved.read_text()
        names = ((each, " ".join(each.info["cmdline"] or [])) for each in psutil.process_iter(["cmdline"]))
        worker = next(each for each, name in names if "RayTrainWorker" in name)
        os.kill(worker.pid, signal.SIGKILL)
        found["killed"] = worker.pid

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    fitted(estimator, X, SCORE > 0, folder, checkpoint_s=0)
    thread.join()
    assert found["killed"]
    assert found["mode"] == 0o700
    assert not folder.exists()
    text = estimator.canonical(estimator._booster.model_to_string())
    assert len(trees(text)) == 150
    n_saved = len(trees(found["text"]))
    assert 10 <= n_saved < 150
    assert trees(text)[: n_saved - 1] == trees(found["text"])[: n_saved - 1]
    alone = clone(estimator).fit(X, SCORE > 0)
    assert estimator.score(X, SCORE > 0) == pytest.approx(alone.score(X, SCORE > 0), abs=0.02)
