"""``mlcore gates`` and ``mlcore approve``: what a version must meet before an environment may point to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
import typer

from ml_core.cli.console import answer, print_items
from ml_core.cli.options import EnvironmentOption, ModelOption, VersionOption, json_or_text
from ml_core.cli.target import platform
from ml_core.domain.gates import GateKind
from ml_core.exceptions import InvalidRequestError

ASKS = "tenant"

app = typer.Typer(help="Set the conditions that a version must meet to be promoted.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The gate, such as quality.")]


@app.command("set")
def set_(
    name: NameArgument,
    kind: Annotated[GateKind, typer.Argument(help="The condition.")],
    model: ModelOption,
    environment: EnvironmentOption = "production",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE, such as metric=accuracy or value=0.75; repeat for several."),
    ] = None,
) -> None:
    """Set a gate; it replaces one of the same name.

    min_metric takes metric, value, split (validation) and higher_is_better. not_worse takes dataset, target, metric,
    margin, number (the newest now), confidence (0.95), resamples (2000), seed and max_rows. approval takes count (1).
    signature_compatible and digest_verified take nothing.
    """
    settings = dict(map(_setting, setting or []))
    with platform() as client:
        gate = client.gates.set(model, environment, name, kind.value, settings)
    answer(gate, f"Versions of {model} must now pass {gate.name!r} before {environment} serves them.")


@app.command("list")
def list_(
    model: ModelOption,
    environment: Annotated[str | None, typer.Option("--environment", "-e", help="Only of this environment.")] = None,
) -> None:
    """List a model's gates."""
    with platform() as client:
        found = client.gates.list(model, environment)
        others = client.gates.list(model) if environment is not None and not found else []
        name = client.tenant_id
    where = f"{name}/{model}" if environment is None else f"{environment} of {name}/{model}"
    elsewhere = f" There are gates of: {', '.join(sorted({gate.environment for gate in others}))}." if others else ""
    print_items(
        found,
        ["environment", "name", "kind", "settings", "created_by"],
        shown={"settings": _words},
        empty=f"{where} has no gates.{elsewhere} Set one: mlcore gates set quality min_metric --tenant {name} "
        f"--model {model} --environment {environment or 'production'} --set metric=accuracy --set value=0.75",
    )


@app.command("evaluate")
def evaluate(model: ModelOption, version: VersionOption, environment: EnvironmentOption = "production") -> None:
    """Evaluate the gates of an environment for a version, as a promotion would; nothing is moved."""
    with platform() as client:
        found = client.gates.evaluate(model, version, environment)
    print_items(found, ["name", "kind", "passed", "message"], empty=f"{environment} of {model} has no gates.")


@app.command("remove")
def remove(name: NameArgument, model: ModelOption, environment: EnvironmentOption = "production") -> None:
    """Remove a gate."""
    with platform() as client:
        client.gates.remove(model, environment, name)
    removed = {"model_id": model, "environment": environment, "name": name, "removed": True}
    answer(removed, f"Removed {name!r} of {environment} of {model}.")


def approve(
    version: VersionOption,
    model: ModelOption,
    environment: EnvironmentOption = "production",
    reason: Annotated[str, typer.Option("--reason", help="The reason; kept with the approval.")] = "",
) -> None:
    """Approve a version for an environment. An approval by whoever registered the version does not count.

    The approver uses a key of their own: `mlcore keys create --tenant acme --scope approve`, then `--key`.
    """
    with platform() as client:
        approval = client.environments.approve(model, version, environment, reason=reason)
    answer(approval, f"{approval.approver} approved version {version} of {model} for {environment}.")


def _words(settings: Mapping[str, Any]) -> str:
    """Settings as ``--set`` takes them."""
    texts = {name: value for name, value in settings.items() if value is not None}
    return " ".join(f"{n}={v if isinstance(v, str) else orjson.dumps(v).decode()}" for n, v in texts.items()) or "-"


def _setting(text: str) -> tuple[str, Any]:
    """``value=0.75`` as a name and a number; what is no JSON is a text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidRequestError(
            f"--set {text!r} has no value.", remedy="Write NAME=VALUE, such as --set value=0.75.", field="settings"
        )
    return name, json_or_text(value)
