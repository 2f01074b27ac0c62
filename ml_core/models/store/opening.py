"""Which store a process uses: the settings' answer."""

from __future__ import annotations

from ml_core.models.store.base import ArtifactStore
from ml_core.models.store.local import LocalStore
from ml_core.settings import Settings


def platform_store(settings: Settings) -> ArtifactStore:
    """The store of the platform: a bucket if ``MLCORE_ARTIFACTS_URL`` names one, else a folder under ``MLCORE_HOME``.

    Creating it connects to nothing.
    """
    platform, artifacts = settings.platform, settings.artifacts
    if artifacts.url is None:
        return LocalStore(platform.artifact_root)
    from ml_core.models.store.cache import ArtifactCache
    from ml_core.models.store.objects import ObjectStore

    return ObjectStore(artifacts, ArtifactCache(platform.artifact_cache, artifacts.cache_mb * 2**20))
