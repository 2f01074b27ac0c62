"""``mlcore runs``: list, show, compare, tag."""

from __future__ import annotations

from typing import Any

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.registry.runs import RunRepository
from support.registry import new_tenant
from support.tables import measures

OVER_HTTP = True


@pytest.fixture
def two_runs(registry: DatabaseConnection, enter: Any) -> tuple[str, str, str]:
    """A tenant and two runs of it."""
    tenant = new_tenant(registry)
    runs = RunRepository(registry, tenant)
    found = []
    for c in (1, 2):
        run_id = runs.start("tickets", parameters={"C": c}, tags={"team": "support"})
        runs.log_metrics(run_id, {"accuracy": c / 4}, step=3)
        runs.artifacts.log(run_id, "plot.png", b"plot")
        found.append(run_id)
    runs.finish(found[1])
    return str(enter(tenant)), found[0], found[1]


@pytest.mark.both_doors
def test_runs_are_listed(mlcore: Any, two_runs: tuple[str, str, str]) -> None:
    """Newest first, by state and tag, in pages."""
    tenant, first, second = two_runs
    table = mlcore("runs", "list", "-t", tenant).out
    assert table.index(second) < table.index(first)
    page = mlcore("runs", "list", "-t", tenant, "--limit", "1", "--json").json
    assert [run["run_id"] for run in page["items"]] == [second]
    rest = mlcore("runs", "list", "-t", tenant, "--limit", "1", "--cursor", page["next_cursor"], "--json").json
    assert [run["run_id"] for run in rest["items"]] == [first]
    finished = mlcore("runs", "list", "-t", tenant, "--status", "finished", "--tag", "team=support", "--json").json
    assert [run["run_id"] for run in finished["items"]] == [second]
    for option in (("--parameter", "C=2"), ("--metric", "accuracy>=0.5")):
        found = mlcore("runs", "list", "-t", tenant, *option, "--json").json
        assert [run["run_id"] for run in found["items"]] == [second]
    for way, order in (("--descending", [second, first]), ("--ascending", [first, second])):
        found = mlcore("runs", "list", "-t", tenant, "--sort", "accuracy", way, "--json").json
        assert [run["run_id"] for run in found["items"]] == order
    assert "No run matches." in mlcore("runs", "list", "-t", tenant, "-m", "tickets", "--status", "failed").out
    typo = mlcore("runs", "list", "-t", tenant, "-m", "tikets")
    assert (typo.code, "The model tikets does not exist" in typo.err) == (1, True)


def test_a_run_names_its_version_and_its_error(mlcore: Any, tenant: str, tmp_path: Any) -> None:
    """In the list with the held-out metric, and when it is shown; a failed one has neither, but says why."""
    table = tmp_path / "table.csv"
    measures(60).to_csv(table, index=False)
    trained = mlcore("train", table, "-t", tenant, "-m", "m", "--target", "outcome", "-p", "algorithm=ridge", "--json")
    listed = mlcore("runs", "list", "-t", tenant)
    assert all(text in listed.out for text in (trained.json["run_id"], "m@1", "accuracy"))
    assert "error" not in listed.out
    assert mlcore("runs", "list", "-t", tenant, "--json").json["items"][0]["versions"] == ["m@1"]
    assert "m@1" in mlcore("runs", "show", trained.json["run_id"], "-t", tenant).out
    shown = mlcore("runs", "show", trained.json["run_id"], "-t", tenant).out
    assert all(text in shown for text in ("diagnostics.json", "worse by", "█"))
    measures(60).assign(outcome="one").to_csv(table, index=False)
    mlcore("train", table, "-t", tenant, "-m", "m", "--target", "outcome", "-p", "algorithm=ridge")
    assert "TrainingError" in mlcore("runs", "list", "-t", tenant, "--status", "failed").out


def test_the_lines_of_a_run_are_aligned(mlcore: Any, two_runs: tuple[str, str, str]) -> None:
    """Every value begins in one column, also those of long names."""
    tenant, _, second = two_runs
    lines = mlcore("runs", "show", second, "-t", tenant).out.splitlines()
    lines = lines[: next(at for at, line in enumerate(lines) if line.startswith("metric"))]
    assert len({len(line) - len(line.split("  ", 1)[1].lstrip()) for line in lines}) == 1


def test_a_run_is_shown(mlcore: Any, two_runs: tuple[str, str, str]) -> None:
    """Parameters, tags, metrics, files."""
    tenant, _, second = two_runs
    shown = mlcore("runs", "show", second, "-t", tenant).out
    assert all(text in shown for text in ("finished", "team=support", "accuracy", "0.5", "plot.png"))
    found = mlcore("runs", "show", second, "-t", tenant, "--json").json
    assert found["metrics"]["accuracy"]["last_value"] == 0.5
    (file,) = found["files"]
    assert (file["name"], file["size_bytes"], file["format"]) == ("plot.png", 4, "png")
    missing = mlcore("runs", "show", "run_0", "-t", tenant)
    assert (missing.code, "There is no run" in missing.err) == (1, True)


def test_runs_are_compared(mlcore: Any, two_runs: tuple[str, str, str]) -> None:
    """What differs, and which is best."""
    tenant, first, second = two_runs
    found = mlcore("runs", "compare", first, second, "-t", tenant, "--json").json
    assert found["parameters"] == {"C": {first: 1, second: 2}}
    assert found["metrics"]["accuracy"]["best_run"] == second
    assert "accuracy" in mlcore("runs", "compare", first, second, "-t", tenant).out


def test_a_run_is_tagged(mlcore: Any, two_runs: tuple[str, str, str]) -> None:
    """Set, removed, refused."""
    tenant, first, _ = two_runs
    found = mlcore("runs", "tag", first, "best=yes", "team=", "-t", tenant, "--json").json
    assert (found["run_id"], found["tags"]) == (first, {"best": "yes"})
    assert first in mlcore("runs", "tag", first, "best=no", "-t", tenant).out
    refused = mlcore("runs", "tag", first, "best", "-t", tenant)
    assert (refused.code, "KEY=VALUE" in refused.err) == (1, True)


@pytest.mark.both_doors
def test_a_run_is_reported(
    mlcore: Any, two_runs: tuple[str, str, str], registry: DatabaseConnection, tmp_path: Any
) -> None:
    """Its curves in a file that did not exist, whatever else its files are; a trial is a run that is part of it."""
    tenant, first, _ = two_runs
    runs = RunRepository(registry, tenant)
    runs.log_series(first, "loss", range(3), [0.5, float("nan"), 0.1])
    runs.artifacts.log(first, "diagnostics.json", b"[not the platform's]")
    for c in (1, 2):
        trial = runs.start("tickets", parameters={"C": c}, parent_run_id=first)
        runs.log_metrics(trial, {"validation/accuracy": c / 4})
        runs.finish(trial)
    file = tmp_path / "report.html"
    said = mlcore("runs", "report", first, "--output", file, "-t", tenant, "--json")
    assert (said.code, said.json) == (0, {"run_id": first, "file": str(file)}), said.err
    page = file.read_text(encoding="utf-8")
    assert all(text in page for text in ("Learning curves", "Best score by time", first))
    assert "Calibration" not in page
    assert "█ ▁" in mlcore("runs", "show", first, "-t", tenant).out
    again = mlcore("runs", "report", first, "--output", file, "-t", tenant)
    assert (again.code, "Name another file" in again.err) == (1, True)
    missing = mlcore("runs", "report", "run_0", "-t", tenant)
    assert (missing.code, "There is no run" in missing.err) == (1, True)
