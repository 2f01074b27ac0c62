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
from ml_core.observability.hooks import EndedTraining, Hooks
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
        self._sums = {each: _Sums(each) for each in METRICS if each.kind is not Kind.HISTOGRAM}
        self._histograms = {each: _Histograms(each) for each in METRICS if each.kind is Kind.HISTOGRAM}
        # What each request changes: the hash of a metric walks its fields.
        self._requests, self._tenant_requests = self._sums[metrics.REQUESTS], self._sums[metrics.TENANT_REQUESTS]
        self._request_seconds = self._histograms[metrics.REQUEST_SECONDS]
        self._batch_rows = self._histograms[metrics.BATCH_ROWS]
        self._predict_seconds = self._histograms[metrics.PREDICT_SECONDS]
        self._queue_wait_seconds = self._histograms[metrics.QUEUE_WAIT_SECONDS]
        self._queue_rows = self._sums[metrics.QUEUE_ROWS]
        self.registry.register(self)

    def collect(self) -> Iterator[Family]:
        """Every metric as it is now; called by the registry."""
        with self._lock:
            made: dict[Metric, _Sums | _Histograms] = {**self._sums, **self._histograms}
            values = {metric: made[metric].copied() for metric in METRICS}
        return map(_family, values.keys(), values.values())

    def _add(self, metric: Metric, amount: float, *labels: Any) -> None:
        with self._lock:
            self._sums[metric][labels] += amount

    def _set(self, metric: Metric, value: float) -> None:
        with self._lock:
            self._sums[metric][()] = value

    def _observe(self, metric: Metric, value: float, *labels: Any) -> None:
        with self._lock:
            self._histograms[metric].observe(labels, value)

    def request_ended(self, route: str, status: int, seconds: float, tenant: str | None) -> None:
        with self._lock:  # once: this is called for each request
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
        with self._lock:
            self._queue_rows[()] += rows

    def rows_dequeued(self, rows: int) -> None:
        with self._lock:
            self._queue_rows[()] -= rows

    def request_refused(self, reason: str) -> None:
        self._add(metrics.REFUSED, 1, reason)

    def batch_predicted(self, requests: int, rows: int, seconds: float) -> None:  # noqa: ARG002 - the rows are counted
        with self._lock:
            self._batch_rows.observe((), rows)
            self._predict_seconds.observe((), seconds)

    # There is no series for a version, of which there may be 20,000.

    def request_predicted(self, version: VersionRef, rows: int, waited_s: float, seconds: float) -> None:  # noqa: ARG002
        with self._lock:
            self._queue_wait_seconds.observe((), waited_s)

    def model_loaded(self, version: VersionRef, seconds: float) -> None:  # noqa: ARG002 - as above
        self._observe(metrics.LOAD_SECONDS, seconds)

    def model_load_failed(self, version: VersionRef, code: str, seconds: float) -> None:  # noqa: ARG002 - as above
        self._add(metrics.LOAD_FAILURES, 1, code)

    def model_evicted(self) -> None:
        self._add(metrics.EVICTIONS, 1)

    def models_resident(self, models: int, size_bytes: int) -> None:
        self._set(metrics.RESIDENT_MODELS, models)
        self._set(metrics.RESIDENT_BYTES, size_bytes)

    def assignment_read(self, at: float) -> None:
        self._set(metrics.READ_TIMESTAMP, at)

    def assignment_applied(self, generation: int, seconds: float, *, is_new_epoch: bool) -> None:  # noqa: ARG002
        self._set(metrics.GENERATION, generation)
        self._add(metrics.EPOCHS, is_new_epoch)

    def assignment_read_failed(self, code: str) -> None:
        self._add(metrics.READ_FAILURES, 1, code)

    def predictions_queued(self, rows: int) -> None:
        self._set(metrics.LOG_QUEUED, rows)

    def predictions_written(self, rows: int, withheld: int, seconds: float) -> None:
        self._add(metrics.LOG_WRITTEN, rows)
        self._add(metrics.LOG_WITHHELD, withheld)
        self._observe(metrics.LOG_WRITE_SECONDS, seconds)

    def predictions_lost(self, reason: str, rows: int) -> None:
        self._add(metrics.LOG_LOST, rows, reason)

    def cache_looked_up(self, *, is_hit: bool) -> None:
        self._add(metrics.CACHE_LOOKUPS, 1, "hit" if is_hit else "miss")

    def cache_failed(self, reason: str) -> None:
        self._add(metrics.CACHE_ERRORS, 1, reason)

    def training_ended(self, training: EndedTraining) -> None:
        for stage, seconds in training.stages.items():
            self._observe(metrics.TRAINING_SECONDS, seconds, stage)
        self._add(metrics.TRAINING_ROWS, training.rows)
        if training.error is None:
            self._add(metrics.TRAININGS, 1)
        else:
            self._add(metrics.TRAINING_FAILURES, 1, list(training.stages)[-1])
