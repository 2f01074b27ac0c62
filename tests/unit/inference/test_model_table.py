"""The model table: load beside, prove, flip; keep the last good; evict within the bound."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_core.domain.assignment import CanaryRollout, Rollout
from ml_core.domain.version import CompiledForm, RequiredModule
from ml_core.exceptions import Action, ArtifactIntegrityError, DeadlineExceededError, ModelLoadError, ModelNotFoundError
from ml_core.ids import Digest, VersionRef
from ml_core.inference.loads import RETRY_FIRST_S
from ml_core.inference.model_table import ModelTable, logger
from ml_core.inference.pointers import version_key
from ml_core.models.loading import LoadedModel, load_version
from support.inprocess_cell import CountingLoader, key_of, pointer, promote, renamed, servable


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def loader(store):
    return CountingLoader(store)


@pytest.fixture
def table(loader):
    table = ModelTable(loader, max_memory_bytes=2**30)
    yield table
    table.close()


def version_of(table, key):
    resident = table.acquire_pointer(key)
    if resident is None:
        return None
    table.release(resident)
    return resident.model.version.ref.version


def damaged(version):
    return dataclasses.replace(version, digest=type(version.digest)("0" * 64))


def test_a_promoted_version_answers(table, store, fitted_measures):
    """The pointer answers with it once it is loaded, with no request having asked."""
    version = servable(store, fitted_measures)
    promote(table, version)
    assert version_of(table, key_of(version)) == "1"


def test_models_whose_compiled_form_can_not_be_used_are_counted(table, store, fitted_measures):
    """The original answers; the count goes when the model does."""
    form = CompiledForm(Digest("0" * 64), 9, "1.0.0")
    version = dataclasses.replace(servable(store, fitted_measures), compiled=form)
    promote(table, version)
    assert version_of(table, key_of(version)) == "1"
    assert table.describe()["uncompiled"] == 1
    table.drop_tenant(version.ref.tenant_id)
    assert table.describe()["uncompiled"] == 0


def test_the_old_version_answers_while_the_new_one_loads(store, fitted_measures):
    """The flip comes after the load, not before."""
    loading, go_on = threading.Event(), threading.Event()

    def load(version):
        if version.ref.version == "2":
            loading.set()
            assert go_on.wait(10)
        return load_version(store, version)

    table = ModelTable(load, max_memory_bytes=2**30)
    first = servable(store, fitted_measures)
    second = renamed(first, "2")
    promote(table, first)
    table.apply({pointer(second): Rollout(second, 2)})
    assert loading.wait(10)
    assert version_of(table, key_of(first)) == "1"
    go_on.set()
    assert table.wait_idle(10)
    assert version_of(table, key_of(first)) == "2"
    table.close()


def test_a_failed_load_keeps_the_last_good_version(table, store, fitted_measures):
    """And is reported with its cause."""
    first = servable(store, fitted_measures)
    promote(table, first)
    promote(table, damaged(renamed(first, "2")), generation=2)
    assert version_of(table, key_of(first)) == "1"
    (failure,) = table.failures()
    assert isinstance(failure.error, ArtifactIntegrityError)
    assert failure.attempts == 1


def test_a_failed_load_keeps_neither_the_artifact_nor_the_model(store, fitted_measures, monkeypatch):
    """They were in the frames through which the error passed, and a failure is remembered until a load succeeds."""
    monkeypatch.setattr(logger, "disabled", True)  # pytest keeps what is logged
    held = []

    def load(version):
        model = load_version(store, version)
        held.append(weakref.ref(model.pipeline))
        raise ModelLoadError(f"The self-test of {model.version.ref} failed.")

    table = ModelTable(load, max_memory_bytes=2**30)
    promote(table, servable(store, fitted_measures))
    assert len(table.failures()) == 1
    gc.collect()
    assert [pipeline() for pipeline in held] == [None]
    table.close()


def test_a_failed_load_is_repeated_after_a_pause(store, fitted_measures):
    """Not before the pause is over; when it succeeds the pointer flips and nothing is reported any more."""
    clock, broken = Clock(), True

    def load(version):
        if broken and version.ref.version == "2":
            raise ModelLoadError("The store is down.")
        return load_version(store, version)

    table = ModelTable(load, max_memory_bytes=2**30, clock=clock)
    first = servable(store, fitted_measures)
    promote(table, first)
    promote(table, renamed(first, "2"), generation=2)
    broken = False
    assert table.retry_failed() == 0
    clock.now += RETRY_FIRST_S
    assert table.retry_failed() == 1
    assert table.wait_idle(10)
    assert version_of(table, key_of(first)) == "2"
    assert table.failures() == []
    table.close()


def test_a_version_that_keeps_failing_is_tried_ever_more_rarely(store, fitted_measures):
    """The pause doubles."""
    clock = Clock()

    def load(version):
        raise ModelLoadError("The store is down.")

    table = ModelTable(load, max_memory_bytes=2**30, clock=clock)
    promote(table, servable(store, fitted_measures))
    pauses = []
    for _ in range(4):
        (failure,) = table.failures()
        pauses.append(failure.retry_at - clock.now)
        clock.now = failure.retry_at
        table.retry_failed()
        assert table.wait_idle(10)
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    table.close()


def test_while_a_version_cools_down_its_error_is_told_without_a_load(table, loader, store, fitted_measures):
    """Requests don't hammer the store; each gets an exception of its own."""
    version = damaged(servable(store, fitted_measures))
    promote(table, version)
    errors = []
    for _ in range(3):
        with pytest.raises(ArtifactIntegrityError) as caught:
            table.target(key_of(version))
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 3
    assert loader.loads == ["1"]


