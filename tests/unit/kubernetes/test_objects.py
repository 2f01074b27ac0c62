"""The objects that the platform creates on Kubernetes are values: the template of the chart, and no more."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import yaml

from k8s.objects import job_name, ray_job, ray_service
from k8s.runner import end_of
from ml_core.cells.serve_api import serve_config
from ml_core.domain.job import JobKind
from ml_core.ids import BatchId, RunId
from support import kuberay
from support.attempts import RUN, attempt

VARIABLES = {"MLCORE_DATABASE_JOB_SEAL": "a seal"}
TEMPLATE = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"labels": {"app.kubernetes.io/component": "job"}},
    "spec": {
        "submissionMode": "HTTPMode",
        "rayClusterSpec": {
            "headGroupSpec": {
                "rayStartParams": {"object-store-memory": "200000000"},
                "template": {
                    "spec": {
                        "containers": [{"env": [], "resources": {"requests": {"memory": "4Gi"}}}],
                        "volumes": [{"name": "database", "secret": {"secretName": "ml-database"}}],
                    }
                },
            }
        },
    },
}


def test_a_job_is_one_pod_with_its_cores() -> None:
    """The whole object, as it is sent; the template is not changed, and the specification of the job is not in it."""
    before = copy.deepcopy(TEMPLATE)
    made = ray_job(attempt(), VARIABLES, TEMPLATE)
    kuberay.validate(made)
    assert before == TEMPLATE
    assert made == {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": "run-0123456789abcdef",
            "labels": {"app.kubernetes.io/component": "job", "ml-platform/dispatcher": "kubernetes"},
            "annotations": {
                "ml-platform/run": RUN,
                "ml-platform/tenant": "acme_",
                "ml-platform/job": "job_fedcba9876543210",
            },
        },
        "spec": {
            "submissionMode": "HTTPMode",
            "entrypoint": f"python -m ml_core.jobs.worker acme_ job_fedcba9876543210 {RUN}",
            "entrypointNumCpus": 1.0,
            "rayClusterSpec": {
                "headGroupSpec": {
                    "rayStartParams": {"object-store-memory": "200000000", "num-cpus": "1"},
                    "template": {
                        "spec": {
                            "containers": [
                                {
                                    "env": [
                                        {"name": "OMP_NUM_THREADS", "value": "1"},
                                        {"name": "MLCORE_DATABASE_JOB_SEAL", "value": "a seal"},
                                    ],
                                    "resources": {"requests": {"memory": "4Gi", "cpu": "1"}},
                                }
                            ],
                            "volumes": [{"name": "database", "secret": {"secretName": "ml-database"}}],
                        }
                    },
                }
            },
        },
    }


def test_a_job_of_a_batch_has_the_tenant_key() -> None:
    """Its process goes on with jobs of other tenants; the key stays in the Secret."""
    batch = dataclasses.replace(attempt(), batch_id=BatchId("batch_0123456789abcdef"))
    cluster = ray_job(batch, {}, TEMPLATE)["spec"]["rayClusterSpec"]
    (container,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert container["env"][-1] == {
        "name": "MLCORE_DATABASE_TENANT_KEY",
        "valueFrom": {"secretKeyRef": {"name": "ml-database", "key": "tenant-key"}},
    }


@pytest.mark.parametrize(("kind", "cpus"), [(JobKind.TUNE, 1.5), (JobKind.TRAIN, 4.0)])
def test_the_tasks_of_a_job_get_its_cores(kind: JobKind, cpus: float) -> None:
    """The process itself holds none then; Kubernetes reserves what the job asks for, and Ray has whole processors."""
    made = ray_job(attempt(kind, cpus), VARIABLES, TEMPLATE)["spec"]
    head = made["rayClusterSpec"]["headGroupSpec"]
    assert made["entrypoint"].endswith(f"{RUN} --on-ray")
    assert made["entrypointNumCpus"] == 0
    assert head["rayStartParams"]["num-cpus"] == ("2" if kind is JobKind.TUNE else "4")
    assert head["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == f"{cpus:g}"


def test_the_name_of_a_job_is_valid_and_its_run_s_alone() -> None:
    """A DNS label of at most 47 characters, which KubeRay permits."""
    names = {job_name(RunId.new()) for _ in range(100)}
    assert len(names) == 100
    assert all(len(name) <= 47 and name.replace("-", "").isalnum() and name.islower() for name in names)


@pytest.mark.parametrize(
    ("status", "end"),
    [
        ({}, None),
        ({"jobDeploymentStatus": "Initializing"}, None),
        ({"jobDeploymentStatus": "Running", "jobStatus": "SUCCEEDED"}, None),
        ({"jobDeploymentStatus": "Suspended"}, None),
        ({"jobDeploymentStatus": "Complete"}, "Its RayJob is complete."),
        ({"jobDeploymentStatus": "Failed", "reason": "AppFailed"}, "Its RayJob is failed (AppFailed)."),
        ({"jobDeploymentStatus": "ValidationFailed"}, "Its RayJob is validationfailed (no reason)."),
    ],
)
def test_a_job_lives_until_kuberay_says_that_it_ended(status: dict, end: str | None) -> None:
    """What waits for pods, or for a queue of Kubernetes, lives."""
    assert end_of(status) == end


def test_the_control_loop_owns_one_field_of_the_rayservice() -> None:
    """Server-side apply leaves the fields of the chart alone; what Serve reads is what was planned."""
    config = serve_config([{"name": "shared", "route_prefix": None}], {"port": 8000})
    made = ray_service("ml", config)
    assert (made["metadata"], list(made["spec"])) == ({"name": "ml"}, ["serveConfigV2"])
    assert yaml.safe_load(made["spec"]["serveConfigV2"]) == config
