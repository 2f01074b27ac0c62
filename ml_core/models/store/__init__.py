"""The artifact store: bytes addressed by their sha256, in a folder of their tenant.

::

    <root>/<tenant>/<first two digits>/<digest>

The root is a local folder (``LocalStore``) or a prefix of a bucket (``ObjectStore``, with a local cache). Locations are
derived from parsed tenants and digests only. Reads verify the size and the sha256. ``platform_store`` opens the store
that the settings name.
"""

from ml_core.models.store.base import ArtifactStore, Removed, StoredBlob, Stray
from ml_core.models.store.local import LocalStore
from ml_core.models.store.opening import open_store, platform_store

__all__ = ["ArtifactStore", "LocalStore", "Removed", "StoredBlob", "Stray", "open_store", "platform_store"]
