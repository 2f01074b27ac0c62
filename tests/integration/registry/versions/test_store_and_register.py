"""Bytes and the row that needs them: both or neither, whatever happens between the two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import StoredArtifact
from ml_core.exceptions import ModelNotFoundError, ModelSaveError, RequestTooLargeError, TenantNotFoundError
from ml_core.ids import TenantId, VersionId
from ml_core.models.store import LocalStore
from ml_core.registry.blobs import claim_bytes, remove_unneeded
from ml_core.registry.collection.fsck import Checker
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, draft, wait_briefly_for_locks
from support.stored import AT_ONCE, publish, stored


class Killed(BaseException):
    """As if the process ended here."""


class LosingStore(LocalStore):
    """After its first upload somebody else removes the very same bytes; then ``then`` happens.

    Args:
        root: The folder.
        db: The registry.
        then: Called with each later upload.
    """

    def __init__(self, root: Path, db: DatabaseConnection, then: Callable[[], None] = lambda: None) -> None:
        super().__init__(root)
        self._db, self._then, self.uploads = db, then, 0

    def _store(self, tenant_id: TenantId, artifact: StoredArtifact, source: Any) -> None:
        self.uploads += 1
        if self.uploads > 1:
            self._then()
        super()._store(tenant_id, artifact, source)
        if self.uploads == 1:
            remove_unneeded(self._db, tenant_id, LocalStore(self.root), artifact.digest)


def full() -> None:
    raise ModelSaveError("The disk is full.")


def killed() -> None:
    raise Killed


def make_version(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
    publish(db, tenant_id, store, "bytes", version="1")


def make_dataset(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
    DatasetRepository(db, tenant_id, store).create("d", pd.DataFrame({"n": [1]}))


def make_file(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> None:
    runs = RunRepository(db, tenant_id, store)
    runs.artifacts.log(runs.start(TICKETS), "f.txt", b"bytes")


MAKERS = [make_version, make_dataset, make_file]


def findings(db: DatabaseConnection, tenant_id: TenantId, store: LocalStore) -> list[str]:
    return [found.what for found in Checker(db, store, AT_ONCE.grace).check(tenant_id)]


@pytest.mark.parametrize("make", MAKERS)
def test_bytes_that_vanish_are_stored_again(
    db: DatabaseConnection, tenant_id: TenantId, tmp_path: Path, make: Callable[..., None]
) -> None:
    """Removed between the upload and the row: they are uploaded a second time, and the row has its bytes."""
    store = LosingStore(tmp_path, db)
    make(db, tenant_id, store)
    assert store.uploads == 2
    assert len(stored(store)) == 1
    assert findings(db, tenant_id, store) == []


@pytest.mark.parametrize("happens", [full, killed])
@pytest.mark.parametrize("make", MAKERS)
def test_no_row_without_bytes(
    db: DatabaseConnection, tenant_id: TenantId, tmp_path: Path, make: Callable[..., None], happens: Callable[[], None]
) -> None:
    """The second upload fails, or the process ends with it: there is neither row nor file."""
    store = LosingStore(tmp_path, db, happens)
    with pytest.raises((ModelSaveError, Killed)):
        make(db, tenant_id, store)
    assert findings(db, tenant_id, store) == []
    assert stored(store) == set()
    with pytest.raises(ModelNotFoundError):
        VersionRepository(db, tenant_id).get(TICKETS, VersionId("1"))


def test_a_slow_removal_is_waited_for_twice(
    db: DatabaseConnection, tenant_id: TenantId, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store takes longer to delete the bytes than the lock timeout: the publication waits once more."""
    wait_briefly_for_locks(monkeypatch)
    removal = claim_bytes(db, tenant_id, LocalStore(tmp_path).put(tenant_id, b"bytes", "skops/1").digest)

    class Slow(LocalStore):
        uploads = 0

        def _store(self, *arguments: Any) -> None:
            super()._store(*arguments)
            Slow.uploads += 1
            if Slow.uploads == 2:
                removal.__exit__(None, None, None)

    assert removal.__enter__()
    version = publish(db, tenant_id, Slow(tmp_path), "bytes")
    assert (Slow.uploads, stored(LocalStore(tmp_path))) == (2, {version.servable.digest})


def test_a_removal_without_end_is_said(
    db: DatabaseConnection, tenant_id: TenantId, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no outage of the registry: the message says what is in the way."""
    wait_briefly_for_locks(monkeypatch)
    store = LocalStore(tmp_path)
    with (
        claim_bytes(db, tenant_id, store.put(tenant_id, b"bytes", "skops/1").digest),
        pytest.raises(ModelSaveError, match="are being removed") as caught,
    ):
        publish(db, tenant_id, store, "bytes")
    assert "try again" in caught.value.remedy


def test_an_unknown_tenant_leaves_no_folder(db: DatabaseConnection, tenant_id: TenantId, tmp_path: Path) -> None:
    """One that never was, and one that was deleted, are refused before the store is asked."""
    store = LocalStore(tmp_path)
    TenantDeletion(db, store).delete(tenant_id)
    for gone in (TenantId("nobody-knows"), tenant_id):
        with pytest.raises(TenantNotFoundError):
            publish(db, gone, store)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_no_finding(db: DatabaseConnection, tenant_id: TenantId, tmp_path: Path) -> None:
    """An upload that is refused leaves a folder without a file: that harms nobody."""
    store = LocalStore(tmp_path)
    TenantDeletion(db, store).delete(tenant_id)
    for gone in (TenantId("nobody-knows"), tenant_id):
        remove_unneeded(db, gone, store, store.put(gone, b"late", "skops/1").digest)
    assert set(store.tenants()) == {"nobody-knows", tenant_id}
    found = {finding.tenant_id for finding in Checker(db, store, AT_ONCE.grace).check_folders()}
    assert found.isdisjoint(store.tenants())


@pytest.mark.parametrize("field", ["metadata", "hyperparameters"])
def test_documents_have_a_bound(db: DatabaseConnection, tenant_id: TenantId, tmp_path: Path, field: str) -> None:
    """What is larger than a run's parameters may be is refused before anything is stored."""
    store = LocalStore(tmp_path)
    with pytest.raises(RequestTooLargeError, match=rf"{field} have 7\d,\d+ bytes"):
        VersionRepository(db, tenant_id, store).publish(draft(**{field: {"notes": "x" * 70_000}}), b"bytes", "skops/1")
    assert stored(store) == set()
    with pytest.raises(RequestTooLargeError, match=field):
        VersionRepository(db, tenant_id).register(
            draft(**{field: {"notes": "x" * 70_000}}), store.put(tenant_id, b"bytes", "skops/1"), "tester"
        )
