"""What gates find, as values: the outcomes that follow from numbers and names alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ml_core.domain.gates import Approval, Gate, GateKind, MinMetric, NotWorse
from ml_core.ids import GateName


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a gate found.

    Attributes:
        name: The gate.
        kind: What it asked.
        passed: Whether the version may go on.
        message: In a sentence without a full stop; where it failed, by how much.
        measured: The number that decided, where there is one.
        required: What it was held against.
    """

    name: GateName
    kind: GateKind
    passed: bool
    message: str
    measured: float | None = None
    required: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-compatible description, as histories and errors carry it."""
        return {**dataclasses.asdict(self), "name": str(self.name), "kind": self.kind.value}


def judge_metric(gate: Gate, rule: MinMetric, metrics: Mapping[str, Mapping[str, float]]) -> Outcome:
    """Hold a version's recorded metrics against a gate.

    Args:
        gate: The gate.
        rule: Its rule.
        metrics: Split → metric → value.
    """
    measured = metrics.get(rule.split, {}).get(rule.metric)
    if measured is None:
        known = sorted(f"{split}/{name}" for split, values in metrics.items() for name in values)
        message = (
            f"the version has no metric {rule.metric!r} of the split {rule.split!r}, which gate {gate.name!r} asks "
            f"for; it has {', '.join(known) or 'none at all'}"
        )
        return Outcome(gate.name, gate.kind, False, message, required=rule.value)
    short = rule.value - measured if rule.is_minimum else measured - rule.value
    passed = short <= 0
    if passed:
        bound = "at least" if rule.is_minimum else "at most"
        message = f"{rule.metric} {shown(measured)} is {bound} {shown(rule.value)}"
    else:
        side = "below" if rule.is_minimum else "above"
        message = (
            f"{rule.metric} {shown(measured)} is {short:.4g} {side} the {shown(rule.value)} that gate "
            f"{gate.name!r} asks for"
        )
    return Outcome(gate.name, gate.kind, passed, message, measured, rule.value)


def judge_approvals(gate: Gate, rule: Approval, approvers: Collection[str], author: str) -> Outcome:
    """Count who approved a version, its author left out.

    Args:
        gate: The gate.
        rule: Its rule.
        approvers: Who approved the version for this environment, each once.
        author: Who registered the version.
    """
    others = sorted(set(approvers) - {author})
    by = f" (by {', '.join(others)})" if others else ""
    message = f"it has {len(others)} of {rule.count} approvals{by}"
    if len(others) < rule.count:
        message += f"; somebody other than {author}, who registered it, has to approve it"
    return Outcome(gate.name, gate.kind, len(others) >= rule.count, message, float(len(others)), float(rule.count))


@dataclass(frozen=True, slots=True)
class Interval:
    """How much better the new version is on the same rows: positive is better, whichever way the metric goes.

    Attributes:
        difference: On all the rows.
        low: The interval's lower end.
        high: Its upper end.
        candidate: The metric of the new version.
        present: That of the present one.
    """

    difference: float
    low: float
    high: float
    candidate: float
    present: float


def judge_difference(
    gate: Gate, rule: NotWorse, interval: Interval, on: str, *, against: str = "the present version"
) -> Outcome:
    """Hold the interval of a difference against the margin.

    Args:
        gate: The gate.
        rule: Its rule.
        interval: Of the difference.
        on: Which rows it was measured on, such as ``500 rows of the dataset held_out@2``.
        against: What the new version was compared with.
    """
    required = -rule.margin
    facts = (
        f"{rule.metric} is {shown(interval.candidate)} against {shown(interval.present)} of {against} on "
        f"{on}, and the {rule.confidence:.3g} interval of the difference (positive is better) is "
        f"{interval.low:.4g} to {interval.high:.4g}"
    )
    passed = interval.low >= required
    if passed:
        message = f"{facts}: not worse by more than {rule.margin:.4g}"
    else:
        message = (
            f"{facts}: its lower end is {required - interval.low:.4g} below the {required:.4g} that gate "
            f"{gate.name!r} allows"
        )
    return Outcome(gate.name, gate.kind, passed, message, interval.low, required)


def shown(value: float) -> str:
    """A number as messages show it."""
    return f"{value:.6g}"
