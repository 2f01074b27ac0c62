"""The direction of each metric, and bounds of a metric as text: ``accuracy>=0.8``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ml_core.exceptions import InvalidRequestError

# Metric → whether a higher value is better. Descriptive metrics without a direction, such as ``clusters``, are absent.
HIGHER_IS_BETTER: Mapping[str, bool] = {
    "accuracy": True,
    "adjusted_rand": True,
    "average_precision": True,
    "balanced_accuracy": True,
    "brier_score": False,
    "davies_bouldin": False,
    "f1": True,
    "f1_macro": True,
    "f1_weighted": True,
    "log_loss": False,
    "loss": False,
    "mae": False,
    "mape": False,
    "max_error": False,
    "mse": False,
    "precision": True,
    "r2": True,
    "recall": True,
    "rmse": False,
    "roc_auc": True,
    "silhouette": True,
}
_FORM = re.compile(r"\s*([^<>=!~]*[^<>=!~\s])\s*([<>=!~]+)\s*(\S+)\s*")
_FIELDS = {">=": "at_least", "<=": "at_most"}


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of versions; ``higher_is_better`` is None if it has no direction, or one that is not known."""

    split: str
    metric: str
    higher_is_better: bool | None


@dataclass(frozen=True, slots=True)
class MetricBound:
    """A lower or upper bound of a metric, such as ``accuracy``, or with the split ``train/accuracy``."""

    name: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def split(self) -> str:
        """The split in the name; ``validation`` if the name has none."""
        split, slash, _ = self.name.rpartition("/")
        return split if slash else "validation"

    @property
    def metric(self) -> str:
        """The metric without its split."""
        return self.name.rpartition("/")[2]


def parse_bound(text: str) -> MetricBound:
    """Parse a bound such as ``accuracy>=0.8`` or ``train/mae<=3``.

    Raises:
        InvalidRequestError: The text has another form.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise _refused(f"{text!r} is not a bound of a metric.")
    name, sign, number = found.groups()
    if sign not in _FIELDS:
        raise _refused(f"{text!r} has the sign {sign!r}: a bound has >= (at least) or <= (at most).")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if math.isnan(value):  # also of the text "nan", which float() takes: no metric would compare with it
        raise _refused(f"{text!r} has no number after {sign}.")
    return MetricBound(name, **{_FIELDS[sign]: value})


def _refused(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, remedy="Write it as 'accuracy>=0.8' or 'train/mae<=3'.", field="metrics")
