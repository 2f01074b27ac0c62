"""The target of a request, a version or a pointer, and its rows."""

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
    """The target of a request: a named version, or the rollout of an environment. Names are unparsed.

    Attributes:
        tenant: The tenant.
        model: The model.
        environment: The environment whose rollout answers.
        version: The version that answers instead of the environment's.
        key: The key for the choice of a canary; None: the value of its sticky column.
        request_id: The key if the request has neither.
    """

    tenant: str
    model: str
    environment: str = DEFAULT_ENVIRONMENT
    version: str | None = None
    key: str | None = None
    request_id: str = ""

    @property
    def pointer(self) -> tuple[str, str, str]:
        """The key of the pointer in the model table."""
        return (self.tenant, self.model, self.environment)

    def version_ref(self) -> VersionRef:
        """Parse the name of the version.

        Raises:
            ModelNotFoundError: A name is invalid.
        """
        try:
            return VersionRef(TenantId(self.tenant), ModelId(self.model), VersionId(self.version or ""))
        except InvalidNameError as error:
            raise no_such_name(error) from None


class Table(Protocol):
    """The rows of a request before a version is selected."""

    @property
    def rows(self) -> int:
        """The number of rows."""

    @property
    def size(self) -> int:
        """Bytes of the request body; an upper bound of the characters of its strings."""

    def columns(self, signature: Signature) -> Columns:
        """The canonical columns, or ``SignatureMismatchError``."""

    def first_value(self, column: str, signature: Signature) -> str | None:
        """The text of a column in the first row; None if the row has no such value.

        Args:
            column: The column; it need not be in the signature.
            signature: The order of the columns, for rows without names.
        """


def key_text(value: Any) -> str | None:
    """Convert a value to the key of a request: ``7``, ``7.0`` and ``"7"`` are equal. None if missing or no scalar."""
    if value is None or isinstance(value, list | dict) or value != value:
        return None
    return category_text(value) or None


def no_such_name(error: InvalidNameError) -> ModelNotFoundError:
    """The error for an invalid name in a URL: 404, as for a valid name that does not exist."""
    return ModelNotFoundError(error.message, remedy=error.remedy)
