"""Datasets: immutable, stored once, found again, and deleted with their bytes or not at all."""

import dataclasses
import gzip
import resource
import threading

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from ml_core.data import csv_file, reading, table_file
from ml_core.data.table_file import read_frame
from ml_core.database.tables import audit, models
from ml_core.domain.version import Lineage
from ml_core.exceptions import (
    Action,
    ArtifactIntegrityError,
    DataProcessingError,
    DatasetInUseError,
    DatasetNotFoundError,
    InvalidNameError,
    InvalidRequestError,
    ModelSaveError,
    RequestTooLargeError,
    TenantNotFoundError,
)
from ml_core.ids import TenantId
from ml_core.models.store import LocalStore
from ml_core.registry.blobs import claim_bytes
from ml_core.registry.datasets import DatasetRepository, intake
from ml_core.registry.jobs import JobRepository
from ml_core.registry.promotion.environments import PRODUCTION
from ml_core.registry.promotion.gates import GateRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, register, superuser
from support.tables import tickets
from support.waiting import wait_until


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


@pytest.fixture
def datasets(db, tenant_id, store):
    return DatasetRepository(db, tenant_id, store)


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def table(*numbers):
    return pd.DataFrame({"n": numbers})


def test_a_dataset_comes_back_as_it_was(datasets):
    """Table, schema, size, profile and source; by number, and the newest without one."""
    frame = tickets()
    made = datasets.create("tickets", frame, source={"note": "first try"})
    assert (made.reference, made.row_count, made.column_count) == ("tickets@1", len(frame), frame.shape[1])
    assert made.columns[0] == ("subject", "string")
    assert made.source == {"kind": "frame", "note": "first try"}
    assert made.profile.column("category").kind == "category"
    assert datasets.get("tickets") == datasets.get("tickets", 1) == made
    pd.testing.assert_frame_equal(datasets.read("tickets"), frame, check_dtype=False)
    assert datasets.open("tickets").stat().st_size == made.size_bytes


def test_the_very_table_again_is_the_same_version(datasets, store):
    """Nothing is written twice, neither row nor file."""
    first = datasets.create("numbers", table(1, 2))
    assert datasets.create("numbers", table(1, 2)) == first
    assert len(datasets.versions("numbers").items) == 1
    assert len(files_in(store.root)) == 1


def test_equal_bytes_of_several_versions_are_stored_once(datasets, store):
    """Under another name and under a later number; the newest is what was registered last."""
    first = datasets.create("a", table(1, 2))
    datasets.create("a", table(3))
    again, other = datasets.create("a", table(1, 2)), datasets.create("b", table(1, 2))
    assert (again.number, other.number) == (3, 1)
    assert first.digest == again.digest == other.digest
    assert datasets.get("a").number == 3
    assert len(files_in(store.root)) == 2
    assert {entry.reference for entry in datasets.find_by_digest(first.digest)} == {"a@1", "a@3", "b@1"}


FRAME = pd.DataFrame({"n": [1, 2], "x": [0.5, np.nan], "s": ["NA", "b"], "zip": ["01234", "94110"]})


def test_equal_tables_from_frame_and_parquet_are_the_same_bytes(datasets, tmp_path):
    """Whatever wrote the Parquet file, and with whatever index."""
    FRAME.set_index(pd.Index([5, 9])).to_parquet(tmp_path / "t.parquet", compression="gzip")
    parquet = datasets.from_parquet("parquet", tmp_path / "t.parquet")
    assert parquet.digest == datasets.create("frame", FRAME).digest


def test_a_csv_is_stored_as_its_cells_and_read_as_its_values(datasets, tmp_path):
    """What ``1.10`` means is open until the column's kind is known; equal texts in a frame are another table."""
    (tmp_path / "t.csv").write_text("n,x,s,zip,release,ok\n1,0.5,NA,01234,1.10,TRUE\n2,,b,94110,1.1,\n")
    made = datasets.from_csv("csv", tmp_path / "t.csv")
    assert made.source == {"kind": "csv", "file": "t.csv"}
    assert {kind for _, kind in made.columns} == {"string"}
    assert str(made.profile.column("n").kind) == "number"
    read = datasets.read("csv")
    pd.testing.assert_frame_equal(read[["n", "x", "s", "zip"]], FRAME)
    assert read["ok"].tolist() == [True, None]
    assert read["release"].tolist() == [1.1, 1.1]
    stored = read_frame(datasets.open("csv"))
    assert stored["release"].tolist() == ["1.10", "1.1"]
    assert datasets.create("frame", stored).digest != made.digest
    assert datasets.read("frame")["release"].tolist() == ["1.10", "1.1"]


