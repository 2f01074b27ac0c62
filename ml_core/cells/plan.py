"""The plan: the Serve applications that the placements ask for, given what Serve and the replicas report.

A tenant moves to its dedicated cell in these steps, each of which is seen before the next:

1. The cell starts under a prefix that nobody uses, and loads what the tenant has.
2. It takes the prefix of the tenant, whose requests it answers from then on.
3. After ``SETTLE_S`` the shared cell lets go of the tenant.

And back:

1. The shared cell follows the tenant again, and loads what it has.
2. The dedicated cell is removed. The longest prefix is then that of the shared cell.

The state between two steps is in the registry and in Serve, so any process can continue a move.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ml_core.domain.placement import SHARED_CELL, PlacedTenant, Placement, Placements, dedicated_cell
from ml_core.ids import TenantId

Application = dict[str, Any]
"""An entry of ``applications`` in Serve's declarative configuration."""

CONTROL: Final = "control"
"""The application of the control API."""
CONTROL_LOOP: Final = "control-loop"
"""The application of the control loop, which has no route."""

SETTLE_S: Final = 20.0
"""Seconds from a change of routes until no request takes the old one. The ingress has it in less than a second, on an
overloaded machine in nine."""

_RUNNING: Final = "RUNNING"
_DELETING: Final = "DELETING"
# Seconds. Serve's defaults are made for models that take minutes to load: it looks back 30 s, waits 30 s before it
# starts replicas and 600 s before it stops one.
_AUTOSCALING: Final = {
    "metrics_interval_s": 1.0,
    "look_back_period_s": 3.0,
    "upscale_delay_s": 1.0,
    "downscale_delay_s": 60.0,
}


