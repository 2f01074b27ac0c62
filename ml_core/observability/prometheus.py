"""Metrics for ``prometheus_client``: sums in this process, which a registry reads when it is asked.

The sums are kept here and not in the client's own instruments: those take a lock or two and several calls each, and a
request ends in seven of them, which costs half as much again.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from ml_core.ids import VersionRef
from ml_core.observability import metrics
from ml_core.observability.hooks import Hooks
from ml_core.observability.metrics import METRICS, Kind, Metric

OTHER_TENANTS = "(other)"
"""The label of all tenants above the bound; no tenant can have this name."""


Labels = tuple[Any, ...]


class _Sums(defaultdict[Labels, float]):
    """Values of the labels → the value of a counter or a gauge."""

    def __init__(self, metric: Metric) -> None:
        super().__init__(float)
        if not metric.labels:
            self[()] = 0.0  # there from the start, so that the first increase is seen as one

    def copied(self) -> dict[Labels, Any]:
        return dict(self)


class _Histograms(dict[Labels, list[float]]):
    """Values of the labels → observations by bucket, the last without a bound, and behind them the sum."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self._bounds = metric.buckets
        if not metric.labels:
            self.__missing__(())

    def __missing__(self, labels: Labels) -> list[float]:
        made = self[labels] = [0.0] * (len(self._bounds) + 2)
        return made

    def observe(self, labels: Labels, value: float) -> None:
        counts = self[labels]
        counts[bisect_left(self._bounds, value)] += 1  # a bucket holds what is at most its bound
        counts[-1] += value

    def copied(self) -> dict[Labels, Any]:
        return {labels: counts.copy() for labels, counts in self.items()}


