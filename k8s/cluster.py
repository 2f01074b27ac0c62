"""``Cluster``: applies, lists and deletes objects of KubeRay in one namespace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import kubernetes
from urllib3.exceptions import HTTPError

from k8s.objects import API_VERSION
from ml_core.exceptions import PlatformError

FIELD_MANAGER: Final = "ml-platform"
_GROUP, _VERSION = API_VERSION.split("/")
_TIMEOUT_S: Final = 30.0
_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Cluster:
    """One namespace of a Kubernetes cluster.

    Args:
        client: With credentials.
        namespace: The namespace.
    """

    def __init__(self, client: Any, namespace: str) -> None:
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

    def apply(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create an object or update the fields that the body has, by server-side apply. Safe to repeat.

        Raises:
            PlatformError: Kubernetes can't be reached or refused it; says why.
        """
        name = body["metadata"]["name"]
        with _translated(f"apply {body['kind']} {name}"):
            return dict(
                self._objects.patch_namespaced_custom_object(
                    *self._kind(body["kind"]),
                    name,
                    body,
                    field_manager=FIELD_MANAGER,
                    force=True,
                    _content_type="application/apply-patch+yaml",
                    _request_timeout=_TIMEOUT_S,
                )
            )

    def list(self, kind: str, labels: str) -> list[dict[str, Any]]:
        """The objects of a kind with these labels, as ``name=value``.

        Raises:
            PlatformError: Kubernetes can't be reached or refused it.
        """
        with _translated(f"list {kind}"):
            found = self._objects.list_namespaced_custom_object(
                *self._kind(kind), label_selector=labels, _request_timeout=_TIMEOUT_S
            )
        return list(found["items"])

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
            403: "Give the service account the Role of the chart.",
            404: f"If the kind is not found, install KubeRay's operator with the CRDs of {API_VERSION}.",
        }.get(error.status, "Correct what the message names.")
        raise _failure(f"Kubernetes refused to {what}: {_reason(error)}", remedy) from error
    except HTTPError as error:
        raise _failure(
            f"The API server of Kubernetes does not answer ({type(error).__name__}).", "Try again later."
        ) from error


def _reason(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"status {error.status}"


def _failure(message: str, remedy: str) -> PlatformError:
    return PlatformError(message, remedy=remedy, component="kubernetes")
