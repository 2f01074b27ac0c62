"""What runs of a release, and what holds it back: a pure function of what the API server returned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import yaml

Object = Mapping[str, Any]
"""An object of Kubernetes in its JSON form."""
Role = Literal["active", "pending", "old"]
State = Literal["running", "starting", "upgrading", "degraded"]

COMPONENTS: Final = ("postgres", "setup", "head", "worker", "job-worker", "control-loop")
"""The pods that are no jobs, by their label, in the order in which they start."""
_SETTLE_S: Final = 60.0
"""Time that the operator and the kubelet have to react."""
_LONG_S: Final = 900.0
"""Time in which a cluster becomes ready."""

_CODES: Final = {
    "Unschedulable": "unschedulable",
    **dict.fromkeys(("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"), "image_missing"),
    **dict.fromkeys(("FailedMount", "FailedAttachVolume", "CreateContainerConfigError"), "mount_failed"),
    **dict.fromkeys(("CrashLoopBackOff", "Error"), "crashes"),
}
"""Why a pod is not ready → code of the cause."""
_REMEDIES: Final = {
    "unschedulable": "Add nodes, or request less (`resources` in the values); during an upgrade the head and the "
    "workers are there twice. A volume that is not bound needs a storage class.",
    "image_missing": "Correct `image` in the values and run `helm upgrade`.",
    "mount_failed": "Correct the Secret or the volume that the message names.",
    "crashes": "Its log has the error: `{kubectl} logs {pod}`.",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What the API server has of a release.

    Attributes:
        release: Its name.
        kubectl: How the user calls kubectl for its namespace.
        knows_kuberay: Whether the cluster has the kinds of KubeRay.
        service: The RayService, if there is one.
        clusters: Its RayClusters.
        pods: The pods of the release.
        jobs: Its Jobs of Kubernetes.
        warnings: The events of type Warning in the namespace.
    """

    release: str
    kubectl: str
    knows_kuberay: bool = True
    service: Object | None = None
    clusters: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    jobs: Sequence[Object] = ()
    warnings: Sequence[Object] = ()


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """A RayCluster: ``active`` answers, ``pending`` is to replace it, ``old`` is about to be deleted."""

    role: Role
    name: str
    age_s: float
    head_ready: bool
    workers: int
    workers_ready: int


