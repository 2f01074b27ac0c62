"""A release on Kubernetes: what the API server of a kind cluster returned when it ran, and what becomes of it."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from k8s.status import Seen

_RECORDED = json.loads(Path(__file__).with_name("release.json").read_text(encoding="utf-8"))
NOW = datetime(2026, 11, 30, 6, 20, tzinfo=UTC).timestamp()
NAME = "ml-ml-platform"
PENDING = f"{NAME}-new"


class Release:
    """Objects that a test changes; as recorded, every part is ready."""

    def __init__(self) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = copy.deepcopy(_RECORDED) | {"Event": []}
        (self.service,) = self.objects["RayService"]

    def seen(self) -> Seen:
        """What there is."""
        found = self.objects
        return Seen(
            release="ml",
            kubectl="kubectl -n mlcore",
            service=self.service,
            clusters=found["RayCluster"],
            pods=found["Pod"],
            jobs=found["Job"],
            warnings=found["Event"],
        )

    def pods(self, component: str, cluster: str = "") -> list[dict[str, Any]]:
        """The pods of a component, of all clusters or of one."""
        pods = [each for each in self.objects["Pod"] if labels(each)["app.kubernetes.io/component"] == component]
        return [each for each in pods if cluster in labels(each).get("ray.io/cluster", cluster)]

    def upgrade(self) -> dict[str, Any]:
        """A second cluster, which is starting; its RayCluster."""
        (active,) = self.objects["RayCluster"]
        old = active["metadata"]["name"]
        made = copy.deepcopy(active)
        made["metadata"] |= {"name": PENDING, "creationTimestamp": at(-120)}
        made["status"] = {
            "desiredWorkerReplicas": 2,
            "conditions": [condition("HeadPodReady", False, "ContainersNotReady")],
        }
        self.objects["RayCluster"].append(made)
        for pod in [*self.pods("head"), *self.pods("worker")]:
            other = copy.deepcopy(pod)
            other["metadata"]["name"] = pod["metadata"]["name"].replace(old, PENDING)
            other["metadata"]["labels"]["ray.io/cluster"] = PENDING
            wait(other, "ContainerCreating")
            self.objects["Pod"].append(other)
        self.service["status"]["pendingServiceStatus"] = {"rayClusterName": PENDING}
        # As KubeRay does while there are two.
        del self.service["status"]["activeServiceStatus"]["applicationStatuses"]
        return made

    def warn(self, kind: str, name: str, reason: str, message: str, after_s: float = -10) -> None:
        """An event of type Warning about an object."""
        about = {"kind": kind, "name": name}
        event = {"involvedObject": about, "reason": reason, "message": message, "lastTimestamp": at(after_s)}
        self.objects["Event"].append({**event, "metadata": {"creationTimestamp": at(after_s)}})


def at(seconds: float) -> str:
    """A time, relative to now, as Kubernetes writes it."""
    return datetime.fromtimestamp(NOW + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def labels(found: dict[str, Any]) -> dict[str, str]:
    """The labels of an object."""
    made: dict[str, str] = found["metadata"]["labels"]
    return made


def condition(kind: str, holds: bool, reason: str, message: str = "") -> dict[str, Any]:
    """A condition of an object's status."""
    return {
        "type": kind,
        "status": str(holds),
        "reason": reason,
        "message": message,
        "lastTransitionTime": at(-60),
    }


def wait(pod: dict[str, Any], reason: str, message: str = "", *, exit_code: int | None = None) -> None:
    """Have the containers of a pod wait; with an exit code they ended before."""
    status = pod["status"]
    status["phase"] = "Pending"
    status["conditions"] = [condition("PodScheduled", True, ""), condition("Ready", False, "ContainersNotReady", "x")]
    for each in status["containerStatuses"]:
        each["state"] = {"waiting": {"reason": reason, "message": message}}
        if exit_code is not None:
            each["lastState"] = {"terminated": {"exitCode": exit_code, "reason": "Error"}}


def unschedule(pod: dict[str, Any], message: str) -> None:
    """Have the scheduler find no node for a pod."""
    pod["status"] = {"phase": "Pending", "conditions": [condition("PodScheduled", False, "Unschedulable", message)]}
