"""The feed: a reader that applies every delta knows exactly what a fresh snapshot says."""

from __future__ import annotations

import json
import random
import secrets
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.domain import version as version_module
from ml_core.domain.api_key import KeyRef, Scope
from ml_core.domain.assignment import PointerRef
from ml_core.domain.placement import SHARED_CELL, Placement, dedicated_cell
from ml_core.domain.version import Compilation, CompiledForm, RequiredModule, read_signature
from ml_core.exceptions import (
    ConfigurationError,
    InvalidRequestError,
    InvalidTransitionError,
    MLFrameworkError,
    ModelLoadError,
    ModelNotFoundError,
    PromotionConflictError,
)
from ml_core.ids import Digest, EnvironmentName, ModelId, TenantId, VersionId, VersionRef
from ml_core.registry import feed as feed_module
from ml_core.registry.feed import FeedReader, renew_epoch
from ml_core.registry.keys import KeyRepository
from ml_core.registry.placements import PlacementRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.promotion.rollouts import RolloutRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.registry.versions.rows import packed_from
from support.feeds import FeedState
from support.registry import SELF_TEST, SIGNATURE, TICKETS, new_tenant, register, superuser

# A move that another one made impossible meanwhile.
REFUSALS = (PromotionConflictError, InvalidTransitionError, InvalidRequestError, ModelNotFoundError)
# JSON that is no signature: of another form, of a kind that no release knows, beyond what the parser of JSON takes.
SIGNATURES_OF_NOBODY = [
    "{}",
    "[]",
    "null",
    '{"inputs": 3, "output": {"kind": "classes", "classes": []}}',
    '{"inputs": [{"name": "a", "kind": "smell", "nullable": true, "categories": []}]}',
    "[" * 1500 + "]" * 1500,
]


def test_a_delta_carries_what_changed_and_no_more(db: DatabaseConnection) -> None:
    """A tenant, a key and a pointer appear once each; then there is nothing new."""
    feed = FeedReader(db)
    generation = feed.read(None).generation
    tenant = new_tenant(db)
    key = KeyRepository(db, tenant).create("k", [Scope.PREDICT])
    version = register(db, tenant)
    EnvironmentRepository(db, tenant).promote(TICKETS, version.version, PRODUCTION, actor="me")
    delta = feed.read(generation)
    assert not delta.is_snapshot
    assert delta.tenants == {tenant: True}
    assert set(delta.keys) == {(tenant, key.key_id)}
    rollout = delta.rollouts[PointerRef(tenant, TICKETS, PRODUCTION)]
    assert rollout is not None
    assert (rollout.stable, rollout.generation) == (version.servable, 1)
    assert feed.read(delta.generation).is_empty


def test_what_is_gone_is_none_in_a_delta_and_absent_in_a_snapshot(db: DatabaseConnection) -> None:
    """A revoked key and a withdrawn pointer."""
    feed, tenant = FeedReader(db), new_tenant(db)
    keys, environments = KeyRepository(db, tenant), EnvironmentRepository(db, tenant)
    key = keys.create("k", [Scope.PREDICT])
    environments.promote(TICKETS, register(db, tenant).version, PRODUCTION, actor="me")
    generation = feed.read(None).generation
    keys.revoke(key.key_id)
    environments.withdraw(TICKETS, PRODUCTION, actor="me")
    pointer = PointerRef(tenant, TICKETS, PRODUCTION)
    delta, snapshot = feed.read(generation), feed.read(None)
    assert delta.keys == {(tenant, key.key_id): None}
    assert delta.rollouts == {pointer: None}
    assert (tenant, key.key_id) not in snapshot.keys
    assert pointer not in snapshot.rollouts


