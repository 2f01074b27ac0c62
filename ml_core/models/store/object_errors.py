"""What an object store's refusal means, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ml_core.exceptions import ModelLoadError, ModelSaveError
from ml_core.ids import Digest, TenantId
from ml_core.settings import ArtifactSettings

# What Amazon's library calls the error, as pyarrow writes it into the text of an OSError.
_REFUSED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "MISSING_AUTHENTICATION", "EXPIRED")
_UNREACHABLE = ("NETWORK_CONNECTION", "REQUEST_TIMEOUT", "SERVICE_UNAVAILABLE", "SLOW_DOWN", "INTERNAL_FAILURE")


class _NoBucketError(OSError):
    """What was asked for is not there because its bucket is not."""


def is_unreachable(error: BaseException) -> bool:
    """Whether an error of ``pyarrow.fs`` says that nobody answers."""
    return isinstance(error, OSError) and any(word in str(error) for word in _UNREACHABLE)


class Explaining:
    """Turns errors of ``pyarrow.fs`` into the platform's own.

    Args:
        settings: Where the store is.
        has_bucket: Whether its bucket is there; may raise OSError.
    """

    def __init__(self, settings: ArtifactSettings, has_bucket: Callable[[], bool]) -> None:
        self._settings = settings
        self._has_bucket = has_bucket

    def require_bucket(self) -> None:
        """Where an object is missing: raise an OSError if all of them are, since a missing bucket looks the same."""
        if not self._has_bucket():
            raise _NoBucketError("NO_SUCH_BUCKET")

    @contextmanager
    def reading(self, tenant_id: TenantId | None, digest: Digest | None = None) -> Iterator[None]:
        """Raise a ModelLoadError for what goes wrong inside."""
        try:
            yield
        except OSError as error:
            message, remedy = self._explain(error)
            shown = None if digest is None else str(digest)
            raise ModelLoadError(message, remedy=remedy, tenant_id=tenant_id, digest=shown) from error

    @contextmanager
    def writing(self, tenant_id: TenantId) -> Iterator[None]:
        """Raise a ModelSaveError for what goes wrong inside."""
        try:
            yield
        except OSError as error:
            message, remedy = self._explain(error)
            raise ModelSaveError(message, remedy=remedy, tenant_id=tenant_id) from error

    def _explain(self, error: OSError) -> tuple[str, str]:
        """What happened and what to do."""
        settings = self._settings
        # pyarrow's own words before that name key and bucket once more.
        text = str(error).partition("AWS Error ")[2] or str(error)
        store = f"The artifact store {settings.url}"
        if "NO_SUCH_BUCKET" in text:
            return f"There is no bucket {settings.bucket!r}.", "Create it, or correct MLCORE_ARTIFACTS_URL."
        if any(word in text for word in _REFUSED):
            return (
                f"{store} refuses the credentials of this process: {text}.",
                "Give it AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role, that may read, write, list and "
                "delete there.",
            )
        if is_unreachable(error):
            where = settings.endpoint or f"Amazon S3, region {settings.region or 'as the AWS variables say'}"
            return (
                f"{store} can't be reached at {where}: {text}.",
                "Check that it runs, and MLCORE_ARTIFACTS_ENDPOINT and MLCORE_ARTIFACTS_REGION; then try again.",
            )
        return f"{store} failed: {text}.", "Try again; if it fails again, look into the store's own log."
