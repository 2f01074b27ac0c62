"""LightGBM through Ray Train: it fits what one process fits, and kills cost it the rounds since a checkpoint."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import psutil
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.metrics import balanced_accuracy_score, log_loss, r2_score
from sklearn.model_selection import train_test_split

from ml_core.models.lightgbm_estimators import LightGBMClassifier, LightGBMRegressor
from support.waiting import wait_until

pytestmark = [pytest.mark.alone, pytest.mark.filterwarnings("ignore")]  # of Ray
ROUNDS = 60
SAMPLED = LightGBMClassifier(n_estimators=ROUNDS, subsample=0.5, random_state=0)  # after a resume other rows
LOST_S = 120


@pytest.fixture(scope="module", autouse=True)
def address():
    """That of a Ray with two cores, to which this process is connected."""
    import ray

    local = ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1"
    )
    yield local.address_info["gcs_address"]
    ray.shutdown()


def rows():
    """Numbers of which two workers find about the same bins."""
    random = np.random.default_rng(0)
    X = random.normal(size=(4_000, 8)).round(2)
    return X, X[:, 0] + X[:, 1] * X[:, 2] + random.normal(size=len(X)) > 0


def fitted(estimator, X, y, folder, **options):
    """A copy of the estimator, fitted by two workers."""
    from ml_core.training.distributed.boosting import fit_boosting, put_rows

    return fit_boosting(clone(estimator), put_rows(X, y, 2), folder, workers=2, **options)


def trees(estimator):
    """The text of each tree."""
    return estimator._booster.model_to_string().partition("\nend of trees")[0].split("\nTree=")[1:]


@pytest.fixture(scope="module")
def uninterrupted(address, tmp_path_factory):
    """The trees of a training that nothing is done to."""
    return trees(fitted(SAMPLED, *rows(), tmp_path_factory.mktemp("whole") / "boosting"))


def has_checkpoint(folder):
    """Whether Ray Train would resume the training in a folder."""
    with suppress(OSError):
        return "checkpoint_" in (folder / "boosting" / "checkpoint_manager_snapshot.json").read_text()
    return False


def train_and_be_killed(address, folder):
    """A process that trains, killed after its first checkpoint."""
    code = (
        "import sys, ray, pathlib; sys.path[:0] = sys.argv[3:]; import test_boosting as t;"
        "ray.init(sys.argv[1], log_to_driver=False);"
        "t.fitted(t.SAMPLED, *t.rows(), pathlib.Path(sys.argv[2]), checkpoint_s=0)"
    )
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    driver = subprocess.Popen([sys.executable, "-c", code, address, str(folder), *paths])
    try:
        wait_until(lambda: has_checkpoint(folder), LOST_S)
    finally:
        driver.kill()
        driver.wait()


@contextmanager
def a_worker_is_killed(folder, found):
    """Kill a worker of the block after its first checkpoint; note its connections and the folder's mode."""

    def kill():
        wait_until(lambda: has_checkpoint(folder), LOST_S)
        found["mode"] = folder.stat().st_mode & 0o777
        started = psutil.Process().children(recursive=True)
        worker = next(each for each in started if "RayTrainWorker" in " ".join(each.cmdline()))
        found["connections"] = worker.net_connections("tcp")
        worker.kill()
        found["killed"] = worker.pid

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    yield
    thread.join(LOST_S)


@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_a_killed_training_goes_on_at_its_last_checkpoint(address, uninterrupted, tmp_path, victim):
    """The trees until then are those of the uninterrupted one; the others are grown on other samples."""
    folder, found = tmp_path / "boosting", {}
    if victim == "driver":
        train_and_be_killed(address, folder)
        resumed = fitted(SAMPLED, *rows(), folder)
    else:
        with a_worker_is_killed(folder, found):
            resumed = fitted(SAMPLED, *rows(), folder, checkpoint_s=0)
        assert found["killed"]
        assert found["mode"] == 0o700
        # LightGBM's port, which is open on all interfaces, is closed as soon as the workers are connected.
        assert all(ip_address(each.laddr.ip).is_loopback for each in found["connections"])
    pairs = zip(trees(resumed), uninterrupted, strict=True)
    resumed_at = next(number for number, (one, other) in enumerate(pairs) if one != other)
    assert resumed_at in range(10, ROUNDS, 10)
    assert not folder.exists()


def test_two_workers_fit_about_what_one_process_fits(tmp_path):
    """On real data: a number, and classes with balanced weights, whose rounds early stopping chooses."""
    X, y = load_diabetes(return_X_y=True)
    X, new, y, truth = train_test_split(X, y, random_state=0)
    regressor = LightGBMRegressor(n_estimators=40, learning_rate=0.05, random_state=0)
    scores = [r2_score(truth, each.predict(new)) for each in both(regressor, X, y, tmp_path / "numbers")]
    assert scores[0] > 0.3
    assert scores[1] == pytest.approx(scores[0], abs=0.05)
    X, y = load_breast_cancer(return_X_y=True)
    labels = np.array(["malignant", "benign"], dtype=object)[y]
    X, new, y, truth = train_test_split(X, labels, random_state=0, stratify=labels)
    classifier = LightGBMClassifier(
        n_estimators=500, class_weight="balanced", early_stopping_rounds=10, validation_fraction=0.2, random_state=0
    )
    alone, through_ray = both(classifier, X, y, tmp_path / "classes")
    assert through_ray.classes_.tolist() == alone.classes_.tolist()
    assert len(trees(through_ray)) < 500
    for metric, tolerance in ((balanced_accuracy_score, 0.03), (log_loss, 0.05)):
        answers = [
            each.predict(new) if metric is balanced_accuracy_score else each.predict_proba(new)
            for each in (alone, through_ray)
        ]
        one, other = (metric(truth, answer) for answer in answers)
        assert other == pytest.approx(one, abs=tolerance)


def both(estimator, X, y, folder):
    """Fitted by this process and by two workers."""
    return clone(estimator).fit(X, y), fitted(estimator, X, y, folder)


def test_an_error_of_the_fit_is_not_repeated(tmp_path):
    """It is raised as the worker raised it; workers are started once."""
    started = tmp_path / "started"

    class Refusing(LightGBMRegressor):
        def encode(self, y):
            with started.open("a") as file:
                file.write("x")
            raise ValueError("no such target")

    with pytest.raises(ValueError, match="no such target"):
        fitted(Refusing(n_estimators=5), *rows(), tmp_path / "boosting")
    assert len(started.read_text()) <= 2
    assert not (tmp_path / "boosting").exists()
