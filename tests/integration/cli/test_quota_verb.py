"""``mlcore tenants quota``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ml_core.database.connection import DatabaseConnection
from support.registry import new_tenant


@pytest.fixture
def name(mlcore: Callable, registry: DatabaseConnection) -> str:
    """A tenant; the commands act as the operator."""
    return str(new_tenant(registry))


def test_a_quota_is_shown_set_and_reset(mlcore: Callable, name: str) -> None:
    """What no option names stays as it is, unless it is reset."""
    verb = ("tenants", "quota", name)
    default = f"{name}: the platform's default of requests/s and the platform's default of rows/s, bursts of 1 s"
    assert mlcore(*verb).out.startswith(default)
    done = mlcore(*verb, "--requests-per-s", 100, "--rows-per-s", 5000, "--weight", 2)
    assert done.out == f"{name}: 100 requests/s and 5,000 rows/s, bursts of 1 s, weight 2.\n"
    assert mlcore(*verb, "--burst-s", 10, "--json").json == {
        "weight": 2.0,
        "requests_per_s": 100.0,
        "rows_per_s": 5000.0,
        "burst_s": 10.0,
    }
    reset = mlcore(*verb, "--reset", "--rows-per-s", 7).out
    assert reset == f"{name}: the platform's default of requests/s and 7 rows/s, bursts of 1 s, weight 1.\n"
    audited = mlcore("audit", "-t", name, "--json").json["items"]
    assert [event["action"] for event in audited].count("tenant.quota_set") == 3


def test_a_value_out_of_range(mlcore: Callable, name: str) -> None:
    """Names the field and its range, and changes nothing."""
    refused = mlcore("tenants", "quota", name, "--requests-per-s", 0)
    assert (refused.code, "requests_per_s is 0" in refused.err) == (1, True)
    assert "the platform's default of requests/s" in mlcore("tenants", "quota", name).out


def test_a_tenants_key_shows_its_quota_and_sets_none(mlcore: Callable, name: str) -> None:
    """The platform decides how much a tenant may ask."""
    key = mlcore("keys", "create", "-t", name, "--scope", "admin", "--json").json["key"]
    assert mlcore("tenants", "quota", name, "--key", key).code == 0
    refused = mlcore("tenants", "quota", name, "--rows-per-s", 5, "--key", key)
    assert (refused.code, "rows/s" in refused.out) == (1, False)