@dataclass(frozen=True, slots=True)
class SeenApplication:
    """A Serve application, as Serve reports it.

    Attributes:
        status: ``RUNNING``, ``DEPLOYING``, ``DEPLOY_FAILED``, ``DELETING``, …
        message: Serve's message about it.
        running_replicas: Replicas that answer.
        route_prefix: The prefix of its URLs; None: it has no route.
        declared_at: When the configuration was last changed, seconds since 1970.
        config: The entry that declared it; None if none did.
    """

    status: str
    message: str = ""
    running_replicas: int = 0
    route_prefix: str | None = None
    declared_at: float = 0.0
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        applications: The entries of Serve's declarative configuration; what it lacks is to be removed.
        moves: Tenant → whether the shared cell is to let go of it (True) or to follow it again (False).
        notes: Tenant → what its move waits for, or what happens next.
    """

    applications: Sequence[Application]
    moves: Mapping[TenantId, bool] = field(default_factory=dict)
    notes: Mapping[TenantId, str] = field(default_factory=dict)

    def __str__(self) -> str:
        cells = [f"{each['name']} at {each['route_prefix'] or 'no route'}" for each in self.applications]
        return "\n".join([*cells, *(f"{tenant}: {note}" for tenant, note in self.notes.items())])


@dataclass(frozen=True, slots=True)
class _Step:
    """What becomes of one tenant: the prefix of its dedicated cell (None: no such cell), its move, and why."""

    prefix: str | None
    note: str | None = None
    move: bool | None = None


def plan(
    placements: Placements,
    seen: Mapping[str, SeenApplication],
    *,
    now: float,
    options: Mapping[str, Any],
    others: Sequence[Application] = (),
    nodes: int | None = None,
) -> Plan:
    """Plan the Serve applications.

    Args:
        placements: What is wanted, and what the replicas have loaded.
        seen: The applications that Serve reports, by name; none before it has started.
        now: Seconds since 1970.
        options: Options of the cells' deployments that depend on the place, such as ``ray_actor_options``.
        others: Applications that are no cells.
        nodes: Nodes over which the replicas of a cell are spread evenly; None: they are placed anywhere.
    """
    steps = {
        each.tenant_id: (each, _step(each, seen.get(dedicated_cell(each.tenant_id)), now))
        for each in placements.tenants
    }
    shared = cell_application(SHARED_CELL, "/", placements.shared, options, nodes)
    dedicated = [
        cell_application(dedicated_cell(tenant), step.prefix, placed.placement, options, nodes)
        for tenant, (placed, step) in steps.items()
        if step.prefix is not None
    ]
    return Plan(
        [shared, *others, *dedicated],
        {tenant: step.move for tenant, (_, step) in steps.items() if step.move is not None},
        {tenant: step.note for tenant, (_, step) in steps.items() if step.note is not None},
    )


def _step(placed: PlacedTenant, application: SeenApplication | None, now: float) -> _Step:
    prefix = f"/t/{placed.tenant_id}"
    is_routed = application is not None and application.status != _DELETING and application.route_prefix == prefix
    if not placed.placement.is_dedicated or placed.is_idle:
        return _to_shared(placed, prefix, is_routed=is_routed)
    if placed.has_moved:
        return _Step(prefix)
    if application is not None and application.status == _DELETING:
        # Its replicas answer and report for half a minute, so new ones could not be told from them.
        return _Step(None, "the former dedicated cell ends")
    if application is None or application.status != _RUNNING or not placed.own:
        waits = f"the dedicated cell starts ({placed.own.ready} of {placed.own.live} replicas ready)"
        return _Step(prefix if is_routed else f"/warming/{placed.tenant_id}", waits)
    if not is_routed:
        return _Step(prefix, "the dedicated cell takes over")
    if now - application.declared_at < SETTLE_S:
        return _Step(prefix, "the dedicated cell has taken over")
    return _Step(prefix, "the shared cell lets go", move=True)


def _to_shared(placed: PlacedTenant, prefix: str, *, is_routed: bool) -> _Step:
    if placed.has_moved:
        # After a restart there may be no such cell, and for a tenant that is not asked none is started.
        keeps = is_routed or not placed.is_idle
        return _Step(prefix if keeps else None, "the shared cell follows again", move=False)
    if not is_routed:
        return _Step(None)
    if not placed.shared:
        waits = f"the shared cell loads ({placed.shared.ready} of {placed.shared.live} replicas ready)"
        return _Step(prefix, waits)
    return _Step(None, "the shared cell takes over")


def cell_application(
    name: str, prefix: str, bounds: Placement, options: Mapping[str, Any], nodes: int | None = None
) -> Application:
    """The application of a cell, arguments as for ``plan``. The replicas find their cell by its name."""
    least = max(1, bounds.min_replicas)  # a cell that may have none ends as a whole
    if least == bounds.max_replicas:
        replicas: dict[str, Any] = {"num_replicas": least}
    else:
        autoscaling = {
            "min_replicas": least,
            "max_replicas": bounds.max_replicas,
            "target_ongoing_requests": bounds.target_ongoing,
            **_AUTOSCALING,
        }
        replicas = {"autoscaling_config": autoscaling}
    if nodes is not None:
        replicas["max_replicas_per_node"] = math.ceil(bounds.max_replicas / nodes)
    return application(name, prefix, "deployments.cell:app", "Cell", {**replicas, **options})


def application(
    name: str, prefix: str | None, import_path: str, deployment: str, options: Mapping[str, Any]
) -> Application:
    """An application of one deployment.

    Args:
        name: Its name.
        prefix: The prefix of its URLs; None: it has no route.
        import_path: Where Serve imports it from.
        deployment: The name of its deployment there.
        options: Of the deployment.
    """
    return {
        "name": name,
        "route_prefix": prefix,
        "import_path": import_path,
        "deployments": [
            {
                "name": deployment,
                # Serve replaces a dead replica at the next check; its default is 10 s.
                "health_check_period_s": 1.0,
                "graceful_shutdown_timeout_s": 5.0,
                # Start the new replica before the old one stops; the default stops first.
                "max_surge_percent": 100,
                **options,
            }
        ],
    }


def least_replicas(application: Mapping[str, Any]) -> int:
    """The declared replicas of an application; with autoscaling the least."""
    (deployment,) = application["deployments"]
    return int(deployment.get("num_replicas") or deployment["autoscaling_config"]["min_replicas"])
