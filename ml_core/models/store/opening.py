"""Opening of artifact stores by the settings."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from ml_core.models.store.base import ArtifactStore
from ml_core.models.store.local import LocalStore, MirroredStore
from ml_core.settings import ArtifactSettings, PlatformSettings, Settings


def platform_store(settings: Settings) -> ArtifactStore:
    """The store of the platform: a bucket if ``MLCORE_ARTIFACTS_URL`` names one, else a folder under ``MLCORE_HOME``.

    A process has one store for equal settings. Opening it does no I/O.
    """
    return open_store(None, settings)


def open_store(folder: str | Path | None, settings: Settings) -> ArtifactStore:
    """The store of the platform, or a folder of the caller that mirrors it, unless that is the platform's own."""
    own = None if folder is None else LocalStore(Path(folder)).root
    if own == LocalStore(settings.platform.artifact_root).root:
        own = None
    return _store(settings.platform, settings.artifacts, own, os.getpid())


# The process id is part of the key, because a forked child can't use the connections of its parent.
@functools.lru_cache(maxsize=64)
def _store(platform: PlatformSettings, artifacts: ArtifactSettings, folder: Path | None, process: int) -> ArtifactStore:
    if folder is not None:
        return MirroredStore(folder, _store(platform, artifacts, None, process))
    if artifacts.url is None:
        return LocalStore(platform.artifact_root)
    from ml_core.models.store.cache import ArtifactCache
    from ml_core.models.store.objects import ObjectStore

    return ObjectStore(artifacts, ArtifactCache(platform.artifact_cache, artifacts.cache_mb * 2**20))
