"""A cell in this process whose events are noted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_core.domain.api_key import Scope
from ml_core.domain.assignment import AssignmentDelta
from ml_core.models.store import LocalStore
from ml_core.settings import ServingSettings
from ml_core.training.fit import FittedModel
from support.hooks import Noted
from support.inprocess_cell import ACME, Cell, fitted, make_cell, promote, servable
from support.tables import measures, split_target


@pytest.fixture(scope="module")
def fitted_measures() -> FittedModel:
    """A small forest over twelve numbers."""
    return fitted("measures", split_target(measures(), "outcome"), n_estimators=5)


@pytest.fixture
def noted() -> Noted:
    """What happened."""
    return Noted()


@pytest.fixture
def cell(tmp_path: Path, fitted_measures: FittedModel, noted: Noted) -> Iterator[Cell]:
    """A cell that serves ``measures`` of acme."""
    cell = make_cell(LocalStore(tmp_path), ServingSettings(max_rows=100), hooks=noted)
    cell.assignment.apply(AssignmentDelta(1, True, {ACME: True}, {}, {}))
    promote(cell.table, servable(cell.store, fitted_measures))
    yield cell
    cell.table.close()
    cell.service.close()


@pytest.fixture
def key(cell: Cell) -> str:
    """A key of acme that may predict."""
    return cell.key(ACME, Scope.PREDICT, Scope.READ)
