"""``ModelRegistry``, the public API of the registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.columns import ColumnKind
from ml_core.domain.version import Lineage
from ml_core.exceptions import (
    InvalidNameError,
    InvalidRequestError,
    ModelNotFoundError,
    ModelSaveError,
    ModelVersionConflictError,
    TenantNotFoundError,
    UnsafeArtifactError,
)
from ml_core.ids import TenantId
from ml_core.models.loading import load_version
from ml_core.models.store import LocalStore
from ml_core.registry.model_registry import ModelRegistry
from ml_core.registry.tenants import TenantRepository
from support.model_files import foreign_regressor, platform_pipeline, save
from support.registry import SELF_TEST, SIGNATURE, TICKETS


@pytest.fixture
def registry(db: DatabaseConnection, tenant_id: TenantId, tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(db, tenant_id, storage_path=tmp_path / "store")


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    return save(platform_pipeline(), tmp_path / "model.skops")


def stored_files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_register_promote_and_read(registry: ModelRegistry, model_file: Path) -> None:
    """The path of a user: a file becomes a version that can be promoted and read back."""
    version = registry.register_version("tickets", "1.0.0", model_file, {"accuracy": 0.9}, {"C": 1.0}, actor="me")
    assert version == "1.0.0"
    found = registry.get_model_version("tickets")
    assert found.metrics == {"validation": {"accuracy": 0.9}}
    assert found.hyperparameters == {"C": 1.0}
    assert found.servable.model_type == "classification"
    assert registry.list_versions("tickets") == [found]
    assert registry.promote_version("tickets", "1.0.0", "production", actor="me").generation == 1
    assert [entry.actor for entry in registry.history("tickets", "production")] == ["me"]


def test_a_platform_pipeline_describes_itself(registry: ModelRegistry, model_file: Path, tmp_path: Path) -> None:
    """Without a signature, columns and classes come from the pipeline, with a self-test that a copy passes."""
    registry.register_version("tickets", None, model_file)
    servable = registry.get_model_version("tickets").servable
    assert [(c.name, c.kind) for c in servable.signature.inputs] == [
        ("text", ColumnKind.TEXT),
        ("age", ColumnKind.NUMBER),
    ]
    assert servable.signature.output.classes == ("billing", "network")
    assert len(servable.self_test.rows) == 1
    model = load_version(LocalStore(tmp_path / "store"), servable)
    assert model.predict_rows([{"text": "router is down"}]) == ["network"]


def test_a_foreign_estimator_is_one_over_numbers(registry: ModelRegistry, tmp_path: Path) -> None:
    """A caller's regressor gets numbered columns and can be promoted."""
    path = save(foreign_regressor(), tmp_path / "m.skops")
    registry.register_version("costs", "1", path)
    servable = registry.get_model_version("costs").servable
    assert servable.model_type == "regression"
    assert [c.name for c in servable.signature.inputs] == ["x0", "x1"]
    registry.promote_version("costs", "1", "production")


def test_signature_and_self_test_may_be_given(registry: ModelRegistry, model_file: Path) -> None:
    """What the caller brings is what is recorded."""
    registry.register_version("tickets", "1", model_file, signature=SIGNATURE, self_test=SELF_TEST)
    servable = registry.get_model_version("tickets", "1").servable
    assert (servable.signature, servable.self_test) == (SIGNATURE, SELF_TEST)


def test_the_same_bytes_inherit_the_signature(registry: ModelRegistry, model_file: Path) -> None:
    """Registering known bytes under another name keeps what was proved of them, and where they came from."""
    lineage = Lineage(run_id="run_1", dataset_digest="d")
    registry.register_version("tickets", "1", model_file, signature=SIGNATURE, self_test=SELF_TEST, lineage=lineage)
    registry.register_version("copy", "1", model_file)
    copy = registry.get_model_version("copy")
    assert (copy.servable.signature, copy.servable.self_test, copy.lineage) == (SIGNATURE, SELF_TEST, lineage)


