"""Metrics with ``prometheus_client``: counted in this process, in a registry of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ml_core.ids import VersionRef
from ml_core.observability import metrics
from ml_core.observability.hooks import Hooks
from ml_core.observability.metrics import Kind, Metric

OTHER_TENANTS = "(other)"
"""The label of all tenants above the bound; no tenant can have this name."""


class _Children(dict[Any, Any]):
    """Values of the labels → the instrument for them: ``labels()`` takes longer than the counting itself."""

    def __init__(self, parent: Any) -> None:
        super().__init__()
        self._parent = parent

    def __missing__(self, values: Any) -> Any:
        child = self[values] = (
            self._parent.labels(*values) if isinstance(values, tuple) else self._parent.labels(values)
        )
        return child


class PrometheusHooks(Hooks):
    """Counts in a ``CollectorRegistry``; ``prometheus_client.generate_latest(hooks.registry)`` is its text.

    Args:
        registry: Where the instruments are registered; None: a new one.
        max_tenants: Tenants that get series of their own in ``mlcore_tenant_requests_total``: the first that are seen;
            the rest are counted as ``(other)``. 0: none is counted by tenant.

    Attributes:
        registry: The registry.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, max_tenants: int = 0) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._max_tenants = max_tenants
        self._tenants: set[str] = set()
        made = {metric: self._make(metric) for metric in metrics.METRICS}
        self._requests = made[metrics.REQUESTS]
        self._request_seconds = made[metrics.REQUEST_SECONDS]
        self._tenant_requests = made[metrics.TENANT_REQUESTS]
        self._queue_rows = made[metrics.QUEUE_ROWS]
        self._wait_seconds = made[metrics.QUEUE_WAIT_SECONDS]
        self._refused = made[metrics.REFUSED]
        self._batch_rows = made[metrics.BATCH_ROWS]
        self._predict_seconds = made[metrics.PREDICT_SECONDS]
        self._load_seconds = made[metrics.LOAD_SECONDS]
        self._load_failures = made[metrics.LOAD_FAILURES]
        self._evictions = made[metrics.EVICTIONS]
        self._resident_models = made[metrics.RESIDENT_MODELS]
        self._resident_bytes = made[metrics.RESIDENT_BYTES]
        self._generation = made[metrics.GENERATION]
        self._read_timestamp = made[metrics.READ_TIMESTAMP]
        self._read_failures = made[metrics.READ_FAILURES]
        self._epochs = made[metrics.EPOCHS]
        self._log_queued = made[metrics.LOG_QUEUED]
        self._log_written = made[metrics.LOG_WRITTEN]
        self._log_withheld = made[metrics.LOG_WITHHELD]
        self._log_lost = made[metrics.LOG_LOST]
        self._log_write_seconds = made[metrics.LOG_WRITE_SECONDS]
        self._trainings = made[metrics.TRAININGS]
        self._training_failures = made[metrics.TRAINING_FAILURES]
        self._training_rows = made[metrics.TRAINING_ROWS]
        self._training_seconds = made[metrics.TRAINING_SECONDS]

    def _make(self, metric: Metric) -> Any:
        made: Any
        if metric.kind is Kind.HISTOGRAM:
            made = Histogram(metric.name, metric.meaning, metric.labels, registry=self.registry, buckets=metric.buckets)
        else:
            instrument = Counter if metric.kind is Kind.COUNTER else Gauge
            made = instrument(metric.name, metric.meaning, metric.labels, registry=self.registry)
        return _Children(made) if metric.labels else made

    def request_ended(self, route: str, status: int, seconds: float, tenant: str | None) -> None:
        """See ``Hooks``."""
        self._requests[route, status].inc()
        self._request_seconds[route].observe(seconds)
        if tenant is not None and self._max_tenants:
            self._tenant_requests[self._listed(tenant), status].inc()

    def _listed(self, tenant: str) -> str:
        if tenant not in self._tenants:
            if len(self._tenants) >= self._max_tenants:
                return OTHER_TENANTS
            self._tenants.add(tenant)
        return tenant

    def rows_queued(self, rows: int) -> None:
        """See ``Hooks``."""
        self._queue_rows.inc(rows)

    def rows_dequeued(self, rows: int) -> None:
        """See ``Hooks``."""
        self._queue_rows.dec(rows)

    def request_refused(self, reason: str) -> None:
        """See ``Hooks``."""
        self._refused[reason].inc()

    def batch_predicted(self, requests: int, rows: int, seconds: float) -> None:  # noqa: ARG002 - the rows are counted
        """See ``Hooks``."""
        self._batch_rows.observe(rows)
        self._predict_seconds.observe(seconds)

    def request_predicted(self, version: VersionRef, rows: int, waited_s: float, seconds: float) -> None:  # noqa: ARG002
        """See ``Hooks``; no series for a version, of which there may be 20,000."""
        self._wait_seconds.observe(waited_s)

    def model_loaded(self, version: VersionRef, seconds: float) -> None:  # noqa: ARG002 - as above
        """See ``Hooks``."""
        self._load_seconds.observe(seconds)

    def model_load_failed(self, version: VersionRef, code: str, seconds: float) -> None:  # noqa: ARG002 - as above
        """See ``Hooks``."""
        self._load_failures[code].inc()

    def model_evicted(self) -> None:
        """See ``Hooks``."""
        self._evictions.inc()

    def models_resident(self, models: int, size_bytes: int) -> None:
        """See ``Hooks``."""
        self._resident_models.set(models)
        self._resident_bytes.set(size_bytes)

    def assignment_read(self, at: float) -> None:
        """See ``Hooks``."""
        self._read_timestamp.set(at)

    def assignment_applied(self, generation: int, seconds: float, *, is_new_epoch: bool) -> None:  # noqa: ARG002
        """See ``Hooks``."""
        self._generation.set(generation)
        if is_new_epoch:
            self._epochs.inc()

    def assignment_read_failed(self, code: str) -> None:
        """See ``Hooks``."""
        self._read_failures[code].inc()

    def predictions_queued(self, rows: int) -> None:
        """See ``Hooks``."""
        self._log_queued.set(rows)

    def predictions_written(self, rows: int, withheld: int, seconds: float) -> None:
        """See ``Hooks``."""
        self._log_written.inc(rows)
        self._log_withheld.inc(withheld)
        self._log_write_seconds.observe(seconds)

    def predictions_lost(self, reason: str, rows: int) -> None:
        """See ``Hooks``."""
        self._log_lost[reason].inc(rows)

    def training_ended(self, model_id: str, stages: Mapping[str, float], rows: int, error: str | None) -> None:  # noqa: ARG002
        """See ``Hooks``."""
        for stage, seconds in stages.items():
            self._training_seconds[stage].observe(seconds)
        self._training_rows.inc(rows)
        if error is None:
            self._trainings.inc()
        else:
            self._training_failures[list(stages)[-1]].inc()
