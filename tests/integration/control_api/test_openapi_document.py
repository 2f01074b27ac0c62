"""The OpenAPI document: everything is described, and its examples are accepted as they are."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter

import httpx
import pytest

from ml_core.api.app import PREFIX, create_app
from ml_core.api.examples import BODIES, PATH
from ml_core.client.inprocess import InProcessTransport
from support.operations import DOCUMENT
from support.tables import tickets
from support.waiting import wait_until

OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
# An order in which each is accepted: what it needs is there.
STORY = (
    *(
        "tenants.create",
        "placements.set",
        "placements.set_shared_cell",
        "tenants.set_quota",
        "tenants.update",
        "keys.create",
        "platform_keys.create",
    ),
    *("models.check_training", "predictions.set_policy"),
    *("runs.start", "runs.tag", "runs.log_metrics", "runs.end"),
    *("datasets.create", "jobs.submit", "versions.update", "holds.place", "gates.set", "environments.promote"),
    *("predictions.label", "jobs.submit", "environments.approve", "rollouts.shadow", "rollouts.unshadow"),
    *("rollouts.start", "rollouts.step", "rollouts.abort", "rollouts.start", "rollouts.finish"),
    *("environments.rollback", "environments.withdraw", "jobs.plan", "jobs.submit", "jobs.set_quota"),
    *("schedules.create", "job_batches.submit"),
)


def test_operation_ids_are_unique():
    """A generated client makes a method of each."""
    ids = Counter(operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values())
    assert set(ids.values()) == {1}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_described(name):
    """In words, under a noun that is described, with its errors; each body and each part of the path has an example."""
    method, path, operation = OPERATIONS[name]
    nouns = {tag["name"]: tag["description"] for tag in DOCUMENT["tags"]}
    assert operation["tags"] == [name.partition(".")[0]]
    assert nouns[operation["tags"][0]].endswith(".")
    assert operation["summary"]
    assert operation["description"].endswith((".", "`"))
    assert {"401", "403", "404", "429", "503", "default"} <= operation["responses"].keys()
    for parameter in operation.get("parameters", ()):
        assert parameter["in"] != "path" or "example" in parameter
    content = operation.get("requestBody", {}).get("content", {})
    assert all("example" in body for kind, body in content.items() if kind == "application/json"), f"{method} {path}"


def test_every_parameter_is_described():
    """In a sentence: of the path, of the query and of the headers."""
    for name, (_, _, operation) in OPERATIONS.items():
        for parameter in operation.get("parameters", ()):
            assert parameter["description"].endswith((".", "`")), (name, parameter["name"])


def test_schemas_have_readable_names():
    """A generated client makes a class of each."""
    assert "ModelPage" in DOCUMENT["components"]["schemas"]
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert re.fullmatch(r"([A-Z][a-z]+)+", name)
        assert schema["title"] == name
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(DOCUMENT)))
    assert named <= DOCUMENT["components"]["schemas"].keys()


def test_the_examples_are_accepted(control, dispatched):
    """As they are, but for the tenant's name."""
    tenant, ids, asked = f"t{uuid.uuid4().hex[:12]}", {}, set()

    def ask(name, **options):
        method, path, operation = OPERATIONS[name]
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        if body is not None:
            text = json.dumps(body).replace('"acme"', f'"{tenant}"')
            options = {"content": text, **options}
        values = {**PATH, **ids, "tenant": tenant}
        options["headers"] = {"content-type": "application/json", **options.get("headers", {})}
        response = control.request(method, "/api" + path.format(**values), **options)
        assert response.is_success, f"{name} {response.text}"
        asked.add(name)
        return response.json() if response.content else None

    for name in STORY:
        options = {}
        if name == "datasets.create":
            options = {"content": tickets().to_csv(index=False), "headers": {"content-type": "text/csv"}}
        elif name == "environments.approve":  # not by who registered the version
            body = {"name": "Grace", "scopes": ["approve"]}
            key = control.post(f"/api/v1/tenants/{tenant}/keys", json=body).json()["key"]
            options = {"headers": {"authorization": f"Bearer {key}"}}
        found = ask(name, **options)
        if name == "runs.start":
            ids["run"] = found["run_id"]
        elif name == "jobs.submit":
            path = f"/api/v1/tenants/{tenant}/jobs/{found['job_id']}"
            wait_until(lambda path=path: control.get(path, params={"wait_s": 20}).json()["state"] == "succeeded", 60)
    assert asked - {"datasets.create"} == BODIES.keys()


def test_a_method_that_a_path_lacks_is_answered_with_all_that_it_has():
    """For each path of the document, whichever operation of it comes first."""
    app = create_app(None)
    with httpx.Client(transport=InProcessTransport(app, PREFIX), base_url=f"http://platform{PREFIX}") as http:
        for path, methods in app.openapi()["paths"].items():
            refused = http.request("TRACE", re.sub(r"\{\w+\}", "1", path))
            assert refused.status_code == 405, path
            # At least: `plan` in a path may also be the name of a job.
            assert set(refused.headers["allow"].split(", ")) >= {method.upper() for method in methods}, path
            assert refused.headers["allow"] in refused.json()["error"]["message"]
