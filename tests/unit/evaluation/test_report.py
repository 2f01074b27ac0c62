"""The HTML reports of runs and versions: what they show, and that a tenant's names stay text in them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_core.domain.diagnostics import CalibrationBin, Confusion, Diagnostics, Histogram, Importance, ResidualBin
from ml_core.domain.run import MetricSummary, Run, RunStatus
from ml_core.domain.train_spec import TRAINING_RECORD
from ml_core.domain.version import Compilation, FormCost, ParityProof
from ml_core.evaluation import charts
from ml_core.evaluation.report import RunRecord, run_report, write_report
from ml_core.evaluation.version_report import CARD, VersionRecord, version_report
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import ModelId

START = datetime(2026, 11, 24, tzinfo=UTC)
PIECES = (
    "</script>",
    "<img src=x onerror=alert(1)>",
    "<b>",
    '"',
    "'",
    "&lt;",
    "&",
    "<!--",
    "]]>",
    "$x$",
    "%{x}",
    "é",
    "a",
)
hostile = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)


def run_of(number: int, parameters: dict[str, Any], metrics: dict[str, float], **fields: Any) -> Run:
    """A run that ended."""
    lines = {name: MetricSummary(1, 0, 0, value, value, value) for name, value in metrics.items()}
    end = START + timedelta(minutes=number)
    given = {"status": RunStatus.FINISHED, "error": None, **fields}
    run_id = f"run_{number:016x}"
    return Run(run_id, ModelId("m"), "train", parameters=parameters, metrics=lines, started_at=START,
               heartbeat_at=end, finished_at=end, **given)  # fmt: skip


def record_with(name: str) -> RunRecord:
    """A run in which every text is the same."""
    diagnostics = Diagnostics(
        rows=20,
        baseline={"accuracy": 0.5},
        confusion=Confusion([name, f"{name}2"], True, [[8, 2, 0], [1, 9, 0], [0, 0, 0]]),
        calibration=[CalibrationBin(0.9, 0.8, 20)],
        residuals=[ResidualBin(1.0, 0.1, 0.2, 20)],
        residual_histogram=Histogram([-1.0, 0.0, 1.0], [9, 11]),
        importances=[Importance(name, 0.25)],
        importance_metric=name,
        notes=[name],
    )
    metrics = {name: 0.7, "validation/accuracy": 0.8}
    trials = [run_of(number, {name: f"{name}{number}", "C": number}, metrics) for number in (1, 2)]
    run = run_of(9, {name: name, "of": {name: [name]}}, metrics, error=name, tags={name: name}, versions=(name,))
    return RunRecord(run, {name: ([0, 1], [0.5, None])}, diagnostics, trials)


def version_with(name: str) -> VersionRecord:
    """A version in which every text is the same."""
    column = SimpleNamespace(name=name, kind="category", used=True, reason=name)
    profile = SimpleNamespace(name=name, kind="category", missing=3, distinct=2, values=[(name, 17)], minimum=None)
    candidates = [
        {"hyperparameters": {"algorithm": name}, "score": 0.8, "std": 0.1, "selected": True},
        {"hyperparameters": {"algorithm": name, "C": name}, "error": name, "selected": False},
    ]
    training = SimpleNamespace(
        algorithm=name,
        notes=(name,),
        baseline={"accuracy": 0.5},
        dataset=f"{name}@1",
        n_rows={"train": 80, "validation": 20},
        selection={"metric": name, "folds": 5, "rows": 80, "candidates": candidates},
        cross_validation={"folds": 4, "metrics": {"accuracy": {"mean": 0.75, "std": 0.125}}},
        columns=[column],
        columns_omitted=2,
        hyperparameters={name: name},
        effective_hyperparameters={name: name},
        example={name: name},
    )
    version = SimpleNamespace(
        model_id="m",
        version="3",
        model_type="classification",
        uses=[SimpleNamespace(environment="staging", role="canary")],
        compilation=Compilation(
            f"Because of {name}.",
            None,
            ParityProof(1234, 56, 0.0, 0, name),
            FormCost(4096, 280.5, 741.0),
            FormCost(8192, 12.5, 465.0),
        ),
        tags={name: name},
        metrics={"validation": {"accuracy": 0.8, name: 0.1}, "train": {"accuracy": 0.9}},
        created_at=START,
        created_by=name,
        archived_at=None,
        format="skops/2",
        size_bytes=1234,
        digest="d" * 64,
        metadata={CARD: {name: name, "limitations": [name]}, name: name, TRAINING_RECORD: {"group": name}},
    )
    canary = SimpleNamespace(version="3", percent=5)
    moves = [
        SimpleNamespace(
            at=START + timedelta(days=day),
            action=action,
            version=stable,
            canary=on,
            shadow=None,
            actor=name,
            reason=name,
        )
        for day, (action, stable, on) in enumerate(
            [("promote", "1", None), ("start_canary", "1", canary), ("abort", "1", None), ("promote", "2", None)]
        )
    ]
    signature = {
        "inputs": [{"name": name, "kind": "category", "nullable": True, "categories": [name]}],
        "output": {"kind": "classes", "classes": [name, f"{name}2"]},
    }
    lineage = {"run": {"run_id": "run_1", "status": "finished"}, "libraries": {name: name}, "code_commit": name}
    table = SimpleNamespace(columns=[profile], row_count=100, sampled_rows=50)
    return VersionRecord(
        "acme", version, signature, training, lineage, table, {"staging": moves[::-1]}, record_with(name)
    )


PAGES = {"run": lambda name: run_report(record_with(name)), "version": lambda name: version_report(version_with(name))}


class Reader(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def skeleton(self) -> list[tuple[str, frozenset[str]]]:
        """Each tag with the names of its attributes."""
        return [(tag, frozenset(given)) for tag, given in self.tags]


@pytest.mark.parametrize("kind", PAGES)
def test_names_of_a_tenant_are_text_everywhere(kind: str) -> None:
    """Whatever they hold, they add no tag and no attribute to the page, and are whole in its text."""
    plain = Reader(PAGES[kind]("plain"))

    @settings(max_examples=50)
    @example("".join(PIECES))
    @given(hostile)
    def holds(name: str) -> None:
        page = Reader(PAGES[kind](name))
        assert page.skeleton == plain.skeleton
        quoted = 5  # in the calls, for JSON, the shell and Python, and in the sentence on the group
        assert page.text.count(name) >= plain.text.count("plain") - quoted

    holds()


@pytest.mark.parametrize("kind", PAGES)
def test_the_page_asks_nobody_for_anything(kind: str) -> None:
    """No script, no address in a tag, and a policy that forbids requests."""
    page = Reader(PAGES[kind]("plain"))
    assert not [tag for tag, given in page.tags if given.keys() & {"src", "href", "action", "data"}]
    assert "script" not in {tag for tag, _ in page.tags}
    (policy,) = (given["content"] for tag, given in page.tags if given.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def headings(page: str) -> list[str]:
    return re.findall(r"<(?:h2|h3|figcaption)>(.*?)<", page)


def test_what_the_report_of_a_run_shows() -> None:
    """Metrics beside the baseline, and a section or chart for each thing that is known."""
    page = run_report(record_with("plain"))
    assert "validation/accuracy0.80.5" in Reader(page).text
    assert headings(page) == [
        "Metrics", "Learning curves", "On 20 held-out rows", "Confusion matrix", "Calibration",
        "Residuals by prediction", "Distribution of residuals", "Importances", "Trials", "Best score by time", "C",
        "Parameters",
    ]  # fmt: skip
    bare = run_report(RunRecord(run_of(1, {}, {}), {}, None, []))
    assert headings(bare) == []
    assert "run_0000000000000001" in bare


def test_what_the_report_of_a_version_shows() -> None:
    """The user's texts first; metrics marked against the baseline; moves that concern the version, and no others."""
    page = version_report(version_with("plain"))
    assert headings(page)[:3] == ["Plain", "Limitations", "Quality"]
    assert {"Confusion matrix", "Calibration", "Algorithm", "Data", "Use", "Environments", "Lineage"} < {
        *headings(page)
    }
    assert '<td class="better">0.8</td>' in page
    text = Reader(page).text
    assert "staging (canary)" in text
    assert "in 4 folds" in text
    assert "0.75 ± 0.125" in text
    assert "Selected by plain over 5 folds of 80 training rows." in text
    assert "The original form answers. Because of plain." in text
    assert "Compared on 1,234 rows and at 56 thresholds" in text
    assert "280.5" in text
    assert "/t/acme/models/m/predict" in text
    assert '"version": "3"' in text  # production does not serve it
    moved = re.findall(r"<td>(promote|start_canary|abort)</td>", page)
    assert moved == ["abort", "start_canary"]


