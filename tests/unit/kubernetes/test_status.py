"""What is said of a release on Kubernetes: a function of its objects, as a cluster had them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8s.status import Cause, ReleaseStatus, release_status
from support.releases import NAME, NOW, PENDING, Release, at, condition, unschedule, wait

FULL = "0/1 nodes are available: 1 Insufficient cpu."
UNREAD = "ml_core.exceptions.PlatformError: The registry could not be read within 20 s. Correct the database's URLs."


def judged(release: Release) -> ReleaseStatus:
    return release_status(release.seen(), NOW)


def test_a_release_that_runs() -> None:
    """Every part is ready, the setup is complete, and nothing holds it back."""
    found = judged(Release())
    assert (found.state, found.ready, found.causes) == ("running", True, [])
    (cluster,) = found.clusters
    assert (cluster.role, cluster.head_ready, cluster.workers, cluster.workers_ready) == ("active", True, 2, 2)
    assert [(each.cell, each.status, each.replicas) for each in found.cells] == [
        ("control", "RUNNING", "1"),
        ("control-loop", "RUNNING", "1"),
        ("shared", "RUNNING", "2"),
    ]
    assert [(each.component, each.ready, each.reason, each.cluster) for each in found.pods] == [
        ("postgres", True, None, None),
        ("setup", False, "Completed", None),
        ("head", True, None, "active"),
        ("worker", True, None, "active"),
        ("worker", True, None, "active"),
        ("control-loop", True, None, None),
    ]


def test_a_worker_that_is_added_for_jobs_may_start() -> None:
    """The release runs meanwhile, unless the worker can't."""
    release = Release()
    added = copy.deepcopy(release.pods("worker")[0])
    added["metadata"]["name"] += "-added"
    added["metadata"]["labels"]["app.kubernetes.io/component"] = "job-worker"
    release.objects["Pod"].append(added)
    release.objects["RayCluster"][0]["status"]["desiredWorkerReplicas"] += 1
    wait(added, "ContainerCreating")
    assert judged(release).state == "running"
    wait(added, "ImagePullBackOff")
    found = judged(release)
    assert (found.state, [each.code for each in found.causes]) == ("degraded", ["image_missing"])


def test_an_upgrade_on_its_way_is_not_held_back() -> None:
    """But it does not run until the old cluster has been replaced."""
    release = Release()
    release.upgrade()
    found = judged(release)
    assert (found.state, found.causes) == ("upgrading", [])
    assert [each.role for each in found.clusters] == ["active", "pending"]
    assert {each.reason for each in found.pods if each.cluster == "pending"} == {"Pending"}


def test_the_pods_of_a_cluster_that_was_replaced_do_not_count() -> None:
    """They end by themselves."""
    release = Release()
    pending = release.upgrade()
    (worker, _) = release.pods("worker", PENDING)
    wait(worker, "ImagePullBackOff")
    release.service["status"]["pendingServiceStatus"] = {}
    found = judged(release)
    assert (found.state, found.clusters[1].role) == ("running", "old"), pending


def test_a_cell_with_autoscaling_shows_its_bounds() -> None:
    """As the control loop declares it."""
    release = Release()
    text = release.service["spec"]["serveConfigV2"]
    scaling = "autoscaling_config: {min_replicas: 1, max_replicas: 4}"
    release.service["spec"]["serveConfigV2"] = text.replace("num_replicas: 2", scaling)
    assert judged(release).cells[-1].replicas == "1 to 4"


def test_a_cell_that_is_removed_holds_nothing_back() -> None:
    """The RayService does not ask for it any more."""
    release = Release()
    release.service["status"]["activeServiceStatus"]["applicationStatuses"]["t-acme"] = {"status": "DELETING"}
    found = judged(release)
    assert (found.state, found.cells[-1].cell, found.cells[-1].replicas) == ("running", "t-acme", None)