def test_an_unexpected_error_of_a_load_is_a_model_load_error(store, fitted_measures):
    """Whoever waits gets a framework error with the cause, and the thread lives on."""

    def load(version):
        raise ZeroDivisionError("surprise")

    table = ModelTable(load, max_memory_bytes=2**30)
    version = servable(store, fitted_measures)
    with pytest.raises(ModelLoadError, match="surprise"), table.using(version):
        pass
    table.close()


def test_two_requests_share_one_load(store, fitted_measures):
    """One load per version at a time, however many wait."""
    go_on = threading.Event()
    loader = CountingLoader(store)

    def load(version):
        assert go_on.wait(10)
        return loader(version)

    table = ModelTable(load, max_memory_bytes=2**30)
    version = servable(store, fitted_measures)

    def use():
        with table.using(version) as model:
            return model

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(use) for _ in range(4)]
        go_on.set()
        models = {id(future.result(10)) for future in waiting}
    assert len(models) == 1
    assert loader.loads == ["1"]
    table.close()


def test_waiting_for_a_load_has_a_deadline(store, fitted_measures):
    """The caller is told; the load goes on and serves the next one."""
    go_on = threading.Event()

    def load(version):
        assert go_on.wait(10)
        return load_version(store, version)

    table = ModelTable(load, max_memory_bytes=2**30)
    version = servable(store, fitted_measures)
    with pytest.raises(DeadlineExceededError), table.using(version, timeout_s=0.01):
        pass
    go_on.set()
    with table.using(version) as model:
        assert model.version is version
    table.close()


def bounded_table(store, model, models):
    size = load_version(store, servable(store, model)).memory_bytes
    # All loads take as long: none.
    return ModelTable(CountingLoader(store), max_memory_bytes=int(size * (models + 0.5)), clock=Clock())


def loaded(table, *versions):
    """Which of the versions are in memory, without using them."""
    return [v.ref.version for v in versions if version_key(v) in table._residents.by_key]


def test_the_least_recently_used_goes(store, fitted_measures):
    """Room for two: using the first makes the second the one that goes."""
    table = bounded_table(store, fitted_measures, 2)
    versions = [renamed(servable(store, fitted_measures), name) for name in ("1", "2", "3")]
    for used in (0, 1, 0, 2):
        with table.using(versions[used]):
            pass
    assert loaded(table, *versions) == ["1", "3"]
    assert table.describe()["memory_bytes"] <= table.describe()["max_memory_bytes"]
    table.close()


def test_what_a_pointer_names_goes_last(store, fitted_measures):
    """Even when it was used longest ago."""
    table = bounded_table(store, fitted_measures, 2)
    versions = [renamed(servable(store, fitted_measures), name) for name in ("1", "2", "3")]
    promote(table, versions[0])
    for version in versions[1:]:
        with table.using(version):
            pass
    assert loaded(table, *versions) == ["1", "3"]
    table.close()


