"""Whatever people do with versions, a collection never takes what is needed, and rows and bytes agree afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import Lineage
from ml_core.exceptions import MLFrameworkError
from ml_core.ids import HoldName, TenantId, VersionId
from ml_core.models.store import LocalStore
from ml_core.registry.collection.collector import Collector
from ml_core.registry.collection.fsck import Checker
from ml_core.registry.collection.holds import HoldRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.promotion.pointers import find_pointer, state_before
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, new_tenant
from support.stored import AT_ONCE, publish

LEGAL = HoldName("legal")
VERSIONS = st.integers(1, 5).map(str)
STEPS = st.one_of(
    st.tuples(st.just("publish"), st.one_of(st.none(), VERSIONS)),
    st.tuples(st.sampled_from(["archive", "restore", "promote", "hold", "release", "delete"]), VERSIONS),
    st.tuples(st.sampled_from(["rollback", "withdraw", "collect"]), st.just("")),
)


class World:
    """A tenant with real rows and bytes, and what people do with it; what the platform refuses does not happen."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
        self.db, self.tenant_id, self.store = db, tenant_id, store
        self.versions = VersionRepository(db, tenant_id)
        self.environments = EnvironmentRepository(db, tenant_id)
        self.holds = HoldRepository(db, tenant_id)

    def do(self, what: str, which: str | None) -> None:
        version = VersionId(which or "1")
        steps: dict[str, Callable[[], object]] = {
            "publish": lambda: publish(self.db, self.tenant_id, self.store, lineage=Lineage(parent_version=which)),
            "archive": lambda: self.versions.archive(TICKETS, version),
            "restore": lambda: self.versions.restore(TICKETS, version),
            "delete": lambda: self.store.delete(self.tenant_id, self.versions.delete(TICKETS, version)),
            "promote": lambda: self.environments.promote(TICKETS, version, PRODUCTION, actor="tester"),
            "rollback": lambda: self.environments.rollback(TICKETS, PRODUCTION, actor="tester"),
            "withdraw": lambda: self.environments.withdraw(TICKETS, PRODUCTION, actor="tester"),
            "hold": lambda: self.holds.place(TICKETS, version, LEGAL, "why"),
            "release": lambda: self.holds.release(TICKETS, version, LEGAL),
            "collect": self.collect,
        }
        with contextlib.suppress(MLFrameworkError):
            steps[what]()

    def collect(self) -> None:
        """Collect, and compare what is there with what was and was needed."""
        before, needed = self.names(), self.needed()
        collector = Collector(self.db, self.store, AT_ONCE)
        plan = collector.plan(self.tenant_id)
        report = collector.collect(plan)
        gone = before - self.names()
        assert report.is_complete
        assert gone.isdisjoint(needed)
        assert gone == {item.key[1] for item in plan.items if item.kind == "version"}
        assert list(Checker(self.db, self.store, timedelta(0)).check(self.tenant_id)) == []

    def names(self) -> set[str]:
        return {str(each.version) for each in self.versions.list(TICKETS, include_archived=True).items}

    def needed(self) -> set[str]:
        """By the rules of the design, told in another way than the planner's: from the versions that nobody hid."""
        every = self.versions.list(TICKETS, include_archived=True).items
        needed = {str(each.version) for each in every if each.archived_at is None}
        needed |= {str(hold.version) for hold in self.holds.list().items}
        with self.db.tenant(self.tenant_id) as connection:
            pointer = find_pointer(connection, self.tenant_id, TICKETS, PRODUCTION)
            target = None if pointer is None else state_before(connection, pointer)
        needed |= set() if target is None else {str(target.version)}
        for each in every:  # newest first: a parent comes after its children
            if str(each.version) in needed and each.lineage.parent_version is not None:
                needed.add(each.lineage.parent_version)
        return needed


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=14))
def test_no_history_makes_a_collection_take_what_is_needed(
    db: DatabaseConnection, tmp_path: Path, steps: list[tuple[str, str | None]]
) -> None:
    """Any sequence of moves, then a collection: what is live, served, held, rolled back to or a parent is there."""
    tenant_id = new_tenant(db)
    world = World(db, tenant_id, LocalStore(tmp_path / "artifacts"))
    for _ in range(3):
        world.do("publish", None)
    for what, which in steps:
        world.do(what, which)
    world.collect()


@pytest.mark.parametrize("what", ["hold", "promote"])
def test_the_world_of_the_property_can_collect(db: DatabaseConnection, tmp_path: Path, what: str) -> None:
    """The moves do something: what is archived goes, and does not when it is needed."""
    world = World(db, new_tenant(db), LocalStore(tmp_path / "artifacts"))
    for step in (("publish", None), ("publish", None), (what, "1"), ("promote", "2"), ("archive", "1")):
        world.do(*step)
    world.collect()
    assert world.names() == {"1", "2"}
    for step in (("release", "1"), ("promote", "2"), ("publish", None), ("promote", "3"), ("collect", "")):
        world.do(*step)
    assert world.names() == {"2", "3"}