def test_a_deleted_tenant(db: DatabaseConnection) -> None:
    """It is False in a delta and absent in a snapshot."""
    feed, tenant = FeedReader(db), new_tenant(db)
    generation = feed.read(None).generation
    with superuser(db) as session:
        session.execute(
            "UPDATE mlcore.tenants SET deleted_at = now(), feed_generation = mlcore.advance_feed()"
            " WHERE tenant_id = %s",
            (tenant,),
        )
    assert feed.read(generation).tenants == {tenant: False}
    assert tenant not in feed.read(None).tenants


def test_a_generation_from_the_future_gives_a_snapshot(db: DatabaseConnection) -> None:
    """A registry restored from a backup is behind its replicas: they begin anew instead of waiting for ever."""
    feed = FeedReader(db)
    now = feed.read(None).generation
    assert feed.read(now + 1).is_snapshot


def test_an_unknown_cell(db: DatabaseConnection) -> None:
    """A name that no cell can have is refused."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        FeedReader(db, "nowhere")


@pytest.mark.parametrize("moves", [1, 2, 3])
def test_the_shared_cell_follows_who_has_not_moved(db: DatabaseConnection, moves: int) -> None:
    """Its reader is told of each move: who leaves is gone, and who comes back brings all that it has. The dedicated
    cell follows its tenant all the time, and nobody else."""
    placements, shared = PlacementRepository(db), FeedState(FeedReader(db))
    tenant, other = new_tenant(db), new_tenant(db)
    own = FeedState(FeedReader(db, dedicated_cell(tenant)))
    keys, environments = KeyRepository(db, tenant), EnvironmentRepository(db, tenant)
    revoked, kept = (keys.create("k", [Scope.PREDICT]) for _ in range(2))
    for version in ("1", "2", "3"):
        register(db, tenant, version)
    environments.promote(TICKETS, VersionId("1"), PRODUCTION, actor="me")
    placements.set(tenant, Placement(is_dedicated=True))
    for state in (shared, own):
        state.follow()
    is_away = False
    for move in range(moves):
        is_away = not is_away
        placements.move(tenant, to_dedicated=is_away)
        delta = shared.follow()
        assert not delta.is_snapshot
        assert delta.tenants == {tenant: not is_away}
        assert own.follow().tenants == {tenant: True}
        assert TenantRepository(db).get(tenant).cell == (dedicated_cell(tenant) if is_away else SHARED_CELL)
        if is_away:
            keys.revoke(revoked.key_id)
            environments.promote(TICKETS, VersionId(f"{2 + move // 2}"), PRODUCTION, actor="me")
            assert shared.follow().is_empty
            assert own.follow().rollouts.keys() == {PointerRef(tenant, TICKETS, PRODUCTION)}
    fresh = FeedReader(db).read(None)
    known = {ref for ref in shared.state["keys"] if ref.tenant_id == tenant}
    assert is_away or known == {ref for ref in fresh.keys if ref.tenant_id == tenant}
    assert shared.state["rollouts"].items() >= fresh.rollouts.items()
    assert own.is_up_to_date()
    assert set(FeedReader(db, dedicated_cell(tenant)).read(None).keys) == {(tenant, kept.key_id)}
    assert fresh.tenants.keys() & {tenant, other} == ({other} if is_away else {tenant, other})


def test_a_read_takes_a_bounded_number_of_queries(db: DatabaseConnection) -> None:
    """One query when nothing changed, four for any number of tenants, keys and pointers."""
    for _ in range(5):
        tenant = new_tenant(db)
        KeyRepository(db, tenant).create("k", [Scope.PREDICT])
        EnvironmentRepository(db, tenant).promote(TICKETS, register(db, tenant).version, PRODUCTION, actor="me")
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "set_config" not in statement:
            statements.append(statement)

    engine = db._engine(db.urls.ingest)
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        generation = FeedReader(db).read(None).generation
        assert len(statements) == 4
        FeedReader(db).read(generation)
        assert len(statements) == 5
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


def spoil_key(db: DatabaseConnection, tenant: TenantId, key_id: str, scopes: list[str]) -> None:
    """Write a key as the runtime role may, with scopes that this release may not know."""
    statement = """
        INSERT INTO mlcore.api_keys (tenant_id, key_id, salt, hash, scopes, name, feed_generation)
        VALUES (:tenant, :key, '', decode(repeat('00', 32), 'hex'), :scopes, 'k', mlcore.advance_feed())
    """
    with db.tenant(tenant) as connection:
        connection.execute(sa.text(statement), {"tenant": tenant, "key": key_id, "scopes": scopes})


def spoil_pointer(db: DatabaseConnection, tenant: TenantId, document: str, column: str = "signature") -> None:
    """Write a version with such a document as the runtime role may, and point production to it."""
    signature, modules = (document, "[]") if column == "signature" else ("{}", document)
    version = """
        INSERT INTO mlcore.versions
            (tenant_id, model_id, version, number, digest, size_bytes, format, created_by, signature, modules)
        VALUES (:tenant, 'tickets', 'odd', 1000, repeat('0', 64), 1, 'skops/1', 'me', CAST(:signature AS jsonb),
            CAST(:modules AS jsonb))
    """
    pointer = """
        UPDATE mlcore.environments
        SET version = 'odd', generation = generation + 1, feed_generation = mlcore.advance_feed()
    """
    with db.tenant(tenant) as connection:
        connection.execute(sa.text(version), {"tenant": tenant, "signature": signature, "modules": modules})
        connection.execute(sa.text(pointer))


def test_a_scope_that_this_release_does_not_know(db: DatabaseConnection) -> None:
    """It is passed over; the key's other scopes stay, in the feed and in the list."""
    feed, tenant = FeedReader(db), new_tenant(db)
    generation, key_id = feed.read(None).generation, secrets.token_hex(8)
    spoil_key(db, tenant, key_id, ["telepathy", "read"])
    record = feed.read(generation).keys[KeyRef(tenant, key_id)]
    assert record is not None
    assert record.scopes == {Scope.READ}
    assert [key.scopes for key in KeyRepository(db, tenant).list().items] == [{Scope.READ}]


