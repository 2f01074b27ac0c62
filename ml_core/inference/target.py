"""What a request asks: which version, and which rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ml_core.domain.columns import Columns
from ml_core.domain.signature import Signature
from ml_core.exceptions import InvalidNameError, ModelNotFoundError
from ml_core.ids import ModelId, TenantId, VersionId, VersionRef

DEFAULT_ENVIRONMENT = "production"


@dataclass(slots=True)
class Target:
    """What a request asks: a version by its name, or else the one that an environment points to. Names are unparsed."""

    tenant: str
    model: str
    environment: str = DEFAULT_ENVIRONMENT
    version: str | None = None

    @property
    def pointer(self) -> tuple[str, str, str]:
        """The model table's key of the pointer."""
        return (self.tenant, self.model, self.environment)

    def version_ref(self) -> VersionRef:
        """The version's parsed name.

        Raises:
            ModelNotFoundError: A name is none that a model or version could have.
        """
        try:
            return VersionRef(TenantId(self.tenant), ModelId(self.model), VersionId(self.version or ""))
        except InvalidNameError as error:
            raise no_such_name(error) from None


class Table(Protocol):
    """The rows of a request before it is known which version reads them."""

    @property
    def rows(self) -> int:
        """Their number."""

    @property
    def size(self) -> int:
        """Bytes in which they were sent; their strings have no more characters than that."""

    def columns(self, signature: Signature) -> Columns:
        """The canonical columns, or ``SignatureMismatchError``."""


def no_such_name(error: InvalidNameError) -> ModelNotFoundError:
    """In a URL a name that nothing can have is one that nothing has."""
    return ModelNotFoundError(error.message, remedy=error.remedy)
