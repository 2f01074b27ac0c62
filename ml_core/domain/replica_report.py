"""What a replica reports of itself to the registry, and what it answers when it is asked about one pointer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_PENDING: Final = 200
"""Pending versions that one report lists; the others are only counted, so that a report is written in milliseconds."""
MAX_REASON: Final = 500
"""Characters of a reason that are kept."""


class LoadState(StrEnum):
    """How far a replica is with what a pointer names. The later members are the worse ones."""

    LOADED = "loaded"
    DEFERRED = "deferred"
    """Not loaded because the memory is full; the first request that asks for it loads it."""
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
        tenant_id: Whose pointer it is.
        model_id: Likewise.
        environment: Likewise.
        version: The version.
        state: ``deferred``, ``loading`` or ``failed``.
        serves: The version that the pointer's requests are answered with meanwhile; None: they are refused.
        code: Of the error, for a failed load.
        reason: Its message.
    """

    tenant_id: str
    model_id: str
    environment: str
    version: str
    state: LoadState
    serves: str | None = None
    code: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """One replica's account of itself. All but ``pending`` are numbers over all tenants.

    Attributes:
        generation: The generation of the cell's assignment that it has applied.
        epoch: What that generation belongs to.
        is_current: Whether its last look at the registry succeeded.
        pointers: Pointers that it follows.
        resident: Models in memory.
        deferred: Versions that are loaded with the first request, since the memory is full.
        loading: Versions that are being loaded.
        failed: Versions that could not be loaded.
        pending: The pending versions, the last moved pointer first, ``MAX_PENDING`` at most.
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
        """Pending versions that ``pending`` has no room for."""
        return self.deferred + self.loading + self.failed - len(self.pending)


@dataclass(frozen=True, slots=True)
class ReplicaAnswer:
    """What a replica last reported of one pointer.

    Attributes:
        replica_id: The replica.
        state: How far it is.
        version: The version that is deferred, loading or failed; None when loaded or behind.
        serves: The version that answers there now; None: none, or it is not known.
        code: Of the error, for a failed load.
        reason: Its message.
    """

    replica_id: str
    state: LoadState
    version: str | None = None
    serves: str | None = None
    code: str | None = None
    reason: str | None = None

    @property
    def is_final(self) -> bool:
        """See ``LoadState.is_final``."""
        return self.state.is_final
