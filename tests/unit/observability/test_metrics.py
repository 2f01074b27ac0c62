"""The table of metrics, and what is written from it: documentation, dashboard, the text for Prometheus."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ml_core.ids import ModelId, TenantId, VersionId, VersionRef
from ml_core.observability import EndedTraining
from ml_core.observability.metrics import METRICS, Kind, Metric, markdown
from ml_core.observability.prometheus import OTHER_TENANTS, PrometheusHooks
from support.hooks import values

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((ROOT / "helm" / "ml-platform" / "dashboard.json").read_text(encoding="utf-8"))
RAY = "ray_"
"""What Ray's agent puts before a name."""
VERSION = VersionRef(TenantId("acme"), ModelId("m"), VersionId("1"))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric: Metric):
    """Of https://prometheus.io/docs/practices/naming: a prefix, base units, ``_total`` for what only grows."""
    assert re.fullmatch(r"mlcore(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") is (metric.kind is Kind.COUNTER)
    if metric.unit in ("seconds", "bytes"):
        assert metric.name.endswith(f"_{metric.unit}")
    assert (metric.kind is Kind.HISTOGRAM) is bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.meaning.endswith(".")


def test_no_label_grows_with_what_is_served():
    """Models and versions are in traces and in the prediction log; tenants only where a setting asks for them."""
    labels = {label for metric in METRICS for label in metric.labels}
    assert labels == {"route", "status", "reason", "code", "stage", "tenant", "result"}
    assert [metric.name for metric in METRICS if "tenant" in metric.labels] == ["mlcore_tenant_requests_total"]


def test_the_documentation_lists_every_metric():
    """With the very words of the table."""
    assert markdown() in PAGE


def expressions() -> list[str]:
    """The queries of the dashboard."""
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def test_the_dashboard_names_only_series_that_exist():
    """As Ray's agent exports them, and with labels that they have."""
    known = {RAY + series: metric for metric in METRICS for series in metric.series}
    variables = [one["query"] for one in DASHBOARD["templating"]["list"]]
    for query in [*expressions(), *variables]:
        names = re.findall(r"\b\w*mlcore_\w+", query)
        assert set(names) <= known.keys(), query
        used = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(",")}
        used |= set(re.findall(r"(\w+)=~?\"", query))
        given = {"le", "replica", "application"}  # of histograms, and by Ray
        assert used - given <= {label for name in names for label in known[name].labels}, query


def test_every_metric_is_on_the_dashboard():
    """What nobody looks at need not be counted."""
    shown = set(re.findall(rf"\b{RAY}(mlcore_\w+)", " ".join(expressions())))
    assert [metric.name for metric in METRICS if not shown & set(metric.series)] == []


def test_the_text_for_prometheus_can_be_parsed():
    """And has each metric of the table once, with its kind, its meaning and its labels."""
    hooks = PrometheusHooks(max_tenants=1)
    call_each(hooks)
    families = {
        family.name: family for family in text_string_to_metric_families(generate_latest(hooks.registry).decode())
    }
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.meaning)
        found = {name for sample in family.samples for name in sample.labels} - {"le"}
        assert found == set(metric.labels)
        assert {sample.name for sample in family.samples} >= set(metric.series)


def call_each(hooks: PrometheusHooks) -> None:
    """Every event once."""
    hooks.request_ended("/readyz", 200, 0.001, "acme")
    hooks.rows_queued(5)
    hooks.rows_dequeued(2)
    hooks.request_refused("queue_full")
    hooks.batch_predicted(2, 5, 0.002)
    hooks.request_predicted(VERSION, 5, 0.001, 0.002)
    hooks.model_loaded(VERSION, 0.02)
    hooks.model_load_failed(VERSION, "unsafe_artifact", 0.01)
    hooks.model_evicted()
    hooks.models_resident(3, 4096)
    hooks.assignment_read(1_800_000_000.0)
    hooks.assignment_applied(7, 0.01, is_new_epoch=True)
    hooks.assignment_read_failed("registry_unavailable")
    hooks.predictions_queued(9)
    hooks.predictions_written(8, 1, 0.03)
    hooks.predictions_lost("queue_full", 4)
    hooks.cache_looked_up(is_hit=True)
    hooks.cache_looked_up(is_hit=False)
    hooks.cache_failed("timeout")
    stages = {"read": 0.1, "fit": 0.5}
    hooks.training_ended(EndedTraining("acme", "m", stages, 100, "random_forest", "1"))
    hooks.training_ended(EndedTraining("acme", "m", stages, error="training"))


def test_each_event_is_counted_where_it_belongs():
    """The values, by their series."""
    hooks = PrometheusHooks()
    call_each(hooks)
    expected = {
        "mlcore_requests_total": {("/readyz", "200"): 1},
        "mlcore_request_seconds_sum": {("/readyz",): 0.001},
        "mlcore_tenant_requests_total": {},
        "mlcore_queue_rows": {(): 3},
        "mlcore_queue_wait_seconds_sum": {(): 0.001},
        "mlcore_queue_refused_total": {("queue_full",): 1},
        "mlcore_batch_rows_sum": {(): 5},
        "mlcore_predict_seconds_count": {(): 1},
        "mlcore_model_load_seconds_count": {(): 1},
        "mlcore_model_load_failures_total": {("unsafe_artifact",): 1},
        "mlcore_model_evictions_total": {(): 1},
        "mlcore_resident_models": {(): 3},
        "mlcore_resident_bytes": {(): 4096},
        "mlcore_assignment_generation": {(): 7},
        "mlcore_assignment_read_timestamp_seconds": {(): 1_800_000_000},
        "mlcore_assignment_read_failures_total": {("registry_unavailable",): 1},
        "mlcore_assignment_epochs_total": {(): 1},
        "mlcore_prediction_log_queued_rows": {(): 9},
        "mlcore_prediction_log_written_rows_total": {(): 8},
        "mlcore_prediction_log_withheld_rows_total": {(): 1},
        "mlcore_prediction_log_lost_rows_total": {("queue_full",): 4},
        "mlcore_prediction_log_write_seconds_count": {(): 1},
        "mlcore_cache_lookups_total": {("hit",): 1, ("miss",): 1},
        "mlcore_cache_errors_total": {("timeout",): 1},
        "mlcore_trainings_total": {(): 1},
        "mlcore_training_failures_total": {("fit",): 1},
        "mlcore_training_rows_total": {(): 100},
        "mlcore_training_stage_seconds_count": {("read",): 2, ("fit",): 2},
    }
    assert {name: values(hooks.registry, name) for name in expected} == expected


def test_tenants_above_the_bound_share_one_series():
    """So that a cell of 10,000 tenants has as many series as was asked for."""
    hooks = PrometheusHooks(max_tenants=2)
    for tenant in ("acme", "globex", "initech", "umbrella", "acme", None):
        hooks.request_ended("/readyz", 200, 0.001, tenant)
    counted = values(hooks.registry, "mlcore_tenant_requests_total")
    assert counted == {("acme", "200"): 2, ("globex", "200"): 1, (OTHER_TENANTS, "200"): 2}