def test_a_file_is_registered_whichever_kind_it_is(datasets, tmp_path):
    """Its content decides, and the name that a client gave it is recorded."""
    table(1, 2).to_csv(tmp_path / "t.csv", index=False)
    table(1, 2).to_parquet(tmp_path / "p.csv")
    cells = datasets.from_file("cells", tmp_path / "t.csv", source={"file": "tickets.csv"})
    assert cells.source == {"kind": "csv", "file": "tickets.csv"}
    columns = datasets.from_file("columns", tmp_path / "p.csv")
    assert columns.source == {"kind": "parquet", "file": "p.csv"}
    assert columns.digest == datasets.create("frame", table(1, 2)).digest


def test_a_named_index_of_a_parquet_file_is_a_column(datasets, tmp_path):
    """An index without a name is none."""
    FRAME.set_index("n").to_parquet(tmp_path / "t.parquet")
    assert "n" in dict(datasets.from_parquet("parquet", tmp_path / "t.parquet").columns)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda d, f: d.create("x", pd.DataFrame({"a": []})), "no row"),
        (lambda d, f: d.create("x", pd.DataFrame(index=[1])), "no column"),
        (lambda d, f: d.create("x", pd.DataFrame([[1, 2]], columns=["a", "a"])), "called 'a'"),
        (lambda d, f: d.create("x", pd.DataFrame({"a": [[1]]})), "column 'a' is of type list"),
        (lambda d, f: d.from_csv("x", f / "none.csv"), "none.csv does not exist"),
        (lambda d, f: d.from_parquet("x", f / "text.parquet"), "not a Parquet file"),
        (lambda d, f: d.from_parquet("x", f / "empty.parquet"), "no row"),
    ],
    ids=["no row", "no column", "twice", "nested", "no file", "no parquet", "empty parquet"],
)
def test_what_is_no_table_is_refused(datasets, store, tmp_path, write, words):
    """With nothing left behind."""
    (tmp_path / "text.parquet").write_text("hello")
    pd.DataFrame({"a": pd.Series([], dtype="int64")}).to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(DataProcessingError, match=words):
        write(datasets, tmp_path)
    assert files_in(store.root) == []
    assert datasets.list(include_archived=True).items == []


def test_a_refused_registration_leaves_no_bytes(datasets, store):
    """What the registry can't store is found after the file was stored: the file goes again."""
    with pytest.raises(InvalidRequestError):
        datasets.create("x", table(1), source={"when": object()})
    assert files_in(store.root) == []
    assert datasets.create("x", table(1)).number == 1


@pytest.mark.parametrize("kind", ["frame", "csv", "parquet"])
def test_a_full_disk_is_said_and_leaves_nothing(datasets, store, tmp_path, kind):
    """Files of this process may not grow: the kernel refuses what a full disk would."""
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=10_000)})
    frame.to_csv(tmp_path / "t.csv")
    frame.to_parquet(tmp_path / "t.parquet")
    write = {
        "frame": lambda: datasets.create("x", frame),
        "csv": lambda: datasets.from_csv("x", tmp_path / "t.csv"),
        "parquet": lambda: datasets.from_parquet("x", tmp_path / "t.parquet"),
    }[kind]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(ModelSaveError, match=r"can't be made.*File too large") as caught:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "TMPDIR" in caught.value.remedy
    assert files_in(store.root) == []
    assert write().number == 1


