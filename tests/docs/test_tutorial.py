"""The tutorial is run, block after block, on a real platform."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ml_core.domain.api_key import Scope
from ml_core.registry.predictions import PredictionRepository
from support.registry import new_tenant
from support.waiting import wait_until

TUTORIAL = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")


def test_each_block_of_the_tutorial_runs(platform, tmp_path, monkeypatch, capsys):
    """From the CSV to a report of live quality; the model is good, and the rows that came later are like the others."""
    monkeypatch.chdir(tmp_path)
    tenant_id = new_tenant(platform.db)
    names: dict[str, Any] = {"url": platform.url, "key": platform.key(tenant_id, Scope.ADMIN)}
    logged = PredictionRepository(platform.db, tenant_id)
    for block in re.findall(r"```python\n(.*?)```", TUTORIAL, re.DOTALL):
        if "quality.report" in block:  # weeks later
            wait_until(lambda: len(logged.get(names["answers"].request_id)) == len(names["later"]))
        exec(block.replace('"clinic"', repr(str(tenant_id))), names)
    shown = capsys.readouterr().out
    assert "biopsies@1 400 rows" in shown
    assert set(names["versions"]) == {"1", "2"}
    assert 0.9 < names["report"].cross_validation["metrics"]["accuracy"]["mean"] < 1
    assert names["day"].labels == 169
    assert names["quality"].verdict == "ok"
    assert names["day"].score.value > 0.9
    assert (tmp_path / "biopsies-1.html").stat().st_size > 10_000
