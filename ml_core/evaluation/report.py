"""The HTML report of a run: one file, whose charts Plotly draws, and which loads nothing from elsewhere.

Names and values of a tenant are text in it: HTML is escaped, and so is the markup that Plotly reads in labels.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from ml_core.domain.diagnostics import Diagnostics
from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.domain.run import flat
from ml_core.domain.version import headline_metric
from ml_core.exceptions import ConfigurationError, InvalidRequestError

MAX_TRIALS: Final = 1_000
MAX_CURVES: Final = 20
_MAX_LABEL = 40
_MAX_BARS = 30
_MAX_DIMENSIONS = 12
_HEIGHT, _AROUND, _LINE = 420, 180, 18
_HELD_OUT = "validation/"
# Parallel coordinates are drawn by WebGL, whose code generator evaluates text of the library itself.
_POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"
_STYLE = """body{font:14px system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse}td,th{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top;
overflow-wrap:anywhere}h2{margin-top:2rem}"""

Figure = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is known of a run.

    Attributes:
        run: A ``Run`` of the registry, or of the control API.
        curves: Metric → its steps and their values, None where a value is not finite.
        diagnostics: What its training found on the held-out rows, if it is known.
        trials: The runs that are parts of it, at most ``MAX_TRIALS``.
    """

    run: Any
    curves: Mapping[str, tuple[Sequence[int], Sequence[float | None]]]
    diagnostics: Diagnostics | None
    trials: Sequence[Any]


def record_of(
    run: Any, series: Callable[[str], Mapping[str, Any]], diagnostics: Diagnostics | None, trials: Iterable[Any]
) -> RunRecord:
    """What is known of a run; ``series`` gives the JSON form of a metric's ``Series``."""
    found = {name: series(name) for name in curves_of(run)}
    curves = {name: (of["steps"], of["values"]) for name, of in found.items()}
    return RunRecord(run, curves, diagnostics, [*itertools.islice(trials, MAX_TRIALS)])


def curves_of(run: Any) -> list[str]:
    """The metrics of a run that have more than one point, at most ``MAX_CURVES``."""
    return [name for name, of in run.metrics.items() if of.points > 1][:MAX_CURVES]


def write_report(record: RunRecord, file: str | Path) -> Path:
    """Write the report as a file that does not exist yet.

    Returns:
        Its path.

    Raises:
        ConfigurationError: Plotly is not installed.
        InvalidRequestError: The file exists or can't be written.
    """
    page, path = report_html(record), Path(file)
    try:
        with path.open("x", encoding="utf-8") as opened:
            opened.write(page)
    except OSError as error:
        raise InvalidRequestError(
            f"The file {path} can't be written: {error.strerror}.", remedy="Name another file.", field="file"
        ) from error
    return path


def report_html(record: RunRecord) -> str:
    """The report as a page.

    Raises:
        ConfigurationError: Plotly is not installed.
    """
    try:
        from plotly.io import to_html
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ConfigurationError(
            "Plotly, which draws the report, is not installed.",
            remedy="Run: pip install 'ml-core-platform[report]'",
            setting="report",
        ) from None
    run, found = record.run, record.diagnostics
    figures = [_curves(record.curves), *(_of_diagnostics(found) if found else ()), *_of_trials(run, record.trials)]
    drawn = [
        to_html(
            figure,
            full_html=False,
            include_plotlyjs=False,
            config={"displaylogo": False},
            default_height=f"{_height(figure)}px",
            div_id=f"figure-{number}",
        )
        for number, figure in enumerate(figure for figure in figures if figure)
    ]
    title = f"Run {run.run_id} of {run.model_id}"
    notes = "".join(f"<p>{_text(note)}</p>" for note in (found.notes if found else ()))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><title>{_text(title)}</title>'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body><h1>{_text(title)}</h1>"
        f"{_tables(record)}{notes}{''.join(drawn)}</body></html>"
    )


