"""What ``fsck`` finds, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ml_core.ids import Digest, TenantId
from ml_core.models.store import Stray


class FindingKind(StrEnum):
    """What is wrong.

    ``missing``, ``corrupt``: a row whose bytes are not there, or are others. ``orphaned``: bytes without a row.
    ``stray``: a file that is not an artifact. ``unknown_tenant``: bytes of a tenant that the registry never had.
    ``deleted_tenant``: rows or bytes that a deletion left. ``inconsistent``: rows that contradict each other.
    """

    MISSING = "missing"
    CORRUPT = "corrupt"
    ORPHANED = "orphaned"
    STRAY = "stray"
    UNKNOWN_TENANT = "unknown_tenant"
    DELETED_TENANT = "deleted_tenant"
    INCONSISTENT = "inconsistent"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and what to do.

    Attributes:
        tenant_id: Whose it is.
        kind: What is wrong.
        subject: With what: a digest, a file, or a name such as ``tickets:production``.
        what: What was found, in one sentence.
        remedy: What to do.
        needed_by: What needs the bytes, such as ``version:tickets@1``; at most ten.
        size_bytes: Of the bytes in question.
        digest: Of the artifact, for one.
        stray: The file, for a file that is not an artifact.
        is_repaired: Whether it was mended.
    """

    tenant_id: TenantId
    kind: FindingKind
    subject: str
    what: str
    remedy: str
    needed_by: tuple[str, ...] = ()
    size_bytes: int = 0
    digest: Digest | None = None
    stray: Stray | None = None
    is_repaired: bool = False

    def describe(self) -> dict[str, Any]:
        """As data for a table or JSON."""
        return {
            "tenant_id": self.tenant_id,
            "kind": self.kind.value,
            "subject": self.subject,
            "what": self.what,
            "needed_by": list(self.needed_by),
            "size_bytes": self.size_bytes,
            "remedy": self.remedy,
            "repaired": self.is_repaired,
        }
