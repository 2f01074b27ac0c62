"""How ``mlcore status --namespace`` shows a release on Kubernetes."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from ml_core.cli.console import print_fields, print_rows, printed_as_json, say, shorten
from ml_core.exceptions import ConfigurationError

if TYPE_CHECKING:
    from k8s.status import ReleaseStatus

_WIDTH: Final = 60
"""Of a message in a table; what holds the release back is said in full."""


def show_release(release: str, namespace: str, context: str | None) -> bool:
    """Print the state of a release; whether it runs.

    Raises:
        ConfigurationError: The extra ``kubernetes`` is not installed.
        PlatformError: Kubernetes can't be reached or refused it, or there is no such context, namespace or release.
    """
    try:
        from k8s.cluster import Cluster
        from k8s.status import release_status
    except ImportError:
        raise ConfigurationError(
            "The client of Kubernetes is not installed.",
            remedy="Run: pip install 'ml-core-platform[kubernetes]'",
            setting="kubernetes",
        ) from None
    kubectl = shlex.join(["kubectl", *(["--context", context] if context else []), "-n", namespace])
    found = release_status(Cluster.of_kubeconfig(context, namespace).release(release, kubectl), time.time())
    if not printed_as_json(found):
        _print(found)
    return found.state == "running"


def _print(found: ReleaseStatus) -> None:
    print_fields((name, getattr(found, name)) for name in ("release", "state", "ray_service", "ready", "message"))
    _print_parts("cluster", found.clusters, ("role", "name", "age", "head_ready", "workers", "workers_ready"))
    _print_parts("cell", found.cells, ("cell", "cluster", "status", "replicas", "message"))
    _print_parts("pod", found.pods, ("component", "cluster", "pod", "age", "restarts", "ready", "reason", "message"))
    say("\nNothing that is known holds it back." if not found.causes else "\nWhat holds it back:", style="bold")
    for cause in found.causes:
        say(f"* {cause.message}\n  {cause.remedy}")


def _print_parts(kind: str, parts: Sequence[Any], columns: Sequence[str]) -> None:
    rows = [asdict(part) for part in parts]
    for row in rows:
        row |= {"age": _age(row.get("age_s", 0.0)), "message": shorten(row.get("message") or "-", _WIDTH)}
    say("")
    print_rows(rows, columns, empty=f"There is no {kind}.")


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
