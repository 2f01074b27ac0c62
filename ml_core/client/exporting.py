"""Versions of a platform, loaded in the process of a client."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ml_core.domain.signature import Signature
from ml_core.domain.version import SelfTest, ServableVersion
from ml_core.exceptions import ArtifactIntegrityError
from ml_core.ids import Digest, ModelId, TenantId, VersionId, VersionRef
from ml_core.models.loading import LoadedModel, open_version

if TYPE_CHECKING:
    from ml_core.api.schemas.versions import VersionDetail
    from ml_core.client.clients import MLClient


@contextmanager
def downloaded(client: MLClient, found: VersionDetail) -> Iterator[LoadedModel]:
    """Download a version, check its digest and load it, as a server does; the file is removed afterwards.

    Raises:
        ArtifactIntegrityError: What arrived does not have the digest of the version.
        UnsafeArtifactError, ModelLoadError: See ``open_version``.
    """
    ref = VersionRef(TenantId(client.tenant_id), ModelId(found.model_id), VersionId(found.version))
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "artifact"
        client.versions.download(found.model_id, found.version, artifact)
        data = artifact.read_bytes()
        if hashlib.sha256(data).hexdigest() != found.digest:
            raise ArtifactIntegrityError(
                f"The artifact of {ref} does not have its digest.", remedy="Download it again.", **ref.attributes
            )
        signature, digest = Signature.from_json(found.signature), Digest(found.digest)
        version = ServableVersion(
            ref, found.model_type, digest, found.size_bytes, found.format, signature, SelfTest((), ())
        )
        yield open_version(data, version)
