"""``mlcore placements``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.registry.placements import PlacementRepository
from support.registry import new_tenant


@pytest.fixture
def name(mlcore: Callable, registry: DatabaseConnection) -> str:
    """A tenant; the commands act as the operator."""
    return str(new_tenant(registry))


def test_a_dedicated_cell_and_back(mlcore: Callable, registry: DatabaseConnection, name: str) -> None:
    """Each verb says what is wanted, and who serves meanwhile."""
    bounds = ("--min", 1, "--max", 4, "--target-ongoing", 16)
    done = mlcore("placements", "set", name, "--dedicated", *bounds)
    assert done.out.startswith(f"{name}: a dedicated cell with 1 to 4 replicas, 16 concurrent requests each.")
    assert "It moves; shared serves it meanwhile." in done.out
    PlacementRepository(registry).move(name, to_dedicated=True)
    assert "It moves" not in mlcore("placements", "show", name).out
    assert mlcore("placements", "show", name, "--json").json["cell"] == f"t-{name}"
    listed = mlcore("placements", "list", "--json").json["items"]
    assert [each["max_replicas"] for each in listed if each["tenant_id"] == name] == [4]
    assert f"{name}: the shared cell." in mlcore("placements", "set", name, "--shared").out


def test_one_number_of_replicas_is_both_bounds(mlcore: Callable, name: str) -> None:
    """Without a maximum there is no autoscaling."""
    assert "replicas: 3." in mlcore("placements", "set", name, "--dedicated", "--min", 3).out


def test_a_cell_may_have_no_replicas_while_nothing_is_asked(mlcore: Callable, name: str) -> None:
    """But not the shared cell, which serves the tenant then."""
    done = mlcore("placements", "set", name, "--dedicated", "--min", 0)
    assert done.out.startswith(f"{name}: a dedicated cell with 0 to 1 replicas, 32 concurrent requests each."), done.err
    assert "It moves, or is not asked; shared serves it meanwhile." in done.out
    refused = mlcore("placements", "shared-cell", "--min", 0)
    assert (refused.code, "min_replicas is 0. Use a whole number from 1" in refused.err) == (1, True), refused.err


def test_the_shared_cell(mlcore: Callable) -> None:
    """Shown without options, set with them."""
    assert "The shared cell has replicas: 2." in mlcore("placements", "shared-cell").out
    assert "2 to 6 replicas" in mlcore("placements", "shared-cell", "--min", 2, "--max", 6).out
    assert mlcore("placements", "shared-cell", "--json").json["max_replicas"] == 6


def test_what_can_not_be_is_refused(mlcore: Callable, name: str) -> None:
    """With the bound, and what it may be."""
    refused = mlcore("placements", "set", name, "--dedicated", "--min", 5, "--max", 4)
    assert refused.code == 1
    assert "max_replicas is 4." in refused.err
    assert "from 5 to 1,000" in refused.err
    assert mlcore("placements", "set", name).code == 2, "one of the two must be said"
    assert "nobody" in mlcore("placements", "set", "nobody", "--shared").err
