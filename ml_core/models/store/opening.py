"""Which store a process uses: the settings' answer."""

from __future__ import annotations

import functools
import os

from ml_core.models.store.base import ArtifactStore
from ml_core.models.store.local import LocalStore
from ml_core.settings import ArtifactSettings, PlatformSettings, Settings


def platform_store(settings: Settings) -> ArtifactStore:
    """The store of the platform: a bucket if ``MLCORE_ARTIFACTS_URL`` names one, else a folder under ``MLCORE_HOME``.

    A process has one for equal settings, so that connections to a bucket are kept. Creating it connects to nothing.
    """
    return _store(settings.platform, settings.artifacts, os.getpid())


@functools.lru_cache(maxsize=16)
def _store(platform: PlatformSettings, artifacts: ArtifactSettings, _process: int) -> ArtifactStore:
    """One a process: a child that was forked can't use its parent's connections."""
    if artifacts.url is None:
        return LocalStore(platform.artifact_root)
    from ml_core.models.store.cache import ArtifactCache
    from ml_core.models.store.objects import ObjectStore

    return ObjectStore(artifacts, ArtifactCache(platform.artifact_cache, artifacts.cache_mb * 2**20))
