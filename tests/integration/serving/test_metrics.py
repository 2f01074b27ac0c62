"""What Prometheus reads from a running platform: Ray's agent, found by the file that ``mlcore up`` keeps."""

from __future__ import annotations

import json

import httpx
from prometheus_client.parser import text_string_to_metric_families

from ml_core.domain.placement import SHARED_CELL
from ml_core.observability.metrics import METRICS
from ml_core.platform.ray_cluster import metrics_targets
from support.tables import tickets
from support.waiting import wait_until

ROW = tickets(1).drop(columns=["category"]).iloc[0].dropna().to_dict()
PREDICT = "/t/{tenant}/models/{model}/predict"
EXPORTED_WITHIN_S = 60.0
"""A replica copies every 5 s, and Ray's workers report every 10 s."""


def scrape(platform) -> list:
    """The samples of our metrics at every address that Prometheus would ask."""
    found = []
    for group in json.loads(metrics_targets(platform.settings.platform.home).read_text(encoding="utf-8")):
        for target in group["targets"]:
            assert target.startswith("127.0.0.1:")
            text = wait_until(lambda target=target: text_of(target), timeout_s=EXPORTED_WITHIN_S)
            samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
            found += [sample for sample in samples if sample.name.startswith("ray_mlcore_")]
    return found


def text_of(target: str) -> str | None:
    """What an agent of Ray answers; None while there is none, as after it was killed. Prometheus asks again as well."""
    try:
        return httpx.get(f"http://{target}/metrics", timeout=30, trust_env=False).text
    except httpx.ConnectError:
        return None


def answered(samples: list, name: str) -> float:
    """The sum of a series over the replicas of the shared cell, of requests to predict."""
    shared = [sample for sample in samples if sample.name == name and sample.labels["application"] == "shared"]
    return sum(sample.value for sample in shared if sample.labels["route"] == PREDICT)


def generations(samples: list) -> dict[str, float]:
    """Replica of the shared cell → generation of its assignment.

    Each replica copies at its own time. The platform may have had other cells: another test moved its tenant.
    """
    return {
        sample.labels["replica"]: sample.value
        for sample in samples
        if sample.name == "ray_mlcore_assignment_generation" and sample.labels["application"] == "shared"
    }


def agree(platform) -> bool:
    """Whether every replica of the shared cell reports one generation; Ray's agent remembers killed ones."""
    found = generations(scrape(platform))
    live = {each.replica_id for each in platform.local.status().replicas if each.cell == SHARED_CELL}
    return len(live) == platform.settings.platform.replicas and len({found.get(each) for each in live}) == 1


def test_prometheus_sees_what_the_replicas_answered(platform, acme):
    """Every answer once, with the labels of the cell, and no name that the table does not have."""
    before = answered(scrape(platform), "ray_mlcore_requests_total")
    for _ in range(20):
        assert acme.predict("tickets", [ROW]).status_code == 200
    wait_until(
        lambda: answered(scrape(platform), "ray_mlcore_requests_total") >= before + 20, timeout_s=EXPORTED_WITHIN_S
    )
    samples = scrape(platform)
    names = {sample.name for sample in samples}
    assert names <= {f"ray_{series}" for metric in METRICS for series in metric.series}
    assert "ray_mlcore_request_seconds_bucket" in names
    assert not any("acme" in sample.labels.values() for sample in samples)
    wait_until(lambda: agree(platform), timeout_s=EXPORTED_WITHIN_S)