def setup_failed(release: Release) -> None:
    failed = condition("Failed", True, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    release.objects["Job"][0]["status"] = {"conditions": [failed]}


def setup_crashes(release: Release) -> None:
    wait(release.pods("setup")[0], "CrashLoopBackOff", "back-off 40s", exit_code=3)


def image_missing(release: Release) -> None:
    for each in release.pods("head"):
        wait(each, "ImagePullBackOff", 'Back-off pulling image "ml:2"')


def unschedulable(release: Release) -> None:
    for each in release.pods("worker"):
        unschedule(each, FULL)


def mount_failed(release: Release) -> None:
    (pod,) = release.pods("postgres")
    wait(pod, "ContainerCreating")
    name = pod["metadata"]["name"]
    release.warn("Pod", name, "FailedScheduling", "an older one, of the scheduler", after_s=-5)
    release.warn("Pod", name, "FailedMount", "references non-existent secret key: url")
    release.warn("Pod", name, "FailedMount", "an older one", after_s=-100)
    release.warn("Pod", "another", "FailedMount", "of another pod", after_s=0)


def terminating(release: Release) -> None:
    release.pods("control-loop")[0]["metadata"]["deletionTimestamp"] = at(-300)


def replicas_wait(release: Release) -> None:
    applications = release.service["status"]["activeServiceStatus"]["applicationStatuses"]
    message = f"A replica failed to start with exception. Retrying 9 more time(s). Error:\nTraceback\n  x\n{UNREAD}\n"
    applications["shared"] = {
        "status": "DEPLOYING",
        "serveDeploymentStatuses": {"Cell": {"status": "UPDATING", "message": message}},
    }


def application_fails(release: Release) -> None:
    applications = release.service["status"]["activeServiceStatus"]["applicationStatuses"]
    applications["control"] = {"status": "DEPLOY_FAILED", "message": "No module named 'x'"}


def pods_refused(release: Release) -> None:
    message = "violates PodSecurity"
    release.objects["RayCluster"][0]["status"]["conditions"] = [
        condition("ReplicaFailure", True, "FailedCreateHeadPod", message)
    ]


def operator_refuses(release: Release) -> None:
    refused = condition("Ready", False, "ValidationFailed", "the name is too long")
    release.service["status"]["conditions"] = [refused]


ALONE: dict[str, tuple[Callable[[Release], None], str, str]] = {
    "setup_failed": (setup_failed, "backoff limit", "logs job/ml-ml-platform-setup-1"),
    "crashes": (setup_crashes, "exit code 3", "kubectl -n mlcore logs ml-ml-platform-setup-1-"),
    "image_missing": (image_missing, '"ml:2"', "helm upgrade"),
    "unschedulable": (unschedulable, FULL, "nodes"),
    "mount_failed": (mount_failed, "FailedMount: references non-existent secret key: url", "Secret"),
    "terminating": (terminating, "control-loop", "kubectl -n mlcore delete pod --force ml-ml-platform-control-loop-"),
    "registry": (replicas_wait, f"DEPLOYING: {UNREAD}", "Secret"),
    "application": (application_fails, "DEPLOY_FAILED: No module", "describe rayservice ml-ml-platform"),
    "pod_refused": (pods_refused, "violates PodSecurity", "Correct"),
    "refused": (operator_refuses, "too long", "values"),
}
"""Code of a cause → what brings it about, and words of its message and of its remedy. They are independent."""


@pytest.mark.parametrize("code", ALONE)
def test_each_cause_is_said_with_its_remedy(code: str) -> None:
    """One line, however many pods wait for the same."""
    release = Release()
    bring_about, message, remedy = ALONE[code]
    bring_about(release)
    found = judged(release)
    (cause,) = found.causes
    assert (found.state, cause.code) == ("degraded", code)
    assert message in cause.message
    assert remedy in cause.remedy
    assert "\n" not in cause.message + cause.remedy


@given(st.sets(st.sampled_from(list(ALONE))))
def test_causes_do_not_hide_each_other(codes: set[str]) -> None:
    """Any number of them at once."""
    release = Release()
    for code in codes:
        ALONE[code][0](release)
    found = judged(release)
    assert {each.code for each in found.causes} == codes
    assert found.state == ("degraded" if codes else "running")


@given(st.data())
def test_an_object_may_be_so_new_that_it_has_no_status(data: st.DataObject) -> None:
    """Nothing is taken for granted; nothing runs, either."""
    release = Release()
    release.upgrade()
    objects = [each for kind in release.objects.values() for each in kind]
    for each in data.draw(st.lists(st.sampled_from(objects), min_size=1)):
        each["status"] = {"phase": "Pending"} if each["kind"] == "Pod" else {}
    assert judged(release).state != "running"


def test_a_cluster_without_kuberay() -> None:
    """The release could not be installed, so there is nothing else to say."""
    seen = dataclasses.replace(Release().seen(), knows_kuberay=False, service=None, clusters=(), pods=(), jobs=())
    found = release_status(seen, NOW)
    assert (found.state, found.ray_service, [each.code for each in found.causes]) == ("degraded", None, ["no_operator"])


def test_what_an_uninstallation_leaves() -> None:
    """Pods that have ended are no release."""
    seen = dataclasses.replace(Release().seen(), service=None, clusters=(), pods=Release().pods("setup"))
    assert codes(release_status(seen, NOW)) == ["no_ray_service"]


def test_an_operator_that_does_nothing() -> None:
    """A RayService that nobody has looked at for a minute."""
    release = Release()
    del release.service["status"]
    release.service["metadata"]["creationTimestamp"] = at(-30)
    assert judged(release).causes == []
    release.service["metadata"]["creationTimestamp"] = at(-90)
    assert codes(judged(release)) == ["operator_silent"]


def codes(found: ReleaseStatus) -> list[str]:
    return [each.code for each in found.causes]


def outdated(release: Release, changed_s: float) -> dict:
    """An upgrade whose head was refused, with a specification that was corrected so long ago; the pending cluster."""
    pending = release.upgrade()
    pending["status"]["conditions"] = [condition("HeadPodReady", False, "HeadPodNotFound")]
    release.service["metadata"] |= {
        "generation": 3,
        "managedFields": [
            {"manager": "helm", "time": at(-changed_s)},
            {"manager": "kuberay-operator", "subresource": "status", "time": at(0)},
        ],
    }
    return pending


def test_a_pending_cluster_that_kuberay_does_not_replace() -> None:
    """Its head has no pod, and a correction was not taken up within a minute: only a deletion helps."""
    release = Release()
    outdated(release, changed_s=90)
    (cause,) = judged(release).causes
    assert cause.code == "pending_outdated"
    assert f"kubectl -n mlcore delete raycluster {PENDING}" in cause.remedy


def test_a_pending_cluster_whose_ray_does_not_answer_the_operator() -> None:
    """The head is ready, but the operator knows no application of it."""
    release = Release()
    outdated(release, changed_s=90)["status"]["conditions"] = [
        condition("HeadPodReady", True, "HeadPodRunningAndReady")
    ]
    assert codes(judged(release)) == ["pending_outdated"]
    applications = {"shared": {"status": "DEPLOYING"}}
    release.service["status"]["pendingServiceStatus"]["applicationStatuses"] = applications
    assert codes(judged(release)) == [], "it answers: the generation is recorded with the next change"


def test_a_pending_cluster_that_may_still_be_replaced() -> None:
    """A change of the last minute, one that the operator has seen, and a head with a pod, which KubeRay replaces."""
    fresh, taken, started = Release(), Release(), Release()
    outdated(fresh, changed_s=30)
    outdated(taken, changed_s=90)
    taken.service["status"]["observedGeneration"] = 3
    outdated(started, changed_s=90)["status"]["conditions"] = [condition("HeadPodReady", False, "ContainersNotReady")]
    assert [codes(judged(each)) for each in (fresh, taken, started)] == [[], [], []]


def test_a_refused_pod_of_a_pending_cluster_needs_its_deletion() -> None:
    """For the active one the correction is enough."""
    release = Release()
    failure = condition("ReplicaFailure", True, "FailedCreateHeadPod", "quota")
    release.upgrade()["status"]["conditions"].append(failure)
    (cause,) = judged(release).causes
    assert cause == Cause(
        "pod_refused",
        f"Pods of the cluster {PENDING} are refused: quota",
        f"Correct what the message names, then `kubectl -n mlcore delete raycluster {PENDING}`.",
    )


def test_a_pending_cluster_that_takes_long_without_a_known_cause() -> None:
    """After a quarter of an hour somebody has to look."""
    release = Release()
    release.upgrade()["metadata"]["creationTimestamp"] = at(-1000)
    assert codes(judged(release)) == ["pending_late"]
    unschedulable(release)
    assert codes(judged(release)) == ["unschedulable"], "the cause is known"


def test_a_failed_setup_that_a_later_upgrade_has_overtaken() -> None:
    """Helm has deleted the Job of the later one; the control loop that it started is younger."""
    release = Release()
    setup_failed(release)
    release.pods("control-loop")[0]["metadata"]["creationTimestamp"] = at(-10)
    assert codes(judged(release)) == []


def test_a_control_loop_without_a_pod() -> None:
    """The event of its ReplicaSet says why."""
    release = Release()
    release.objects["Pod"].remove(release.pods("control-loop")[0])
    release.warn("ReplicaSet", f"{NAME}-control-loop-75579757f", "FailedCreate", "exceeded quota")
    (cause,) = judged(release).causes
    assert (cause.code, "exceeded quota" in cause.message) == ("no_control_loop", True)


def test_a_pod_that_ends_in_time_holds_nothing_back() -> None:
    """The time of its deletion is in the future, with its grace period in it."""
    release = Release()
    release.pods("worker")[0]["metadata"]["deletionTimestamp"] = at(10)
    assert judged(release).state == "running"
    release.objects["RayCluster"][0]["status"]["readyWorkerReplicas"] = 1
    found = judged(release)
    assert (found.state, codes(found)) == ("degraded", []), "until it is replaced"


def test_a_probe_that_fails_is_the_reason_of_a_running_pod() -> None:
    """Events of its start are not."""
    release = Release()
    (pod,) = release.pods("head")
    pod["status"]["conditions"] = [condition("Ready", False, "ContainersNotReady")]
    name = pod["metadata"]["name"]
    release.warn("Pod", name, "Unhealthy", "Readiness probe failed: 503")
    release.warn("Pod", name, "FailedMount", "of its start", after_s=-1)
    head = judged(release).pods[2]
    assert (head.reason, head.message) == ("NotReady", "Readiness probe failed: 503")
