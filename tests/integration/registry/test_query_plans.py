"""No hot query reads a table from end to end: with 1,000 tenants in the registry, each has an index to go by.

A query is hot when its cost must not grow with the registry: all but the snapshot of an assignment and the lists over
tenants that the platform's own tools make. To add one, add a line to ``HOT``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import ApiKey, Scope
from ml_core.domain.placement import SHARED_CELL, Placement, dedicated_cell
from ml_core.exceptions import AuthenticationError
from ml_core.ids import TenantId, VersionId, VersionRef
from ml_core.registry.audit import AuditRepository
from ml_core.registry.authentication import Authentication
from ml_core.registry.changes import ChangeReader
from ml_core.registry.feed import FeedReader, KeyWatch
from ml_core.registry.keys import KeyRepository
from ml_core.registry.pages import Page, encode_cursor
from ml_core.registry.placements import PlacementRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.promotion.rollouts import RolloutRepository
from ml_core.registry.references import digests_after
from ml_core.registry.runs import RunRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.verdicts import VerdictRepository
from ml_core.registry.versions.models import ModelRepository
from ml_core.registry.versions.repository import VersionRepository
from support.plans import Plan, recorded_plans
from support.populated import populate, populated_registry
from support.registry import artifact_of, draft, superuser

# Tables that grow with tenants, and that the population fills: only of those does a plan tell anything.
BIG = frozenset(
    {
        "api_keys",
        "audit",
        "environment_history",
        "environments",
        "models",
        "run_metrics",
        "runs",
        "tenants",
        "version_metrics",
        "version_tags",
        "versions",
    }
)
TENANT, WIDE, MODEL = TenantId("t0500"), TenantId("w0002"), populate.MODEL
# As many tenants as the targets name, with a fifth of the versions, so that the server is filled in seconds. It proves
# the same: a larger table makes a sequential scan dearer and an index scan no dearer.
TENANTS, VERSIONS = 1000, 20
FIRST, MIDDLE, LAST = VersionId("1"), VersionId("10"), VersionId("20")


@pytest.fixture(scope="module")
def populated() -> Iterator[DatabaseConnection]:
    """A registry with many tenants."""
    with populated_registry(tenants=TENANTS, versions=VERSIONS, wide_tenants=2) as db:
        yield db


def _versions(db: DatabaseConnection) -> VersionRepository:
    return VersionRepository(db, TENANT)


def _environments(db: DatabaseConnection) -> EnvironmentRepository:
    return EnvironmentRepository(db, TENANT)


def _keys(db: DatabaseConnection) -> KeyRepository:
    return KeyRepository(db, TENANT)


def _some_key(db: DatabaseConnection) -> str:
    return _keys(db).list(limit=1).items[0].key_id


def _authenticate(db: DatabaseConnection) -> object:
    """An unknown key is looked for as well, among those of all tenants."""
    with pytest.raises(AuthenticationError):
        Authentication(db).authenticate(TENANT, f"Bearer {ApiKey.generate()}")
    return Authentication(db).authenticate(TENANT, f"Bearer {_keys(db).create('plans', [Scope.READ])}")


def _watch_keys(db: DatabaseConnection) -> object:
    """Between two looks a pointer has moved, so that keys and tenants are looked at."""
    watch = KeyWatch()
    for _ in range(2):
        with db.serving() as connection:
            watch.has_changed(connection)
        _environments(db).promote(MODEL, LAST, PRODUCTION)
    return watch


def _look(db: DatabaseConnection) -> object:
    """Between two looks a tenant has changed."""
    before = ChangeReader(db).look(None)
    _keys(db).create("plans", [Scope.READ])
    return ChangeReader(db).look(before)


def _runs(db: DatabaseConnection) -> RunRepository:
    return RunRepository(db, TENANT)


def _search(db: DatabaseConnection, **query: Any) -> object:
    """Two pages."""
    first = _versions(db).search(**query, limit=2)
    assert first.next_cursor is not None
    return _versions(db).search(**query, limit=2, cursor=first.next_cursor)


def _two_pages(read: Callable[..., Page[Any]]) -> object:
    first = read(limit=1)
    assert first.next_cursor is not None
    return read(limit=1, cursor=first.next_cursor)


def _some_run(db: DatabaseConnection) -> str:
    return _runs(db).search(MODEL, limit=1).items[0].run_id


def _generation(db: DatabaseConnection) -> int:
    with superuser(db) as session:
        row = session.execute("SELECT generation FROM mlcore.feed_clock").fetchone()
    assert row is not None
    return int(row[0])


def _read_delta(db: DatabaseConnection, cell: str = SHARED_CELL) -> object:
    """What changed by one promotion."""
    before = _generation(db)
    _environments(db).promote(MODEL, MIDDLE, PRODUCTION, actor="tester")
    return FeedReader(db, cell).read(before)


def _read_move(db: DatabaseConnection) -> object:
    """A tenant that comes back to the shared cell, with all that it has; and what the control loop reads of it."""
    placements = PlacementRepository(db)
    placements.set(TENANT, Placement(is_dedicated=True))
    placements.move(TENANT, to_dedicated=True)
    before = _generation(db)
    placements.move(TENANT, to_dedicated=False)
    assert placements.placed().tenants
    delta = FeedReader(db).read(before)
    assert delta.rollouts
    return delta


def _delete_one(db: DatabaseConnection) -> object:
    made = _versions(db).register(draft(MODEL), artifact_of("to delete"), "tester")
    return _versions(db).delete(MODEL, made.version)


HOT: dict[str, Callable[[DatabaseConnection], object]] = {
    "versions.get": lambda db: _versions(db).get(MODEL, MIDDLE),
    "versions.get newest": lambda db: _versions(db).get(MODEL),
    "versions.servable": lambda db: _versions(db).servable(MODEL, MIDDLE),
    "versions.list": lambda db: _versions(db).list(MODEL, limit=50),
    "versions.list next page": lambda db: _versions(db).list(MODEL, limit=50, cursor=encode_cursor([10])),
    "versions.list archived too": lambda db: _versions(db).list(MODEL, limit=50, include_archived=True),
    "versions.find_by_digest": lambda db: _versions(db).find_by_digest(artifact_of(MIDDLE).digest),
    "versions.lineage": lambda db: _versions(db).lineage(MODEL, MIDDLE),
    "versions.delete": _delete_one,
    "versions.register": lambda db: _versions(db).register(draft(MODEL), artifact_of("plans"), "tester"),
    "versions.archive and restore": lambda db: (
        _versions(db).archive(MODEL, FIRST),
        _versions(db).restore(MODEL, FIRST),
    ),
    "versions.update_metadata": lambda db: _versions(db).update_metadata(MODEL, {"note": "x"}, FIRST),
    "versions.search": lambda db: _search(db),
    "versions.search in a model": lambda db: _search(db, model_id=MODEL),
    "versions.search by tag": lambda db: _search(db, tags={"quarter": "2026-1"}),
    "versions.search by metric": lambda db: _search(db, metrics=["accuracy>=0.61"]),
    "versions.search by text": lambda db: _search(db, text="2026"),
    "versions.search sorted by metric": lambda db: _search(db, sort="validation/accuracy"),
    "models.list": lambda db: ModelRepository(db, WIDE).list(limit=20),
    "models.model_type": lambda db: ModelRepository(db, TENANT).model_type(MODEL),
    "environments.get": lambda db: _environments(db).get(MODEL, PRODUCTION),
    "environments.list": lambda db: _environments(db).list(),
    "environments.list next page": lambda db: _two_pages(_environments(db).list),
    "rollouts.list": lambda db: RolloutRepository(db, TENANT).list(),
    "environments.resolve": lambda db: _environments(db).resolve(MODEL),
    "environments.history": lambda db: _environments(db).history(MODEL, PRODUCTION, limit=50),
    "environments.history next page": lambda db: _two_pages(partial(_environments(db).history, MODEL, PRODUCTION)),
    "environments.promote": lambda db: _environments(db).promote(MODEL, LAST, PRODUCTION, actor="tester"),
    "environments.rollback": lambda db: _environments(db).rollback(MODEL, PRODUCTION, actor="tester"),
    "feed.read": _read_delta,
    "feed delta of a dedicated cell": lambda db: _read_delta(db, dedicated_cell(TENANT)),
    "feed delta of a move": _read_move,
    "feed.servable": lambda db: FeedReader(db).servable(VersionRef(TENANT, MODEL, MIDDLE)),
    "keys.list": lambda db: _keys(db).list(),
    "keys.get": lambda db: _keys(db).get(_some_key(db)),
    "authentication by a key": lambda db: _authenticate(db),
    "changes of keys and tenants": lambda db: _watch_keys(db),
    "keys.create and revoke": lambda db: _keys(db).revoke(_keys(db).create("plans", [Scope.PREDICT]).key_id),
    "runs.start, log_metrics and finish": lambda db: _run_once(_runs(db)),
    "runs.get": lambda db: _runs(db).get(_some_run(db)),
    "runs.list": lambda db: _runs(db).search(MODEL, limit=50).items,
    "audit.list": lambda db: AuditRepository(db, TENANT).list(limit=10, descending=True),
    "audit.list as a feed": lambda db: AuditRepository(db, TENANT).list(
        after=AuditRepository(db, TENANT).list(limit=10).items[0].cursor, limit=10
    ),
    "audit.list by request": lambda db: AuditRepository(db, TENANT).list(request_id="none", limit=10, descending=True),
    "audit.list by action": lambda db: AuditRepository(db, TENANT).list(action="version.", limit=10, descending=True),
    "changes of all tenants": lambda db: _look(db),
    "changes that a tenant missed": lambda db: ChangeReader(db).missed(TENANT, ChangeReader(db).look(None).position),
    "verdicts.list": lambda db: VerdictRepository(db, TENANT).list(),
    "tenants.exists": lambda db: TenantRepository(db).exists(TENANT),
    "tenants.list": lambda db: TenantRepository(db).list(limit=50, cursor=encode_cursor([TENANT])),
}


def _run_once(runs: RunRepository) -> None:
    run_id = runs.start(MODEL)
    runs.log_metrics(run_id, {"loss": 1.0}, step=1)
    runs.finish(run_id)


def _plans(db: DatabaseConnection, call: Callable[[DatabaseConnection], object]) -> list[Plan]:
    with recorded_plans() as plans:
        call(db)
    return plans


@pytest.mark.parametrize("name", HOT)
def test_a_hot_query_goes_by_an_index(populated: DatabaseConnection, name: str) -> None:
    """None of its statements reads a table that grows with the tenants from end to end."""
    plans = _plans(populated, HOT[name])
    reads = {read: plan.statement for plan in plans for read in plan.whole_reads(BIG)}
    assert not reads, "\n\n".join(f"{read}:\n{statement}" for read, statement in reads.items())
    assert any(node.get("Relation Name") in BIG for plan in plans for node in plan.nodes)


def test_a_promotion_costs_a_reader_two_queries(populated: DatabaseConnection) -> None:
    """Fifty promotions a second are read by each replica: the clock, and what moved."""
    before = _generation(populated)
    _environments(populated).promote(MODEL, FIRST, PRODUCTION, actor="tester")
    reader = FeedReader(populated)
    plans = _plans(populated, lambda _: reader.read(before))
    assert len(plans) == 2, [plan.statement for plan in plans]


@pytest.mark.parametrize("include_archived", [False, True])
def test_a_models_page_is_read_in_the_order_of_its_index(populated: DatabaseConnection, include_archived: bool) -> None:
    """A model may have 100,000 versions, and a page has some of them: none is sorted, and no other is read."""
    search = partial(VersionRepository(populated, TENANT).search, MODEL, limit=2, include_archived=include_archived)
    for cursor in (None, search().next_cursor):
        (plan,) = _plans(populated, lambda _, cursor=cursor: search(cursor=cursor))
        assert "Sort" not in {node["Node Type"] for node in plan.nodes}
        bounds = [node for node in plan.nodes if "number <" in node.get("Index Cond", "")]
        assert len(bounds) == (cursor is not None), plan.nodes


@pytest.mark.parametrize("sort", ["created", "validation/accuracy"])
def test_a_deep_page_begins_where_the_last_one_ended(populated: DatabaseConnection, sort: str) -> None:
    """The row comparison of the cursor bounds the index scan, so a page costs the same however deep it is."""
    cursor = VersionRepository(populated, WIDE).search(sort=sort, limit=900).next_cursor
    assert cursor is not None
    plan = _plans(populated, lambda db: VersionRepository(db, WIDE).search(sort=sort, limit=2, cursor=cursor))[-1]
    bounds = [node["Index Cond"] for node in plan.nodes if "ROW(" in node.get("Index Cond", "")]
    assert len(bounds) == 1, plan.nodes
    assert not any("ROW(" in str(node.get(part)) for node in plan.nodes for part in ("Filter", "Join Filter"))
    assert not any(node["Node Type"] in ("Sort", "Incremental Sort") for node in plan.nodes)


def test_fsck_reads_digests_in_the_order_of_their_index(populated: DatabaseConnection) -> None:
    """Each table is read up to the limit of the page, however many rows of the tenant follow."""

    def read(db: DatabaseConnection) -> object:
        with db.tenant(WIDE) as connection:
            return digests_after(connection, WIDE, "", 10)

    plan = _plans(populated, read)[-1]
    assert "ix_versions_tenant_id_digest" in {node.get("Index Name") for node in plan.nodes}
    assert "Limit" in {node["Node Type"] for node in plan.nodes if node.get("Parent Relationship") == "Member"}


def test_the_audit_of_a_request_reads_its_rows_only(populated: DatabaseConnection) -> None:
    """However much was changed for others, the index leads to the changes of the request, in order."""
    plan = _plans(populated, lambda db: AuditRepository(db, TENANT).list(request_id="r7", limit=10, descending=True))[
        -1
    ]
    assert [node.get("Index Name") for node in plan.nodes if "Scan" in node["Node Type"]] == ["ix_audit_request"]


@pytest.mark.parametrize("table", sorted(BIG))
def test_a_watched_table_is_big_enough_to_tell(populated: DatabaseConnection, table: str) -> None:
    """Postgres would choose a sequential scan of it for one tenant's rows if no index led with the tenant."""
    with superuser(populated) as session:
        row = session.execute(f"SELECT count(*) FROM mlcore.{table}").fetchone()
    assert row is not None
    assert row[0] >= 1000


def test_a_missing_index_is_noticed(populated: DatabaseConnection) -> None:
    """The check sees the sequential scan that is left when the planner may not use an index."""
    hide = "UPDATE pg_index SET indisvalid = %s WHERE indexrelid = 'mlcore.pk_tenants'::regclass"
    with superuser(populated) as session:
        session.execute(hide, (False,))
        try:
            plans = _plans(populated, HOT["tenants.exists"])
        finally:
            session.execute(hide, (True,))
    assert [read for plan in plans for read in plan.whole_reads(BIG)] == ["Seq Scan on tenants"]
