"""The artifact store: bytes addressed by their sha256, in a folder of their tenant.

::

    <root>/<tenant>/<first two digits>/<digest>

The root is a local folder (``LocalStore``) or a prefix of a bucket (``ObjectStore``, with a local cache). A location is
derived from a parsed tenant and a parsed digest, never from anything that a caller wrote. What is read is proved by
size and sha256 before anybody sees it. Which store a process uses is the settings' to say, see ``platform_store``.
"""

from ml_core.models.store.base import ArtifactStore, Removed, StoredBlob, Stray
from ml_core.models.store.local import LocalStore
from ml_core.models.store.opening import platform_store

__all__ = ["ArtifactStore", "LocalStore", "Removed", "StoredBlob", "Stray", "platform_store"]