def _family(metric: Metric, values: Mapping[Labels, Any]) -> Family:
    """What ``prometheus_client`` makes text of."""
    if metric.kind is Kind.HISTOGRAM:
        family = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        bounds = [*map(str, metric.buckets), "+Inf"]
        for labels, (*counts, total) in values.items():
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            family.add_metric([str(label) for label in labels], buckets, total)
        return family
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    plain = kind(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in values.items():
        plain.add_metric([str(label) for label in labels], value)
    return plain


class PrometheusHooks(Hooks, Collector):
    """Counts for a ``CollectorRegistry``; ``prometheus_client.generate_latest(hooks.registry)`` is its text.

    Args:
        registry: Where the metrics are registered; None: a new one.
        max_tenants: Tenants that get series of their own in ``mlcore_tenant_requests_total``: the first that are seen;
            the rest are counted as ``(other)``. 0: none is counted by tenant.

    Attributes:
        registry: The registry.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, max_tenants: int = 0) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._max_tenants = max_tenants
        self._tenants: set[str] = set()
        self._lock = threading.Lock()  # held for moments only: the event loop takes it
        sums = {each: _Sums(each) for each in METRICS if each.kind is not Kind.HISTOGRAM}
        histograms = {each: _Histograms(each) for each in METRICS if each.kind is Kind.HISTOGRAM}
        self._made: dict[Metric, _Sums | _Histograms] = {**sums, **histograms}
        self._requests = sums[metrics.REQUESTS]
        self._request_seconds = histograms[metrics.REQUEST_SECONDS]
        self._tenant_requests = sums[metrics.TENANT_REQUESTS]
        self._queue_rows = sums[metrics.QUEUE_ROWS]
        self._wait_seconds = histograms[metrics.QUEUE_WAIT_SECONDS]
        self._refused = sums[metrics.REFUSED]
        self._batch_rows = histograms[metrics.BATCH_ROWS]
        self._predict_seconds = histograms[metrics.PREDICT_SECONDS]
        self._load_seconds = histograms[metrics.LOAD_SECONDS]
        self._load_failures = sums[metrics.LOAD_FAILURES]
        self._evictions = sums[metrics.EVICTIONS]
        self._resident_models = sums[metrics.RESIDENT_MODELS]
        self._resident_bytes = sums[metrics.RESIDENT_BYTES]
        self._generation = sums[metrics.GENERATION]
        self._read_timestamp = sums[metrics.READ_TIMESTAMP]
        self._read_failures = sums[metrics.READ_FAILURES]
        self._epochs = sums[metrics.EPOCHS]
        self._log_queued = sums[metrics.LOG_QUEUED]
        self._log_written = sums[metrics.LOG_WRITTEN]
        self._log_withheld = sums[metrics.LOG_WITHHELD]
        self._log_lost = sums[metrics.LOG_LOST]
        self._log_write_seconds = histograms[metrics.LOG_WRITE_SECONDS]
        self._trainings = sums[metrics.TRAININGS]
        self._training_failures = sums[metrics.TRAINING_FAILURES]
        self._training_rows = sums[metrics.TRAINING_ROWS]
        self._training_seconds = histograms[metrics.TRAINING_SECONDS]
        self.registry.register(self)

    def collect(self) -> Iterator[Family]:
        """Every metric as it is now; called by the registry."""
        with self._lock:
            values = {metric: made.copied() for metric, made in self._made.items()}
        return map(_family, values.keys(), values.values())

    def request_ended(self, route: str, status: int, seconds: float, tenant: str | None) -> None:
        """See ``Hooks``."""
        with self._lock:
            self._requests[route, status] += 1
            self._request_seconds.observe((route,), seconds)
            if tenant is not None and self._max_tenants:
                self._tenant_requests[self._listed(tenant), status] += 1

    def _listed(self, tenant: str) -> str:
        if tenant not in self._tenants:
            if len(self._tenants) >= self._max_tenants:
                return OTHER_TENANTS
            self._tenants.add(tenant)
        return tenant

    def rows_queued(self, rows: int) -> None:
        """See ``Hooks``."""
        with self._lock:
            self._queue_rows[()] += rows

    def rows_dequeued(self, rows: int) -> None:
        """See ``Hooks``."""
        with self._lock:
            self._queue_rows[()] -= rows

    def request_refused(self, reason: str) -> None:
        """See ``Hooks``."""
        with self._lock:
            self._refused[reason,] += 1

    def batch_predicted(self, requests: int, rows: int, seconds: float) -> None:  # noqa: ARG002 - the rows are counted
        """See ``Hooks``."""
        with self._lock:
            self._batch_rows.observe((), rows)
            self._predict_seconds.observe((), seconds)

    def request_predicted(self, version: VersionRef, rows: int, waited_s: float, seconds: float) -> None:  # noqa: ARG002
        """See ``Hooks``; no series for a version, of which there may be 20,000."""
        with self._lock:
            self._wait_seconds.observe((), waited_s)

    def model_loaded(self, version: VersionRef, seconds: float) -> None:  # noqa: ARG002 - as above
        """See ``Hooks``."""
        with self._lock:
            self._load_seconds.observe((), seconds)

    def model_load_failed(self, version: VersionRef, code: str, seconds: float) -> None:  # noqa: ARG002 - as above
        """See ``Hooks``."""
        with self._lock:
            self._load_failures[code,] += 1

    def model_evicted(self) -> None:
        """See ``Hooks``."""
        with self._lock:
            self._evictions[()] += 1

    def models_resident(self, models: int, size_bytes: int) -> None:
        """See ``Hooks``."""
        with self._lock:
            self._resident_models[()] = models
            self._resident_bytes[()] = size_bytes

    def assignment_read(self, at: float) -> None:
        """See ``Hooks``."""
        with self._lock:
            self._read_timestamp[()] = at

    def assignment_applied(self, generation: int, seconds: float, *, is_new_epoch: bool) -> None:  # noqa: ARG002
        """See ``Hooks``."""
        with self._lock:
            self._generation[()] = generation
            self._epochs[()] += is_new_epoch

    def assignment_read_failed(self, code: str) -> None:
        """See ``Hooks``."""
        with self._lock:
            self._read_failures[code,] += 1

    def predictions_queued(self, rows: int) -> None:
        """See ``Hooks``."""
        with self._lock:
            self._log_queued[()] = rows

    def predictions_written(self, rows: int, withheld: int, seconds: float) -> None:
        """See ``Hooks``."""
        with self._lock:
            self._log_written[()] += rows
            self._log_withheld[()] += withheld
            self._log_write_seconds.observe((), seconds)

    def predictions_lost(self, reason: str, rows: int) -> None:
        """See ``Hooks``."""
        with self._lock:
            self._log_lost[reason,] += rows

    def training_ended(self, model_id: str, stages: Mapping[str, float], rows: int, error: str | None) -> None:  # noqa: ARG002
        """See ``Hooks``."""
        with self._lock:
            for stage, seconds in stages.items():
                self._training_seconds.observe((stage,), seconds)
            self._training_rows[()] += rows
            if error is None:
                self._trainings[()] += 1
            else:
                self._training_failures[list(stages)[-1],] += 1
