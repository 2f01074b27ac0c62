"""Gates: rules, stored as data, that a version must pass before an environment may point to it.

This module defines the kinds of gates, their settings, and the results that follow from values alone.
``ml_core.registry.promotion.gate_evaluation`` reads and predicts what an evaluation needs.

``not_worse`` and ``signature_compatible`` compare with the version that the environment serves, or served last if it
was withdrawn. They pass if the environment never served a version. They fail if the last version was deleted; an admin
can override the failure.

Limits:

* **No floor across promotions.** Each ``not_worse`` gate permits a loss of its margin, so ten promotions may lose ten
  margins. Combine it with a ``min_metric`` gate, which sets a fixed floor.
* **Recorded metrics.** A ``min_metric`` gate uses the metrics that the author of the version recorded. A ``not_worse``
  gate measures by itself, on rows that only an admin names.
* **Canaries.** Gates are evaluated when a canary starts and when it finishes. Gates that are set while a canary runs do
  not prevent steps up to 99 percent; they apply to ``finish``.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from ml_core.domain.document import Document
from ml_core.domain.metric import HIGHER_IS_BETTER
from ml_core.exceptions import InvalidRequestError, did_you_mean, shown
from ml_core.ids import DatasetId, GateName


class GateKind(StrEnum):
    """The kind of a rule."""

    MIN_METRIC = "min_metric"
    NOT_WORSE = "not_worse"
    SIGNATURE_COMPATIBLE = "signature_compatible"
    DIGEST_VERIFIED = "digest_verified"
    APPROVAL = "approval"


_ROUNDING = 1e-12
"""Of the size of a metric: about a thousand times what the difference of two floats loses."""

LABEL_METRICS = ("accuracy", "balanced_accuracy", "f1_macro")
PROBABILITY_METRICS = ("brier_score", "log_loss")
NUMBER_METRICS = ("mae", "mse", "r2", "rmse")
TRAINING_SPLITS = ("train", "validation")
"""The splits for which training records metrics."""
PAIRED_METRICS = tuple(sorted((*LABEL_METRICS, *PROBABILITY_METRICS, *NUMBER_METRICS)))
"""The metrics that a ``not_worse`` gate can compare."""
MAX_RESAMPLED_ROWS = 200_000_000
"""Limit of resamples times rows. The default settings are a tenth of it and take up to two seconds of one core."""


@dataclass(frozen=True, slots=True)
class MinMetric:
    """A recorded metric of the version must be at least a value, or at most if lower is better.

    Attributes:
        metric: The metric as recorded with the version, such as ``accuracy``.
        value: The bound.
        split: The split that the metric was measured on.
        higher_is_better: The direction; required if the metric is not in ``ml_core.domain.metric``.
    """

    kind: ClassVar[GateKind] = GateKind.MIN_METRIC
    metric: str
    value: float
    split: str = "validation"
    higher_is_better: bool | None = None

    def __post_init__(self) -> None:
        if self.higher_is_better is not None or self.metric in HIGHER_IS_BETTER:
            return
        if hint := did_you_mean(self.metric, HIGHER_IS_BETTER):
            raise _unusable(
                "metric",
                f"can't be {self.metric!r}, which is not a metric of the platform",
                f"{hint}For a metric of your own, set higher_is_better to true or false.",
            )
        raise _unusable("higher_is_better", f"is required for the metric {self.metric!r}", "Set it to true or false.")

    @property
    def is_minimum(self) -> bool:
        """Whether the value is a lower bound."""
        return HIGHER_IS_BETTER[self.metric] if self.higher_is_better is None else self.higher_is_better


@dataclass(frozen=True, slots=True)
class NotWorse:
    """On held-out rows the version must not be worse than the present version by more than a margin.

    A version whose lineage names the dataset as its training data fails, because it has seen the rows. Rows of the
    dataset that reached the training data in another way are not detected.

    Attributes:
        dataset: A registered dataset.
        target: The column with the true labels or numbers.
        metric: One of ``PAIRED_METRICS``.
        margin: The permitted loss, in the unit of the metric. The Brier score is halved if both versions have two
            classes.
        number: The number of the dataset's version; None: the newest when the gate is set.
        confidence: The confidence of the two-sided interval of the difference.
        resamples: The number of resamples.
        seed: The seed of the resamples.
        max_rows: The number of rows that are sampled from a larger dataset.
    """

    kind: ClassVar[GateKind] = GateKind.NOT_WORSE
    dataset: str
    target: str
    metric: str
    margin: float
    # The number is stored when the gate is set: otherwise anyone who may register a dataset could change the gate.
    number: int | None = None
    confidence: float = 0.95
    resamples: int = 2_000
    seed: int = 0
    max_rows: int = 10_000

    def __post_init__(self) -> None:
        DatasetId(self.dataset)
        if self.metric not in PAIRED_METRICS:
            hint = did_you_mean(self.metric, PAIRED_METRICS)
            remedy = f"{hint}The gate supports: {', '.join(PAIRED_METRICS)}."
            raise _unusable("metric", f"can't be {self.metric!r}", remedy)
        _in_range("margin", self.margin, 0.0, math.inf)
        _in_range("number", 1 if self.number is None else self.number, 1, math.inf)
        _in_range("confidence", self.confidence, 0.5, 0.999)
        # Efron & Tibshirani (1993), ch. 13: 1,000 or more for percentile intervals.
        _in_range("resamples", self.resamples, 1_000, 20_000)
        _in_range("seed", self.seed, 0, 2**32 - 1)
        _in_range("max_rows", self.max_rows, 100, 100_000)
        if self.resamples * self.max_rows > MAX_RESAMPLED_ROWS:
            few = MAX_RESAMPLED_ROWS // self.max_rows
            raise _unusable("resamples", f"can't be {self.resamples} of {self.max_rows} rows", f"Give {few} or fewer.")


@dataclass(frozen=True, slots=True)
class SignatureCompatible:
    """Rows that fit the present version must fit the new one, see ``ml_core.domain.signature``."""

    kind: ClassVar[GateKind] = GateKind.SIGNATURE_COMPATIBLE


@dataclass(frozen=True, slots=True)
class DigestVerified:
    """The artifact in the store must have the registered digest."""

    kind: ClassVar[GateKind] = GateKind.DIGEST_VERIFIED


@dataclass(frozen=True, slots=True)
class Approval:
    """``count`` principals other than the author must have approved the version for this environment."""

    kind: ClassVar[GateKind] = GateKind.APPROVAL
    count: int = 1

    def __post_init__(self) -> None:
        _in_range("count", self.count, 1, 20)


Rule = MinMetric | NotWorse | SignatureCompatible | DigestVerified | Approval
RULES: Mapping[GateKind, type[Rule]] = {rule.kind: rule for rule in typing.get_args(Rule)}


@dataclass(frozen=True, slots=True)
class Gate:
    """A named rule of an environment of a model."""

    name: GateName
    rule: Rule

    @property
    def kind(self) -> GateKind:
        """The kind of its rule."""
        return self.rule.kind

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the rule, JSON-compatible; ``parse_gate`` reads them back."""
        return dataclasses.asdict(self.rule)

    def result(
        self, passed: bool, message: str, measured: float | None = None, required: float | None = None
    ) -> GateResult:
        """A result of the evaluation of this gate."""
        return GateResult(self.name, self.kind, passed, message, measured, required)


