"""KubeRay's objects as pure functions: what is returned is exactly what is sent."""

from __future__ import annotations

import copy
import math
import shlex
from collections.abc import Mapping
from typing import Any, Final

import yaml

from ml_core.domain.job import Attempt
from ml_core.ids import RunId

API_VERSION: Final = "ray.io/v1"
DISPATCHER_LABEL: Final = "ml-platform/dispatcher"
RUN_ANNOTATION: Final = "ml-platform/run"


def ray_service(name: str, serve_config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a RayService that the control loop owns: what Serve is to be. The chart owns the rest.

    Args:
        name: The RayService.
        serve_config: Serve's declarative configuration.
    """
    text = yaml.safe_dump(dict(serve_config), sort_keys=False)
    return {
        "apiVersion": API_VERSION,
        "kind": "RayService",
        "metadata": {"name": name},
        "spec": {"serveConfigV2": text},
    }


def job_name(run_id: RunId) -> str:
    """The name of the RayJob of a process: Kubernetes permits no underscore."""
    return run_id.replace("_", "-")


def ray_job(attempt: Attempt, variables: Mapping[str, str], template: Mapping[str, Any]) -> dict[str, Any]:
    """The RayJob of an attempt: a Ray cluster of one pod that ends with the job.

    The pod has the login of the runtime from the template's volume ``database`` and the seal of its attempt, but the
    tenant key only if it is part of a batch, whose jobs are of several tenants. The queue tries a lost job again, so
    Kubernetes does not.

    Args:
        attempt: Its process gets the pod; its cores are requested from Kubernetes and given to Ray.
        variables: Of its environment, as ``Runner.start`` gets them.
        template: A RayJob with what is common to all: image, volumes, memory, labels. The chart renders it.
    """
    made: dict[str, Any] = copy.deepcopy(dict(template))
    metadata = made["metadata"]
    metadata["name"] = job_name(attempt.run_id)
    metadata.setdefault("labels", {})[DISPATCHER_LABEL] = attempt.dispatcher
    metadata["annotations"] = {
        RUN_ANNOTATION: attempt.run_id,
        "ml-platform/tenant": attempt.tenant_id,
        "ml-platform/job": attempt.job_id,
    }
    entrypoint = shlex.join(["python", *attempt.arguments_on_ray])
    made["spec"] |= {"entrypoint": entrypoint, "entrypointNumCpus": attempt.process_cpus}
    head = made["spec"]["rayClusterSpec"]["headGroupSpec"]
    head["rayStartParams"]["num-cpus"] = str(math.ceil(attempt.cpus))
    container = head["template"]["spec"]["containers"][0]
    container["resources"]["requests"]["cpu"] = f"{attempt.cpus:g}"
    given = {**attempt.threads, **variables}
    container["env"] += [{"name": name, "value": value} for name, value in given.items()]
    if attempt.batch_id is not None:
        volumes = head["template"]["spec"]["volumes"]
        secret = next(each["secret"]["secretName"] for each in volumes if each["name"] == "database")
        key = {"secretKeyRef": {"name": secret, "key": "tenant-key"}}
        container["env"].append({"name": "MLCORE_DATABASE_TENANT_KEY", "valueFrom": key})
    return made
