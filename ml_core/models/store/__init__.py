"""The artifact store: bytes addressed by their sha256, in a folder of their tenant.

::

    <root>/<tenant>/<first two digits>/<digest>

The root is a local folder (``LocalStore``) or a prefix of a bucket (``ObjectStore``, with a local cache). A location is
derived from a parsed tenant and a parsed digest, never from a caller's text. What is read is verified by size and
sha256 before it is returned. The settings decide which store a process uses, see ``platform_store``.
"""

from ml_core.models.store.base import ArtifactStore, Removed, StoredBlob, Stray
from ml_core.models.store.local import LocalStore
from ml_core.models.store.opening import open_store, platform_store

__all__ = ["ArtifactStore", "LocalStore", "Removed", "StoredBlob", "Stray", "open_store", "platform_store"]