def parse_gate(name: str, kind: str, settings: Mapping[str, Any]) -> Gate:
    """Parse a gate.

    Raises:
        InvalidRequestError: The kind is unknown, or a setting is unknown, missing or invalid; names it.
        InvalidNameError: The name of the gate or of the dataset is invalid.
    """
    if kind not in RULES:
        remedy = f"{did_you_mean(kind, RULES)}Kinds are: {', '.join(RULES)}."
        raise InvalidRequestError(f"The kind of gate {kind!r} is unknown.", remedy=remedy, field="kind")
    rule = RULES[GateKind(kind)]
    wanted = {field.name: field for field in dataclasses.fields(rule)}
    for given in settings:
        if given not in wanted:
            raise _unknown(kind, given, tuple(wanted))
    missing = [name for name, field in wanted.items() if field.default is dataclasses.MISSING and name not in settings]
    if missing:
        raise _unusable(missing[0], "is missing", f"A gate of the kind {kind} needs {_listed(missing)}.")
    hints = typing.get_type_hints(rule)
    return Gate(GateName(name), rule(**{key: _typed(key, value, hints[key]) for key, value in settings.items()}))


def _typed(name: str, value: Any, hint: Any) -> Any:
    """Convert the value of a setting to the type of its field."""
    target, optional = hint, False
    if isinstance(hint, types.UnionType):
        target, optional = typing.get_args(hint)[0], True
    if value is None and optional:
        return None
    # A bool is an int in Python, and no version would pass a bound of NaN.
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if target is float and is_number:
        return float(value)
    if target is not float and isinstance(value, target) and (target is not int or is_number):
        return value
    words = {float: "a finite number", int: "a whole number", str: "a text", bool: "true or false"}
    raise _unusable(name, f"can't be {shown(value)}", f"Give {words[target]}.")