def test_a_model_in_use_is_never_evicted(store, fitted_measures):
    """It stays above the bound, and the excess goes when it is given back."""
    table = bounded_table(store, fitted_measures, 1)
    versions = [renamed(servable(store, fitted_measures), name) for name in ("1", "2")]
    with table.using(versions[0]), table.using(versions[1]):
        assert loaded(table, *versions) == ["1", "2"]
    assert len(loaded(table, *versions)) == 1
    table.close()


def test_an_evicted_pointer_comes_back_when_asked(store, fitted_measures):
    """``target`` names what to load, and then the pointer answers."""
    table = bounded_table(store, fitted_measures, 1)
    version = servable(store, fitted_measures)
    promote(table, version)
    with table.using(renamed(version, "other")):
        pass
    with table.using(renamed(version, "another")):
        pass
    assert table.acquire_pointer(key_of(version)) is None
    with table.using(table.target(key_of(version))):
        assert version_of(table, key_of(version)) == "1"
    table.close()


def test_a_full_table_is_not_emptied_by_loading_ahead(store, fitted_measures):
    """Pointers that nobody has asked for wait for their first request instead of evicting what is used."""
    table = bounded_table(store, fitted_measures, 1)
    version = servable(store, fitted_measures)
    with table.using(version):
        pass
    with table.using(renamed(version, "2")):
        pass
    table._residents.max_bytes = table._residents.bytes
    other = dataclasses.replace(version, ref=VersionRef(version.ref.tenant_id, type(version.ref.model_id)("n"), "1"))
    promote(table, other)
    assert loaded(table, renamed(version, "2")) == ["2"]
    assert table.acquire_pointer(key_of(other)) is None
    table.close()


def test_a_canary_for_which_there_was_no_room_comes_with_its_stable_version(store, fitted_measures):
    """Neither is loaded ahead into a full table; the first request brings both."""
    table = bounded_table(store, fitted_measures, 2)
    stable, trial = (renamed(servable(store, fitted_measures), name) for name in ("1", "2"))
    for name in ("8", "9"):
        with table.using(renamed(stable, name)):
            pass
    table._residents.max_bytes = table._residents.bytes
    table.apply({pointer(stable): Rollout(stable, 1, CanaryRollout(trial, 50))})
    assert table.wait_idle(10)
    assert loaded(table, stable, trial) == []
    assert table.pointer(key_of(stable)).canary is None
    with table.using(stable):
        assert table.wait_idle(10)
    assert loaded(table, stable, trial) == ["1", "2"]
    assert table.pointer(key_of(stable)).canary == CanaryRollout(trial, 50)
    table.close()


def test_a_version_that_only_a_canary_wants_is_tried_again(store, fitted_measures):
    """As one that is stable: after its pause it loads, and answers from then on."""
    clock, broken = Clock(), True

    def load(version):
        if broken and version.ref.version == "2":
            raise ModelLoadError("The store is down.")
        return load_version(store, version)

    table = ModelTable(load, max_memory_bytes=2**30, clock=clock)
    stable = servable(store, fitted_measures)
    trial = renamed(stable, "2")
    table.apply({pointer(stable): Rollout(stable, 1, CanaryRollout(trial, 50))})
    assert table.wait_idle(10)
    assert table.pointer(key_of(stable)).canary is None
    broken = False
    clock.now += RETRY_FIRST_S
    assert table.retry_failed() == 1
    assert table.wait_idle(10)
    assert table.pointer(key_of(stable)).canary is not None
    assert table.failures() == []
    table.close()


def test_a_model_over_the_whole_bound_is_refused(store, fitted_measures):
    """With the setting to raise."""
    table = ModelTable(CountingLoader(store), max_memory_bytes=100)
    with pytest.raises(ModelLoadError, match="MLCORE_MAX_MEMORY_MB"), table.using(servable(store, fitted_measures)):
        pass
    table.close()


def test_a_withdrawn_pointer_is_not_found(table, store, fitted_measures):
    """With the remedy."""
    version = servable(store, fitted_measures)
    promote(table, version)
    table.apply({pointer(version): None})
    with pytest.raises(ModelNotFoundError, match="romote a version") as caught:
        table.target(key_of(version))
    assert caught.value.action == Action.of(
        "environments.promote", tenant="acme", model="measures", environment="production"
    )


def test_another_environment_is_suggested(table, store, fitted_measures):
    """Who asks for production of a model that is in staging is told so."""
    version = servable(store, fitted_measures)
    table.apply({pointer(version, "staging"): Rollout(version, 1)})
    with pytest.raises(ModelNotFoundError, match="Use staging"):
        table.target(key_of(version))


