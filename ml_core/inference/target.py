"""What a request asks: which version, and which rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ml_core.domain.columns import Columns
from ml_core.domain.signature import Signature
from ml_core.domain.values import category_text
from ml_core.exceptions import InvalidNameError, ModelNotFoundError
from ml_core.ids import ModelId, TenantId, VersionId, VersionRef

DEFAULT_ENVIRONMENT = "production"


@dataclass(slots=True)
class Target:
    """What a request asks: a version by its name, or else what an environment serves. Names are unparsed.

    Attributes:
        tenant: The tenant.
        model: The model.
        environment: Whose rollout answers.
        version: The version that answers instead.
        key: What a canary keeps together, as the request says; None: what its sticky column says.
        request_id: What a canary goes by where there is neither.
    """

    tenant: str
    model: str
    environment: str = DEFAULT_ENVIRONMENT
    version: str | None = None
    key: str | None = None
    request_id: str = ""

    @property
    def pointer(self) -> tuple[str, str, str]:
        """The model table's key of the pointer."""
        return (self.tenant, self.model, self.environment)

    def version_ref(self) -> VersionRef:
        """The version's parsed name.

        Raises:
            ModelNotFoundError: No model or version can have such a name.
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

    def first_value(self, column: str, signature: Signature) -> str | None:
        """The text of a column in the first row; None where the row has no such value.

        Args:
            column: The column; it need not be one of the signature.
            signature: Says what is where in rows that do not say so themselves.
        """


def key_text(value: Any) -> str | None:
    """A value as a canary's key: ``7``, ``7.0`` and ``"7"`` are one. None for what is missing, empty or no scalar."""
    if value is None or isinstance(value, list | dict) or value != value:
        return None
    return category_text(value) or None


def no_such_name(error: InvalidNameError) -> ModelNotFoundError:
    """In a URL a name that nothing can have is one that nothing has."""
    return ModelNotFoundError(error.message, remedy=error.remedy)
