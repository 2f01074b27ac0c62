"""Versions in the registry: numbered, immutable, idempotent, deletable only when nothing needs them."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import Lineage
from ml_core.exceptions import (
    Action,
    InvalidRequestError,
    ModelNotFoundError,
    ModelSaveError,
    ModelVersionConflictError,
    RequestTooLargeError,
    TenantNotFoundError,
    VersionInUseError,
)
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry.audit import AuditRepository
from ml_core.registry.blobs import claim_bytes
from ml_core.registry.feed import FeedReader
from ml_core.registry.model_registry import ModelRegistry
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.versions.models import ModelRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.system import MLSystem
from support.registry import SELF_TEST, SIGNATURE, TICKETS, artifact_of, draft, new_tenant, register

PRODUCTION = EnvironmentName("production")


def test_what_is_registered_is_what_is_read(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Every field of a draft and of its artifact comes back, the signature and self-test as equal values."""
    parent = register(db, tenant_id)
    lineage = Lineage("run_1", "d" * 64, parent.version, "c0ffee", {"scikit-learn": "1.9"})
    given = draft(
        version="1.0.0-rc+1",
        metrics={"train": {"accuracy": 1.0}, "validation": {"accuracy": 0.9}},
        hyperparameters={"C": np.float64(0.5), "n": np.int64(3), "names": ("a", "b"), "none": None},
        metadata={"owner": "Zoë ✓"},
        lineage=lineage,
    )
    artifact = artifact_of("bytes")
    registered = VersionRepository(db, tenant_id).register(given, artifact, "me")
    found = VersionRepository(db, tenant_id).get(TICKETS, VersionId("1.0.0-rc+1"))
    assert found == registered
    assert (found.servable.digest, found.servable.size_bytes, found.servable.format) == (
        artifact.digest,
        artifact.size_bytes,
        artifact.format,
    )
    assert (found.servable.signature, found.servable.self_test) == (SIGNATURE, SELF_TEST)
    assert found.metrics == given.metrics
    assert found.hyperparameters == {"C": 0.5, "n": 3, "names": ["a", "b"], "none": None}
    assert found.metadata == {"owner": "Zoë ✓"}
    assert found.lineage == lineage
    assert (found.created_by, found.archived_at, found.created_at.utcoffset().total_seconds()) == ("me", None, 0)  # type: ignore[union-attr]


