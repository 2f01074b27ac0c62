"""Eviction: by use and by the cost to load again, never what is in use, and what no pointer names first."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from ml_core.inference.model_table import Residents
from ml_core.observability import NO_HOOKS


@dataclass
class Model:
    """As much of a loaded model as eviction sees."""

    memory_bytes: int
    uncompiled: str | None = None


def key(name):
    return ("acme", name, "1", "0" * 64)


@pytest.fixture
def named():
    return {key(name) for name in "abcdefgh"}


@pytest.fixture
def residents(named):
    return Residents(100, named.__contains__, NO_HOOKS)


def use(residents, name, times=1):
    for _ in range(times):
        residents.take(key(name)).in_use -= 1


def held(residents):
    return "".join(sorted(name for _, name, _, _ in residents.by_key))


def test_of_equal_models_the_one_that_was_not_used_goes(residents):
    """Room for two."""
    for name in "ab":
        residents.add(key(name), Model(50), 0.01)
    use(residents, "a")
    residents.add(key("c"), Model(50), 0.01)
    assert held(residents) == "ac"


def test_a_large_model_that_loads_as_quickly_goes_first(residents):
    """Although it was used last: its bytes hold several small ones."""
    for name, size in (("a", 20), ("b", 60), ("c", 20)):
        residents.add(key(name), Model(size), 0.01)
    use(residents, "b")
    residents.add(key("d"), Model(20), 0.01)
    assert held(residents) == "acd"


def test_of_equal_size_the_one_that_loads_quickly_goes_first(residents):
    """Although it was added last."""
    residents.add(key("a"), Model(50), 0.5)
    residents.add(key("b"), Model(50), 0.01)
    residents.add(key("c"), Model(50), 0.5)
    assert held(residents) == "ac"


def test_what_was_used_often_but_long_ago_goes_in_the_end(residents):
    """Each eviction moves the clock, so that no model stays for what it once was."""
    residents.add(key("a"), Model(50), 0.01)
    use(residents, "a", times=5)
    for turn in range(20):
        residents.add(key("bcdefgh"[turn % 7]), Model(50), 0.01)
        if "a" not in held(residents):
            break
    assert turn in range(3, 10)


def test_what_no_pointer_names_goes_first(residents, named):
    """Also where the last pointer left it after its load, whatever its load takes."""
    residents.add(key("a"), Model(50), 9.0)
    use(residents, "a", times=100)
    residents.add(key("b"), Model(50), 0.01)
    named.remove(key("a"))
    residents.rank(key("a"))
    residents.add(key("c"), Model(50), 0.01)
    assert held(residents) == "bc"


def test_what_is_in_use_stays(residents):
    """Above the bound, if all models are; the excess goes when they are given back."""
    taken = []
    for name in "abcd":
        residents.add(key(name), Model(50), 0.01)
        taken.append(residents.take(key(name)))
    assert held(residents) == "abcd"
    for resident in taken:
        resident.in_use -= 1
        residents.evict()
    assert residents.bytes == 100


@pytest.mark.parametrize("seed", range(20))
def test_in_any_order_of_events(seed):
    """Memory is the sum of what is there, within the bound unless all is in use; nothing in use is lost."""
    chance = random.Random(seed)
    named: set[tuple[str, str, str, str]] = set()
    residents = Residents(1_000, named.__contains__, NO_HOOKS)
    in_use: list[object] = []
    for _ in range(2_000):
        name = key(str(chance.randrange(40)))
        event = chance.randrange(6)
        if event < 2 and name not in residents.by_key:
            residents.add(name, Model(chance.randrange(1, 300)), chance.random())
        elif event == 2 and (resident := residents.take(name)) is not None:
            in_use.append(resident)
        elif event == 3 and in_use:
            in_use.pop(chance.randrange(len(in_use))).in_use -= 1
            residents.evict()
        elif event == 4:
            (named.discard if name in named else named.add)(name)
            residents.rank(name)
        elif event == 5 and chance.random() < 0.05:
            residents.drop_tenant("acme")
        assert residents.bytes == sum(each.model.memory_bytes for each in residents.by_key.values())
        free = [each for each in residents.by_key.values() if not each.in_use]
        assert residents.bytes <= residents.max_bytes or len(free) <= 1  # the one that was just added is kept
        assert all(residents.by_key[each.key] is each for each in in_use)
        assert len(residents._order) <= 2 * len(residents.by_key) + 513