@pytest.mark.parametrize(
    ("metric", "best"), [("validation/accuracy", ["3", "2", "1"]), ("validation/log_loss", ["1", "2", "3"])]
)
def test_trials_are_compared_by_their_score(metric: str, best: list[str]) -> None:
    """By the direction of the metric; a trial without a finite score is left out, and so is what does not vary."""
    trials = [run_of(n, {"C": n, "kind": "a", "solver": f"s{n}"}, {metric: n / 10}) for n in (1, 3, 2)]
    trials += [run_of(4, {"C": 4}, {}), run_of(5, {"C": 5}, {metric: float("nan")})]
    page = run_report(RunRecord(run_of(9, {"metric": metric.partition("/")[2]}, {}), {}, None, trials))
    rows = re.findall(r"<td>run_0+(\d)</td><td>[\d.]+</td><td>(\d)</td><td>s(\d)</td>", page)
    assert rows == [(number,) * 3 for number in best]


@settings(max_examples=200)
@given(st.floats(-1e150, 1e150), st.floats(-1e150, 1e150))
def test_an_axis_has_a_few_round_ticks_within_its_range(one: float, other: float) -> None:
    """Whatever the range."""
    low, high = charts.padded(min(one, other), max(one, other))
    found = charts.ticks(low, high)
    slack = 1e-6 * (high - low)
    assert 1 <= len(found) <= 7
    assert all(low - slack <= tick <= high + slack for tick in found)
    assert all(len(charts.short(tick)) <= 10 for tick in found)


def test_a_report_replaces_no_file(tmp_path: Path) -> None:
    """A file that exists, or a folder that does not, is an error that names it."""
    path = write_report("one", tmp_path / "report.html")
    for file in (path, tmp_path / "absent" / "report.html"):
        with pytest.raises(InvalidRequestError, match=re.escape(str(file))):
            write_report("other", file)
    assert path.read_text() == "one"
