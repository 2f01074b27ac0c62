"""A cache of bytes, bounded in entries, bytes and age, in this process or shared in a Redis server.

Callers choose keys and values (``ml_core.inference``). Loaded models are kept in the model table instead.
"""

from ml_core.cache.config import CacheConfig
from ml_core.cache.mechanism import CacheMechanism, CacheStatistics

__all__ = ["CacheConfig", "CacheMechanism", "CacheStatistics"]
