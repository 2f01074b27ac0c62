"""Answers that need not be computed twice: bounded in entries, bytes and age.

What is cached and under which key is the caller's affair (``ml_core.inference``); models are not cached here but in the
model table, which knows which of them are in use.
"""

from ml_core.cache.config import CacheConfig
from ml_core.cache.mechanism import CacheMechanism

__all__ = ["CacheConfig", "CacheMechanism"]
