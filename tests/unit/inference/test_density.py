"""Many pointers and few models: what is not loaded takes little memory, and what was asked last is loaded first."""

from __future__ import annotations

import dataclasses
import gc
import pickle
import random
import threading
import time
import tracemalloc
from collections import Counter

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.domain.assignment import MAX_TENANT_BYTES, CanaryRollout, PointerRef, Rollout
from ml_core.domain.replica_report import MAX_PENDING
from ml_core.domain.version import SHARED_BYTES, CompiledForm, PackedVersion, long_bytes
from ml_core.exceptions import ModelLoadError
from ml_core.ids import Digest, EnvironmentName, ModelId, TenantId, VersionId, VersionRef
from ml_core.inference.model_table import ModelTable, logger
from ml_core.inference.pointers import pointer_key
from ml_core.inference.recent import RecentPointers
from ml_core.models.loading import LoadedModel
from support.inprocess_cell import MEASURE, CountingLoader, key_of, pointer, renamed, servable

FORM = CompiledForm(Digest("0" * 64), 1, "1.0")
PRODUCTION, ONE = EnvironmentName("production"), VersionId("1")


def packed(version, **changes):
    """The version as the feed reads it."""
    texts = {name: orjson.dumps(getattr(version, name).to_json()) for name in ("signature", "self_test")} | changes
    named = (version.ref, version.model_type, version.digest, version.size_bytes, version.format)
    return PackedVersion(named, texts["signature"], texts["self_test"], version.modules, version.compiled)


@pytest.fixture
def version(store, fitted_measures):
    return servable(store, fitted_measures)


def test_a_packed_version_is_the_version(version):
    """Equal in both directions, with the same documents, also after a journey between processes."""
    same = packed(version)
    assert same == version == same
    assert same.opened() == version
    assert (same.signature, same.self_test) == (version.signature, version.self_test)
    assert pickle.loads(pickle.dumps(same)) == version
    assert len({packed(version), packed(version)}) == 1
    assert same != packed(renamed(version, "2"))
    assert packed(dataclasses.replace(version, compiled=FORM)).opened().compiled == FORM
    assert packed(dataclasses.replace(version, compiled=FORM)) != same
    assert same != packed(version, self_test=b'{"rows": [], "predictions": []}')
    with pytest.raises(AttributeError, match="labels"):
        _ = same.labels


def test_an_opened_version_reads_its_signature_once(version):
    """The model of each request asks for it."""
    opened = packed(version).opened()
    assert opened.signature is opened.signature
    assert opened.opened().signature is opened.signature


@pytest.mark.parametrize("name", ["signature", "self_test"])
@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"null", b'{"inputs": 3}', b"\xff"])
def test_a_document_that_can_not_be_read_is_a_failed_load(store, version, name, text):
    """What was served before goes on, and the failure is reported."""
    table = ModelTable(CountingLoader(store), max_memory_bytes=2**30)
    table.apply({pointer(version): Rollout(version, 1)})
    assert table.wait_idle(10)
    odd = packed(renamed(version, "2"), **{name: text})
    table.apply({pointer(version): Rollout(odd, 2)})
    assert table.wait_idle(10)
    (failure,) = table.failures()
    assert isinstance(failure.error, ModelLoadError)
    resident = table.acquire_pointer(key_of(version))
    assert resident is not None
    assert resident.model.version.ref.version == "1"
    table.close()


def test_a_canary_has_its_signature_at_hand(store, version):
    """Each request of a sticky canary asks for it; also after a new percent."""
    table = ModelTable(CountingLoader(store), max_memory_bytes=2**30)
    trial = packed(renamed(version, "2"))
    for generation, percent in ((1, 5), (2, 50)):
        canary = CanaryRollout(trial, percent, "m0")
        table.apply({pointer(version): Rollout(packed(version), generation, canary)})
        assert table.wait_idle(10)
        found = table.pointer(key_of(version)).canary
        assert found == canary
        assert found.version.signature is found.version.signature
    table.close()


def many(version, count):
    """Pointers of tenants with ten models each, whose documents differ."""
    names = [(TenantId(f"t{number // 10:05}"), ModelId(f"m{number % 10}")) for number in range(count)]
    texts = [orjson.dumps(getattr(version, name).to_json()).decode() for name in ("signature", "self_test")]
    rollouts = {}
    for number, (tenant, model) in enumerate(names):
        named = (VersionRef(tenant, model, ONE), "classification", Digest(f"{number:064x}"), 1, version.format)
        signature, self_test = (text.replace("yes", f"yes {number}").encode() for text in texts)
        rollouts[PointerRef(tenant, model, PRODUCTION)] = Rollout(PackedVersion(named, signature, self_test), 1)
    return rollouts, sum(map(len, texts))