@dataclass(frozen=True, slots=True)
class CellStatus:
    """A Serve application in a cluster; ``replicas`` is what the RayService asks for: 2, 1 to 4, None to end."""

    cell: str
    cluster: str
    status: str
    replicas: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class PodStatus:
    """A pod; ``reason`` and ``message`` say why it is not ready."""

    component: str
    cluster: Role | None
    pod: str
    age_s: float
    restarts: int
    ready: bool
    reason: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that holds a release back, and what to do about it."""

    code: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class ReleaseStatus:
    """A release; it is ``running`` if every part is ready and no cluster is about to replace another."""

    release: str
    state: State
    ray_service: str | None
    ready: bool
    message: str | None
    clusters: Sequence[ClusterStatus]
    cells: Sequence[CellStatus]
    pods: Sequence[PodStatus]
    causes: Sequence[Cause]


def release_status(seen: Seen, now: float) -> ReleaseStatus:
    """Judge a release.

    Args:
        seen: What there is.
        now: Seconds since 1970.
    """
    service = seen.service or {}
    roles: dict[str, Role] = {_name(each): _role(each, service) for each in seen.clusters}
    clusters = [_cluster(each, roles[_name(each)], now) for each in seen.clusters]
    cells = list(_cells(service))
    pods = [_pod(each, seen.warnings, roles, now) for each in seen.pods if _component(each) in COMPONENTS]
    pods.sort(key=lambda each: (COMPONENTS.index(each.component), each.cluster or "", each.pod))
    causes = [*_of_kuberay(seen, roles, now), *_of_setup(seen), *_of_pods(seen, pods, now), *_of_cells(seen, cells)]
    late = [each for each in clusters if each.role == "pending" and each.age_s > _LONG_S]
    if late and not causes:
        text = f"The pending cluster {late[0].name} is not ready after {late[0].age_s / 60:.0f} minutes."
        causes.append(Cause("pending_late", text, f"See `{seen.kubectl} describe rayservice {_name(service)}`."))
    ready = _conditions(service).get("Ready", {})
    is_ready = ready.get("status") == "True"
    # One that is added for jobs may start at any time.
    starting = sum(each.component == "job-worker" and not each.ready for each in pods)
    is_whole = (
        all(each.status == "RUNNING" or each.replicas is None for each in cells)  # one that is not wanted ends
        and all(
            each.ready or each.reason in ("Completed", "Terminating") or each.cluster == "old"
            for each in pods
            if each.component != "job-worker"
        )
        and all(
            each.head_ready and each.workers_ready + starting >= each.workers
            for each in clusters
            if each.role == "active"
        )
    )
    state: State = "running" if is_ready and is_whole and not causes else "degraded"
    if not causes and (late or "pending" in roles.values() or "active" not in roles.values()):
        state = "upgrading" if "active" in roles.values() else "starting"
    name = _name(service) if service else None
    return ReleaseStatus(seen.release, state, name, is_ready, ready.get("message"), clusters, cells, pods, causes)


def _role(cluster: Object, service: Object) -> Role:
    roles: tuple[Role, Role] = ("active", "pending")
    named = (role for role in roles if _of_service(service, role).get("rayClusterName") == _name(cluster))
    return next(named, "old")


def _cluster(cluster: Object, role: Role, now: float) -> ClusterStatus:
    status = cluster.get("status", {})
    head_ready = _conditions(cluster).get("HeadPodReady", {}).get("status") == "True"
    workers = (status.get(f"{each}WorkerReplicas", 0) for each in ("desired", "ready"))
    return ClusterStatus(role, _name(cluster), now - _created(cluster), head_ready, *workers)


def _cells(service: Object) -> Iterator[CellStatus]:
    config = yaml.safe_load(service.get("spec", {}).get("serveConfigV2") or "{}")
    wanted = {each["name"]: _replicas(each["deployments"][0]) for each in config.get("applications", ())}
    for role in ("active", "pending"):
        for name, found in sorted(_of_service(service, role).get("applicationStatuses", {}).items()):
            parts = [found, *found.get("serveDeploymentStatuses", {}).values()]
            messages = [each["message"].strip() for each in parts if each.get("message", "").strip()]
            # Of a traceback the last line says what happened.
            message = messages[-1].splitlines()[-1] if messages else None
            yield CellStatus(name, role, found.get("status", "NOT_STARTED"), wanted.get(name), message)


def _replicas(deployment: Object) -> str:
    scaling = deployment.get("autoscaling_config")
    return f"{scaling['min_replicas']} to {scaling['max_replicas']}" if scaling else str(deployment["num_replicas"])


def _pod(pod: Object, warnings: Sequence[Object], roles: Mapping[str, Role], now: float) -> PodStatus:
    cluster = roles.get(_labels(pod).get("ray.io/cluster", ""))
    restarts = sum(each["restartCount"] for each in pod["status"].get("containerStatuses", ()))
    reason, message = _why(pod, warnings)
    age_s = now - _created(pod)
    return PodStatus(_component(pod), cluster, _name(pod), age_s, restarts, reason is None, reason, message)


def _why(pod: Object, warnings: Sequence[Object]) -> tuple[str | None, str | None]:
    """Why a pod is not ready, in a word and in a sentence."""
    status, conditions = pod["status"], _conditions(pod)
    phase = status.get("phase", "Pending")
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating", None
    if phase == "Succeeded":
        return "Completed", None
    if conditions.get("Ready", {}).get("status") == "True":
        return None, None
    if conditions.get("PodScheduled", {}).get("status") == "False":
        return conditions["PodScheduled"].get("reason"), conditions["PodScheduled"].get("message")
    for each in [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]:
        waiting, ended = (each.get("state", {}).get(name, {}) for name in ("waiting", "terminated"))
        reason = waiting.get("reason", "Error" if ended.get("exitCode") else None)
        if reason in ("CrashLoopBackOff", "Error"):
            last = ended or each.get("lastState", {}).get("terminated", {})
            return reason, f"{each['name']} ended with exit code {last.get('exitCode')} ({last.get('reason')})."
        if reason not in (None, "ContainerCreating", "PodInitializing"):
            return reason, waiting.get("message")
    # An event says what was: of a running pod only a failed probe still matters, and of a scheduled one no scheduling.
    own = [each for each in warnings if each["involvedObject"].get("name") == _name(pod)]
    if phase == "Running":
        probed = [each for each in own if each["reason"] == "Unhealthy"]
        return "NotReady", max(probed, key=_event_time, default={}).get("message")
    told = [each for each in own if each["reason"] not in ("FailedScheduling", "Unhealthy")]
    newest = max(told, key=_event_time, default={})
    return status.get("reason") or newest.get("reason") or phase, status.get("message") or newest.get("message")


def _of_kuberay(seen: Seen, roles: Mapping[str, Role], now: float) -> Iterator[Cause]:
    """The operator, and what it does with the RayService and its clusters."""
    if not seen.knows_kuberay:
        text = "The cluster does not know RayService: KubeRay's operator is not installed."
        yield Cause("no_operator", text, "Install the operator with its CRDs, then the release.")
    if seen.service is None:
        if seen.knows_kuberay:
            yield Cause("no_ray_service", "The release has no RayService.", "Run `helm upgrade --install`.")
        return
    service, ready = seen.service, _conditions(seen.service).get("Ready", {})
    if ready.get("reason") == "ValidationFailed":
        text = f"The operator refuses the RayService: {ready['message']}"
        yield Cause("refused", text, "Correct the values and run `helm upgrade`.")
    if not service.get("status") and now - _created(service) > _SETTLE_S:
        remedy = "Its pod has to run: `kubectl get pods -A -l app.kubernetes.io/name=kuberay-operator`."
        yield Cause("operator_silent", "KubeRay's operator has done nothing with the RayService.", remedy)
    is_behind = service.get("status", {}).get("observedGeneration") != service["metadata"]["generation"]
    for cluster in seen.clusters:
        name, conditions = _name(cluster), _conditions(cluster)
        is_pending, cure = roles[name] == "pending", f"`{seen.kubectl} delete raycluster {name}`"
        refused, head = conditions.get("ReplicaFailure", {}), conditions.get("HeadPodReady", {})
        if refused.get("status") == "True":
            remedy = f"Correct what the message names{f', then {cure}' if is_pending else ''}."
            yield Cause("pod_refused", f"Pods of the cluster {name} are refused: {refused['message']}", remedy)
        # The operator fails before it compares specifications if the head has no pod or Ray refuses to answer. That
        # a generation is not recorded proves nothing by itself: it is only written together with something else.
        is_mute = head.get("status") == "True" and not _of_service(service, "pending").get("applicationStatuses")
        is_stuck = is_mute or head.get("reason") == "HeadPodNotFound"
        if is_pending and is_behind and is_stuck and now - _changed(service) > _SETTLE_S:
            text = f"The pending cluster {name} is outdated, and KubeRay does not replace it."
            yield Cause("pending_outdated", text, f"{cure}: a known fault of KubeRay. The active cluster answers.")


def _of_setup(seen: Seen) -> Iterator[Cause]:
    job = max((each for each in seen.jobs if "-setup-" in _name(each)), key=_created, default={})
    failed = _conditions(job).get("Failed", {})
    loops = [each for each in seen.pods if _component(each) == "control-loop"]
    # Helm deletes the Job of an upgrade that succeeded later. The control loop that it started is younger.
    if failed.get("status") == "True" and not any(
        _created(each) > _time(failed["lastTransitionTime"]) for each in loops
    ):
        remedy = f"Its log has the error of `mlcore db`: `{seen.kubectl} logs job/{_name(job)}`, as long as its pod "
        remedy += "exists. Correct the database or its logins, and run `helm upgrade`."
        yield Cause("setup_failed", f"The setup {_name(job)} has failed: {failed.get('message')}", remedy)


def _of_pods(seen: Seen, pods: Sequence[PodStatus], now: float) -> Iterator[Cause]:
    """What the scheduler and the kubelet say; one cause for the pods of a component that wait for the same."""
    groups: dict[tuple[str, str], list[PodStatus]] = {}
    for each in pods:
        if each.reason in _CODES and each.cluster != "old":
            groups.setdefault((_CODES[each.reason], each.component), []).append(each)
    for (code, _), group in groups.items():
        text = f"{', '.join(each.pod for each in group)}: {group[0].reason}: {group[0].message or 'no message'}"
        yield Cause(code, text, _REMEDIES[code].format(kubectl=seen.kubectl, pod=group[0].pod))
    ended = {_name(each): each["metadata"].get("deletionTimestamp") for each in seen.pods}  # with the grace period
    stuck = [name for name, due in ended.items() if due is not None and now - _time(due) > _SETTLE_S]
    if stuck:
        remedy = (
            f"If their node is lost: `{seen.kubectl} delete pod --force {' '.join(stuck)}`. Then they are replaced."
        )
        yield Cause("terminating", f"Pods do not end: {', '.join(stuck)}", remedy)
    if seen.service is not None and not any(each.component == "control-loop" for each in pods):
        name = f"{_name(seen.service)}-control-loop"
        told = [each for each in seen.warnings if str(each["involvedObject"].get("name")).startswith(name)]
        newest = max(told, key=_event_time, default={}).get("message", "no event says why")
        remedy = f"See `{seen.kubectl} describe deployment {name}`."
        yield Cause("no_control_loop", f"The control loop has no pod: {newest}", remedy)


def _of_cells(seen: Seen, cells: Sequence[CellStatus]) -> Iterator[Cause]:
    """What replicas wait for."""
    for each in cells:
        if each.status != "RUNNING" and each.message:
            code, remedy = "application", f"See `{seen.kubectl} describe rayservice {_name(seen.service or {})}`."
            if "registry could not be read" in each.message:
                code, remedy = "registry", "Correct the database or its Secret. Replicas try again by themselves."
            yield Cause(code, f"{each.cell} in the {each.cluster} cluster is {each.status}: {each.message}", remedy)


def _of_service(service: Object, role: str) -> Object:
    found: Object = service.get("status", {}).get(f"{role}ServiceStatus", {})
    return found


def _conditions(found: Object) -> dict[str, Object]:
    return {each["type"]: each for each in found.get("status", {}).get("conditions", ())}


def _name(found: Object) -> str:
    return str(found["metadata"]["name"])


def _labels(found: Object) -> Mapping[str, str]:
    return found["metadata"].get("labels") or {}


def _component(pod: Object) -> str:
    return _labels(pod).get("app.kubernetes.io/component", "")


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _created(found: Object) -> float:
    return _time(found["metadata"]["creationTimestamp"])


def _changed(found: Object) -> float:
    """When something else of an object than its status was last written."""
    writes = [each["time"] for each in found["metadata"].get("managedFields", ()) if "subresource" not in each]
    return max(map(_time, writes), default=_created(found))


def _event_time(event: Object) -> float:
    return _time(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