def test_the_rows_of_a_parquet_are_counted_before_it_is_decoded(datasets, db, tmp_path, monkeypatch):
    """A file of some kilobytes may hold any number of equal rows, and of columns times rows."""
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": np.zeros(2_000_000), "b": np.zeros(2_000_000)}), path)
    assert path.stat().st_size < 20_000
    for setting, limit, what in (("max_upload_rows", 1_999_999, "rows"), ("max_upload_cells", 3_999_999, "cells")):
        limits = dataclasses.replace(db.settings.api, **{setting: limit})
        with monkeypatch.context() as patch:
            patch.setattr(reading, "_batches", decode)
            patch.setattr(datasets, "_db", with_limits(db, limits))
            with pytest.raises(RequestTooLargeError, match=what) as caught:
                datasets.from_parquet("x", path)
        assert (caught.value.limit, caught.value.actual) == (limit, limit + 1)
    assert datasets.from_parquet("x", path).row_count == 2_000_000


def decode(*_):
    yield pytest.fail("the file is decoded")


def with_limits(db, limits):
    other = db.acting_as(db.principal)
    other.settings = dataclasses.replace(db.settings, api=limits)
    return other


def test_the_rows_of_a_csv_are_counted_as_they_are_read(datasets, db, tmp_path, monkeypatch):
    """Rows, cells, and bytes once it is unpacked."""
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write("a,b\n" + "1,2\n" * 1_000)
    for setting, limit in (("max_upload_rows", 999), ("max_upload_cells", 1_999), ("max_upload_bytes", 5_000)):
        with monkeypatch.context() as patch:
            patch.setattr(datasets, "_db", with_limits(db, dataclasses.replace(db.settings.api, **{setting: limit})))
            with pytest.raises(RequestTooLargeError) as caught:
                datasets.from_csv("x", tmp_path / "t.csv.gz")
        assert caught.value.limit == limit
    assert datasets.from_csv("x", tmp_path / "t.csv.gz").row_count == 1_000


LONG = "x" * 2**20


def dictionary(path):
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 300_000, pa.int32()), pa.array([LONG]))
    pq.write_table(pa.table({"t": column}), path, dictionary_pagesize_limit=2**30, store_schema=False)


def categories(path):
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 300_000, pa.int32()), pa.array([LONG]))
    pq.write_table(pa.table({"t": column}), path, dictionary_pagesize_limit=2**30)


def plain(path):
    pq.write_table(pa.table({"t": [LONG] * 100}), path, use_dictionary=False, compression="zstd")


def lines(path):
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write("t,n\n" + f"{LONG},1\n" * 100)


def quoted(path):
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write('t,n\n"' + f"{LONG}\n" * 100)


@pytest.mark.parametrize("write", [dictionary, categories, plain, lines, quoted])
def test_long_rows_of_a_small_file_do_not_fill_the_memory(datasets, tmp_path, monkeypatch, write):
    """Texts that a dictionary or a compression holds once: refused before more than some of them are in memory."""
    path = tmp_path / ("t.csv.gz" if write in (lines, quoted) else "t.parquet")
    write(path)
    assert path.stat().st_size < 2**20
    monkeypatch.setattr(table_file, "GROUP_BYTES", 2**25)
    monkeypatch.setattr(csv_file, "GROUP_BYTES", 2**25)
    monkeypatch.setattr(reading, "_BATCH_BYTES", 2**23)
    before = pa.total_allocated_bytes()
    pa.default_memory_pool().release_unused()
    with pytest.raises(RequestTooLargeError, match="successive rows"):
        datasets.from_file("x", path)
    assert pa.total_allocated_bytes() - before < 2**26


@pytest.mark.parametrize("use_dictionary", [False, True])
def test_a_wide_row_of_long_texts_is_refused_before_it_is_decoded(datasets, tmp_path, monkeypatch, use_dictionary):
    """36 kB with 16 texts of 64 MB took 3 GB, and each further column as much again."""
    path = tmp_path / "t.parquet"
    wide = pa.table({f"c{number}": [LONG] for number in range(40)})
    pq.write_table(wide, path, use_dictionary=use_dictionary, compression="zstd", write_statistics=False)
    assert path.stat().st_size < 2**17
    monkeypatch.setattr(intake, "GROUP_BYTES", 2**25)
    with monkeypatch.context() as patch:
        patch.setattr(reading, "_batches", decode)
        with pytest.raises(RequestTooLargeError, match="successive rows"):
            datasets.from_file("x", path)
    monkeypatch.setattr(intake, "GROUP_BYTES", 2**26)
    assert datasets.from_file("x", path).column_count == 40