def test_a_pointer_that_is_not_loaded_takes_its_documents_and_little_more(version):
    """1.3 kB; as values the documents took four times their text."""
    table, count = ModelTable(None, max_memory_bytes=0), 3_000
    tracemalloc.start(1)
    try:
        rollouts, text_bytes = many(version, count)
        table.apply(rollouts, is_snapshot=True)
        assert table.wait_idle(30)
        del rollouts
        gc.collect()
        each = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert text_bytes < each < text_bytes + 1_500
    table.close()


def test_a_report_counts_all_and_lists_some(version):
    """Its time does not grow with the deferred versions, and it holds the lock for so long."""
    table = ModelTable(None, max_memory_bytes=0)
    table.apply(many(version, 5_000)[0], is_snapshot=True)
    assert table.wait_idle(30)
    began = time.thread_time()
    pending = table.pending()
    assert time.thread_time() - began < 0.05
    assert (pending.deferred, pending.loading, pending.failed, len(pending.listed)) == (5_000, 0, 0, MAX_PENDING)
    assert pending.listed[0].tenant_id == "t00499", "the last one comes first"
    table.close()


def test_requests_are_answered_while_a_snapshot_is_applied(cell, key, version):
    """The lock is taken for one pointer at a time."""
    rollouts = {**many(version, 20_000)[0], pointer(version): Rollout(version, 2)}
    cell.table._residents.max_bytes = cell.table._residents.bytes  # none is loaded ahead
    applying = threading.Thread(target=cell.table.apply, args=(rollouts,), kwargs={"is_snapshot": True})
    applying.start()
    answered = 0
    while applying.is_alive():
        assert cell.predict("measures", [MEASURE], key=key).status_code == 200
        answered += applying.is_alive()
    assert answered > 1
    assert cell.table.describe()["pointers"] == len(rollouts)


def test_what_was_asked_last_is_loaded_first(store, version):
    """In this order, and then all others."""
    loader = CountingLoader(store)
    table = ModelTable(loader, max_memory_bytes=2**30)
    names = [ModelId(f"m{number}") for number in range(6)]
    rollouts = {
        PointerRef(version.ref.tenant_id, name, PRODUCTION): Rollout(
            packed(renamed_model(version, name, str(number))), 1
        )
        for number, name in enumerate(names)
    }
    first = [("acme", "gone", "production"), ("acme", "m4", "production"), ("acme", "m2", "production")]
    table.apply(rollouts, is_snapshot=True, first=first)
    assert table.wait_idle(10)
    assert loader.loads == ["4", "2", "0", "1", "3", "5"]
    for name in ("m1", "m5", "m1"):
        table.release(table.acquire_pointer(("acme", name, "production")))
    assert table.recently_used(9) == [("acme", "m1", "production"), ("acme", "m5", "production")]
    assert table.recently_used(1) == [("acme", "m1", "production")]
    table.close()


def renamed_model(version, model, name):
    ref = VersionRef(version.ref.tenant_id, model, VersionId(name))
    named = (ref, version.model_type, version.digest, version.size_bytes, version.format)
    return PackedVersion(named, orjson.dumps(version.signature.to_json()), orjson.dumps(version.self_test.to_json()))


def test_the_recent_pointers_outlive_the_replica(tmp_path):
    """The next one of the cell reads them; one of another cell does not."""
    wanted = [pointer_key(PointerRef(TenantId("acme"), ModelId(f"m{n}"), PRODUCTION)) for n in range(3)]
    RecentPointers(tmp_path, "shared").write(wanted)
    assert RecentPointers(tmp_path, "shared").read() == wanted
    assert RecentPointers(tmp_path, "t-acme").read() == []
    RecentPointers(tmp_path, "shared").write([])  # a replica that nobody asked knows nothing better
    assert RecentPointers(tmp_path, "shared").read() == wanted


@pytest.mark.parametrize("text", [b"", b"{}", b"3", b"[3]", b'[["a"]]', b"\xff", b'[["a", "b", "c", "d"]]'])
def test_a_file_that_can_not_be_read_is_no_file(tmp_path, text):
    """It is a hint."""
    recent = RecentPointers(tmp_path, "shared")
    recent.write([("acme", "m", "production")])
    (tmp_path / "recent" / "shared.json").write_bytes(text)
    assert recent.read() == []


def test_a_disk_that_refuses_the_file_stops_nobody(tmp_path):
    """Such as a read-only one."""
    (tmp_path / "recent").write_text("a file in the place of the folder")
    RecentPointers(tmp_path, "shared").write([("acme", "m", "production")])


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 9_000)), max_size=4))
def test_long_documents_are_counted_in_bytes(documents):
    """As they are held, in UTF-8, whatever their characters are."""
    texts = [text * times for text, times in documents]
    assert long_bytes(*texts, None) == max(0, sum(len(text.encode()) for text in texts) - SHARED_BYTES)


LONG = MAX_TENANT_BYTES // 4