def test_numbers_follow_each_other(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Without a name a version gets the next number, past those that callers took themselves."""
    names = [register(db, tenant_id, version).version for version in (None, None, "7", None, "1.0.0", None, "3", None)]
    assert names == ["1", "2", "7", "8", "1.0.0", "10", "3", "12"]


def test_numbers_are_not_given_out_twice_at_once(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Many registrations at the same time get different numbers, without a gap."""
    with ThreadPoolExecutor(6) as pool:
        names = list(pool.map(lambda _: register(db, tenant_id).version, range(24)))
    assert sorted(map(int, names)) == list(range(1, 25))


def test_the_same_bytes_again_are_the_same_version(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Registering a version twice with the same bytes returns the first and changes nothing."""
    first = register(db, tenant_id, "1.0.0", content="a", metadata={"first": True})
    assert register(db, tenant_id, "1.0.0", content="a", metadata={"second": True}) == first
    assert register(db, tenant_id).version == "2"


def test_other_bytes_are_a_conflict(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A version never changes; the error names it and nothing was overwritten."""
    first = register(db, tenant_id, "1.0.0", content="a")
    with pytest.raises(ModelVersionConflictError) as caught:
        register(db, tenant_id, "1.0.0", content="b")
    assert (caught.value.model_id, caught.value.version) == (TICKETS, "1.0.0")  # type: ignore[attr-defined]
    assert VersionRepository(db, tenant_id).get(TICKETS) == first


def test_one_of_two_registrations_of_a_name_wins(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Different bytes under one name at the same time: exactly one is registered, the others hear of the conflict."""

    def attempt(content: str) -> str:
        try:
            return register(db, tenant_id, "1.0.0", content=content).servable.digest
        except ModelVersionConflictError:
            return "conflict"

    with ThreadPoolExecutor(5) as pool:
        outcomes = list(pool.map(attempt, "abcde"))
    assert outcomes.count("conflict") == 4
    assert VersionRepository(db, tenant_id).get(TICKETS).servable.digest in outcomes


def test_tenants_do_not_share_names(db: DatabaseConnection, tenant_id: TenantId, other_tenant_id: TenantId) -> None:
    """The same model and version of two tenants are two versions; neither sees the other's."""
    register(db, tenant_id, "1.0.0", content="a")
    register(db, other_tenant_id, "1.0.0", content="b")
    assert VersionRepository(db, tenant_id).get(TICKETS).servable.digest == artifact_of("a").digest
    assert VersionRepository(db, other_tenant_id).get(TICKETS).servable.digest == artifact_of("b").digest


def test_a_version_needs_a_tenant(db: DatabaseConnection) -> None:
    """Registering for a tenant that does not exist says how to create it."""
    with pytest.raises(TenantNotFoundError, match="Create it first") as caught:
        register(db, TenantId("nobody"))
    assert caught.value.action == Action.of("tenants.create", tenant="nobody")


def test_a_model_keeps_its_type(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A version of another type is refused, naming both."""
    register(db, tenant_id)
    with pytest.raises(ModelSaveError, match="'classification', not 'regression'"):
        register(db, tenant_id, model_type="regression")


def test_a_parent_must_exist(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Lineage does not name what is not there."""
    with pytest.raises(InvalidRequestError, match="parent version"):
        register(db, tenant_id, lineage=Lineage(parent_version="9"))
    assert VersionRepository(db, tenant_id).list(TICKETS).items == []


def test_a_metric_that_is_no_number_is_left_out(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """An undefined metric does not fail the registration of a finished training."""
    version = register(db, tenant_id, metrics={"train": {"r2": math.nan, "mae": 1.0, "max": math.inf}})
    assert version.metrics == {"train": {"mae": 1.0}}


@pytest.mark.parametrize("value", [math.nan, {1, 2}, object(), 2**70])
def test_hyperparameters_without_a_json_form(db: DatabaseConnection, tenant_id: TenantId, value: object) -> None:
    """They are refused by name, and nothing is registered."""
    with pytest.raises(InvalidRequestError, match="depth"):
        register(db, tenant_id, hyperparameters={"depth": value})
    assert ModelRepository(db, tenant_id).list().items == []


def test_versions_are_listed_newest_first_in_pages(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Order of registration, not of names; a page goes on where the last one ended, even if that was deleted."""
    for version in ("b", "a", "10", "9"):
        register(db, tenant_id, version)
    versions = VersionRepository(db, tenant_id)
    assert [v.version for v in versions.list(TICKETS).items] == ["9", "10", "a", "b"]
    page = versions.list(TICKETS, limit=3)
    versions.delete(TICKETS, page.items[-1].version)
    assert [v.version for v in versions.list(TICKETS, limit=3, cursor=page.next_cursor).items] == ["b"]
    assert versions.list(ModelId("unknown")).items == []


def test_a_list_is_one_query(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """However many models and versions there are, a list asks the database once."""
    for index in range(6):
        register(db, tenant_id, model_id=ModelId(f"m{index}"))
        register(db, tenant_id, model_id=ModelId(f"m{index}"))
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    engine = db._engine(db.urls.app)
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        models = ModelRepository(db, tenant_id).list().items
        VersionRepository(db, tenant_id).list(ModelId("m0"))
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    assert [(m.model_id, m.versions, m.newest_version) for m in models] == [(f"m{i}", 2, "2") for i in range(6)]
    assert len([s for s in statements if "set_config" not in s]) == 2


def test_models_are_listed_by_name_and_type(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Pages by name; a type filters."""
    for name, kind in (("b", "classification"), ("a", "regression"), ("c", "classification")):
        register(db, tenant_id, model_id=ModelId(name), model_type=kind)
    models = ModelRepository(db, tenant_id)
    assert [m.model_id for m in models.list().items] == ["a", "b", "c"]
    first = models.list(limit=1)
    assert [m.model_id for m in models.list(limit=1, cursor=first.next_cursor).items] == ["b"]
    assert [m.model_id for m in models.list(model_type="regression").items] == ["a"]


def test_metadata_is_merged(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """New keys are added, present ones replaced, others kept; nothing else changes."""
    first = register(db, tenant_id, metadata={"a": 1, "b": {"x": 1}})
    updated = VersionRepository(db, tenant_id).update_metadata(TICKETS, {"b": 2, "c": None}, first.version)
    assert updated == replace(first, metadata={"a": 1, "b": 2, "c": None})


def test_metadata_is_bounded_as_a_whole(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Notes that are small each add up to too much: refused, and nothing changes."""
    versions = VersionRepository(db, tenant_id)
    register(db, tenant_id, metadata={"a": "x" * 40_000})
    for notes, version in (("x" * 40_000, VersionId("1")), ("x" * 40_000, None), ("x" * 20_000, None)):
        with pytest.raises(RequestTooLargeError, match="metadata"):
            versions.update_metadata(TICKETS, {"b": notes}, version)
    assert list(versions.get(TICKETS).metadata) == ["a"]


def test_notes_of_a_model_are_seen_with_each_of_its_versions(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Older, archived and later ones; what was said last of a key holds, of the model or of the version."""
    versions = VersionRepository(db, tenant_id)
    for name in ("1", "2"):
        register(db, tenant_id, name, metadata={"own": name, "team": "b"})
    register(db, tenant_id, model_id=ModelId("other"))
    versions.archive(TICKETS, VersionId("1"))
    assert versions.update_metadata(TICKETS, {"team": "a", "owner": {"name": "x"}}).version == "2"
    register(db, tenant_id, "3", metadata={"own": "3"})
    register(db, tenant_id, "4", metadata={"team": "c"})
    versions.update_metadata(TICKETS, {"team": "d"}, VersionId("2"))
    model = {"team": "a", "owner": {"name": "x"}}
    assert {name: dict(versions.get(TICKETS, VersionId(name)).metadata) for name in "1234"} == {
        "1": {"own": "1", **model},
        "2": {"own": "2", **model, "team": "d"},
        "3": {"own": "3", **model},
        "4": {**model, "team": "c"},
    }
    assert dict(versions.get(ModelId("other")).metadata) == {}
    entries = AuditRepository(db, tenant_id).list(action="model.annotated", descending=True).items
    assert [entry.details for entry in entries] == [{"keys": ["owner", "team"]}]


def test_notes_of_a_deleted_model_are_not_those_of_its_next_life(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A name that is used again is another model's."""
    register(db, tenant_id)
    VersionRepository(db, tenant_id).update_metadata(TICKETS, {"team": "a"})
    ModelRepository(db, tenant_id).delete(TICKETS)
    assert dict(register(db, tenant_id).metadata) == {}


def test_notes_of_a_model_and_a_registration_at_once(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Whichever comes first, no version is without them."""
    register(db, tenant_id)
    versions = VersionRepository(db, tenant_id)
    with ThreadPoolExecutor(8) as pool:
        for number in range(5):
            notes = pool.submit(versions.update_metadata, TICKETS, {f"note{number}": number})
            list(pool.map(lambda _: register(db, tenant_id), range(6)))
            notes.result()
    assert {frozenset(v.metadata) for v in versions.list(TICKETS).items} == {frozenset(f"note{n}" for n in range(5))}


def test_the_journal_names_the_keys_of_metadata_that_changed(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Not the values, which the version has, nor keys that stay as they are; nothing if none changes."""
    versions = VersionRepository(db, tenant_id)
    register(db, tenant_id, metadata={"a": 1, "b": 1})
    versions.update_metadata(TICKETS, {"a": 1, "b": 2, "c": 3}, VersionId("1"))
    versions.update_metadata(TICKETS, {"a": 1}, VersionId("1"))
    entries = AuditRepository(db, tenant_id).list(action="version.annotated", descending=True).items
    assert [entry.details for entry in entries] == [{"keys": ["b", "c"]}]


def test_metadata_of_a_version_that_is_deleted_meanwhile(
    db: DatabaseConnection, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is deleted between the look and the change: an error, and no word of a change in the audit."""
    versions = VersionRepository(db, tenant_id)
    register(db, tenant_id, "1")
    get = versions.get

    def get_then_delete(*arguments: Any) -> object:
        found = get(*arguments)
        versions.delete(TICKETS, VersionId("1"))
        return found

    monkeypatch.setattr(versions, "get", get_then_delete)
    with pytest.raises(ModelNotFoundError):
        versions.update_metadata(TICKETS, {"a": 1}, VersionId("1"))
    assert "version.annotated" not in [
        entry.action for entry in AuditRepository(db, tenant_id).list(descending=True).items
    ]


def test_an_unknown_version(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Every reading and changing call says that it does not exist."""
    versions = VersionRepository(db, tenant_id)
    calls = [
        lambda: versions.get(TICKETS),
        lambda: versions.update_metadata(TICKETS, {}),
        lambda: versions.archive(TICKETS, VersionId("1")),
        lambda: versions.restore(TICKETS, VersionId("1")),
        lambda: versions.delete(TICKETS, VersionId("1")),
        lambda: ModelRepository(db, tenant_id).archive(TICKETS),
        lambda: ModelRepository(db, tenant_id).delete(TICKETS),
    ]
    for call in calls:
        with pytest.raises(ModelNotFoundError):
            call()
    register(db, tenant_id)
    for missing in (lambda: versions.get(TICKETS, VersionId("2")), lambda: versions.delete(TICKETS, VersionId("2"))):
        with pytest.raises(ModelNotFoundError, match="Version 2"):
            missing()


def test_an_archived_version_is_hidden_and_can_be_restored(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """It is neither listed nor the newest, still found by name, and back after ``restore``."""
    versions = VersionRepository(db, tenant_id)
    first, second = register(db, tenant_id), register(db, tenant_id)
    versions.archive(TICKETS, second.version)
    assert versions.list(TICKETS).items == [first]
    assert versions.get(TICKETS) == first
    assert versions.get(TICKETS, second.version).archived_at is not None
    assert [v.version for v in versions.list(TICKETS, include_archived=True).items] == ["2", "1"]
    versions.restore(TICKETS, second.version)
    assert versions.list(TICKETS).items == [second, first]


def test_what_is_archived_is_called_so_at_every_door(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Whoever asks for an archived model, or for one whose versions are all archived, is told how to restore it."""
    versions, models = VersionRepository(db, tenant_id), ModelRepository(db, tenant_id)
    version = register(db, tenant_id).version
    doors = (
        lambda: versions.get(TICKETS),
        lambda: EnvironmentRepository(db, tenant_id).resolve(TICKETS),
        lambda: MLSystem(db, tenant_id=tenant_id).predict("tickets", {"text": "hello"}),
        lambda: MLSystem(db, tenant_id=tenant_id).models.get_model("tickets"),
        lambda: ModelRegistry(db, tenant_id).get_model_version("tickets"),
    )
    names = {"tenant": tenant_id, "model": "tickets"}
    for archive, restore, action in (
        (lambda: models.archive(TICKETS), lambda: models.restore(TICKETS), Action.of("models.restore", **names)),
        (
            lambda: versions.archive(TICKETS, version),
            lambda: versions.restore(TICKETS, version),
            Action.of("versions.restore", **names, version=version),
        ),
    ):
        archive()
        for door in doors:
            with pytest.raises(ModelNotFoundError, match="archived") as caught:
                door()
            assert caught.value.action == action
            assert "train" not in str(caught.value).lower()
        restore()
        versions.get(TICKETS)


def test_an_archived_model_is_hidden_with_its_versions(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """It takes no new version until it is restored."""
    models, versions = ModelRepository(db, tenant_id), VersionRepository(db, tenant_id)
    version = register(db, tenant_id)
    models.archive(TICKETS)
    assert models.list().items == []
    assert versions.list(TICKETS).items == []
    with pytest.raises(ModelNotFoundError):
        versions.get(TICKETS)
    with pytest.raises(ModelSaveError, match="archived"):
        register(db, tenant_id)
    models.restore(TICKETS)
    assert versions.list(TICKETS).items == [version]


def test_what_an_environment_serves_is_neither_hidden_nor_deleted(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Every way to take it away names the environment; once it is withdrawn all of them work."""
    models, versions = ModelRepository(db, tenant_id), VersionRepository(db, tenant_id)
    environments = EnvironmentRepository(db, tenant_id)
    served = register(db, tenant_id)
    environments.promote(TICKETS, served.version, PRODUCTION, actor="me")
    for call in (
        lambda: versions.delete(TICKETS, served.version),
        lambda: versions.archive(TICKETS, served.version),
        lambda: models.archive(TICKETS),
        lambda: models.delete(TICKETS),
    ):
        with pytest.raises(VersionInUseError) as caught:
            call()
        assert caught.value.used_by == ["production"]  # type: ignore[attr-defined]
    environments.withdraw(TICKETS, PRODUCTION, actor="me")
    versions.delete(TICKETS, served.version)
    assert versions.find_by_digest(served.servable.digest) is None


@pytest.mark.parametrize("whole_model", [False, True])
def test_the_name_of_a_deleted_version_stays_with_its_bytes(
    db: DatabaseConnection, tenant_id: TenantId, whole_model: bool
) -> None:
    """Other bytes under it are a conflict; the same may come back, any number of times; so may other names."""
    for _ in range(2):
        register(db, tenant_id, "1.0.0", content="a")
        if whole_model:
            ModelRepository(db, tenant_id).delete(TICKETS)
        else:
            VersionRepository(db, tenant_id).delete(TICKETS, VersionId("1.0.0"))
        with pytest.raises(ModelVersionConflictError, match="was deleted") as caught:
            register(db, tenant_id, "1.0.0", content="b")
        assert (caught.value.model_id, caught.value.version) == (TICKETS, "1.0.0")  # type: ignore[attr-defined]
    assert register(db, tenant_id, "1.0.1", content="b").version == "1.0.1"


def test_what_serving_needs_of_a_version(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """It is what the feed would say."""
    version = register(db, tenant_id, "1")
    servable = VersionRepository(db, tenant_id).servable(TICKETS, version.version)
    assert servable == version.servable == FeedReader(db).servable(servable.ref)


@pytest.mark.parametrize("whole_model", [False, True])
def test_an_archived_version_is_not_servable(db: DatabaseConnection, tenant_id: TenantId, whole_model: bool) -> None:
    """By itself or with its model; the remedy is to restore it."""
    versions, version = VersionRepository(db, tenant_id), register(db, tenant_id).version
    if whole_model:
        ModelRepository(db, tenant_id).archive(TICKETS)
    else:
        versions.archive(TICKETS, version)
    with pytest.raises(ModelNotFoundError, match=r"is archived\. Restore it"):
        versions.servable(TICKETS, version)
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        versions.servable(TICKETS, VersionId("9"))


def test_a_parent_is_not_deleted_before_its_children(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Lineage stays whole: the children are named; they go first."""
    versions = VersionRepository(db, tenant_id)
    parent = register(db, tenant_id)
    child = register(db, tenant_id, lineage=Lineage(parent_version=parent.version))
    assert versions.lineage(TICKETS, parent.version)["children"] == [child.version]
    with pytest.raises(VersionInUseError) as caught:
        versions.delete(TICKETS, parent.version)
    assert caught.value.used_by == [child.version]  # type: ignore[attr-defined]
    versions.delete(TICKETS, child.version)
    versions.delete(TICKETS, parent.version)


def test_a_deleted_model_begins_anew_where_it_stopped(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Its versions are gone, its name may be used again, even with another type, and no number is given out twice."""
    models = ModelRepository(db, tenant_id)
    digests = {register(db, tenant_id).servable.digest for _ in range(2)}
    models.delete(TICKETS)
    assert not any(VersionRepository(db, tenant_id).find_by_digest(digest) for digest in digests)
    assert models.list().items == []
    with pytest.raises(ModelNotFoundError):
        models.delete(TICKETS)
    assert register(db, tenant_id, model_type="regression").version == "3"


def test_bytes_are_claimed_only_when_no_version_has_them(db: DatabaseConnection) -> None:
    """Two versions share bytes: they are free after both are gone, and another tenant's do not count."""
    tenant, other = new_tenant(db), new_tenant(db)
    versions = VersionRepository(db, tenant)
    digest = register(db, tenant, "1", content="x").servable.digest
    register(db, tenant, "2", content="x")
    register(db, other, "1", content="x")
    for version in ("1", "2"):
        with claim_bytes(db, tenant, digest) as is_unused:
            assert not is_unused
        versions.delete(TICKETS, VersionId(version))
    with claim_bytes(db, tenant, digest) as is_unused:
        assert is_unused