def _in_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        bounds = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
        raise _unusable(name, f"can't be {value:g}", f"Give {bounds}.")


def _unknown(kind: str, given: str, known: tuple[str, ...]) -> InvalidRequestError:
    has = f"the settings {_listed(known)}" if len(known) > 1 else f"the setting {known[0]}" if known else "no setting"
    return _unusable(given, "is unknown", f"{did_you_mean(given, known)}A gate of the kind {kind} has {has}.")


def _listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _unusable(name: str, what: str, remedy: str) -> InvalidRequestError:
    return InvalidRequestError(f"The gate's setting {name!r} {what}.", remedy=remedy, field=f"settings.{name}")


@dataclass(frozen=True, slots=True)
class GateResult(Document):
    """The result of the evaluation of one gate.

    Attributes:
        message: The reason, a sentence without a full stop.
        measured: The measured number, if the rule has one.
        required: The bound that it was compared with.
    """

    name: GateName
    kind: GateKind
    passed: bool
    message: str
    measured: float | None = None
    required: float | None = None


def evaluate_metric(gate: Gate, rule: MinMetric, metrics: Mapping[str, Mapping[str, float]]) -> GateResult:
    """Evaluate a ``min_metric`` gate by the recorded metrics of the version, split → metric → value."""
    measured = metrics.get(rule.split, {}).get(rule.metric)
    if measured is None:
        known = sorted(f"{split}/{name}" for split, values in metrics.items() for name in values)
        message = (
            f"the version has no metric {rule.metric!r} of the split {rule.split!r}, which gate {gate.name!r} "
            f"requires; its metrics are: {', '.join(known) or 'none'}"
        )
        return gate.result(False, message, required=rule.value)
    short = rule.value - measured if rule.is_minimum else measured - rule.value
    if short <= 0:
        message = f"is {'at least' if rule.is_minimum else 'at most'} {rule.value:.6g}"
    else:
        side = "below" if rule.is_minimum else "above"
        message = f"is {short:.4g} {side} the {rule.value:.6g} that gate {gate.name!r} requires"
    return gate.result(short <= 0, f"{rule.metric} {measured:.6g} {message}", measured, rule.value)


def evaluate_approvals(gate: Gate, rule: Approval, approvers: Collection[str], author: str) -> GateResult:
    """Evaluate an ``approval`` gate by the principals that approved the version for this environment.

    An approval by the author, who registered the version, does not count.
    """
    others = sorted(set(approvers) - {author})  # a set: one principal counts once
    by = f" (by {', '.join(others)})" if others else ""
    message = f"it has {len(others)} of {rule.count} approvals{by}"
    if len(others) < rule.count:
        message += f"; a principal other than the author, {author}, must approve it"
    return gate.result(len(others) >= rule.count, message, float(len(others)), float(rule.count))


@dataclass(frozen=True, slots=True)
class Interval:
    """The difference between two versions on the same rows. Positive is better for every metric.

    Attributes:
        difference: On all rows.
        low: The lower end of its confidence interval; ``high`` is the upper end.
        candidate: The metric of the new version; ``present`` is that of the present one.
    """

    difference: float
    low: float
    high: float
    candidate: float
    present: float


def evaluate_difference(
    gate: Gate, rule: NotWorse, interval: Interval, on: str, *, against: str = "the present version"
) -> GateResult:
    """Evaluate a ``not_worse`` gate: the lower end of the interval must be at least minus the margin.

    The message names the rows by ``on``, such as ``500 rows of the dataset held_out@2``, and the version that the
    candidate was compared with by ``against``.
    """
    required = -rule.margin
    facts = (
        f"{rule.metric} is {interval.candidate:.6g} against {interval.present:.6g} of {against} on {on}, and the "
        f"{rule.confidence:.3g} interval of the difference (positive is better) is {interval.low:.4g} to "
        f"{interval.high:.4g}"
    )
    short = required - interval.low
    # A loss of just the margin passes, whatever the last bit of the difference of two shares of the rows is.
    rounding = _ROUNDING * max(abs(interval.candidate), abs(interval.present), rule.margin)
    passed = short <= rounding
    if passed:
        verdict = f"not worse by more than {rule.margin:.4g}"
    else:
        verdict = f"its lower end is {short:.4g} below the {required:.4g} that gate {gate.name!r} allows"
    return gate.result(passed, f"{facts}: {verdict}", interval.low, required)
