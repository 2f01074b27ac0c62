"""The HTML report of a run: parameters, metrics, what its training found on held-out rows, and its trials."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ml_core.domain.diagnostics import Diagnostics
from ml_core.domain.html import escaped
from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.domain.run import flat
from ml_core.domain.version import headline_metric
from ml_core.evaluation import charts
from ml_core.evaluation import page as html
from ml_core.exceptions import InvalidRequestError

MAX_TRIALS: Final = 1_000
MAX_CURVES: Final = 20
_MAX_LISTED = 20
_MAX_PARAMETERS = 6
_LOG_FROM = 100.0  # the ratio of largest to smallest value from which a parameter was searched by orders of magnitude
_LARGEST = 1e150  # differences of two are still floats
_HELD_OUT = "validation/"
_HALVES = "Measured on halves of the held-out rows, whose intervals were made of the other half."

Curves = Mapping[str, tuple[Sequence[int], Sequence[float | None]]]


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
    curves: Curves
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


def write_report(page: str, file: str | Path) -> Path:
    """Write a report as a file that does not exist yet.

    Returns:
        Its path.

    Raises:
        InvalidRequestError: The file exists or can't be written.
    """
    path = Path(file)
    try:
        with path.open("x", encoding="utf-8") as opened:
            opened.write(page)
    except OSError as error:
        raise InvalidRequestError(
            f"The file {path} can't be written: {error.strerror}.", remedy="Name another file.", field="file"
        ) from error
    return path


def run_report(record: RunRecord) -> str:
    """The report of a run as a page."""
    run, found = record.run, record.diagnostics
    title = f"Run {run.run_id} of {run.model_id}"
    facts = {
        "status": run.status,
        "kind": run.kind,
        "versions": run.versions,
        "started": run.started_at,
        "finished": run.finished_at,
        "error": run.error,
    }
    baseline = found.baseline if found else {}
    metrics = [
        (name, of.last_value, baseline.get(name.removeprefix(_HELD_OUT)) if name.startswith(_HELD_OUT) else None)
        for name, of in run.metrics.items()
    ]
    width = 3 if baseline else 2
    return html.page(
        title,
        f"<h1>{escaped(title)}</h1>",
        [
            html.facts(facts),
            html.bullets(found.notes if found else (), "notes"),
            html.section(
                "Metrics", html.table(("metric", "last value", "baseline")[:width], [row[:width] for row in metrics])
            ),
            html.section("Learning curves", learning_curves(record.curves)),
            *held_out_sections(found),
            html.section("Trials", *_trials(run, record.trials)),
            html.section("Parameters", html.table(("parameter", "value"), flat(run.parameters))),
        ],
    )


def learning_curves(curves: Curves) -> str:
    """All curves in one chart; nothing without any."""
    points = {
        name: [(step, value) for step, value in zip(*of, strict=True) if value is not None and is_finite(value)]
        for name, of in curves.items()
    }
    return html.charts([("", "", charts.lines(points, "step", "value", "Learning curves"))])


def held_out_sections(found: Diagnostics | None) -> list[str]:
    """What a training found on its held-out rows, and which columns matter to the model."""
    if found is None:
        return []
    drawn = []
    if found.calibration:
        drawn.append(("Calibration", "pale bars: rows of each bin", charts.calibration(found.calibration)))
    if found.residuals:
        drawn.append(("Residuals by prediction", "bars: one standard deviation", charts.residuals(found.residuals)))
    if found.residual_histogram is not None:
        remark = "the outer bars have all beyond"
        histogram = charts.histogram(found.residual_histogram, "truth minus prediction")
        drawn.append(("Distribution of residuals", remark, histogram))
    covered = [(f"{each.coverage:.0%}", f"{each.measured:.1%}", f"± {each.half_width:.4g}") for each in found.intervals]
    intervals = html.table(("interval", "held the truth", "half width"), covered)
    confused = "" if found.confusion is None else f"<h3>Confusion matrix</h3>{html.confusion(found.confusion)}"
    permuted = f"By how much {found.importance_metric} is worse when the values of a column are permuted."
    return [
        html.section(
            f"On {found.rows:,} held-out rows",
            confused,
            html.charts(drawn),
            f"<h3>Intervals</h3>{intervals}{html.paragraph(_HALVES, 'soft')}" if intervals else "",
        ),
        html.section("Importances", html.paragraph(permuted, "soft"), html.importances(found.importances))
        if found.importances
        else "",
    ]


def _trials(run: Any, trials: Sequence[Any]) -> list[str]:
    metric = _metric_of(run, trials)
    scored = [trial for trial in trials if metric in trial.metrics and is_finite(trial.metrics[metric].last_value)]
    if metric is None or not scored:
        return []
    higher = HIGHER_IS_BETTER.get(metric.rpartition("/")[2], True)
    score_of = {trial.run_id: trial.metrics[metric].last_value for trial in scored}
    parameters = {trial.run_id: dict(flat(trial.parameters)) for trial in scored}
    names = list(dict.fromkeys(itertools.chain(*parameters.values())))
    varying = [name for name in names if len({repr(of.get(name)) for of in parameters.values()}) > 1]
    best_first = sorted(score_of, key=score_of.__getitem__, reverse=higher)[:_MAX_LISTED]
    rows = [(run_id, score_of[run_id], *(parameters[run_id].get(name) for name in varying)) for run_id in best_first]
    ended = sorted(scored, key=lambda trial: trial.finished_at or trial.started_at)
    so_far = [*itertools.accumulate((score_of[trial.run_id] for trial in ended), max if higher else min)]
    steps = [(float(at), score) for number, score in enumerate(so_far, 1) for at in (number, number + 1)]
    best = charts.lines({"best so far": steps}, "trials that ended", metric, "Best score")
    given = {
        name: {run_id: of[name] for run_id, of in parameters.items() if of.get(name) is not None} for name in varying
    }
    numeric = {
        name: [(value, score_of[run_id]) for run_id, value in of.items()]
        for name, of in given.items()
        if all(map(is_finite, of.values()))
    }
    drawn = [(name, "", _scores_by(name, of, metric)) for name, of in [*numeric.items()][:_MAX_PARAMETERS]]
    listed = f"The best {len(rows)} of {len(scored):,}." if len(rows) < len(scored) else ""
    return [
        html.charts([("Best score by time", "", best), *drawn]),
        html.paragraph(listed, "soft"),
        html.table(("run", metric, *varying), rows),
    ]


def _scores_by(name: str, points: Sequence[tuple[Any, float]], metric: str) -> str:
    """Each trial's score by a parameter; by its logarithm where it was searched over orders of magnitude."""
    values = [float(value) for value, _ in points]
    if min(values) > 0 and max(values) / min(values) >= _LOG_FROM:
        values, label = [math.log10(value) for value in values], f"log10 of {name}"
    else:
        label = name
    scores = [score for _, score in points]
    axes = charts.Axes(charts.padded(min(values), max(values)), charts.padded(min(scores), max(scores)), label, metric)
    for value, score in zip(values, scores, strict=True):
        axes.dot(value, score, "c0", f"{label} {value:.5g}: {score:.5g}")
    return axes.svg(f"Score by {name}")


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
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST
