"""The artifact store of a process, as its settings say."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from ml_core.models.store.base import ArtifactStore
from ml_core.models.store.local import LocalStore, MirroredStore
from ml_core.settings import ArtifactSettings, PlatformSettings, Settings


def platform_store(settings: Settings) -> ArtifactStore:
    """The store of the platform: a bucket if ``MLCORE_ARTIFACTS_URL`` names one, else a folder under ``MLCORE_HOME``.

    A process has one store for equal settings, so connections to a bucket are kept. Creating it connects to nothing.
    """
    return open_store(None, settings)


def open_store(folder: str | Path | None, settings: Settings) -> ArtifactStore:
    """The platform's store, or a caller's folder beside it.

    Args:
        folder: The caller's folder; None, or the platform's own folder: the platform's store itself, wherever it is.
        settings: Those of the platform.
    """
    own = None if folder is None else LocalStore(Path(folder)).root
    if own == LocalStore(settings.platform.artifact_root).root:
        own = None
    return _store(settings.platform, settings.artifacts, own, os.getpid())


# The process is part of the key: a forked child can't use its parent's connections.
@functools.lru_cache(maxsize=64)
def _store(platform: PlatformSettings, artifacts: ArtifactSettings, folder: Path | None, process: int) -> ArtifactStore:
    if folder is not None:
        return MirroredStore(folder, _store(platform, artifacts, None, process))
    if artifacts.url is None:
        return LocalStore(platform.artifact_root)
    from ml_core.models.store.cache import ArtifactCache
    from ml_core.models.store.objects import ObjectStore

    return ObjectStore(artifacts, ArtifactCache(platform.artifact_cache, artifacts.cache_mb * 2**20))