def long(version, number, long_bytes=LONG):
    """A version that says of itself that it has long documents."""
    made = renamed_model(version, version.ref.model_id, str(number))
    named = (made.ref, made.model_type, made.digest, made.size_bytes, made.format)
    return PackedVersion(named, made._signature_text, made._self_test_text, long_bytes=long_bytes)


def at(tenant, model="m0"):
    return PointerRef(TenantId(tenant), ModelId(model), PRODUCTION)


def test_pointers_that_move_one_by_one_fill_no_replica(version):
    """A tenant has so much in long documents, however many reads bring them; what is beyond keeps what it has."""
    table = ModelTable(None, max_memory_bytes=0)
    for number in range(8):
        table.apply({at("acme", f"m{number}"): Rollout(long(version, number), 1)})
    table.apply({at("acme", "m9"): Rollout(long(version, 9, 0), 1), at("globex"): Rollout(long(version, 1), 1)})
    assert {key[1] for key in table._pointers.by_key if key[0] == "acme"} == {"m0", "m1", "m2", "m3", "m9"}
    assert table.pointer(pointer_key(at("globex"))) is not None
    failed = {(each.model_id, each.version, each.code) for each in table.pending().listed if each.state == "failed"}
    assert failed == {(f"m{number}", str(number), "model_load_failed") for number in range(4, 8)}
    table.apply({at("acme", "m0"): Rollout(long(version, 10, 2 * LONG), 2)})  # too large in the place of its own
    assert table.pointer(pointer_key(at("acme", "m0"))).wanted.generation == 1
    assert ("m0", "10") in {(each.model_id, each.version) for each in table.pending().listed}
    assert table.pending().failed == 5
    table.apply({at("acme", "m1"): None, at("acme", "m0"): Rollout(long(version, 10, 2 * LONG), 2)})
    assert table.pointer(pointer_key(at("acme", "m0"))).wanted.generation == 2
    assert table.pending().failed == 4
    canary = CanaryRollout(long(version, 11, 3 * LONG), 5)
    table.apply({at("acme", "m0"): Rollout(long(version, 10, 2 * LONG), 3, canary)})
    names = [(each.tenant_id, each.model_id, each.version) for each in table.pending().listed]
    assert ("acme", "m0", "11") in names
    assert len(set(names)) == len(names)
    table.apply({at("acme", "m0"): Rollout(long(version, 10, 0), 2)}, is_snapshot=True)
    assert table.pending().failed == 0
    table.close()


def test_what_a_tenant_holds_is_what_its_pointers_want(version):
    """After any moves, withdrawals and snapshots, also of canaries and shadows, it is within the bound."""
    chance = random.Random(3)
    table = ModelTable(None, max_memory_bytes=0)
    refs = [at(tenant, f"m{number}") for tenant in ("acme", "globex") for number in range(6)]
    for turn in range(600):
        rollouts = {}
        for ref in chance.sample(refs, chance.randint(0, 4)):
            one, two, three = (long(version, 10 * turn + n, chance.choice((0, 1, LONG, 3 * LONG))) for n in range(3))
            canary = CanaryRollout(two, 5) if chance.random() < 0.3 else None
            rollout = Rollout(one, turn, canary, three if chance.random() < 0.3 else None)
            rollouts[ref] = rollout if chance.random() < 0.8 else None
        is_snapshot = chance.random() < 0.1
        table.apply({ref: each for ref, each in rollouts.items() if each or not is_snapshot}, is_snapshot=is_snapshot)
        if chance.random() < 0.05:
            table.drop_tenant("acme")
        held = Counter()
        for key, found in table._pointers.by_key.items():
            held[key[0]] += found.wanted.long_bytes
        assert max(held.values(), default=0) <= MAX_TENANT_BYTES
        assert +held == table._pointers._long_bytes
    table.close()


def test_a_version_that_nothing_wants_is_not_held(version, monkeypatch):
    """Neither by its failed load nor in the queue, whatever moves its tenant makes."""
    monkeypatch.setattr(logger, "disabled", True)  # pytest keeps what is logged

    def load(wanted):
        raise ModelLoadError(f"{wanted.ref} is broken.")

    table = ModelTable(load, max_memory_bytes=2**30)
    for number in range(50):
        table.apply({pointer(version): Rollout(long(version, number, 0), number + 1)})
        assert table.wait_idle(10)
    assert len(table._failures.by_key) == 50
    gc.collect()
    held = [each for each in gc.get_objects() if type(each) is PackedVersion and each.ref.model_id == "measures"]
    assert {each.ref.version for each in held} == {"49"}
    table.close()


def test_a_version_that_is_read_again_is_held_once(version):
    """A snapshot after an outage reads all documents anew."""
    table = ModelTable(lambda wanted: LoadedModel(wanted.opened(), None), max_memory_bytes=2**30)
    for generation in (1, 2):
        table.apply({pointer(version): Rollout(packed(version), generation)})
        assert table.wait_idle(10)
    found = table.pointer(key_of(version))
    assert found.serving is found.wanted.stable
    table.close()