def test_long_texts_within_the_bounds_are_kept(datasets, tmp_path):
    """Also where a piece can hold few rows of them only."""
    texts = [f"{n} {LONG}" for n in range(8)] * 4
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        pq.write_table(pa.table({"t": pa.array(texts, kind), "n": list(range(32))}), tmp_path / "t.parquet")
        assert datasets.read("x", datasets.from_parquet("x", tmp_path / "t.parquet").number)["t"].tolist() == texts


def test_a_refused_registration_keeps_bytes_that_another_version_needs(datasets, store):
    """Only what nothing needs may go."""
    datasets.create("x", table(1))
    with pytest.raises(InvalidRequestError):
        datasets.create("y", table(1), source={"when": object()})
    assert datasets.read("x")["n"].tolist() == [1]


def test_a_changed_file_is_never_read(datasets):
    """One byte is enough."""
    path = datasets.open("x", datasets.create("x", table(1, 2, 3)).number)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactIntegrityError):
        datasets.read("x")


def test_a_version_never_changes(db, tenant_id, datasets):
    """The runtime role has no right to."""
    datasets.create("x", table(1))
    with pytest.raises(Exception, match="permission denied"), db.tenant(tenant_id) as connection:
        connection.exec_driver_sql("UPDATE mlcore.dataset_versions SET digest = repeat('a', 64)")


def test_what_does_not_exist_is_said(datasets):
    """Dataset, version and name."""
    with pytest.raises(DatasetNotFoundError, match="dataset nothing does not exist"):
        datasets.get("nothing")
    datasets.create("x", table(1))
    for call in (datasets.get, datasets.read, datasets.archive, datasets.restore, datasets.delete):
        with pytest.raises(DatasetNotFoundError, match="no version 7") as caught:
            call("x", 7)
        assert (caught.value.dataset_id, caught.value.number) == ("x", 7)
    with pytest.raises(InvalidNameError):
        datasets.create("../x", table(1))
    assert datasets.versions("nothing").items == []


def test_lists_go_on_where_they_ended(datasets):
    """Datasets by name with their newest version, versions newest first, both in pages."""
    for name in ("c", "a", "b"):
        datasets.create(name, table(1))
    datasets.create("b", table(1, 2))
    first = datasets.list(limit=2)
    second = datasets.list(limit=2, cursor=first.next_cursor)
    found = [(item.dataset_id, item.newest, item.versions, item.row_count) for item in (*first.items, *second.items)]
    assert found == [("a", 1, 1, 1), ("b", 2, 2, 2), ("c", 1, 1, 1)]
    assert second.next_cursor is None
    page = datasets.versions("b", limit=1)
    assert [entry.number for entry in page.items] == [2]
    assert [entry.number for entry in datasets.versions("b", limit=1, cursor=page.next_cursor).items] == [1]


def test_an_archived_version_is_hidden_and_can_be_restored(datasets):
    """By number it is still read; the newest is the newest that is shown."""
    datasets.create("x", table(1))
    datasets.create("x", table(2))
    datasets.archive("x", 2)
    datasets.archive("x", 2)
    assert datasets.get("x").number == 1
    assert datasets.get("x", 2).archived_at is not None
    assert datasets.list().items[0].versions == 1
    assert [e.number for e in datasets.versions("x", include_archived=True).items] == [2, 1]
    datasets.archive("x", 1)
    assert datasets.list().items == []
    assert len(datasets.list(include_archived=True).items) == 1
    with pytest.raises(DatasetNotFoundError):
        datasets.get("x")
    datasets.restore("x", 2)
    assert datasets.get("x").number == 2


