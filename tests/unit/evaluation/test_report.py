"""The HTML report of a run: what it shows, and that a tenant's names stay text in it."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_core.domain.diagnostics import CalibrationBin, Confusion, Diagnostics, Histogram, Importance, ResidualBin
from ml_core.domain.run import MetricSummary, Run, RunStatus
from ml_core.evaluation.report import RunRecord, report_html, write_report
from ml_core.exceptions import ConfigurationError, InvalidRequestError
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


class Reader(HTMLParser):
    """Tags with their attributes, the text, and the text of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is not None:
            self.scripts.append(data)
        else:
            self.text += data


@pytest.fixture
def small_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plotly's own script takes most of the time of reading a page."""
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "/* plotly */")


def charts(page: Reader) -> list[tuple[Any, Any]]:
    """Data and layout of each chart."""
    found, decoder = [], json.JSONDecoder()
    for script in page.scripts:
        for call in re.finditer(r'Plotly\.newPlot\(\s*"figure-\d+",\s*', script):
            data, end = decoder.raw_decode(script, call.end())
            layout, _ = decoder.raw_decode(script, script.index("{", end))
            found.append((data, layout))
    return found


def texts(value: Any) -> list[str]:
    """All strings in a JSON document."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.usefixtures("small_bundle")
def test_names_of_a_tenant_are_text_everywhere() -> None:
    """They add no tag, attribute or script to the page, are whole in its tables, and no markup in Plotly's labels."""
    plain = Reader(report_html(record_with("plain")))

    @settings(max_examples=5)  # each draws eight charts
    @example("".join(PIECES))
    @given(hostile)
    def holds(name: str) -> None:
        page = Reader(report_html(record_with(name)))
        assert page.tags == plain.tags
        assert len(page.scripts) == len(plain.scripts)
        assert name in page.text
        shown = charts(page)
        assert len(shown) == 8
        for text in texts(shown):
            assert "<" not in text

    holds()


def test_the_page_asks_nobody_for_anything() -> None:
    """No address in a tag, a policy that forbids requests, and Plotly inside, once."""
    page = Reader(report_html(record_with("plain")))
    assert not [tag for tag, given in page.tags if given.keys() & {"src", "href", "action", "data"}]
    (policy,) = (given["content"] for tag, given in page.tags if given.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    assert sum(len(script) > 1_000_000 for script in page.scripts) == 1


@pytest.mark.usefixtures("small_bundle")
def test_what_a_report_shows() -> None:
    """Metrics beside the baseline, and a chart for each thing that is known."""
    page = Reader(report_html(record_with("plain")))
    assert "validation/accuracy0.80.5" in page.text
    titles = [layout["title"]["text"] for _, layout in charts(page)]
    assert [title.partition(":")[0].partition(" (")[0] for title in titles] == [
        "Learning curves",
        "Importances",
        "Confusion matrix",
        "Calibration",
        "Residuals",
        "Residuals",
        "Trials",
        "Best score by time",
    ]
    bare = Reader(report_html(RunRecord(run_of(1, {}, {}), {}, None, [])))
    assert charts(bare) == []
    assert "run_0000000000000001" in bare.text


@pytest.mark.usefixtures("small_bundle")
@pytest.mark.parametrize(
    ("metric", "best"), [("validation/accuracy", [0.5, 0.7, 0.7]), ("validation/log_loss", [0.5, 0.5, 0.1])]
)
def test_trials_are_compared_by_their_score(metric: str, best: list[float]) -> None:
    """By the direction of the metric and the time of their end; only what varies is an axis."""
    scores = {1: 0.5, 3: 0.1, 2: 0.7}
    trials = [
        run_of(number, {"C": number, "kind": "a", "solver": f"s{number}"}, {metric: scores[number]})
        for number in scores
    ]
    trials += [run_of(4, {"C": 4}, {}), run_of(5, {"C": 5}, {metric: float("nan")})]
    page = Reader(report_html(RunRecord(run_of(9, {"metric": metric.partition("/")[2]}, {}), {}, None, trials)))
    (lines, _), (times, _) = charts(page)
    assert [axis["label"] for axis in lines[0]["dimensions"]] == ["C", "solver", metric]
    assert lines[0]["dimensions"][1]["ticktext"] == ["s1", "s2", "s3"]
    assert times[1]["y"] == best


@pytest.mark.usefixtures("small_bundle")
def test_classes_that_look_like_numbers_or_dates_stay_names() -> None:
    """Plotly would sort them on an axis of numbers or of time."""
    names = ["1", "01", "2024-01-01"]
    found = Diagnostics(rows=3, confusion=Confusion(names, False, [[1, 0, 0], [0, 1, 0], [0, 0, 1]]))
    ((_, layout),) = charts(Reader(report_html(RunRecord(run_of(1, {}, {}), {}, found, []))))
    assert layout["xaxis"]["ticktext"] == layout["yaxis"]["ticktext"] == names
    assert layout["xaxis"]["tickvals"] == [0, 1, 2]


@pytest.mark.usefixtures("small_bundle")
def test_each_name_of_an_axis_has_room() -> None:
    """Thirty columns get a taller chart than three; labels would cover each other."""

    def height(columns: int) -> int:
        found = Diagnostics(rows=9, importances=[Importance(f"c{i}", 0.1) for i in range(columns)])
        page = report_html(RunRecord(run_of(1, {}, {}), {}, found, []))
        (pixels,) = re.findall(r"height:(\d+)px", page)
        return int(pixels)

    assert height(30) >= 30 * 18 > height(3)


def test_without_plotly_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And no file is left."""
    for module in ("plotly.io", "plotly.offline"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'ml-core-platform\[report\]'"):
        write_report(record_with("plain"), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small_bundle")
def test_a_report_replaces_no_file(tmp_path: Path) -> None:
    """A file that exists, or a folder that does not, is an error that names it."""
    path = write_report(record_with("plain"), tmp_path / "report.html")
    before = path.read_bytes()
    for file in (path, tmp_path / "absent" / "report.html"):
        with pytest.raises(InvalidRequestError, match=re.escape(str(file))):
            write_report(record_with("other"), file)
    assert path.read_bytes() == before