@pytest.mark.parametrize("signature", SIGNATURES_OF_NOBODY)
def test_a_signature_that_can_not_be_read_fails_the_load_of_its_version(
    db: DatabaseConnection, tenant_id: TenantId, signature: str
) -> None:
    """The read does not parse it: what is not loaded stays text."""
    register(db, tenant_id)
    EnvironmentRepository(db, tenant_id).promote(TICKETS, VersionId("1"), PRODUCTION, actor="me")
    spoil_pointer(db, tenant_id, signature)
    rollout = FeedReader(db).read(None).rollouts[PointerRef(tenant_id, TICKETS, PRODUCTION)]
    assert rollout is not None
    with pytest.raises(ModelLoadError, match="odd can't be read") as caught:
        rollout.stable.opened()
    assert caught.value.attributes()["version"] == "odd"


@pytest.mark.parametrize("modules", ["[3]", "3", '[{"version": "1"}]'])
def test_one_tenants_unreadable_rows_do_not_stop_the_others(
    db: DatabaseConnection, caplog: pytest.LogCaptureFixture, modules: str
) -> None:
    """Another tenant's revocation and promotion arrive; the spoilt pointer is left out and a warning names it."""
    feed, spoilt, other = FeedReader(db), new_tenant(db), new_tenant(db)
    keys, versions = KeyRepository(db, other), [register(db, other) for _ in range(2)]
    key = keys.create("k", [Scope.PREDICT])
    for tenant, version in ((other, versions[0]), (spoilt, register(db, spoilt))):
        EnvironmentRepository(db, tenant).promote(TICKETS, version.version, PRODUCTION, actor="me")
    generation = feed.read(None).generation
    spoil_key(db, spoilt, secrets.token_hex(8), ["telepathy"])
    spoil_pointer(db, spoilt, modules, "modules")
    keys.revoke(key.key_id)
    EnvironmentRepository(db, other).promote(TICKETS, versions[1].version, PRODUCTION, actor="me")
    for delta in (feed.read(generation), feed.read(None)):
        rollout = delta.rollouts[PointerRef(other, TICKETS, PRODUCTION)]
        assert rollout is not None
        assert rollout.stable == versions[1].servable
        assert delta.keys.get(KeyRef(other, key.key_id)) is None
        assert PointerRef(spoilt, TICKETS, PRODUCTION) not in delta.rollouts
        assert PointerRef(spoilt, TICKETS, PRODUCTION) in delta.unreadable
    assert f"{spoilt}/tickets:production" in caplog.text


