"""The composition root: one function for each public class, with the defaults that ``MLSystem`` itself uses.

All take the registry and the tenant; what else a class takes can be given by keyword.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ml_core.data.encoding.number import Scaling
from ml_core.data.processor import DataProcessor
from ml_core.domain.columns import ColumnKind
from ml_core.inference.predictor import Predictor
from ml_core.manager import ModelManager
from ml_core.registry.model_registry import ModelRegistry
from ml_core.system import MLSystem
from ml_core.training.trainer import Trainer

if TYPE_CHECKING:
    from ml_core.cache import CacheMechanism
    from ml_core.database.connection import DatabaseConnection


def create_ml_system(
    db: DatabaseConnection,
    tenant_id: str = "default",
    *,
    cache: CacheMechanism | None = None,
    max_memory_mb: int = 2048,
    storage_path: str | Path | None = None,
) -> MLSystem:
    """A system for one tenant: train, compare, promote and predict, in this process."""
    return MLSystem(db, cache, max_memory_mb, tenant_id, storage_path=storage_path)


def create_model_manager(
    db: DatabaseConnection, tenant_id: str = "default", *, storage_path: str | Path | None = None
) -> ModelManager:
    """A model manager, with a copy of each artifact in a folder if one is given."""
    return ModelManager(db, _root(db, storage_path), tenant_id)


def create_trainer(
    db: DatabaseConnection,
    tenant_id: str = "default",
    *,
    storage_path: str | Path | None = None,
    actor: str | None = None,
) -> Trainer:
    """A trainer that registers what it trains."""
    return Trainer(db, tenant_id, storage_path=_root(db, storage_path), actor=actor)


def create_predictor(
    db: DatabaseConnection,
    tenant_id: str = "default",
    *,
    cache: CacheMechanism | None = None,
    storage_path: str | Path | None = None,
) -> Predictor:
    """A predictor over the models of a model manager."""
    return Predictor(create_model_manager(db, tenant_id, storage_path=storage_path), cache, tenant_id)


def create_data_processor(
    db: DatabaseConnection,  # noqa: ARG001 - so that all six are called alike
    tenant_id: str = "default",
    *,
    kinds: Mapping[str, ColumnKind] | None = None,
    scaling: Scaling = "standard",
    cache: CacheMechanism | None = None,
) -> DataProcessor:
    """A data processor that is not fitted yet. It keeps nothing in the registry."""
    return DataProcessor(tenant_id, kinds=kinds, scaling=scaling, cache=cache)


def create_model_registry(
    db: DatabaseConnection, tenant_id: str = "default", *, storage_path: str | Path | None = None
) -> ModelRegistry:
    """A registry, with a copy of each artifact in a folder if one is given."""
    return ModelRegistry(db, tenant_id, storage_path=_root(db, storage_path))


def _root(db: DatabaseConnection, storage_path: str | Path | None) -> Path:
    return Path(storage_path) if storage_path is not None else db.settings.platform.artifact_root
