"""The report of a replica to the registry, and the state of one pointer in a replica."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_PENDING: Final = 200
"""Pending versions in one report; further ones are only counted, so that writing a report takes milliseconds."""
MAX_REASON: Final = 500
"""Maximum length of a reason, in characters."""


class LoadState(StrEnum):
    """The state of a pointer's version in a replica, from best to worst."""

    LOADED = "loaded"
    DEFERRED = "deferred"
    """Not loaded because memory is full; the first request for it loads it."""
    LOADING = "loading"
    BEHIND = "behind"
    """The replica has not read the pointer's last move yet."""
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether waiting changes nothing: the version is loaded, deferred or failed."""
        return self in (LoadState.LOADED, LoadState.DEFERRED, LoadState.FAILED)


@dataclass(frozen=True, slots=True)
class PendingVersion:
    """A version that a pointer names and a replica has not loaded.

    Attributes:
        state: ``deferred``, ``loading`` or ``failed``.
        serves: The version that answers until then; None: requests are refused.
        code: The code of the error of a failed load; ``reason`` is its message.
        cause: The message with its internal part, for operators; None if it has none.
    """

    tenant_id: str
    model_id: str
    environment: str
    version: str
    state: LoadState
    serves: str | None = None
    code: str | None = None
    reason: str | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """The report of one replica. The counts are over all tenants.

    Attributes:
        generation: The generation of the assignment that the replica applied.
        epoch: The epoch of that generation.
        is_current: Whether the last read of the registry succeeded.
        pointers: Pointers in the assignment.
        resident: Loaded models. ``deferred``, ``loading`` and ``failed`` count versions, see ``LoadState``.
        pending: The pending versions, at most ``MAX_PENDING``: failed ones first, deferred ones last.
    """

    generation: int
    epoch: object
    is_current: bool
    pointers: int
    resident: int
    deferred: int = 0
    loading: int = 0
    failed: int = 0
    pending: tuple[PendingVersion, ...] = ()

    @property
    def unlisted(self) -> int:
        """The number of versions that load or failed to load and are not in ``pending``.

        Without deferred ones, of which a replica may have 100,000: like evicted ones, the first request loads them.
        """
        listed = sum(each.state is not LoadState.DEFERRED for each in self.pending)
        return max(0, self.loading + self.failed - listed)


@dataclass(frozen=True, slots=True)
class ReplicaAnswer:
    """The last reported state of one pointer in one replica.

    Attributes:
        version: The version that is deferred, loading or failed; None if loaded or behind.
        serves: The version that answers now; None: none, or unknown.
        code: The code of the error of a failed load; ``reason`` is its message.
    """

    replica_id: str
    state: LoadState
    version: str | None = None
    serves: str | None = None
    code: str | None = None
    reason: str | None = None
