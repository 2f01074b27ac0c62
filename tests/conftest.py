"""Fixtures for every folder: one registry and one platform for the whole session, each started when first asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest

from support.registry import db, embedded_home, other_tenant_id, tenant_id
from support.tables import measures, split_target, tickets

if TYPE_CHECKING:
    from support.running_platform import RunningPlatform, TestTenant


__all__ = ["acme", "db", "embedded_home", "globex", "other_tenant_id", "platform", "tenant_id"]


# An example may take as long as the machine needs: a deadline would be an assertion on time.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker of this folder."""
    config.addinivalue_line("markers", "platform: uses the platform, which one process starts for all of these")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the platform."""
    for item in items:
        if "platform" in getattr(item, "fixturenames", ()):
            item.add_marker("platform")


@pytest.fixture(scope="session")
def platform() -> Iterator[RunningPlatform]:
    """A real platform: embedded Postgres, a local Ray, two replicas behind the ingress."""
    # Imported late: unit tests need none of it.
    from support.running_platform import running_platform

    with running_platform() as running:
        yield running


@pytest.fixture(scope="session")
def acme(platform: RunningPlatform) -> TestTenant:
    """A tenant that serves ``tickets``: text, dates, categories, numbers, missing values."""
    tenant = platform.tenant("acme")
    version = tenant.train("tickets", split_target(tickets(), "category"), algorithm="logistic_regression")
    tenant.promote("tickets", version, wait_for=tickets(1).drop(columns=["category"]).iloc[0].dropna().to_dict())
    return tenant


@pytest.fixture(scope="session")
def globex(platform: RunningPlatform) -> TestTenant:
    """A tenant that serves ``measures``: twelve numbers, a forest."""
    tenant = platform.tenant("globex")
    data = split_target(measures(), "outcome")
    tenant.promote("measures", tenant.train("measures", data), wait_for=data[0].iloc[0].to_dict())
    return tenant
