"""Models that are fitted once, and a cell in this process that serves them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_core.domain.api_key import Scope
from ml_core.domain.assignment import AssignmentDelta
from ml_core.models.store import ArtifactStore, LocalStore
from ml_core.settings import ServingSettings
from ml_core.training.fit import FittedModel
from support.inprocess_cell import ACME, GLOBEX, Cell, fitted, make_cell, promote, servable
from support.tables import measures, split_target, tickets


@pytest.fixture(scope="session")
def fitted_tickets() -> FittedModel:
    """A classifier of text, a date, categories and numbers."""
    return fitted("tickets", split_target(tickets(), "category"), algorithm="logistic_regression")


@pytest.fixture(scope="session")
def fitted_measures() -> FittedModel:
    """A small forest over twelve numbers."""
    return fitted("measures", split_target(measures(), "outcome"), n_estimators=5)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """An empty store."""
    return LocalStore(tmp_path / "artifacts")


@pytest.fixture
def bare_cell(store: ArtifactStore) -> Iterator[Cell]:
    """A cell that has read no assignment yet."""
    cell = make_cell(store, ServingSettings(max_rows=100, max_body_bytes=64 * 1024))
    yield cell
    cell.table.close()
    cell.service.close()


@pytest.fixture
def cell(bare_cell: Cell, fitted_tickets: FittedModel, fitted_measures: FittedModel) -> Cell:
    """A cell that serves ``tickets`` and ``measures`` of acme, and knows globex."""
    bare_cell.assignment.apply(AssignmentDelta(1, True, {ACME: True, GLOBEX: True}, {}, {}))
    for model in (fitted_tickets, fitted_measures):
        promote(bare_cell.table, servable(bare_cell.store, model))
    return bare_cell


@pytest.fixture
def key(cell: Cell) -> str:
    """A key of acme that may predict and read."""
    return cell.key(ACME, Scope.PREDICT, Scope.READ)
