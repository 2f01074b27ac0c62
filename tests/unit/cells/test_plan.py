"""The plan: whatever is wanted and killed meanwhile, each request finds a cell that has loaded its tenant."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_core.cells.plan import SETTLE_S, Plan, SeenApplication, application, least_replicas, plan
from ml_core.domain.placement import PlacedTenant, Placement, Placements, Readiness
from ml_core.ids import TenantId

ACME = TenantId("acme")
SHARED = Placement(min_replicas=2, max_replicas=2)
OWN, OFF_ROUTE = "/t/acme", "/warming/acme"


@dataclass
class World:
    """One tenant, Serve, its ingress, and two cells of one replica each."""

    is_dedicated: bool = False
    is_idle: bool = False
    has_moved: bool = False
    declared: str | None = None
    declared_at: float = -100.0
    routed: bool = False  # as the ingress has it
    own_ready: bool = False
    is_draining: bool = False  # the replicas of a cell that was removed
    shared_ready: bool = True
    now: float = 0.0
    done: list[str] = field(default_factory=list)

    def plan(self) -> Plan:
        live, ready = int(self.declared is not None), int(self.own_ready)
        own = Readiness(live + self.is_draining, ready + self.is_draining)
        placement = Placement(self.is_dedicated, max_replicas=4)
        shared = Readiness(1, int(self.shared_ready))
        placed = PlacedTenant(ACME, placement, self.has_moved, own, shared, self.is_idle)
        seen = {"shared": SeenApplication("RUNNING", route_prefix="/")}
        if self.declared is not None:
            seen["t-acme"] = SeenApplication("RUNNING", "", 1, self.declared, self.declared_at)
        elif self.is_draining:
            seen["t-acme"] = SeenApplication("DELETING", route_prefix=OWN)
        return plan(Placements(SHARED, (placed,)), seen, now=self.now, options={})

    def turn(self, *, is_killed: bool = False) -> None:
        """A turn of the loop, which may be killed between its two effects."""
        wanted = self.plan()
        for to_dedicated in wanted.moves.values():
            self.has_moved = to_dedicated
            self.shared_ready = False
        if is_killed:
            return
        prefix = next((each["route_prefix"] for each in wanted.applications if each["name"] == "t-acme"), None)
        if prefix != self.declared:
            if prefix is None:
                self.own_ready, self.is_draining = False, self.own_ready
            self.declared, self.declared_at = prefix, self.now

    def killed_turn(self) -> None:
        self.turn(is_killed=True)

    def own_loads(self) -> None:
        self.own_ready = self.own_ready or self.declared is not None

    def shared_loads(self) -> None:
        self.shared_ready = self.shared_ready or not self.has_moved

    def ingress_follows(self) -> None:
        self.routed = self.declared == OWN

    def drain_ends(self) -> None:
        self.ingress_follows()  # long before
        self.is_draining = False

    def time_passes(self) -> None:
        self.now += SETTLE_S
        self.ingress_follows()

    def wish(self) -> None:
        self.is_dedicated = not self.is_dedicated

    def falls_idle(self) -> None:
        self.is_idle = not self.is_idle

    def is_answered(self) -> bool:
        return self.own_ready or (self.is_draining and self.declared is None) if self.routed else self.shared_ready


ACTIONS = [
    *("turn", "killed_turn", "own_loads", "shared_loads", "ingress_follows", "drain_ends", "time_passes"),
    *("wish", "falls_idle"),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(ACTIONS), min_size=40, max_size=80))
def test_every_request_is_answered_and_the_move_ends(actions: list[str]) -> None:
    """In any order of what can happen; then, left alone, the loop brings about what is wanted."""
    world = World()
    for action in actions:
        getattr(world, action)()
        world.done.append(action)
        assert world.is_answered(), world
    for _ in range(8):
        for action in ("turn", "own_loads", "shared_loads", "time_passes", "drain_ends"):
            getattr(world, action)()
            assert world.is_answered(), world
    has_own = world.is_dedicated and not world.is_idle
    assert (world.routed, world.has_moved) == (has_own, has_own)
    assert world.declared == (OWN if has_own else None)
    assert not world.plan().notes


def test_the_steps_of_a_move_are_printed() -> None:
    """One after the other, there and back."""
    world, shown = World(is_dedicated=True), []
    for _ in range(12):
        wanted = world.plan()
        shown += [note for note in wanted.notes.values() if note not in shown]
        for action in ("turn", "own_loads", "shared_loads"):
            getattr(world, action)()
        world.now += SETTLE_S / 2
        world.ingress_follows()
        world.is_dedicated = world.is_dedicated and not world.has_moved
    assert shown == [
        "the dedicated cell starts (0 of 0 replicas ready)",
        "the dedicated cell takes over",
        "the dedicated cell has taken over",
        "the shared cell lets go",
        "the shared cell follows again",
        "the shared cell takes over",
    ]
    assert str(
        plan(Placements(SHARED, (PlacedTenant(ACME, Placement(True)),)), {}, now=0, options={})
    ).splitlines() == [
        "shared at /",
        "t-acme at /warming/acme",
        "acme: the dedicated cell starts (0 of 0 replicas ready)",
    ]


def test_after_a_restart_each_tenant_is_where_it_was() -> None:
    """Serve has nothing yet: who has moved is served by its own cell at once, who has not starts to move."""
    placed = PlacedTenant(ACME, Placement(True, 2, 2))
    for has_moved, prefix in ((True, OWN), (False, OFF_ROUTE)):
        wanted = plan(Placements(SHARED, (replace(placed, has_moved=has_moved),)), {}, now=0, options={})
        assert [each["route_prefix"] for each in wanted.applications] == ["/", prefix]
    back = replace(placed, placement=Placement(), has_moved=True)
    wanted = plan(Placements(SHARED, (back,)), {}, now=0, options={})
    assert [each["route_prefix"] for each in wanted.applications] == ["/", OWN], "the shared cell has not loaded it yet"
    assert wanted.moves == {ACME: False}


def test_after_a_restart_no_cell_is_started_for_a_tenant_that_is_not_asked() -> None:
    """The shared cell follows it again at once."""
    placed = PlacedTenant(ACME, Placement(True, min_replicas=0), has_moved=True, is_idle=True)
    wanted = plan(Placements(SHARED, (placed,)), {}, now=0, options={})
    assert [each["name"] for each in wanted.applications] == ["shared"]
    assert wanted.moves == {ACME: False}


@pytest.mark.parametrize("status", ["DEPLOYING", "DEPLOY_FAILED", "UNHEALTHY"])
def test_a_cell_that_does_not_run_takes_no_route(status: str) -> None:
    """Whatever its replicas reported before."""
    placed = PlacedTenant(ACME, Placement(True), own=Readiness(1, 1), shared=Readiness(2, 2))
    seen = {"t-acme": SeenApplication(status, route_prefix=OFF_ROUTE)}
    wanted = plan(Placements(SHARED, (placed,)), seen, now=100, options={})
    assert wanted.applications[1]["route_prefix"] == OFF_ROUTE
    assert not wanted.moves


def test_a_cell_is_not_declared_while_its_former_replicas_end() -> None:
    """They report that they are ready, which says nothing about the new ones."""
    placed = PlacedTenant(ACME, Placement(True), own=Readiness(1, 1), shared=Readiness(2, 2))
    wanted = plan(Placements(SHARED, (placed,)), {"t-acme": SeenApplication("DELETING")}, now=100, options={})
    assert [each["name"] for each in wanted.applications] == ["shared"]
    assert wanted.notes == {ACME: "the former dedicated cell ends"}


def test_bounds_become_autoscaling_unless_they_are_equal() -> None:
    """And options of the place go into each deployment of a cell; other applications stay as they are."""
    other = application("control", "/api", "a.b:c", "C", {"num_replicas": 1})
    placed = PlacedTenant(ACME, Placement(True, 2, 5, 7))
    wanted = plan(Placements(SHARED, (placed,)), {}, now=0, options={"x": 1}, others=[other])
    shared, same, own = wanted.applications
    assert same == other
    assert shared["deployments"][0]["num_replicas"] == 2
    bounds = own["deployments"][0]["autoscaling_config"]
    assert (bounds["min_replicas"], bounds["max_replicas"], bounds["target_ongoing_requests"]) == (2, 5, 7)
    assert {each["deployments"][0]["x"] for each in (shared, own)} == {1}
    assert [least_replicas(each) for each in wanted.applications] == [2, 1, 2]


@pytest.mark.parametrize(("replicas", "nodes", "most"), [(2, 2, 1), (3, 2, 2), (4, 2, 2), (1, 3, 1), (2, 1, 2)])
def test_the_replicas_of_a_cell_are_spread_over_the_nodes(replicas: int, nodes: int, most: int) -> None:
    """Evenly, and so that all of them have a place."""
    placements = Placements(Placement(max_replicas=replicas))
    ((cell,),) = (each["deployments"] for each in plan(placements, {}, now=0, options={}, nodes=nodes).applications)
    assert cell["max_replicas_per_node"] == most