def test_a_key_that_can_not_be_read_is_revoked(db: DatabaseConnection) -> None:
    """Where a row does not say whose key it is, nobody gets in by it."""
    feed, tenant = FeedReader(db), new_tenant(db)
    key = KeyRepository(db, tenant).create("k", [Scope.PREDICT])
    generation = feed.read(None).generation
    move = "UPDATE mlcore.api_keys SET tenant_id = %s, feed_generation = mlcore.advance_feed() WHERE key_id = %s"
    with superuser(db) as session:
        check = "CHECK (tenant_id ~ '^[a-z][a-z0-9_-]{0,39}$')"  # keeps such a tenant out, so it has to go for a moment
        session.execute("ALTER TABLE mlcore.tenants DROP CONSTRAINT ck_tenants_tenant_id")
        try:
            session.execute("INSERT INTO mlcore.tenants (tenant_id, feed_generation) VALUES ('Not A Name', 0)")
            session.execute(move, ("Not A Name", key.key_id))
            assert feed.read(generation).keys == {("Not A Name", key.key_id): None}
            assert key.key_id not in {ref.key_id for ref, record in feed.read(None).keys.items() if record is not None}
        finally:
            session.execute(move, (tenant, key.key_id))
            session.execute("DELETE FROM mlcore.tenants WHERE tenant_id = 'Not A Name'")
            session.execute(f"ALTER TABLE mlcore.tenants ADD CONSTRAINT ck_tenants_tenant_id {check}")


