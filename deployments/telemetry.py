"""Metrics and traces of a Ray process: the hooks that its settings enable, and the export of metrics to Ray's agent.

``PrometheusHooks`` count in the process. A thread copies the values to ``ray.serve.metrics``, which the Ray agent of
each node exports to Prometheus on a port that is open anyway.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from prometheus_client import CollectorRegistry
from ray.serve import metrics as serve_metrics
from starlette.types import ASGIApp

from ml_core.observability.export import tracing
from ml_core.observability.hooks import NO_HOOKS, Hooks, combine
from ml_core.observability.prometheus import PrometheusHooks
from ml_core.settings import ObservabilitySettings

logger = logging.getLogger(__name__)

COPY_EVERY_S = 5.0
"""Ray's workers send their metrics to the agent every 10 s (``RAY_metrics_report_interval_ms``)."""


class Telemetry:
    """The hooks of a process.

    Args:
        settings: The settings of metrics and traces.

    Attributes:
        hooks: The hooks to pass to the parts of the process.
    """

    def __init__(self, settings: ObservabilitySettings) -> None:
        self._export: RayExport | None = None
        self._tracing = tracing(settings)
        backends: list[Hooks] = [self._tracing] if self._tracing is not None else []
        if settings.metrics:
            counting = PrometheusHooks(max_tenants=settings.per_tenant or 0)
            backends.append(counting)
            self._export = RayExport(counting.registry)
            self._export.start()
        self.hooks = combine(*backends) if backends else NO_HOOKS

    def traced(self, app: ASGIApp) -> ASGIApp:
        """Wrap an application with a span per request, if traces are enabled."""
        return self._tracing.traced(app) if self._tracing is not None else app

    def close(self) -> None:
        """Export the remaining metrics and spans."""
        self.hooks.close()
        if self._export is not None:
            self._export.stop()


class RayExport:
    """Copies the samples of a registry to Ray's metrics, on a thread. For a replica of Ray Serve.

    Histograms are exported as gauges named ``…_bucket``, ``…_sum`` and ``…_count``; ``rate`` and
    ``histogram_quantile`` ignore the type.

    Args:
        registry: The registry.
        interval_s: Seconds between two copies.
    """

    # Not Ray's own histograms: its agent would record each observation again, in 8 µs (Ray 2.60), which is an eighth of
    # a core at 4,000 requests a second. Ray does not accept finished histograms.

    def __init__(self, registry: CollectorRegistry, interval_s: float = COPY_EVERY_S) -> None:
        self._registry = registry
        self._interval_s = interval_s
        self._instruments: dict[str, Any] = {}
        self._counted: dict[tuple[str, tuple[str, ...]], float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlcore-metrics", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread after a last copy."""
        self._stopping.set()
        self._thread.join(self._interval_s)

    def copy(self) -> None:
        """Copy all samples. Not thread-safe."""
        for family in self._registry.collect():
            for sample in family.samples:
                if family.type == "counter":
                    self._count(family.name, family.documentation, sample)
                else:
                    gauge = self._instrument(serve_metrics.Gauge, sample.name, family.documentation, sample.labels)
                    gauge.set(sample.value, tags=dict(sample.labels))
            time.sleep(0)  # offers the interpreter lock to the event loop; a sample takes 2 µs

    def _count(self, name: str, meaning: str, sample: Any) -> None:
        """Add the increase of a counter since the last copy. Ray appends ``_total`` to the name."""
        key = (name, tuple(sample.labels.values()))
        more = sample.value - self._counted.get(key, 0.0)
        if more > 0:
            self._counted[key] = sample.value
            counter = self._instrument(serve_metrics.Counter, name, meaning, sample.labels)
            counter.inc(more, tags=dict(sample.labels))

    def _instrument(self, kind: Any, name: str, meaning: str, labels: dict[str, str]) -> Any:
        if name not in self._instruments:
            self._instruments[name] = kind(name, description=meaning, tag_keys=tuple(labels))
        return self._instruments[name]

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping.wait(self._interval_s)
            try:
                self.copy()
            except Exception:
                logger.exception("The metrics could not be exported to Ray.")
