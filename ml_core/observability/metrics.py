"""Every metric of the platform: the one table that backends, documentation and dashboard are made from or checked by.

Names follow the conventions of Prometheus. Labels are bounded: no series is added by what a caller sends, and none by
the number of tenants unless ``MLCORE_METRICS_PER_TENANT`` asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a metric behaves."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric. A key of dictionaries by identity, which costs no comparison of its fields.

    Attributes:
        name: As in Prometheus, without what a transport puts before it.
        kind: Counter, gauge or histogram.
        unit: Of its value.
        meaning: What it counts, for ``# HELP`` and the documentation.
        labels: Names of its labels.
        buckets: Upper bounds of a histogram's buckets, in its unit.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names that Prometheus stores: three for a histogram."""
        if self.kind is Kind.HISTOGRAM:
            return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")
        return (self.name,)


def _counter(name: str, unit: str, meaning: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, unit, meaning, labels)


def _gauge(name: str, unit: str, meaning: str) -> Metric:
    return Metric(name, Kind.GAUGE, unit, meaning)


def _histogram(name: str, unit: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, unit, meaning, labels, buckets)


# A request of the fastest models takes half a millisecond; the default deadline is 10 s.
_REQUEST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# A compiled model answers within 10 µs, a forest of hundreds of trees within 50 ms.
_PREDICT = (0.00001, 0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_LOAD = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
_ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 10_000.0)
_TRAINING = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)

REQUESTS = _counter(
    "mlcore_requests_total",
    "requests",
    "Requests that the prediction plane ended, by route and status of HTTP; 499: the client left.",
    "route",
    "status",
)
REQUEST_SECONDS = _histogram(
    "mlcore_request_seconds", "seconds", "From the head of a request to its answer, in the replica.", _REQUEST, "route"
)
TENANT_REQUESTS = _counter(
    "mlcore_tenant_requests_total",
    "requests",
    "Authenticated requests by tenant and status of HTTP; only with MLCORE_METRICS_PER_TENANT.",
    "tenant",
    "status",
)
QUEUE_ROWS = _gauge("mlcore_queue_rows", "rows", "Rows that wait for their model, of all models.")
QUEUE_WAIT_SECONDS = _histogram(
    "mlcore_queue_wait_seconds",
    "seconds",
    "Wait of a request for its batch to begin; 0 if its model was idle.",
    _PREDICT,
)
REFUSED = _counter(
    "mlcore_queue_refused_total",
    "requests",
    "Requests without a prediction: queue_full on arrival, deadline while they waited, quota_requests or quota_rows of"
    " the tenant, lost_calls of a model that does not return.",
    "reason",
)
BATCH_ROWS = _histogram("mlcore_batch_rows", "rows", "Rows in one call of a model; the sum is all rows.", _ROWS)
PREDICT_SECONDS = _histogram("mlcore_predict_seconds", "seconds", "One call of a model, successful or not.", _PREDICT)
LOAD_SECONDS = _histogram(
    "mlcore_model_load_seconds",
    "seconds",
    "Load of a version with its self-test; the count is the loads that succeeded.",
    _LOAD,
)
LOAD_FAILURES = _counter(
    "mlcore_model_load_failures_total", "loads", "Loads that failed, by code of the error.", "code"
)
EVICTIONS = _counter("mlcore_model_evictions_total", "models", "Models that were freed to make room for others.")
RESIDENT_MODELS = _gauge("mlcore_resident_models", "models", "Models in memory.")
RESIDENT_BYTES = _gauge("mlcore_resident_bytes", "bytes", "Measured size of the models in memory.")
GENERATION = _gauge(
    "mlcore_assignment_generation", "generation", "Generation of the assignment that the replica applied."
)
READ_TIMESTAMP = _gauge(
    "mlcore_assignment_read_timestamp_seconds",
    "seconds since 1970",
    "When the replica last read the registry successfully; time() minus this is its lag.",
)
READ_FAILURES = _counter(
    "mlcore_assignment_read_failures_total", "looks", "Looks at the registry that failed, by code of the error.", "code"
)
EPOCHS = _counter(
    "mlcore_assignment_epochs_total",
    "epochs",
    "New epochs of the registry that the replica saw: it was restored from a backup.",
)
LOG_QUEUED = _gauge(
    "mlcore_prediction_log_queued_rows", "rows", "Answered rows that wait to be written to the registry."
)
LOG_WRITTEN = _counter(
    "mlcore_prediction_log_written_rows_total", "rows", "Rows that were committed to the prediction log."
)
LOG_WITHHELD = _counter(
    "mlcore_prediction_log_withheld_rows_total", "rows", "Rows whose tenant forbade the log after they were queued."
)
LOG_LOST = _counter(
    "mlcore_prediction_log_lost_rows_total",
    "rows",
    "Answered rows that are missing in the prediction log, by reason.",
    "reason",
)
LOG_WRITE_SECONDS = _histogram(
    "mlcore_prediction_log_write_seconds", "seconds", "Write of one batch that was committed.", _LOAD
)
CACHE_LOOKUPS = _counter(
    "mlcore_cache_lookups_total", "lookups", "Values that were asked of a cache: hit, or miss if computed.", "result"
)
CACHE_ERRORS = _counter(
    "mlcore_cache_errors_total",
    "calls",
    "Calls of a shared cache that failed: connection, timeout, or refused by the server.",
    "reason",
)
TRAININGS = _counter("mlcore_trainings_total", "trainings", "Trainings that registered a version.")
TRAINING_FAILURES = _counter(
    "mlcore_training_failures_total",
    "trainings",
    "Trainings that failed, by the stage that failed: validate, read, search, select, fit, evaluate, cross_validate or "
    "register.",
    "stage",
)
TRAINING_ROWS = _counter("mlcore_training_rows_total", "rows", "Rows of trainings, training and validation together.")
TRAINING_SECONDS = _histogram(
    "mlcore_training_stage_seconds", "seconds", "One stage of a training.", _TRAINING, "stage"
)

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All of them, in the order of the documentation."""


def markdown() -> str:
    """The table of ``docs/observability.md``."""
    lines = ["| metric | kind | unit | labels | meaning |", "|---|---|---|---|---|"]
    for each in METRICS:
        labels = ", ".join(f"`{label}`" for label in each.labels) or "none"
        lines.append(f"| `{each.name}` | {each.kind} | {each.unit} | {labels} | {each.meaning} |")
    return "\n".join(lines)
