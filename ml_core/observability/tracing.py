"""Traces with OpenTelemetry: spans of requests, model loads, moves of the assignment and trainings.

Needs the optional extra ``otel``. The SDK reads the standard variables itself: ``OTEL_EXPORTER_OTLP_ENDPOINT``,
``OTEL_EXPORTER_OTLP_HEADERS``, ``OTEL_SERVICE_NAME``, ``OTEL_TRACES_SAMPLER``. A span takes about 40 µs of the process
that makes it, so sample on a busy platform.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ml_core.ids import VersionRef
from ml_core.observability.hooks import EndedTraining, Hooks

ASGIScope = MutableMapping[str, Any]
ASGIApp = Callable[[ASGIScope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

_W3C = TraceContextTextMapPropagator()


class TracingHooks(Hooks):
    """Makes spans of events that are over, beneath the span in whose context they are reported, if there is one.

    Args:
        exporter: Where spans go, in batches, from a thread of the SDK.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        resource = Resource.create()
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):  # what the SDK says if nobody named it
            resource = resource.merge(Resource({SERVICE_NAME: "mlcore"}))
        # Not the global provider: the host of this code may have one of its own.
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("ml_core")

    def traced(self, app: ASGIApp) -> ASGIApp:
        """An ASGI application whose requests have a span, which continues the caller's trace (``traceparent``)."""

        async def serve(scope: ASGIScope, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            with self._tracer.start_as_current_span(
                scope["method"], _W3C.extract(headers), SpanKind.SERVER, {"http.request.method": scope["method"]}
            ):
                await app(scope, receive, send)

        return serve

    def request_ended(self, route: str, status: int, seconds: float, tenant: str | None) -> None:  # noqa: ARG002
        # Names the span of the request.
        span = trace.get_current_span()
        if isinstance(span, ReadableSpan) and span.is_recording():
            span.update_name(f"{span.name} {route}")
            span.set_attributes({"http.route": route, "http.response.status_code": status})
            if tenant is not None:
                span.set_attribute("mlcore.tenant", tenant)
            if status >= 500:
                span.set_status(StatusCode.ERROR)

    def request_predicted(self, version: VersionRef, rows: int, waited_s: float, seconds: float) -> None:
        span = trace.get_current_span()
        if span.is_recording() or span is trace.INVALID_SPAN:  # the latter: outside of any request
            now = time.time_ns()
            begun = now - _ns(seconds)
            if waited_s:
                self._span("wait", begun - _ns(waited_s), begun, {})
            self._span("predict", begun, now, {**_names(version), "mlcore.rows": rows})

    def model_loaded(self, version: VersionRef, seconds: float) -> None:
        self._ended("load model", seconds, _names(version))

    def model_load_failed(self, version: VersionRef, code: str, seconds: float) -> None:
        self._ended("load model", seconds, _names(version), error=code)

    def assignment_applied(self, generation: int, seconds: float, *, is_new_epoch: bool) -> None:
        names = {"mlcore.generation": generation, "mlcore.is_new_epoch": is_new_epoch}
        self._ended("apply assignment", seconds, names)

    def predictions_written(self, rows: int, withheld: int, seconds: float) -> None:
        self._ended("write predictions", seconds, {"mlcore.rows": rows, "mlcore.rows_withheld": withheld})

    def training_ended(self, training: EndedTraining) -> None:
        now = time.time_ns()
        begun = now - sum(map(_ns, training.stages.values()))
        names: dict[str, str | int | None] = {
            "mlcore.tenant": training.tenant_id,
            "mlcore.model": training.model_id,
            "mlcore.rows": training.rows,
            "mlcore.algorithm": training.algorithm,
            "mlcore.version": training.version,
        }
        known = {name: value for name, value in names.items() if value is not None}
        span = self._tracer.start_span("train", start_time=begun, attributes=known)
        beneath = trace.set_span_in_context(span)
        for stage, seconds in training.stages.items():
            is_last = stage == list(training.stages)[-1]
            ended = begun + _ns(seconds)
            self._span(stage, begun, ended, {}, context=beneath, error=training.error if is_last else None)
            begun = ended
        _fail(span, training.error)
        span.end(now)

    def close(self) -> None:
        # Takes as long as the exporter's timeout at most.
        self._provider.shutdown()

    def _ended(self, name: str, seconds: float, attributes: dict[str, Any], error: str | None = None) -> None:
        now = time.time_ns()
        self._span(name, now - _ns(seconds), now, attributes, error=error)

    def _span(
        self,
        name: str,
        start: int,
        end: int,
        attributes: dict[str, Any],
        *,
        context: Context | None = None,
        error: str | None = None,
    ) -> None:
        span = self._tracer.start_span(name, context, attributes=attributes, start_time=start)
        _fail(span, error)
        span.end(end)


def _names(version: VersionRef) -> dict[str, Any]:
    return {
        "mlcore.tenant": str(version.tenant_id),
        "mlcore.model": str(version.model_id),
        "mlcore.version": str(version.version),
    }


def _fail(span: Span, error: str | None) -> None:
    if error is not None:
        span.set_status(StatusCode.ERROR, error)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
