"""``mlcore versions`` and ``mlcore audit``: search, tags, comparison, lineage and who did it, as people call them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from skops import io

OVER_HTTP = True


@pytest.fixture
def trained(mlcore: Callable, tenant: str, tmp_path: Path) -> str:
    """A tenant with two versions of ``tickets``, of which the second saw more rows."""
    for rows in (20, 60):
        table = tmp_path / f"{rows}.csv"
        table.write_text(
            "text,label\n" + "".join(f"printer {n} is broken,hardware\nlogin {n} fails,account\n" for n in range(rows))
        )
        trained = mlcore("train", table, "-t", tenant, "-m", "tickets", "--target", "label")
        assert trained.code == 0, trained.err
    return tenant


def test_versions_are_found_by_tag_metric_and_text(mlcore: Callable, trained: str) -> None:
    """What a tag sets, a search finds; a range keeps what lies in it; what nothing meets is said."""
    assert "stage=pilot" in mlcore("versions", "tag", "-t", trained, "-m", "tickets", "-v", "1", "stage=pilot").out
    found = mlcore("versions", "search", "-t", trained, "--tag", "stage=pilot", "--json").json
    assert [(item["model_id"], item["version"], item["tags"]) for item in found["items"]] == [
        ("tickets", "1", {"stage": "pilot"})
    ]
    assert len(mlcore("versions", "search", "-t", trained, "--metric", "accuracy>=0.5", "--json").json["items"]) == 2
    assert "No version matches" in mlcore("versions", "search", "-t", trained, "--metric", "train/accuracy<=0").out
    assert "stage=pilot" in mlcore("versions", "search", "-t", trained, "--text", "PILOT").out
    assert len(mlcore("versions", "search", "-t", trained, "--name", "2", "--json").json["items"]) == 1
    (accuracy,) = [
        each for each in mlcore("versions", "metrics", "-t", trained, "--json").json
        if (each["split"], each["metric"]) == ("validation", "accuracy")
    ]  # fmt: skip
    assert accuracy["higher_is_better"] is True
    assert "accuracy" in mlcore("versions", "metrics", "-t", trained).out
    assert "no tags" in mlcore("versions", "tag", "-t", trained, "-m", "tickets", "-v", "1", "stage=").out


@pytest.mark.both_doors
def test_a_search_goes_on_where_a_page_ended(mlcore: Callable, trained: str) -> None:
    """The cursor that is shown leads to the next page, in the order that was asked for."""
    first = mlcore("versions", "search", "-t", trained, "--limit", "1", "--ascending")
    cursor = first.err.split("--cursor ")[1].strip()
    found = mlcore("versions", "search", "-t", trained, "--limit", "1", "--ascending", "--cursor", cursor, "--json")
    assert [item["version"] for item in found.json["items"]] == ["2"]
    assert found.json["next_cursor"] is None


@pytest.mark.parametrize(
    ("option", "value", "shown"),
    [
        ("--tag", "pilot", "KEY=VALUE"),
        ("--metric", "accuracy", "accuracy>=0.8"),
        ("--metric", "accuracy>=much", "accuracy>=0.8"),
        ("--sort", "validation/", "validation/accuracy"),
        ("--cursor", "nonsense", "next_cursor"),
    ],
)
def test_what_can_not_be_searched_for(mlcore: Callable, tenant: str, option: str, value: str, shown: str) -> None:
    """The error shows how it is written."""
    refused = mlcore("versions", "search", "-t", tenant, option, value)
    assert refused.code == 1
    assert shown in refused.err


def test_two_versions_are_compared(mlcore: Callable, trained: str) -> None:
    """Each metric with both values; whether the data was the same."""
    compared = mlcore("versions", "compare", "-t", trained, "-m", "tickets", "1", "2")
    assert compared.code == 0
    assert "validation/accuracy" in compared.out
    assert "data: not the same" in compared.out


@pytest.mark.both_doors
def test_what_answers_is_shown_with_its_reason_and_proof(mlcore: Callable, tenant: str, tmp_path: Path) -> None:
    """A forest is compiled when it is trained; a linear model is answered by its formula."""
    table = tmp_path / "numbers.csv"
    rows = "".join(f"{n},{n * 7 % 11},{'high' if n > 40 else 'low'}\n" for n in range(80))
    table.write_text("a,b,label\n" + rows)
    chosen = ("-t", tenant, "-m", "numbers")
    for algorithm in ("random_forest", "logistic_regression"):
        trained = mlcore("train", table, *chosen, "--target", "label", "-p", f"algorithm={algorithm}")
        assert trained.code == 0, trained.err
    shown = mlcore("versions", "show", *chosen, "-v", "1").out
    assert "compiled: The compiled form takes" in shown
    assert "0 flips, difference 0" in shown
    found = mlcore("versions", "show", *chosen, "-v", "1", "--json").json["compilation"]
    assert (found["answers"], found["proof"]["flips"]) == ("compiled", 0)
    assert found["form"]["runtime"] == found["proof"]["runtime"]
    assert found["compiled_cost"]["row_us"] < found["original_cost"]["row_us"]
    shown = mlcore("versions", "show", *chosen, "-v", "2").out
    assert "original: LogisticRegression is answered by its formula" in " ".join(shown.split())


@pytest.mark.both_doors
def test_a_version_is_reported(mlcore: Callable, trained: str, tmp_path: Path) -> None:
    """Data, quality, moves, and how to call the platform that was asked, in a file that did not exist."""
    mlcore("promote", "-t", trained, "-m", "tickets", "-v", "2")
    file = tmp_path / "card.html"
    said = mlcore("versions", "report", "-t", trained, "-m", "tickets", "-v", "2", "--output", file, "--json")
    assert (said.code, said.json) == (0, {"model_id": "tickets", "version": "2", "file": str(file)}), said.err
    page = file.read_text(encoding="utf-8")
    found = (
        "Inference",
        "The original form answers.",
        "Confusion matrix",
        "Calibration",
        "hardware",
        "promote",
        "scikit-learn",
        f"/t/{trained}/models/tickets/",
    )
    assert [text for text in found if text not in page] == []
    again = mlcore("versions", "report", "-t", trained, "-m", "tickets", "-v", "2", "--output", file)
    assert (again.code, "Name another file" in again.err) == (1, True)
    missing = mlcore("versions", "report", "-t", trained, "-m", "tickets", "-v", "9")
    assert missing.code == 1


@pytest.mark.both_doors
def test_a_version_leaves_the_platform(mlcore: Callable, trained: str, tmp_path: Path) -> None:
    """As a file that answers as the version does; what a format can't hold is refused with the reason."""
    chosen = ("-t", trained, "-m", "tickets", "-v", "2")
    file = tmp_path / "m.skops"
    assert mlcore("versions", "export", *chosen, "--output", file, "--json").json["file"] == str(file)
    pipeline = io.load(file, trusted=io.get_untrusted_types(file=file))
    assert list(pipeline.predict(pd.DataFrame({"text": ["printer 7 is broken", "login 8 fails"]}))) == [
        "hardware",
        "account",
    ]
    refused = mlcore("versions", "export", *chosen, "--output", tmp_path / "m.onnx")
    assert (refused.code, "no encoder of texts, as in the column 'text'" in refused.err) == (1, True)
    unknown = mlcore("versions", "export", *chosen, "--output", tmp_path / "m.pickle")
    assert (unknown.code, ".joblib, .skops, .onnx" in unknown.err) == (1, True)


