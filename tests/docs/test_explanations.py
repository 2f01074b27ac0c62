"""What the page on explanations says of Python and of algorithms."""

from __future__ import annotations

import re
from pathlib import Path

from ml_core.cli import explain
from ml_core.domain.explanation import MAX_EXPLAINED_ROWS, Method, Unit
from ml_core.inference import explanations
from ml_core.models.algorithms import ALGORITHMS
from ml_core.system import MLSystem
from support.tables import split_target, tickets

PAGE = (Path(__file__).parents[2] / "docs" / "explanations.md").read_text(encoding="utf-8")


def test_the_block_runs(db, tenant_id, capsys):
    """As it stands, on tickets."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    X, y = split_target(tickets(), "category")
    with MLSystem(db, tenant_id=tenant_id) as system:
        system.train_model("tickets", "classification", (X, y), hyperparameters={"algorithm": "logistic_regression"})
        names = {"system": system, "X": X}
        exec(block, names)
    found = names["found"]
    assert len(found.to_frame()) == 20
    assert list(found.to_frame().columns) == list(X.columns)
    assert f"({found.method.value!r}, {found.unit.value!r})" in PAGE
    assert "method=linear" in capsys.readouterr().out


def test_each_algorithm_method_unit_and_limit_is_there():
    """By its name or its number."""
    names = {name for algorithms in ALGORITHMS.values() for name in algorithms}
    assert {name for name in (*names, *Method, *Unit) if f"`{name}`" not in PAGE} == set()
    assert f"up to {MAX_EXPLAINED_ROWS} rows" in PAGE
    assert explain._MAX_ROWS == MAX_EXPLAINED_ROWS
    assert f"{explanations.MAX_MODEL_BYTES // 2**20} MiB" in PAGE
    assert f"{explanations._WAITING_PER_TENANT} explanations waiting" in PAGE
