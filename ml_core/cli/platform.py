"""``mlcore up``, ``down`` and ``status``: the embedded platform; ``status`` also of a release on Kubernetes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ml_core.cli.console import answer, print_fields, printed_as_json, say, step
from ml_core.exceptions import PlatformError
from ml_core.settings import Settings

if TYPE_CHECKING:
    from ml_core.platform.local import LocalPlatform, PlatformStatus
    from ml_core.registry.replicas import SeenReplica

PortOption = Annotated[
    int | None, typer.Option("--port", help="Port of the ingress on 127.0.0.1; default: MLCORE_HTTP_PORT, else 8000.")
]
NamespaceOption = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Show a release on Kubernetes, in this namespace.")
]
ReleaseOption = Annotated[str, typer.Option("--release", help="The release, with --namespace.")]
ContextOption = Annotated[
    str | None, typer.Option("--context", help="A context of the kubeconfig; default: the current one.")
]


def local_platform(port: int | None = None) -> LocalPlatform:
    """The platform of the settings, on another port if given."""
    # Imported late so that `mlcore --help` answers at once.
    from ml_core.platform.local import LocalPlatform

    settings = Settings.from_environment()
    if port is not None:
        settings = dataclasses.replace(settings, platform=dataclasses.replace(settings.platform, http_port=port))
    return LocalPlatform(settings)


def up(port: PortOption = None) -> None:
    """Start or repair the platform on this machine: PostgreSQL, Ray and Ray Serve."""
    platform = local_platform(port)
    verb = "runs already" if platform.status().state == "running" else "runs"
    state = platform.up(step)
    if port not in (None, state.http_port):
        raise PlatformError(
            f"The platform runs already at {state.url}.",
            remedy=f"Use it there, or run `mlcore down`, then `mlcore up --port {port}`; data, models and keys stay.",
            component="platform",
        )
    if not printed_as_json({"url": state.url, **dataclasses.asdict(state)}):
        say(f"The platform {verb} at {state.url}. Stop it with `mlcore down`.")
        say(f"Its console is at {state.url}/console, its control API is described at {state.url}/api/docs.")


def down() -> None:
    """Stop the platform. Data, models and keys stay."""
    stopped = local_platform().down(step)
    answer({"stopped": stopped}, "Stopped." if stopped else "Nothing was running.")


def status(namespace: NamespaceOption = None, release: ReleaseOption = "ml", context: ContextOption = None) -> None:
    """Show each part of the platform, and what each replica serves. Exit code 1 unless all of it runs.

    With `--namespace` it shows a release on Kubernetes instead: clusters, cells, pods, and what holds it back.
    """
    if namespace is not None:
        # Imported late: it needs an extra.
        from ml_core.cli.release import show_release

        is_running = show_release(release, namespace, context)
    else:
        is_running = _show_local()
    if not is_running:
        raise typer.Exit(1)


def _show_local() -> bool:
    seen = local_platform().status()
    if not printed_as_json(seen):
        names = [field.name for field in dataclasses.fields(seen) if field.name != "replicas"]
        print_fields((name, getattr(seen, name)) for name in names)
        _print_replicas(seen.replicas or ())
        if seen.state == "degraded":
            say(f"Some part is missing. {_advice(seen)}")
        elif seen.state == "stopped":
            say("Start it with `mlcore up`.")
    return seen.state == "running"


def _print_replicas(replicas: Sequence[SeenReplica]) -> None:
    for replica in replicas:
        lag = ", behind the registry" if replica.is_behind else ""
        counts = f"pointers: {replica.pointers}, failed: {replica.failed}, loading: {replica.loading}"
        say(
            f"replica {replica.replica_id} of {replica.cell}: assignment generation {replica.generation}{lag}; {counts}"
        )
        for each in replica.failures:
            name = f"{each.environment} of {each.tenant_id}/{each.model_id}"
            meanwhile = "requests are refused" if each.serves is None else f"version {each.serves} answers"
            say(f"  {name}: can't load version {each.version} ({each.code}); {meanwhile}. {each.reason}")


def _advice(seen: PlatformStatus) -> str:
    if seen.failed_loads:
        return (
            "Versions can't be loaded: bring their bytes back (`mlcore fsck` finds what is damaged), or roll back; "
            "replicas try again by themselves."
        )
    return "Repair it with `mlcore up`."