def test_a_version_on_demand_that_can_not_be_read(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """The error is one of ours and names the version."""
    register(db, tenant_id)
    EnvironmentRepository(db, tenant_id).promote(TICKETS, VersionId("1"), PRODUCTION, actor="me")
    spoil_pointer(db, tenant_id, "[]")
    with pytest.raises(ModelLoadError, match="odd can't be read"):
        FeedReader(db).servable(VersionRef(tenant_id, TICKETS, VersionId("odd")))


def test_a_version_on_demand(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A version that no pointer names is found by its reference, an archived or unknown one is not."""
    feed = FeedReader(db)
    version = register(db, tenant_id)
    ref = version.servable.ref
    assert feed.servable(ref) == version.servable
    with pytest.raises(ModelNotFoundError):
        feed.servable(VersionRef(tenant_id, TICKETS, VersionId("9")))
    VersionRepository(db, tenant_id).archive(TICKETS, version.version)
    with pytest.raises(ModelNotFoundError, match="is archived"):
        feed.servable(ref)


def test_no_change_is_missed_under_concurrent_writers(db: DatabaseConnection) -> None:
    """Writers move pointers, make and revoke keys and create tenants while a follower reads: it misses nothing.

    A transaction that committed late with an early number would be skipped for ever: at the end the follower would
    differ from the snapshot.
    """
    tenants = [new_tenant(db) for _ in range(4)]
    versions = {tenant: [register(db, tenant).version for _ in range(3)] for tenant in tenants}
    follower, stop = FeedState(FeedReader(db)), threading.Event()
    errors: list[MLFrameworkError] = []
    generations: list[int] = []

    def write(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(25):
                tenant = rng.choice(tenants)
                move_something(db, tenant, rng.choice(versions[tenant]), rng)
        except MLFrameworkError as error:
            errors.append(error)

    def follow() -> None:
        while not stop.is_set():
            generations.append(follower.follow().generation)

    reader = threading.Thread(target=follow)
    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    reader.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    stop.set()
    reader.join(10)
    follower.follow()
    assert errors == []
    assert generations == sorted(generations)
    assert len(set(generations)) > 10
    assert follower.is_up_to_date()
    for tenant in tenants:
        environments = EnvironmentRepository(db, tenant)
        for pointer in environments.list().items:
            history = environments.history(TICKETS, pointer.environment, limit=1000).items
            assert [entry.generation for entry in history] == list(range(pointer.generation, 0, -1))


def move_something(db: DatabaseConnection, tenant: TenantId, version: VersionId, rng: random.Random) -> None:
    """One random change that the feed must carry."""
    environment = rng.choice([PRODUCTION, EnvironmentName("staging")])
    match rng.randrange(6):
        case 0:
            new_tenant(db)
        case 1:
            keys = KeyRepository(db, tenant)
            key = keys.create("k", [Scope.PREDICT])
            if rng.random() < 0.5:
                keys.revoke(key.key_id)
        case 2 | 3:
            with suppress(*REFUSALS):
                EnvironmentRepository(db, tenant).promote(TICKETS, version, environment, actor="me")
        case _:
            with suppress(*REFUSALS):
                roll_out(RolloutRepository(db, tenant), version, environment, rng)


def roll_out(rollouts: RolloutRepository, version: VersionId, environment: EnvironmentName, rng: random.Random) -> None:
    """One random step of a rollout."""
    match rng.randrange(5):
        case 0:
            rollouts.shadow(TICKETS, version, environment)
        case 1:
            rollouts.step(TICKETS, rng.randint(1, 99), environment)
        case 2:
            rng.choice([rollouts.finish, rollouts.abort, rollouts.unshadow])(TICKETS, environment)
        case _:
            rollouts.start(TICKETS, version, rng.randint(1, 99), environment)


def test_an_uncommitted_change_holds_later_ones_back(db: DatabaseConnection) -> None:
    """The order of generations is that of commits: a later change waits until an earlier one has committed."""
    feed, first = FeedReader(db), new_tenant(db)
    generation = feed.read(None).generation
    second_done = threading.Event()
    created: list[TenantId] = []

    def second() -> None:
        created.append(new_tenant(db))
        second_done.set()

    with db.tenant(first) as connection:
        connection.scalar(sa.text("SELECT mlcore.advance_feed()"))
        thread = threading.Thread(target=second)
        thread.start()
        assert not second_done.wait(0.3)
        assert feed.read(generation).is_empty
    thread.join(10)
    delta = feed.read(generation)
    assert delta.generation == generation + 2
    assert delta.tenants == {created[0]: True}


@pytest.mark.parametrize("further", [0, 2, 5])
def test_a_reader_from_before_a_restore_gets_a_snapshot(db: DatabaseConnection, further: int) -> None:
    """Whether the restored clock is behind the reader's generation, has reached it or is past it, no move is missed."""
    tenant, feed, follower = new_tenant(db), FeedReader(db), FeedState(FeedReader(db))
    environments = EnvironmentRepository(db, tenant)
    for version in ("1", "2"):
        register(db, tenant, version)
    environments.promote(TICKETS, VersionId("1"), PRODUCTION, actor="a")
    backup = feed.read(None).generation
    environments.promote(TICKETS, VersionId("2"), PRODUCTION, actor="a")
    new_tenant(db)
    follower.follow()
    with superuser(db) as session:  # pointer, history and clock as they were in the backup
        session.execute(
            "DELETE FROM mlcore.environment_history WHERE tenant_id = %s AND generation = 2", (str(tenant),)
        )
        session.execute(
            "UPDATE mlcore.environments SET version = '1', generation = 1, feed_generation = %s WHERE tenant_id = %s",
            (backup, str(tenant)),
        )
        session.execute("UPDATE mlcore.feed_clock SET generation = %s", (backup,))
    with db.maintaining() as connection:
        renew_epoch(connection)
    for _ in range(further):
        new_tenant(db)
    assert follower.follow().is_snapshot
    assert follower.is_up_to_date()
    assert follower.follow().is_empty


def test_a_tenant_fills_no_replica(
    db: DatabaseConnection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What a tenant has in long documents beyond the bound of a read is named as unreadable; other tenants' versions
    are read."""
    large, small = new_tenant(db), new_tenant(db)
    size = len(json.dumps(SIGNATURE.to_json())) + len(json.dumps(SELF_TEST.to_json())) + len("[]null")
    monkeypatch.setattr(feed_module, "MAX_TENANT_BYTES", 2 * size)
    monkeypatch.setattr(version_module, "SHARED_BYTES", 0)
    for tenant, models in ((large, 4), (small, 1)):
        for number in range(models):
            model_id = ModelId(f"m{number}")
            version = register(db, tenant, model_id=model_id)
            EnvironmentRepository(db, tenant).promote(model_id, version.version, PRODUCTION)
    delta = FeedReader(db).read(None)
    read = [ref.tenant_id for ref, rollout in delta.rollouts.items() if rollout is not None]
    assert (read.count(large), read.count(small)) == (2, 1)
    assert [ref.tenant_id for ref in delta.unreadable if ref.tenant_id in (large, small)] == [large, large]
    assert f"The tenant of {large}/" in caplog.text


def test_usual_documents_are_not_bounded(db: DatabaseConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant may have as many models as it registers."""
    monkeypatch.setattr(feed_module, "MAX_TENANT_BYTES", 0)
    tenant = new_tenant(db)
    EnvironmentRepository(db, tenant).promote(TICKETS, register(db, tenant).version, PRODUCTION)
    delta = FeedReader(db).read(None)
    assert delta.rollouts[PointerRef(tenant, TICKETS, PRODUCTION)] is not None


@pytest.mark.parametrize("of", ["form", "modules"])
def test_every_document_of_a_version_counts(db: DatabaseConnection, monkeypatch: pytest.MonkeyPatch, of: str) -> None:
    """A text of the compiled form or of the modules may be as long as that of a signature."""
    tenant, long = new_tenant(db), "x" * 10_000
    monkeypatch.setattr(feed_module, "MAX_TENANT_BYTES", 10_000)
    monkeypatch.setattr(version_module, "SHARED_BYTES", 0)
    form = Compilation("It is faster.", CompiledForm(Digest("0" * 64), 1, long))
    given = {"compilation": form} if of == "form" else {"modules": (RequiredModule(long),)}
    version = register(db, tenant, **given)
    EnvironmentRepository(db, tenant).promote(TICKETS, version.version, PRODUCTION)
    assert [ref.tenant_id for ref in FeedReader(db).read(None).unreadable if ref.tenant_id == tenant] == [tenant]


def test_long_documents_are_not_kept_to_be_shared() -> None:
    """Thousands of megabytes would stay in a replica after their versions have gone."""
    short, long = (json.dumps(SIGNATURE.to_json() | {"more": "x" * n}) for n in (1_000, 20_000))
    for text, is_kept in ((short, True), (long, False)):
        kept = [read_signature(text) for _ in range(2)]
        assert (kept[0] is kept[1]) is is_kept
        assert kept[0] == SIGNATURE
        named = {"tenant_id": "acme", "model_id": "m", "version": "1", "model_type": "classification"}
        stored = {"digest": "0" * 64, "size_bytes": 1, "format": "skops/2", "modules": "[]", "compiled": None}
        row = SimpleNamespace(**named, **stored, signature=text, self_test="{}")
        one, two = (packed_from(row)._signature_text for _ in range(2))
        assert (one is two) is is_kept
