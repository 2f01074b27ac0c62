"""A registry with many tenants in it, as the benchmarks fill it, on a server of its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from ml_core.database.connection import DatabaseConnection
from support.registry import settings_for, temporary_home


def _benchmark_module(name: str) -> ModuleType:
    """A module of ``benchmarks``, which is no package: its files run as programs."""
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


populate = _benchmark_module("populate")


@contextmanager
def populated_registry(*, tenants: int, versions: int, wide_tenants: int) -> Iterator[DatabaseConnection]:
    """A registry filled by ``benchmarks/populate.py``, which says what is in it; gone afterwards."""
    with temporary_home() as home, DatabaseConnection(settings=settings_for(home)) as db:
        populate.populate(db, tenants=tenants, versions=versions, wide_tenants=wide_tenants)
        yield db
