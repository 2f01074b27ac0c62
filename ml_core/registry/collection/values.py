"""What a collection removes, as values: a plan that can be printed, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from ml_core.ids import TenantId
from ml_core.settings import CollectionSettings


class Kind(StrEnum):
    """What an item is."""

    VERSION = "version"
    MODEL = "model"
    DATASET_VERSION = "dataset_version"
    ARTIFACT = "artifact"
    TEMPORARY = "temporary"
    IDEMPOTENCY_KEYS = "idempotency_keys"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True)
class Policy:
    """How long what nobody needs is kept.

    Attributes:
        retention: How long a version or dataset stays archived before it is collected.
        grace: How long bytes that nothing refers to are left alone: their row may be about to be written.
    """

    retention: timedelta
    grace: timedelta

    @classmethod
    def of(cls, settings: CollectionSettings) -> Policy:
        """The policy of the settings."""
        return cls(timedelta(days=settings.retention_days), timedelta(seconds=settings.grace_s))


@dataclass(frozen=True, slots=True)
class Item:
    """Something that may go.

    Attributes:
        tenant_id: Whose it is.
        kind: What it is.
        name: Which one, for people.
        why: Why it may go.
        size_bytes: What its removal frees in the artifact store; 0 for a row.
        key: What selects it.
    """

    tenant_id: TenantId
    kind: Kind
    name: str
    why: str
    size_bytes: int = 0
    key: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """A version or dataset that is old enough to go, and what needs it, such as ``hold:legal``."""

    tenant_id: TenantId
    kind: Kind
    name: str
    needed_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a collection of a tenant would remove, in this order, and what it would keep although it is old enough."""

    tenant_id: TenantId
    items: Sequence[Item] = ()
    kept: Sequence[Kept] = ()

    @property
    def size_bytes(self) -> int:
        """What it would free."""
        return sum(item.size_bytes for item in self.items)


class Status(StrEnum):
    """What became of an item."""

    COLLECTED = "collected"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an item. ``freed_bytes`` is what went from the store; ``reason`` why it was skipped or failed."""

    item: Item
    status: Status
    freed_bytes: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a collection of a tenant did."""

    tenant_id: TenantId
    outcomes: Sequence[Outcome] = field(default_factory=tuple)

    @property
    def freed_bytes(self) -> int:
        """What it freed in the artifact store."""
        return sum(outcome.freed_bytes for outcome in self.outcomes)

    @property
    def is_complete(self) -> bool:
        """Whether nothing failed."""
        return all(outcome.status is not Status.FAILED for outcome in self.outcomes)