def test_a_snapshot_withdraws_what_it_does_not_name(table, store, fitted_measures, fitted_tickets):
    """After a resynchronisation nothing stale is served."""
    gone, kept = servable(store, fitted_measures), servable(store, fitted_tickets)
    promote(table, gone)
    table.apply({pointer(kept): Rollout(kept, 1)}, is_snapshot=True)
    assert table.wait_idle(10)
    assert table.acquire_pointer(key_of(gone)) is None
    assert version_of(table, key_of(kept)) == "1"


def test_a_snapshot_keeps_what_it_could_not_read(table, store, fitted_measures):
    """A spoilt row is no withdrawal: the last good version serves on."""
    served = servable(store, fitted_measures)
    promote(table, served)
    table.apply({}, is_snapshot=True, keep=frozenset({pointer(served)}))
    assert version_of(table, key_of(served)) == "1"


def test_a_dropped_tenant_leaves_nothing_in_memory(table, store, fitted_measures):
    """Pointers and models of a deleted tenant are gone at once."""
    promote(table, servable(store, fitted_measures))
    table.drop_tenant("acme")
    assert (table.describe()["pointers"], table.describe()["loaded"]) == (0, 0)


def test_the_same_snapshot_again_loads_nothing(table, loader, store, fitted_measures):
    """Level-triggered: what is wanted and there is left alone."""
    version = servable(store, fitted_measures)
    for _ in range(3):
        table.apply({pointer(version): Rollout(version, 1)}, is_snapshot=True)
        assert table.wait_idle(10)
    assert loader.loads == ["1"]


def test_a_rollback_flips_without_a_load(table, loader, store, fitted_measures):
    """The version before is still in memory."""
    first = servable(store, fitted_measures)
    promote(table, first)
    promote(table, renamed(first, "2"), 2)
    table.apply({pointer(first): Rollout(first, 3)})
    assert version_of(table, key_of(first)) == "1"
    assert loader.loads == ["1", "2"]


def test_a_version_registered_anew_under_its_name_is_another(table, loader, store, fitted_measures, fitted_tickets):
    """After a deletion the name may return with other bytes: the old model must not answer for it."""
    old = servable(store, fitted_measures)
    new = dataclasses.replace(servable(store, fitted_tickets), ref=old.ref)
    for version in (old, new, old):
        with table.using(version) as model:
            assert model.version.digest == version.digest
    assert len(loader.loads) == 2


def test_tables_that_are_dropped_leave_no_thread_and_no_model(store, fitted_measures):
    """Used and not closed: threads end with their loads, and nothing keeps what was loaded."""
    version = servable(store, fitted_measures)
    before = set(threading.enumerate())
    models = []
    for _ in range(20):
        table = ModelTable(lambda version: load_version(store, version), max_memory_bytes=2**30)
        with table.using(version, timeout_s=10) as model:
            models.append(weakref.ref(model.pipeline))
        del model, table
    gc.collect()
    assert [ref for ref in models if ref() is not None] == []
    deadline = time.monotonic() + 10
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive()


@pytest.mark.parametrize("is_measured", [False, True])
def test_code_that_never_returns_from_its_self_test_keeps_the_last_good_version(store, fitted_measures, is_measured):
    """Or from being measured. The load is refused with the reason, and what else is to be loaded is."""
    is_free = threading.Event()

    class Endless(LoadedModel):
        @property
        def memory_bytes(self):
            assert is_free.wait(20)
            return super().memory_bytes

    def load(version):
        if version.ref.version != "2":
            return load_version(store, version)
        assert is_measured or is_free.wait(20)
        return Endless(version, pipeline)

    table = ModelTable(load, max_memory_bytes=2**30, load_threads=1)
    table._load_own._within_s = 0.1
    first = servable(store, fitted_measures)
    pipeline = load_version(store, first).pipeline
    hangs = dataclasses.replace(renamed(first, "2"), modules=(RequiredModule("acme_models", "acme-models", "1.0"),))
    promote(table, first)
    promote(table, hangs, generation=2)
    assert version_of(table, key_of(first)) == "1"
    (failure,) = table.failures()
    assert "was not loaded within 0.1 s: code of a model does not return" in str(failure.error)
    promote(table, renamed(first, "3"), generation=3)
    assert version_of(table, key_of(first)) == "3"
    is_free.set()
    table.close()