def test_a_signature_without_a_self_test_takes_none_from_elsewhere(registry: ModelRegistry, model_file: Path) -> None:
    """A self-test over other columns would prove nothing."""
    registry.register_version("tickets", "1", model_file)
    registry.register_version("tickets", "2", model_file, signature=SIGNATURE)
    assert registry.get_model_version("tickets", "2").servable.self_test.rows == ()


def test_conflict_and_idempotence(registry: ModelRegistry, model_file: Path, tmp_path: Path) -> None:
    """The same bytes again are fine; others are a conflict that leaves no bytes behind."""
    registry.register_version("tickets", "1", model_file)
    assert registry.register_version("tickets", "1", model_file) == "1"
    before = stored_files(tmp_path)
    other = save(platform_pipeline(seed=1), tmp_path / "other.skops")
    with pytest.raises(ModelVersionConflictError):
        registry.register_version("tickets", "1", other)
    assert stored_files(tmp_path) == before


def test_the_tenant_is_created_with_its_first_version(db: DatabaseConnection, model_file: Path, tmp_path: Path) -> None:
    """Code that never heard of tenants' creation works; a reading call makes none."""
    name = TenantId("firstcomer")
    registry = ModelRegistry(db, name, storage_path=tmp_path / "store")
    assert registry.list_versions("tickets") == []
    assert not TenantRepository(db).exists(name)
    registry.register_version("tickets", "1", model_file)
    assert TenantRepository(db).exists(name)


@pytest.mark.parametrize("name", ["../etc", "Tickets", "t" * 300, "täglich", "", "a/b"])
def test_names_that_are_none(registry: ModelRegistry, model_file: Path, name: str, db: DatabaseConnection) -> None:
    """A name that can't be one is refused before anything is read, stored or asked."""
    with pytest.raises(InvalidNameError):
        registry.register_version(name, "1", model_file)
    with pytest.raises(InvalidNameError):
        registry.promote_version("tickets", "1", name)
    with pytest.raises(InvalidNameError):
        ModelRegistry(db, name)


def test_files_that_are_none(registry: ModelRegistry, tmp_path: Path) -> None:
    """A missing file, a folder, and a pickle in disguise: one clear error each, and nothing is registered."""
    disguised = save(platform_pipeline(), tmp_path / "m.joblib").rename(tmp_path / "m.skops")
    for path in (tmp_path / "missing.skops", tmp_path):
        with pytest.raises(ModelSaveError, match="can't be read"):
            registry.register_version("tickets", "1", path)
    with pytest.raises(UnsafeArtifactError):
        registry.register_version("tickets", "1", disguised)
    assert registry.list_versions("tickets") == []
    assert not (tmp_path / "store").exists()