def _height(figure: Figure) -> int:
    """Pixels; an axis of names gets room for each of them."""
    names = len(figure["layout"]["yaxis"].get("ticktext", ()))
    return max(_HEIGHT, _AROUND + _LINE * names)


def _text(value: Any) -> str:
    return html.escape(f"{value:.5g}" if isinstance(value, float) else str(value))


def _moment(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _cell(value: Any) -> str:
    return "-" if value is None else _text(value)


def _label(value: Any) -> str:
    """A text for Plotly, which reads tags and entities in labels."""
    text = str(value)
    return html.escape(text if len(text) <= _MAX_LABEL else f"{text[: _MAX_LABEL - 1]}…", quote=False)


def _tables(record: RunRecord) -> str:
    run = record.run
    facts = {
        "status": run.status,
        "kind": run.kind,
        "versions": ", ".join(run.versions),
        "started": _moment(run.started_at),
        "finished": _moment(run.finished_at),
        "error": run.error,
    }
    baseline = record.diagnostics.baseline if record.diagnostics else {}
    metrics = [
        (name, of.last_value, baseline.get(name.removeprefix(_HELD_OUT)) if name.startswith(_HELD_OUT) else None)
        for name, of in run.metrics.items()
    ]
    return (
        _table("Run", ("", ""), ((name, value) for name, value in facts.items() if value))
        + _table("Parameters", ("parameter", "value"), flat(run.parameters))
        + _table("Metrics", ("metric", "last value", "baseline"), metrics)
    )


def _table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = ["".join(f"<td>{_cell(cell)}</td>" for cell in row) for row in rows]
    if not lines:
        return ""
    head = "".join(f"<th>{_text(name)}</th>" for name in header)
    return f"<h2>{_text(title)}</h2><table><tr>{head}</tr><tr>{'</tr><tr>'.join(lines)}</tr></table>"


def _figure(title: str, data: Sequence[Figure], x: str = "", y: str = "", **layout: Figure) -> Figure:
    axes = {name: {"title": {"text": text}, "automargin": True} for name, text in (("xaxis", x), ("yaxis", y))}
    merged = {name: {**axis, **layout.get(name, {})} for name, axis in axes.items()}
    return {"data": [*data], "layout": {"title": {"text": title}, "template": "plotly_white", **merged}}


def _ticks(labels: Sequence[Any]) -> dict[str, Any]:
    """An axis of names; by number, since Plotly takes some names for numbers or dates."""
    return {"tickmode": "array", "tickvals": [*range(len(labels))], "ticktext": [*map(_label, labels)]}


def _curves(curves: Mapping[str, tuple[Sequence[int], Sequence[float | None]]]) -> Figure | None:
    lines = [
        {"type": "scatter", "mode": "lines", "name": _label(name), "x": [*steps], "y": [*values]}
        for name, (steps, values) in curves.items()
    ]
    return _figure("Learning curves", lines, "step", "value") if lines else None


def _of_diagnostics(found: Diagnostics) -> Iterable[Figure]:
    if found.importances:
        shown = found.importances[:_MAX_BARS][::-1]
        bars = {"type": "bar", "orientation": "h", "x": [each.worse_by for each in shown], "y": [*range(len(shown))]}
        title = f"Importances: by how much {_label(found.importance_metric)} is worse when a column is permuted"
        yield _figure(title, [bars], yaxis=_ticks([each.column for each in shown]))
    if (confusion := found.confusion) is not None:
        names = [*confusion.classes, *(["(others)"] if confusion.has_others else [])]
        cells = {"type": "heatmap", "z": [*map(list, confusion.counts)], "colorscale": "Blues", "texttemplate": "%{z}"}
        axes = {"xaxis": _ticks(names), "yaxis": {**_ticks(names), "autorange": "reversed"}}
        yield _figure("Confusion matrix", [cells], "predicted", "true", **axes)
    if found.calibration:
        points: Figure = {"type": "scatter", "mode": "lines+markers", "name": "model"}
        points["x"] = [each.probability for each in found.calibration]
        points["y"] = [each.share_right for each in found.calibration]
        points["text"] = [f"{each.rows} rows" for each in found.calibration]
        ideal = {"type": "scatter", "mode": "lines", "name": "ideal", "x": [0, 1], "y": [0, 1], "line": {"dash": "dot"}}
        yield _figure("Calibration", [points, ideal], "mean probability of the predicted class", "share right")
    if found.residuals:
        means: Figure = {"type": "scatter", "mode": "markers"}
        means["x"] = [each.prediction for each in found.residuals]
        means["y"] = [each.residual for each in found.residuals]
        means["error_y"] = {"type": "data", "array": [each.spread for each in found.residuals]}
        yield _figure("Residuals (truth minus prediction; bars: standard deviation)", [means], "prediction", "residual")
    if (histogram := found.residual_histogram) is not None:
        middles = [(low + high) / 2 for low, high in itertools.pairwise(histogram.edges)]
        yield _figure("Residuals", [{"type": "bar", "x": middles, "y": [*histogram.counts]}], "residual", "rows")


def _of_trials(run: Any, trials: Sequence[Any]) -> Iterable[Figure]:
    metric = _metric_of(run, trials)
    scored = [trial for trial in trials if metric in trial.metrics and is_finite(trial.metrics[metric].last_value)]
    if metric is None or not scored:
        return
    scores = [trial.metrics[metric].last_value for trial in scored]
    parameters = [dict(flat(trial.parameters)) for trial in scored]
    names = list(dict.fromkeys(itertools.chain(*parameters)))
    columns = {name: [each.get(name) for each in parameters] for name in names}
    varying = {name: values for name, values in columns.items() if len(set(map(repr, values))) > 1}
    dimensions = [_dimension(name, values) for name, values in list(varying.items())[:_MAX_DIMENSIONS]]
    line = {"color": scores, "colorscale": "Viridis", "showscale": True}
    lines = {
        "type": "parcoords",
        "dimensions": [*dimensions, {"label": _label(metric), "values": scores}],
        "line": line,
    }
    yield _figure("Trials", [lines])
    best = max if HIGHER_IS_BETTER.get(metric.rpartition("/")[2], True) else min
    ended = sorted(zip((trial.finished_at or trial.started_at for trial in scored), scores, strict=True))
    times = [moment.isoformat() for moment, _ in ended]
    steps = [*itertools.accumulate((score for _, score in ended), best)]
    each = {"type": "scatter", "mode": "markers", "name": "trial", "x": times, "y": [score for _, score in ended]}
    so_far = {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": times,
        "y": steps,
        "line": {"shape": "hv"},
    }
    yield _figure("Best score by time", [each, so_far], "end of the trial", _label(metric))


def _metric_of(run: Any, trials: Sequence[Any]) -> str | None:
    """The score of trials: what the search names, else the usual metric of the held-out rows, else any."""
    names = [name for trial in trials for name in trial.metrics]
    wanted = str(run.parameters.get("metric"))
    for name in (wanted, f"{_HELD_OUT}{wanted}"):
        if name in names:
            return name
    held_out = {name.removeprefix(_HELD_OUT): 0.0 for name in names if name.startswith(_HELD_OUT)}
    headline = headline_metric(held_out)
    return f"{_HELD_OUT}{headline[0]}" if headline else next(iter(names), None)


def is_finite(value: Any) -> bool:
    """Whether it is a number that a chart can show."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _dimension(name: str, values: Sequence[Any]) -> Figure:
    if all(map(is_finite, values)):
        return {"label": _label(name), "values": [*values]}
    texts = [str(value) for value in values]
    known = sorted(set(texts))
    numbers = [known.index(text) for text in texts]
    return {
        "label": _label(name),
        "values": numbers,
        "tickvals": [*range(len(known))],
        "ticktext": [*map(_label, known)],
    }
