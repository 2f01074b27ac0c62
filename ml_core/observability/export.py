"""The export of traces that the settings ask for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ml_core.settings import ObservabilitySettings

if TYPE_CHECKING:
    from ml_core.observability.tracing import TracingHooks

logger = logging.getLogger(__name__)


def tracing(settings: ObservabilitySettings) -> TracingHooks | None:
    """Hooks that send traces to the collector of the settings; None without one, or without the extra ``otel``."""
    if settings.otlp_endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        from ml_core.observability.tracing import TracingHooks
    except ImportError:
        logger.warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but traces are disabled: the extra `otel` is not installed."
        )
        return None
    return TracingHooks(OTLPSpanExporter())  # which reads the OTEL_* variables
