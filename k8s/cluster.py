"""``Cluster``: one namespace of Kubernetes: applies, lists and deletes objects of KubeRay, and reads a release."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import kubernetes
import yaml
from urllib3.exceptions import HTTPError

from k8s.objects import API_VERSION
from k8s.status import Seen
from ml_core.exceptions import PlatformError

FIELD_MANAGER: Final = "ml-platform"
_GROUP, _VERSION = API_VERSION.split("/")
_TIMEOUT_S: Final = 30.0
_PART: Final = "app.kubernetes.io/part-of=ml-platform"
_RELEASE: Final = "app.kubernetes.io/instance"
_ORIGIN: Final = "ray.io/originated-from-cr-name"
_OF_SERVICE: Final = "ray.io/originated-from-crd=RayService"
_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Cluster:
    """One namespace of a Kubernetes cluster.

    Args:
        client: With credentials.
        namespace: The namespace.
    """

    def __init__(self, client: Any, namespace: str) -> None:
        self._client = client
        self._objects: Any = kubernetes.client.CustomObjectsApi(client)
        self.namespace = namespace

    @classmethod
    def of_this_pod(cls) -> Cluster:
        """The cluster and the namespace of this pod, with the rights of its service account.

        Raises:
            PlatformError: This process runs in no pod, or the pod has no token.
        """
        try:
            kubernetes.config.load_incluster_config()  # type: ignore[no-untyped-call]
            return cls(kubernetes.client.ApiClient(), _NAMESPACE.read_text(encoding="utf-8").strip())
        except (kubernetes.config.ConfigException, OSError) as error:
            raise _failure(
                f"There are no credentials of a pod: {error}.", "Run it in a pod that mounts its token."
            ) from error

    @classmethod
    def of_kubeconfig(cls, context: str | None, namespace: str) -> Cluster:
        """A namespace of a cluster, with the rights of the user.

        Args:
            context: A context of the user's kubeconfig; None: the current one.
            namespace: The namespace.

        Raises:
            PlatformError: There is no such context, or it has no valid credentials.
        """
        try:
            client = kubernetes.config.new_client_from_config(context=context)  # type: ignore[no-untyped-call]
            return cls(client, namespace)
        except (kubernetes.config.ConfigException, yaml.YAMLError, OSError) as error:
            raise _failure(
                f"The kubeconfig can't be used: {error}", "Choose a context that `kubectl config get-contexts` lists."
            ) from error

    def apply(self, body: dict[str, Any]) -> None:
        """Create an object or update the fields that the body has, by server-side apply. Safe to repeat.

        Raises:
            PlatformError: Kubernetes can't be reached or refused it; says why.
        """
        name = body["metadata"]["name"]
        with _translated(f"apply {body['kind']} {name}"):
            self._objects.patch_namespaced_custom_object(
                *self._kind(body["kind"]),
                name,
                body,
                field_manager=FIELD_MANAGER,
                force=True,
                _content_type="application/apply-patch+yaml",
                _request_timeout=_TIMEOUT_S,
            )

    def list(self, kind: str, labels: str) -> Sequence[dict[str, Any]]:
        """The objects of a kind with these labels, as ``name=value``.

        Raises:
            PlatformError: Kubernetes can't be reached or refused it.
        """
        with _translated(f"list {kind}"):
            return self._list(kind, labels)

    def release(self, name: str, kubectl: str) -> Seen:
        """What there is of a release of the chart.

        Args:
            name: The release.
            kubectl: How the user calls kubectl for this namespace.

        Raises:
            PlatformError: Kubernetes can't be reached or refused it, or there is no such namespace or release.
        """
        services: Sequence[dict[str, Any]] | None = None
        clusters: Sequence[dict[str, Any]] = ()
        with _translated("list RayServices and RayClusters", is_missing_fine=True):
            services = self._list("RayService", _PART)
            clusters = self._list("RayCluster", _OF_SERVICE)
        labels = f"{_PART},{_RELEASE}={name}"
        core, batch = kubernetes.client.CoreV1Api(self._client), kubernetes.client.BatchV1Api(self._client)
        with _translated("list pods, Jobs and events"):
            pods = self._raw(core.list_namespaced_pod, label_selector=labels)
            jobs = self._raw(batch.list_namespaced_job, label_selector=labels)
            warnings = self._raw(core.list_namespaced_event, field_selector="type=Warning")
        releases = {each["metadata"]["labels"][_RELEASE]: each for each in services or ()}
        if name not in releases and not pods and not jobs:
            self._find_namespace(core)
            if services is not None:
                there = f"There is: {', '.join(sorted(releases))}." if releases else "`helm list -A` shows releases."
                raise _failure(f"There is no release {name} in the namespace {self.namespace}.", there)
        service = releases.get(name)
        origin = service["metadata"]["name"] if service else None
        own = [each for each in clusters if each["metadata"]["labels"].get(_ORIGIN) == origin]
        return Seen(name, kubectl, services is not None, service, own, pods, jobs, warnings)

    def _find_namespace(self, core: Any) -> None:
        """Lists of a namespace that does not exist are empty; who may not read it has to do without the difference."""
        try:
            core.read_namespace(self.namespace, _request_timeout=_TIMEOUT_S)
        except kubernetes.client.ApiException as error:
            if error.status == 404:
                raise _failure(
                    f"There is no namespace {self.namespace}.", "`kubectl get namespaces` lists them."
                ) from error

    def _list(self, kind: str, labels: str) -> Sequence[dict[str, Any]]:
        found = self._objects.list_namespaced_custom_object(
            *self._kind(kind), label_selector=labels, _request_timeout=_TIMEOUT_S
        )
        return tuple(found["items"])

    def _raw(self, listed: Callable[..., Any], **selector: str) -> Sequence[dict[str, Any]]:
        """The objects as they were sent: the types of the client refuse what another version leaves out."""
        sent = listed(self.namespace, _request_timeout=_TIMEOUT_S, _preload_content=False, **selector)
        return tuple(json.loads(sent.data)["items"])

    def delete(self, kind: str, name: str) -> None:
        """Delete an object and what belongs to it, if it exists.

        Raises:
            PlatformError: Kubernetes can't be reached or refused it.
        """
        with _translated(f"delete {kind} {name}", is_missing_fine=True):
            self._objects.delete_namespaced_custom_object(*self._kind(kind), name, _request_timeout=_TIMEOUT_S)

    def _kind(self, kind: str) -> tuple[str, str, str, str]:
        return _GROUP, _VERSION, self.namespace, f"{kind.lower()}s"


@contextmanager
def _translated(what: str, *, is_missing_fine: bool = False) -> Iterator[None]:
    try:
        yield
    except kubernetes.client.ApiException as error:
        if error.status == 404 and is_missing_fine:
            return
        remedy = {
            401: "Renew the credentials.",
            403: "Give the service account the Role of the chart, or the user the right to do this.",
            404: f"If the kind is not found, install KubeRay's operator with the CRDs of {API_VERSION}.",
        }.get(error.status, "Correct what the message names.")
        raise _failure(f"Kubernetes refused to {what}: {_reason(error)}", remedy) from error
    except HTTPError as error:
        raise _failure(
            f"The API server of Kubernetes does not answer ({type(error).__name__}).",
            "Try again later; from outside of the cluster, check the context.",
        ) from error


def _reason(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"status {error.status}"


def _failure(message: str, remedy: str) -> PlatformError:
    return PlatformError(message, remedy=remedy, component="kubernetes")
