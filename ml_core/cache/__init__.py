"""A cache of predictions, bounded in entries, bytes and age.

Callers choose keys and values (``ml_core.inference``). Loaded models are kept in the model table instead.
"""

from ml_core.cache.config import CacheConfig
from ml_core.cache.mechanism import CacheMechanism

__all__ = ["CacheConfig", "CacheMechanism"]
