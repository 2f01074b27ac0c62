"""The look-up of versions: what waits for a registry that hangs is bounded, for each tenant and for all."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_core.domain.version import PackedVersion
from ml_core.exceptions import ModelNotFoundError, QueueFullError
from ml_core.ids import ModelId, TenantId, VersionId, VersionRef
from ml_core.inference.routing import MAX_ASKING, MAX_ASKING_PER_TENANT, VersionLookup
from support.inprocess_cell import servable


def ref(number, tenant="acme"):
    return VersionRef(TenantId(tenant), ModelId("m"), VersionId(str(number)))


def while_the_registry_hangs(scenario):
    """Run a scenario with a look-up whose questions are answered, with no such version, at its end only."""
    answer = threading.Event()

    def find(asked):
        assert answer.wait(10)
        raise ModelNotFoundError(f"no {asked}")

    async def main(pool):
        lookup = VersionLookup(find, pool, time.monotonic)
        waiting = []

        def ask(*args):
            waiting.append(asyncio.ensure_future(lookup.find(ref(*args))))
            return waiting[-1]

        try:
            await scenario(ask)
        finally:
            answer.set()
            await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(ModelNotFoundError):  # what ended makes room
            await lookup.find(ref("later"))

    with ThreadPoolExecutor(2) as pool:
        asyncio.run(main(pool))


def test_a_tenant_that_asks_for_ever_new_names_is_refused():
    """Another tenant's question is taken, and one that is waited for already is joined."""

    async def scenario(ask):
        for number in range(MAX_ASKING_PER_TENANT):
            ask(number)
        with pytest.raises(QueueFullError):
            await ask("one-more")
        joined, other = ask(0), ask(0, "globex")
        await asyncio.wait([joined, other], timeout=0.05)
        assert not joined.done()
        assert not other.done()

    while_the_registry_hangs(scenario)


def test_the_questions_of_all_tenants_are_bounded():
    """However many tenants ask."""

    async def scenario(ask):
        for number in range(MAX_ASKING):
            ask(number, f"tenant-{number}")
        with pytest.raises(QueueFullError):
            await ask(0, "one-more")

    while_the_registry_hangs(scenario)


def test_what_is_remembered_of_a_missing_version_holds_no_request():
    """The error passed through the frames of the request, which hold its body."""

    class Body:
        """Something that can be watched."""

    async def request(lookup, number):
        body = Body()
        bodies.append(weakref.ref(body))
        with pytest.raises(ModelNotFoundError):
            await lookup.find(ref(number))

    def find(asked):
        raise ModelNotFoundError(f"no {asked}")

    async def main(pool):
        lookup = VersionLookup(find, pool, time.monotonic)
        for number in range(3):
            await asyncio.ensure_future(request(lookup, number))
        gc.collect()
        return lookup

    bodies = []
    with ThreadPoolExecutor(1) as pool:
        lookup = asyncio.run(main(pool))
    assert len(lookup._unknown) == 3
    assert [body() for body in bodies] == [None] * 3


def test_versions_with_long_documents_fill_no_replica(store, fitted_measures):
    """Whoever asks for one such version after the other is answered, and the first are forgotten."""
    version = servable(store, fitted_measures)
    named = (version.model_type, version.digest, version.size_bytes, version.format)
    asked = []

    def find(wanted):
        asked.append(wanted.version)
        return PackedVersion((wanted, *named), b"{}", b"{}", long_bytes=16 * 2**20)

    async def main(pool):
        lookup = VersionLookup(find, pool, time.monotonic)
        for number in [*range(20), 19, 0]:
            assert (await lookup.find(ref(number))).ref == ref(number)
        return lookup

    with ThreadPoolExecutor(1) as pool:
        lookup = asyncio.run(main(pool))
    assert asked == [*(str(number) for number in range(20)), "0"]
    assert sum(version.long_bytes for version in lookup._known.values()) <= 128 * 2**20