def test_comparison(registry: ModelRegistry, model_file: Path, tmp_path: Path) -> None:
    """Each metric with both values, difference and the better version; what else differs by name."""
    other = save(platform_pipeline(seed=1), tmp_path / "other.skops")
    first = {"validation": {"accuracy": 0.8, "log_loss": 0.5, "odd": 1.0, "same": 1.0}, "train": {"accuracy": 1.0}}
    second = {"validation": {"accuracy": 0.9, "log_loss": 0.6, "odd": 2.0, "same": 1.0, "new": 3.0}}
    data = Lineage(dataset_digest="d1"), Lineage(dataset_digest="d2")
    registry.register_version("tickets", "1", model_file, first, {"C": 1, "k": 2}, lineage=data[0])
    registry.register_version("tickets", "2", other, second, {"C": 5, "k": 2}, lineage=data[1], signature=SIGNATURE)
    result = registry.compare_versions("tickets", "1", "2")
    validation = result["metrics"]["validation"]
    assert validation["accuracy"]["difference"] == pytest.approx(0.1)
    assert [validation[name]["better"] for name in ("accuracy", "log_loss", "odd", "same", "new")] == [
        "2",
        "1",
        None,
        None,
        None,
    ]
    assert validation["new"] == {"version1": None, "version2": 3.0, "difference": None, "better": None}
    assert result["metrics"]["train"]["accuracy"]["version2"] is None
    assert result["hyperparameters"] == {"C": {"version1": 1, "version2": 5}}
    assert result["data"] == {"version1": "d1", "version2": "d2", "same": False}
    assert result["signature"] == {"added": [], "removed": ["age"], "changed": [], "same_output": False}


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (Lineage(data_digest="a"), Lineage(data_digest="a"), True),
        (Lineage(data_digest="a", dataset_digest="x"), Lineage(data_digest="b", dataset_digest="x"), False),
        (Lineage(dataset_digest="x"), Lineage(dataset_digest="y"), False),
        (Lineage(dataset_digest="x"), Lineage(dataset_digest="x", data_digest="a"), True),
        (Lineage(dataset_digest="x"), Lineage(data_digest="a"), None),
        (Lineage(dataset_digest="x"), Lineage(dataset_digest="y", data_digest="a"), None),
        (Lineage(), Lineage(), None),
    ],
)
def test_comparison_of_data(
    registry: ModelRegistry, model_file: Path, tmp_path: Path, first: Lineage, second: Lineage, same: bool | None
) -> None:
    """Digests of one kind are compared; what only another kind could tell is not known."""
    other = save(platform_pipeline(seed=1), tmp_path / "other.skops")
    registry.register_version("tickets", "1", model_file, lineage=first)
    registry.register_version("tickets", "2", other, lineage=second)
    assert registry.compare_versions("tickets", "1", "2")["data"]["same"] is same


def test_lineage_up_and_down(registry: ModelRegistry, model_file: Path, tmp_path: Path) -> None:
    """Run, data, parent, commit and libraries; and the versions and environments that came of it."""
    upstream = Lineage("run_1", "d1", None, "c0ffee", {"scikit-learn": "1.9"})
    registry.register_version("tickets", "1", model_file, lineage=upstream)
    child = save(platform_pipeline(seed=1), tmp_path / "child.skops")
    registry.register_version("tickets", "2", child, lineage=Lineage(parent_version="1"))
    registry.promote_version("tickets", "1", "staging")
    lineage = registry.get_lineage("tickets", "1")
    assert {name: lineage[name] for name in ("run_id", "dataset_digest", "code_commit", "libraries")} == {
        "run_id": "run_1",
        "dataset_digest": "d1",
        "code_commit": "c0ffee",
        "libraries": {"scikit-learn": "1.9"},
    }
    assert (lineage["children"], lineage["environments"]) == (["2"], ["staging"])
    assert registry.get_lineage("tickets", "2")["parent_version"] == "1"


def test_rollback_through_the_public_api(registry: ModelRegistry, model_file: Path, tmp_path: Path) -> None:
    """It goes back to the version before, and says when there is none."""
    registry.register_version("tickets", "1", model_file)
    registry.register_version("tickets", "2", save(platform_pipeline(seed=1), tmp_path / "other.skops"))
    for version in ("1", "2"):
        registry.promote_version("tickets", version, "production")
    assert registry.rollback("tickets", "production").version == "1"
    with pytest.raises(ModelNotFoundError):
        registry.rollback("tickets", "production")
    with pytest.raises(InvalidRequestError):
        registry.rollback("tickets", "elsewhere")


def test_the_default_store_is_the_platforms(db: DatabaseConnection, tenant_id: TenantId, model_file: Path) -> None:
    """What is registered without a path is where replicas look for it."""
    ModelRegistry(db, tenant_id).register_version("tickets", "1", model_file)
    version = ModelRegistry(db, tenant_id).get_model_version("tickets")
    store = LocalStore(db.settings.platform.artifact_root)
    assert store.exists(tenant_id, version.servable.digest)
    assert version.model_id == TICKETS


def test_reading_needs_no_tenant_but_keys_do(db: DatabaseConnection) -> None:
    """Promoting for a tenant that does not exist finds no version there."""
    with pytest.raises((ModelNotFoundError, TenantNotFoundError)):
        ModelRegistry(db, "nobody").promote_version("tickets", "1", "production")
