"""ML Core: multi-tenant machine learning for tabular and short-text models.

The public names are loaded when they are first used, so that ``import ml_core`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_core.data.processor import DataProcessor
    from ml_core.inference.predictor import Predictor
    from ml_core.manager import ModelManager
    from ml_core.registry.model_registry import ModelRegistry
    from ml_core.system import MLSystem
    from ml_core.training.trainer import Trainer

__all__ = ["DataProcessor", "MLSystem", "ModelManager", "ModelRegistry", "Predictor", "Trainer"]

_HOMES = {
    "DataProcessor": "ml_core.data.processor",
    "MLSystem": "ml_core.system",
    "ModelManager": "ml_core.manager",
    "ModelRegistry": "ml_core.registry.model_registry",
    "Predictor": "ml_core.inference.predictor",
    "Trainer": "ml_core.training.trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
