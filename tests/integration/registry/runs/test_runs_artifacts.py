"""Files of runs: kept by digest, proved when opened, gone when nothing needs them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import (
    ArtifactIntegrityError,
    InvalidRequestError,
    ModelSaveError,
    RunNotFoundError,
    RunStateError,
)
from ml_core.ids import Digest, TenantId
from ml_core.models.store import LocalStore
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, draft


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A store of the test's own."""
    return LocalStore(tmp_path / "store")


@pytest.fixture
def runs(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> RunRepository:
    """The tenant's runs, with their files in that store."""
    return RunRepository(db, tenant_id, store)


def files_in(store: LocalStore) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


def test_a_file_comes_back_as_it_was(runs: RunRepository, tmp_path: Path) -> None:
    """From bytes or from a path; listed by name with digest, size and format."""
    run_id = runs.start(TICKETS)
    report = tmp_path / "report"
    report.write_bytes(b"a report")
    runs.artifacts.log(run_id, "plot.png", b"a plot")
    runs.artifacts.log(run_id, "report", report, "text/html")
    found = runs.artifacts.list(run_id)
    assert [(file.name, file.size_bytes, file.format) for file in found] == [
        ("plot.png", 6, "png"),
        ("report", 8, "text/html"),
    ]
    assert found[0].digest == hashlib.sha256(b"a plot").hexdigest()
    assert runs.artifacts.open(run_id, "report").read_bytes() == b"a report"
    with pytest.raises(RunNotFoundError, match="no file 'plot'"):
        runs.artifacts.open(run_id, "plot")


def test_a_changed_file_is_not_opened(runs: RunRepository, store: LocalStore) -> None:
    """The bytes are proved each time."""
    run_id = runs.start(TICKETS)
    runs.artifacts.log(run_id, "plot.png", b"a plot")
    (path,) = files_in(store)
    path.chmod(0o600)
    path.write_bytes(b"A plot")
    with pytest.raises(ArtifactIntegrityError):
        runs.artifacts.open(run_id, "plot.png")


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../up", "a/../b", "a/.", "/a", "a//b", "a/", "a\\b", "a\0", "a\nb", "x" * 256, "x/" * 200 + "x"],
)
def test_a_name_leads_out_of_no_folder(runs: RunRepository, store: LocalStore, name: str) -> None:
    """Else it is refused, and nothing is stored."""
    run_id = runs.start(TICKETS)
    with pytest.raises(InvalidRequestError, match="name of a run's file"):
        runs.artifacts.log(run_id, name, b"x")
    assert files_in(store) == []


def test_the_same_name_again_replaces_the_file(runs: RunRepository, store: LocalStore) -> None:
    """The bytes before are gone; logging the same bytes again changes nothing."""
    run_id = runs.start(TICKETS)
    for data in (b"first", b"second", b"second"):
        runs.artifacts.log(run_id, "plot.png", data)
    assert len(runs.artifacts.list(run_id)) == 1
    assert [path.read_bytes() for path in files_in(store)] == [b"second"]


def test_bytes_go_with_the_last_that_needs_them(
    db: DatabaseConnection, tenant_id: TenantId, runs: RunRepository, store: LocalStore
) -> None:
    """Of another file, another run or a version: each keeps them."""
    first, second = runs.start(TICKETS), runs.start(TICKETS)
    version = VersionRepository(db, tenant_id, store).publish(draft(), b"shared", "skops/1")
    for run_id in (first, second):
        runs.artifacts.log(run_id, "a", b"shared")
    runs.artifacts.delete(first, "a")
    runs.finish(second)
    runs.delete(second)
    assert store.exists(tenant_id, version.servable.digest)
    third = runs.start(TICKETS)
    runs.artifacts.log(third, "a", b"alone")
    runs.artifacts.log(third, "b", b"alone")
    runs.artifacts.delete(third, "a")
    assert len(files_in(store)) == 2
    runs.cancel(third)
    runs.delete(third)
    assert [path.read_bytes() for path in files_in(store)] == [b"shared"]


def test_a_run_that_is_none_stores_nothing(runs: RunRepository, store: LocalStore) -> None:
    """No bytes are left behind for it."""
    with pytest.raises(RunNotFoundError):
        runs.artifacts.log("run_0", "a", b"x")
    assert files_in(store) == []


def test_a_run_that_ends_meanwhile_leaves_no_bytes(
    runs: RunRepository, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends between the bytes and the row: the bytes are removed again."""
    run_id = runs.start(TICKETS)
    put = store.put

    def slow_put(*arguments: object) -> object:
        stored = put(*arguments)  # type: ignore[arg-type]
        runs.finish(run_id)
        return stored

    monkeypatch.setattr(store, "put", slow_put)
    with pytest.raises(Exception, match="is finished and can't log"):
        runs.artifacts.log(run_id, "a", b"x")
    assert files_in(store) == []


def test_metrics_are_logged_with_a_file_or_not_at_all(runs: RunRepository, store: LocalStore) -> None:
    """Both are there; of a run that has ended, neither is, and no bytes are left."""
    run_id, ended = runs.start(TICKETS), runs.start(TICKETS)
    runs.finish(ended)
    runs.artifacts.log_results(run_id, {"loss": 0.5}, "a.json", b"of the first")
    with pytest.raises(RunStateError, match="is finished and can't log"):
        runs.artifacts.log_results(ended, {"loss": 0.5}, "a.json", b"of the second")
    assert runs.get(run_id).metrics["loss"].last_value == 0.5
    assert runs.get(ended).metrics == {}
    assert [path.read_bytes() for path in files_in(store)] == [b"of the first"]


def test_bytes_that_vanish_meanwhile_are_stored_again(
    tenant_id: TenantId, runs: RunRepository, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file of the same bytes is deleted between our bytes and our row."""
    run_id = runs.start(TICKETS)
    runs.artifacts.log(run_id, "other", b"same")
    put, calls = store.put, []

    def put_then_lose(*arguments: object) -> object:
        stored = put(*arguments)  # type: ignore[arg-type]
        if not calls:
            runs.artifacts.delete(run_id, "other")
        calls.append(stored)
        return stored

    monkeypatch.setattr(store, "put", put_then_lose)
    logged = runs.artifacts.log(run_id, "mine", b"same")
    assert len(calls) == 2
    assert store.exists(tenant_id, Digest(logged.digest))


def test_a_file_that_can_not_be_read_is_refused(runs: RunRepository, tmp_path: Path) -> None:
    """With a reason; the run has no such file."""
    run_id = runs.start(TICKETS)
    with pytest.raises(ModelSaveError, match="can't be read"):
        runs.artifacts.log(run_id, "a", tmp_path / "missing")
    assert runs.artifacts.list(run_id) == []