@pytest.mark.both_doors
def test_an_interval_is_printed(mlcore: Callable, tenant: str, tmp_path: Path) -> None:
    """Beside the prediction; a coverage that the held-out rows do not allow is an error."""
    table = tmp_path / "t.csv"
    table.write_text("x,y\n" + "".join(f"{n},{2 * n + n % 7}.5\n" for n in range(100)))
    assert mlcore("train", table, "-t", tenant, "-m", "line", "--target", "y", "-p", "algorithm=ridge").code == 0
    asked = ("predict", "-t", tenant, "-m", "line", "-v", "1", "--row", '{"x": 10}')
    (low, high), *_ = mlcore(*asked, "--interval", "0.8", "--json").json["intervals"]
    assert low < 23 < high
    assert " to " in mlcore(*asked, "--interval", "0.8").out
    refused = mlcore(*asked, "--interval", "0.99")
    assert (refused.code, "needs 99 held-out rows" in refused.err) == (1, True)
    scored = mlcore(*asked, "--scores")
    assert (scored.code, "no anomaly scores" in scored.err) == (1, True)


def test_where_a_version_came_from(mlcore: Callable, trained: str) -> None:
    """Its run, its libraries, and what serves it."""
    mlcore("promote", "-t", trained, "-m", "tickets", "-v", "2")
    shown = mlcore("versions", "lineage", "-t", trained, "-m", "tickets", "-v", "2").out
    assert "run_" in shown
    assert "scikit-learn" in shown
    assert "production" in shown


def test_the_audit_shows_who_did_what(mlcore: Callable, trained: str) -> None:
    """Newest first, restricted by action and by noun, a page at a time."""
    mlcore("promote", "-t", trained, "-m", "tickets", "-v", "2")
    shown = mlcore("audit", "-t", trained).out.splitlines()
    assert "environment.moved" in shown[1]
    assert "model_id=tickets" in shown[1]
    found = mlcore("audit", "-t", trained, "--action", "version.", "--json").json
    assert [item["action"] for item in found["items"]] == ["version.registered"] * 2
    assert "--cursor" in mlcore("audit", "-t", trained, "--limit", "1").err
    assert "No such change" in mlcore("audit", "-t", trained, "--principal", "nobody").out
    assert "No such change" in mlcore("audit", "-t", trained, "--since", "2999-01-01").out