def test_a_deleted_version_takes_its_bytes_along(datasets, store):
    """Unless another version has the same; its number does not come back."""
    datasets.create("x", table(1))
    datasets.create("y", table(1))
    datasets.delete("x", 1)
    assert datasets.read("y")["n"].tolist() == [1]
    datasets.delete("y", 1)
    assert files_in(store.root) == []
    assert datasets.create("x", table(1)).number == 2


def test_what_a_model_was_trained_on_stays(db, tenant_id, datasets):
    """While it is the last copy; the error names the model's version."""
    digest = datasets.create("x", table(1)).digest
    version = register(db, tenant_id, lineage=Lineage(dataset_digest=digest))
    with pytest.raises(DatasetInUseError, match=r"tickets@1.*x@1") as caught:
        datasets.delete("x", 1)
    assert caught.value.used_by == [f"tickets@{version.version}"]
    datasets.create("y", table(1))
    datasets.delete("x", 1)
    with pytest.raises(DatasetInUseError):
        datasets.delete("y", 1)


@pytest.mark.parametrize(
    "spec",
    [
        {"training": {"dataset": "x@1"}},
        {"training": {"dataset": "z@1", "validation_dataset": "x@1"}},
        {"dataset": "x@1"},
    ],
    ids=["training", "validation", "prediction"],
)
def test_what_a_job_needs_stays_until_its_end(db, tenant_id, datasets, spec):
    """The error names the job and how to end it; other jobs, and references of another form, keep nothing."""
    datasets.create("x", table(1))
    jobs = JobRepository(db, tenant_id)
    for other in ({}, {"dataset": "x@"}, {"dataset": "x@2"}, {"dataset": "x"}, {"dataset": {"x": 1}}, {"training": []}):
        jobs.submit("train", other)
    job_id = jobs.submit("train", spec).job_id
    for change in (datasets.archive, datasets.delete):
        with pytest.raises(DatasetInUseError, match=rf"x@1 is needed by the job {job_id}\.") as caught:
            change("x", 1)
        assert caught.value.action == Action.of("jobs.cancel", tenant=tenant_id, job=job_id)
    jobs.cancel(job_id)
    datasets.delete("x", 1)


def test_what_a_gate_needs_stays(db, tenant_id, datasets):
    """Neither hidden nor deleted, until the gate is gone; the error names the gate and how to remove it."""
    rows = pd.DataFrame({"n": range(40), "label": ["a", "b"] * 20})
    datasets.create("x", table(1))
    datasets.create("x", rows)
    register(db, tenant_id)
    settings = {"dataset": "x", "number": 2, "target": "label", "metric": "accuracy", "margin": 0.1}
    gates = GateRepository(db, tenant_id)
    gates.set(TICKETS, PRODUCTION, "held_out", "not_worse", settings)
    for change in (datasets.archive, datasets.delete):
        with pytest.raises(DatasetInUseError, match=r"x@2 .*gate held_out of tickets in production") as caught:
            change("x", 2)
        assert caught.value.used_by == ["gate:tickets:production:held_out"]
        assert caught.value.action == Action.of(
            "gates.remove", name="held_out", tenant=tenant_id, model="tickets", environment="production"
        )
    assert datasets.get("x").number == 2
    datasets.delete("x", 1)
    gates.remove(TICKETS, PRODUCTION, "held_out")
    datasets.archive("x", 2)
    datasets.delete("x", 2)


def test_a_gate_of_a_deleted_model_needs_nothing(db, tenant_id, datasets):
    """Nobody could promote it anyway."""
    datasets.create("x", pd.DataFrame({"n": range(40), "label": ["a", "b"] * 20}))
    version = register(db, tenant_id)
    settings = {"dataset": "x", "target": "label", "metric": "accuracy", "margin": 0.1}
    GateRepository(db, tenant_id).set(TICKETS, PRODUCTION, "held_out", "not_worse", settings)
    with db.tenant(tenant_id) as connection:
        VersionRepository(db, tenant_id).delete(TICKETS, version.version)
        connection.execute(models.update().where(models.c.tenant_id == tenant_id).values(deleted_at=sa.func.now()))
    datasets.delete("x", 1)


