"""Checkpoints: whole or absent, and only from the tenant's own folder."""

import pickle

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

from ml_core.exceptions import ModelLoadError, ModelSaveError
from ml_core.ids import ModelId, TenantId
from ml_core.training.checkpoints import CheckpointFolder

MODEL = ModelId("m")


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path, TenantId("acme"))


def test_a_checkpoint_comes_back_as_it_was(folder):
    """Training can go on from it."""
    random = np.random.default_rng(0)
    X = random.normal(size=(50, 3))
    model = SGDClassifier().partial_fit(X, X[:, 0] > 0, classes=[False, True])
    loaded = folder.load(folder.save(model, MODEL, 3))
    np.testing.assert_array_equal(loaded.coef_, model.coef_)
    loaded.partial_fit(X, X[:, 0] > 0)


def test_epochs_sort_by_name(folder):
    """So the last file is the last epoch."""
    paths = [folder.save(epoch, MODEL, epoch) for epoch in (2, 10, 100)]
    assert sorted(paths) == paths
    assert folder.load(folder.save("new", MODEL, 10)) == "new"


@pytest.mark.parametrize("epoch", [-1, 1.5, "1", True, 10**9])
def test_an_epoch_counts_from_zero(folder, epoch):
    """Nothing else reaches a file name."""
    with pytest.raises(ModelSaveError, match="not an epoch"):
        folder.save({}, MODEL, epoch)


def test_what_can_not_be_written_leaves_nothing(folder, tmp_path):
    """An object that pickle refuses: one error, no file."""
    with pytest.raises(ModelSaveError, match="can't be written"):
        folder.save(lambda: None, MODEL, 0)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_another_tenants_checkpoint_is_refused(folder, tmp_path):
    """So is any other file, however its path is written, and a link that leads out."""
    other = CheckpointFolder(tmp_path, TenantId("globex")).save("secret", MODEL, 0)
    outside = tmp_path / "evil.joblib"
    outside.write_bytes(pickle.dumps("x"))
    own = folder.save("own", MODEL, 0)
    link = own.with_name("link.joblib")
    link.symlink_to(outside)
    for path in (other, outside, own.parent / ".." / ".." / "evil.joblib", link, own.with_name("x.pkl")):
        with pytest.raises(ModelLoadError, match="not one of this tenant's"):
            folder.load(path)


def test_a_missing_or_damaged_checkpoint_is_one_clear_error(folder):
    """With a remedy."""
    path = folder.save(np.arange(1000), MODEL, 0)
    with pytest.raises(ModelLoadError, match="does not exist"):
        folder.load(path.with_name("epoch-000000001.joblib"))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ModelLoadError, match="earlier epoch"):
        folder.load(path)
