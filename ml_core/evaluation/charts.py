"""Charts as inline SVG: no script, no request, readable in print, on light and dark pages and on a telephone.

Colours are classes of the page's style sheet (``page.py``). All names are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ml_core.domain.diagnostics import CalibrationBin, Histogram, ResidualBin
from ml_core.domain.html import escaped

Point = tuple[float, float]

COLOURS: Final = 6
"""Lines that have a colour of their own; the style sheet has the classes ``c0`` to ``c5``."""
_WIDTH, _HEIGHT = 420, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 44
_TICKS = 5
_BAR_SHARE = 0.3  # of the height of a calibration chart, for its counts


@dataclass(frozen=True, slots=True)
class Axes:
    """The plane of a chart, from the lowest to the highest value of both axes; draws what is in it."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    parts: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> Point:
        """The place of a point, in units of the drawing."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (_LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM))

    def line(self, points: Iterable[Point], kind: str) -> None:
        """A line through points; a single point is a dot."""
        places = [self.at(*point) for point in points]
        if len(places) == 1:
            self.parts.append(f'<circle class="dot {kind}" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="2.5"/>')
        else:
            self.parts.append(f'<polyline class="line {kind}" points="{_path(places)}"/>')

    def dot(self, x: float, y: float, kind: str, title: str) -> None:
        """A dot; the title is shown where a pointer rests on it."""
        across, down = self.at(x, y)
        place = f'cx="{across:.1f}" cy="{down:.1f}" r="4"'
        self.parts.append(f'<circle class="dot {kind}" {place}><title>{escaped(title)}</title></circle>')

    def bar(self, x: tuple[float, float], y: float, kind: str, title: str) -> None:
        """A bar from the bottom of the chart."""
        (left, top), (right, bottom) = self.at(x[0], y), self.at(x[1], self.y[0])
        self.parts.append(
            f'<rect class="{kind}" x="{left + 1:.1f}" y="{top:.1f}" width="{max(right - left - 2, 1):.1f}" '
            f'height="{max(bottom - top, 0):.1f}"><title>{escaped(title)}</title></rect>'
        )

    def text(self, x: float, y: float, text: str, raised: float = 4) -> None:
        """A small text, centred above a point."""
        across, down = self.at(x, y)
        self.parts.append(f'<text class="small" x="{across:.1f}" y="{down - raised:.1f}">{escaped(text)}</text>')

    def svg(self, title: str) -> str:
        """The whole chart."""
        left, bottom = self.at(self.x[0], self.y[0])
        grid = []
        for value in ticks(*self.x):
            across, _ = self.at(value, self.y[0])
            grid.append(f'<text class="x" x="{across:.1f}" y="{bottom + 16:.1f}">{short(value)}</text>')
        for value in ticks(*self.y):
            _, down = self.at(self.x[0], value)
            grid.append(f'<line class="grid" x1="{left}" x2="{_WIDTH - _RIGHT}" y1="{down:.1f}" y2="{down:.1f}"/>')
            grid.append(f'<text class="y" x="{left - 6}" y="{down + 4:.1f}">{short(value)}</text>')
        across, middle = (left + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
        labels = (
            f'<text class="x label" x="{across:.0f}" y="{_HEIGHT - 6}">{escaped(self.x_label)}</text>'
            f'<text class="x label" transform="translate(11 {middle:.0f}) rotate(-90)">{escaped(self.y_label)}</text>'
        )
        return (
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escaped(title)}">'
            f"{''.join(grid)}{''.join(self.parts)}{labels}</svg>"
        )


def calibration(bins: Sequence[CalibrationBin]) -> str:
    """The share of right answers by probability, beside the diagonal; below, the rows of each bin."""
    lowest = math.floor(min(each.probability for each in bins) * 10) / 10
    axes = Axes((min(lowest, 0.9), 1.0), (0.0, 1.0), "mean probability of the predicted class", "share right")
    most = max(each.rows for each in bins)
    for each in bins:
        start = min(math.floor(each.probability * 10) / 10, 0.9)
        height = _BAR_SHARE * each.rows / most
        axes.bar((start, start + 0.1), height, "bar pale", f"{each.rows:,} rows")
        axes.text(start + 0.05, height, f"{each.rows:,}")
    axes.line([(axes.x[0], axes.x[0]), (1.0, 1.0)], "ideal")
    axes.line([(each.probability, each.share_right) for each in bins], "c0")
    for each in bins:
        title = f"probability {each.probability:.3f}, right {each.share_right:.3f}, {each.rows:,} rows"
        axes.dot(each.probability, each.share_right, "c0", title)
    return axes.svg("Calibration")


def residuals(bins: Sequence[ResidualBin]) -> str:
    """The mean residual by prediction, with its standard deviation as a bar."""
    spans = [(each.residual - each.spread, each.residual + each.spread) for each in bins]
    y = padded(min(0.0, *(low for low, _ in spans)), max(0.0, *(high for _, high in spans)))
    x = padded(min(each.prediction for each in bins), max(each.prediction for each in bins))
    axes = Axes(x, y, "prediction", "truth minus prediction")
    axes.line([(x[0], 0.0), (x[1], 0.0)], "ideal")
    for each, (low, high) in zip(bins, spans, strict=True):
        axes.line([(each.prediction, low), (each.prediction, high)], "c0")
        title = (
            f"prediction {each.prediction:.5g}, residual {each.residual:.5g} ± {each.spread:.5g}, {each.rows:,} rows"
        )
        axes.dot(each.prediction, each.residual, "c0", title)
    return axes.svg("Residuals by prediction")


def histogram(of: Histogram, label: str) -> str:
    """Rows by value."""
    axes = Axes((of.edges[0], of.edges[-1]), (0.0, max(of.counts) * 1.05), label, "rows")
    for low, high, count in zip(of.edges, of.edges[1:], of.counts, strict=False):
        axes.bar((low, high), count, "bar", f"{low:.4g} to {high:.4g}: {count:,} rows")
    return axes.svg(f"Rows by {label}")


def lines(of: Mapping[str, Sequence[Point]], x_label: str, y_label: str, title: str) -> str:
    """A line for each name, with a legend."""
    drawn = {name: points for name, points in of.items() if points}
    if not drawn:
        return ""
    every = [point for points in drawn.values() for point in points]
    x = (min(x for x, _ in every), max(x for x, _ in every))
    axes = Axes(x if x[0] < x[1] else padded(*x), padded(*_span(y for _, y in every)), x_label, y_label)
    for number, points in enumerate(drawn.values()):
        axes.line(points, f"c{number % COLOURS}")
    return axes.svg(title) + legend(drawn)


def legend(names: Iterable[str]) -> str:
    """The colours of lines."""
    items = (f'<li class="c{number % COLOURS}">{escaped(name)}</li>' for number, name in enumerate(names))
    return f'<ul class="legend">{"".join(items)}</ul>'


def padded(low: float, high: float) -> tuple[float, float]:
    """A range with a margin, and never of length 0."""
    margin = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two others: multiples of 1, 2 or 5 times a power of ten (Heckbert, 1990)."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if rough <= factor * power * 1.001)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number of an axis: 0.25, 1,500, 2M."""
    size = abs(value)
    for least, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= least:
            return f"{value / (1e3 if unit == 'k' else least):.3g}{unit}" if size < 1e15 else f"{value:.2g}"
    return f"{value:.2g}" if 0 < size < 1e-3 else f"{round(value, 4):,g}"


def _span(values: Iterable[float]) -> tuple[float, float]:
    known = [*values]
    return min(known), max(known)


def _path(places: Iterable[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