def test_each_change_is_in_the_journal(db, tenant_id, datasets):
    """Once, with who did it; what changed nothing is not."""
    datasets.create("x", table(1))
    datasets.create("x", table(1))
    datasets.archive("x", 1)
    datasets.restore("x", 1)
    datasets.delete("x", 1)
    expected = ["created", "version_created", "version_archived", "version_restored", "version_deleted"]
    with db.tenant(tenant_id) as connection:
        actions = connection.execute(audit.select().where(audit.c.tenant_id == tenant_id).order_by(audit.c.audit_id))
        rows = [row for row in actions if row.action.startswith("dataset.")]
    assert [row.action for row in rows] == [f"dataset.{action}" for action in expected]
    assert rows[1].subject == {"dataset_id": "x", "number": 1}
    assert {row.principal for row in rows} == {db.principal.name}


def test_numbers_are_given_out_once(datasets):
    """Eight at the same time: no number twice, none left out, and a file for each."""
    errors, barrier = [], threading.Barrier(8)

    def create(n):
        try:
            barrier.wait(timeout=30)
            datasets.create("x", table(n))
        except Exception as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=create, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert errors == []
    assert [entry.number for entry in datasets.versions("x").items] == list(range(8, 0, -1))
    assert sorted(datasets.read("x", number)["n"].item() for number in range(1, 9)) == list(range(8))


def test_a_registration_waits_for_a_removal_of_its_bytes(db, tenant_id, datasets, store):
    """Whoever removes bytes has asked that nothing needs them: what is registered meanwhile stores them again."""
    digest = datasets.create("x", table(1)).digest
    datasets.delete("x", 1)
    thread = threading.Thread(target=datasets.create, args=["x", table(1)])
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with superuser(db) as session, claim_bytes(db, tenant_id, digest) as is_unused:
        assert is_unused
        thread.start()
        wait_until(lambda: session.execute(waiting).fetchone() == (1,), 20)
        store.delete(tenant_id, digest)
    thread.join(timeout=60)
    assert datasets.read("x", 2)["n"].tolist() == [1]


def test_bytes_stay_however_registering_and_deleting_meet(datasets):
    """A version that is there can be read, whoever deleted another of the same bytes meanwhile."""
    datasets.create("x", table(1))
    done = threading.Event()

    def churn():
        while not done.is_set():
            number = datasets.create("churn", table(1)).number
            datasets.delete("churn", number)

    datasets.delete("x", 1)
    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(20):
            number = datasets.create("x", table(1)).number
            assert datasets.read("x", number)["n"].tolist() == [1]
            datasets.delete("x", number)
    finally:
        done.set()
        thread.join(timeout=60)


def test_another_tenant_sees_nothing(db, datasets, other_tenant_id, store):
    """Neither by name nor by digest; its equal table is a file of its own."""
    made = datasets.create("x", table(1))
    theirs = DatasetRepository(db, other_tenant_id, store)
    assert theirs.list().items == theirs.versions("x").items == theirs.find_by_digest(made.digest) == []
    for call in (theirs.get, theirs.read, theirs.open, theirs.archive, theirs.restore, theirs.delete):
        with pytest.raises(DatasetNotFoundError):
            call("x", 1)
    assert theirs.create("x", table(1)).digest == made.digest
    assert len(files_in(store.root)) == 2


def test_a_tenant_is_made_with_its_first_dataset_and_not_after_its_end(db, store):
    """As with its first model."""
    tenant = TenantId("newcomer")
    DatasetRepository(db, tenant, store).create("x", table(1))
    assert TenantRepository(db).exists(tenant)
    with superuser(db) as session:
        session.execute("UPDATE mlcore.tenants SET deleted_at = now() WHERE tenant_id = 'newcomer'")
    before = files_in(store.root)
    with pytest.raises(TenantNotFoundError):
        DatasetRepository(db, tenant, store).create("x", table(2))
    assert files_in(store.root) == before


def test_no_dataset_without_its_tenant(db, tenant_id):
    """The schema says so as well."""
    with superuser(db) as session, pytest.raises(psycopg.errors.ForeignKeyViolation):
        session.execute("INSERT INTO mlcore.datasets (tenant_id, dataset_id, created_by) VALUES ('nobody', 'x', 'x')")
