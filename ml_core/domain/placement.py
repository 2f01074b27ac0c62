"""The placement of a tenant: the cell that serves it, and the bounds of a cell's autoscaling."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from ml_core.exceptions import ConfigurationError, InvalidRequestError
from ml_core.ids import TenantId

SHARED_CELL: Final = "shared"
"""The cell of all tenants without a dedicated cell."""
MAX_REPLICAS: Final = 1_000
IDLE_AFTER: Final = timedelta(minutes=15)
"""How long nothing was asked of a tenant whose dedicated cell may have no replicas, before the cell ends."""
NOTED_EVERY: Final = timedelta(minutes=1)
"""How exactly it is known when such a tenant was last asked."""
MAX_TARGET_ONGOING: Final = 256
"""Half of what a replica answers at the same time, so that the other half is room for a burst."""
# No other application of the platform has a name that begins so, whatever the tenant is called.
_DEDICATED: Final = "t-"


@dataclass(frozen=True, slots=True)
class Placement:
    """The cell of a tenant, with the bounds of its autoscaling; also the bounds of the shared cell.

    Attributes:
        is_dedicated: Whether the tenant has a cell of its own. Otherwise the bounds have no effect, except on the
            shared cell.
        min_replicas: Replicas without load. 0, of a dedicated cell only: the cell ends when nothing was asked for a
            while, and the shared cell serves the tenant until it is asked again.
        max_replicas: Replicas under load at most. Equal bounds switch autoscaling off.
        target_ongoing: Concurrent requests per replica that autoscaling aims at.

    Raises:
        InvalidRequestError: A bound is out of range; names it.
    """

    is_dedicated: bool = False
    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing: int = 32

    def __post_init__(self) -> None:
        _check("min_replicas", self.min_replicas, 0 if self.is_dedicated else 1, MAX_REPLICAS)
        _check("max_replicas", self.max_replicas, max(1, self.min_replicas), MAX_REPLICAS)
        _check("target_ongoing", self.target_ongoing, 1, MAX_TARGET_ONGOING)


@dataclass(frozen=True, slots=True)
class Readiness:
    """The live replicas of a cell, and how many of them have read and loaded all that a tenant has."""

    live: int = 0
    ready: int = 0

    def __bool__(self) -> bool:
        """Whether the cell can answer for the tenant with any of its replicas."""
        return 0 < self.live == self.ready


@dataclass(frozen=True, slots=True)
class PlacedTenant:
    """A tenant whose placement was set, and how far its move is.

    Attributes:
        has_moved: Whether the shared cell no longer follows the tenant.
        own: The replicas of its dedicated cell.
        shared: The replicas of the shared cell.
        is_idle: Whether the tenant needs no cell of its own now: ``min_replicas`` is 0 and nothing was asked lately.
    """

    tenant_id: TenantId
    placement: Placement
    has_moved: bool = False
    own: Readiness = Readiness()
    shared: Readiness = Readiness()
    is_idle: bool = False


@dataclass(frozen=True, slots=True)
class Placements:
    """All placements: the bounds of the shared cell, and the tenants whose placement was set."""

    shared: Placement
    tenants: tuple[PlacedTenant, ...] = ()


def _check(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidRequestError(
            f"{name} is {value}.", remedy=f"Use a whole number from {least:,} to {most:,}.", field=name
        )


def dedicated_cell(tenant_id: TenantId) -> str:
    """The name of a tenant's dedicated cell, which is also that of its Serve application."""
    return f"{_DEDICATED}{tenant_id}"


def tenant_of(cell: str) -> TenantId | None:
    """The tenant of a dedicated cell; None for the shared cell.

    Raises:
        ConfigurationError: No cell has such a name.
    """
    if cell == SHARED_CELL:
        return None
    if not cell.startswith(_DEDICATED):
        raise ConfigurationError(
            f"{cell!r} is not the name of a cell.", remedy=f"Use {SHARED_CELL!r}, or {_DEDICATED!r} and a tenant."
        )
    return TenantId(cell.removeprefix(_DEDICATED))
