"""``ModelManager``: files in, loaded models out, for one tenant."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import Lineage, SelfTest
from ml_core.exceptions import (
    ArtifactIntegrityError,
    InvalidRequestError,
    ModelLoadError,
    ModelNotFoundError,
    ModelSaveError,
    ModelVersionConflictError,
    UnsafeArtifactError,
    VersionInUseError,
)
from ml_core.ids import TenantId
from ml_core.manager import ModelManager
from ml_core.models import own_types
from ml_core.models.formats import skops_format
from ml_core.models.formats.audit import MAX_NODES
from ml_core.registry.model_registry import ModelRegistry
from support.model_files import foreign_regressor, platform_pipeline, save
from support.registry import SIGNATURE


class Private(BaseEstimator):
    """An estimator that is on nobody's list."""

    def predict(self, X: object) -> object:
        return X


@pytest.fixture
def manager(db: DatabaseConnection, tenant_id: TenantId, tmp_path: Path) -> ModelManager:
    return ModelManager(db, tmp_path / "store", tenant_id)


@pytest.fixture
def registry(db: DatabaseConnection, tenant_id: TenantId, tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(db, tenant_id, storage_path=tmp_path / "store")


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    return save(platform_pipeline(), tmp_path / "model.skops")


def other_file(tmp_path: Path, seed: int = 1) -> Path:
    return save(platform_pipeline(seed=seed), tmp_path / f"other{seed}.skops")


def stored(manager: ModelManager) -> set[str]:
    return {path.name for path in manager.store.folder.root.rglob("*") if path.is_file()}


def test_register_and_load(manager: ModelManager, model_file: Path) -> None:
    """A registered file can be loaded after the file is gone, and answers."""
    assert manager.register_model("tickets", "classification", model_file, {"owner": "me"}) == "tickets"
    model_file.unlink()
    model = manager.load_model("tickets")
    assert model.predict_rows([{"text": "invoice is wrong", "age": 0}]) == ["billing"]
    assert manager.get_model("tickets").metadata == {"owner": "me"}


def test_a_joblib_file_is_stored_as_skops(manager: ModelManager, tmp_path: Path) -> None:
    """What the caller's own process opened is kept in the safe format, with the same answers."""
    path = save(platform_pipeline(), tmp_path / "model.joblib")
    manager.register_model("tickets", "classification", path)
    assert manager.get_model("tickets").servable.format == "skops/2"
    assert manager.load_model("tickets").predict_rows([{"text": "router is down"}]) == ["network"]


def test_a_joblib_file_with_types_of_its_own_is_refused(manager: ModelManager, tmp_path: Path) -> None:
    """A type that is not on the platform's list is named; nothing is registered or stored."""
    with pytest.raises(UnsafeArtifactError, match="Private"):
        manager.register_model("odd", "classification", save(Private(), tmp_path / "odd.joblib"))
    assert manager.list_models() == []
    assert not manager.store.folder.root.exists()


@pytest.mark.parametrize("suffix", [".skops", ".joblib"])
def test_what_no_server_would_load_is_refused_at_once(manager: ModelManager, tmp_path: Path, suffix: str) -> None:
    """A small file of so many lists: nothing is built from it, registered or stored."""
    path = tmp_path / f"bomb{suffix}"
    if suffix == ".joblib":
        regressor = foreign_regressor()
        regressor.extra = [[] for _ in range(MAX_NODES + 1)]
        save(regressor, path)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("schema.json", b'{"__loader__":"ObjectNode","content":[' + b"[]," * MAX_NODES + b"0]}")
    with pytest.raises((ModelSaveError, UnsafeArtifactError), match="above the bound"):
        manager.register_model("odd", "regression", path)
    assert manager.list_models() == []


def test_a_damaged_joblib_file(manager: ModelManager, tmp_path: Path) -> None:
    """It is an error of ours that names the file."""
    path = tmp_path / "broken.joblib"
    path.write_bytes(b"nonsense")
    with pytest.raises(ModelLoadError, match=r"broken\.joblib"):
        manager.register_model("odd", "classification", path)


def test_idempotent_and_conflicting(manager: ModelManager, model_file: Path, tmp_path: Path) -> None:
    """Same version and bytes: fine. Other bytes: a conflict."""
    for _ in range(2):
        manager.register_model("tickets", "classification", model_file, version="1.0.0")
    with pytest.raises(ModelVersionConflictError):
        manager.register_model("tickets", "classification", other_file(tmp_path), version="1.0.0")
    assert manager.list_models()[0].versions == 1


def test_models_are_listed_by_type(manager: ModelManager, model_file: Path, tmp_path: Path) -> None:
    """All, or those of one type."""
    manager.register_model("tickets", "classification", model_file)
    manager.register_model("costs", "regression", save(foreign_regressor(), tmp_path / "costs.skops"))
    assert [m.model_id for m in manager.list_models()] == ["costs", "tickets"]
    assert [m.model_id for m in manager.list_models("regression")] == ["costs"]


def test_update_merges(manager: ModelManager, model_file: Path) -> None:
    """Metadata is the only part that changes."""
    manager.register_model("tickets", "classification", model_file, {"a": 1, "b": 1})
    assert manager.update_model("tickets", {"b": 2, "c": 3}).metadata == {"a": 1, "b": 2, "c": 3}


def test_archive_and_restore(manager: ModelManager, model_file: Path, tmp_path: Path) -> None:
    """A hidden version is not loaded, by name either; a hidden model is not listed; both come back."""
    manager.register_model("tickets", "classification", model_file, version="1")
    manager.register_model("tickets", "classification", other_file(tmp_path), version="2")
    manager.archive_model("tickets", "2")
    assert manager.load_model("tickets").version.ref.version == "1"
    with pytest.raises(ModelNotFoundError, match="archived"):
        manager.load_model("tickets", "2")
    manager.restore_model("tickets", "2")
    assert manager.load_model("tickets").version.ref.version == "2"
    manager.archive_model("tickets")
    assert manager.list_models() == []
    with pytest.raises(ModelNotFoundError):
        manager.load_model("tickets")
    manager.restore_model("tickets")
    assert manager.load_model("tickets").version.ref.version == "2"


def test_a_version_of_an_archived_model_is_not_loaded(manager: ModelManager, model_file: Path) -> None:
    """Its name does not reach past the model's archive."""
    manager.register_model("tickets", "classification", model_file, version="1")
    manager.archive_model("tickets")
    with pytest.raises(ModelNotFoundError, match="archived"):
        manager.load_model("tickets", "1")


def test_registering_again_mends_a_damaged_artifact(manager: ModelManager, model_file: Path) -> None:
    """The same bytes replace those of the damaged file."""
    manager.register_model("tickets", "classification", model_file, version="1")
    servable = manager.get_model("tickets").servable
    path = manager.store.folder.path(servable.ref.tenant_id, servable.digest)
    path.write_bytes(bytes(servable.size_bytes))
    manager.register_model("tickets", "classification", model_file, version="1")
    assert manager.load_model("tickets").predict_rows([{"text": "router is down"}]) == ["network"]


def test_types_that_this_process_vouches_for_are_recorded(
    manager: ModelManager, registry: ModelRegistry, tmp_path: Path
) -> None:
    """A file that holds them is registered and loads here, under another name as well, and is not promoted."""
    own_types.remember([f"{__name__}.Private"])
    path = tmp_path / "odd.skops"
    path.write_bytes(skops_format.dump(Private()))
    for name in ("odd", "twin"):
        registry.register_version(name, "1", path, signature=SIGNATURE, self_test=SelfTest((), ()))
        assert manager.load_model(name).pipeline.predict(1) == 1
        with pytest.raises(InvalidRequestError, match="Private"):
            registry.promote_version(name, "1", "production")


def test_load_prefers_production(
    manager: ModelManager, registry: ModelRegistry, model_file: Path, tmp_path: Path
) -> None:
    """Without a version: what production points to, else the newest."""
    manager.register_model("tickets", "classification", model_file, version="1")
    manager.register_model("tickets", "classification", other_file(tmp_path), version="2")
    assert manager.load_model("tickets").version.ref.version == "2"
    registry.promote_version("tickets", "1", "production")
    assert manager.load_model("tickets").version.ref.version == "1"


def test_bytes_go_with_their_last_version(manager: ModelManager, model_file: Path, tmp_path: Path) -> None:
    """Two versions of the same bytes: the file goes with the second."""
    for version in ("1", "2"):
        manager.register_model("tickets", "classification", model_file, version=version)
    manager.register_model("tickets", "classification", other_file(tmp_path), version="3")
    assert len(stored(manager)) == 2
    manager.delete_model("tickets", "1")
    assert len(stored(manager)) == 2
    manager.delete_model("tickets", "2")
    assert stored(manager) == {manager.get_model("tickets", "3").servable.digest}
    manager.delete_model("tickets")
    assert stored(manager) == set()
    assert manager.list_models() == []


def test_what_is_needed_is_not_deleted(
    manager: ModelManager, registry: ModelRegistry, model_file: Path, tmp_path: Path
) -> None:
    """A pointer or a lineage child keeps a version and its bytes."""
    registry.register_version("tickets", "1", model_file)
    registry.register_version("tickets", "2", other_file(tmp_path), lineage=Lineage(parent_version="1"))
    registry.promote_version("tickets", "2", "staging")
    for version in ("1", "2", None):
        with pytest.raises(VersionInUseError):
            manager.delete_model("tickets", version)
    assert len(stored(manager)) == 2


def test_another_tenants_model_is_unknown(
    manager: ModelManager, db: DatabaseConnection, other_tenant_id: TenantId, model_file: Path
) -> None:
    """The same store folder and database, another tenant: nothing there."""
    manager.register_model("tickets", "classification", model_file)
    other = ModelManager(db, manager.store.folder.root, other_tenant_id)
    with pytest.raises(ModelNotFoundError):
        other.load_model("tickets")
    with pytest.raises(ModelNotFoundError):
        other.delete_model("tickets")


def test_a_flipped_byte_is_not_loaded(manager: ModelManager, model_file: Path) -> None:
    """The stored bytes are proved before anything reads them."""
    manager.register_model("tickets", "classification", model_file)
    servable = manager.get_model("tickets").servable
    path = manager.store.folder.path(servable.ref.tenant_id, servable.digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ArtifactIntegrityError) as caught:
        manager.load_model("tickets")
    assert (caught.value.model_id, caught.value.version) == ("tickets", "1")  # type: ignore[attr-defined]


def test_a_store_that_can_not_be_written(db: DatabaseConnection, tenant_id: TenantId, model_file: Path) -> None:
    """Nothing is registered when the bytes can't be kept."""
    manager = ModelManager(db, "/proc/store", tenant_id)
    with pytest.raises(ModelSaveError, match="can't be written"):
        manager.register_model("tickets", "classification", model_file)
    assert manager.list_models() == []


def test_a_missing_file(manager: ModelManager, tmp_path: Path) -> None:
    """Said with its path."""
    with pytest.raises(ModelSaveError, match=r"gone\.skops"):
        manager.register_model("tickets", "classification", tmp_path / "gone.skops")
