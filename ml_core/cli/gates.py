"""``mlcore gates`` and ``mlcore approve``: what a version must meet before an environment may point to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
import typer

from ml_core.cli.console import out, print_json, print_rows
from ml_core.cli.options import EnvironmentOption, JsonOption, ModelOption, TenantOption
from ml_core.cli.target import given, platform
from ml_core.domain.gates import GateKind
from ml_core.exceptions import InvalidRequestError

ASKS_PLATFORM = True

app = typer.Typer(help="The gates that a version must pass to be promoted.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The gate's own name, such as quality.")]


def add_to(root: typer.Typer) -> None:
    """Register the verbs."""
    root.add_typer(app, name="gates")
    root.command("approve")(approve)


@app.command("set")
def set_(
    name: NameArgument,
    kind: Annotated[GateKind, typer.Argument(help="What it checks.")],
    tenant: TenantOption = None,
    model: ModelOption = None,
    environment: EnvironmentOption = "production",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE, such as metric=accuracy or value=0.75; repeat for several."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Set a gate, in place of one of this name.

    min_metric takes metric, value, split (validation) and higher_is_better. not_worse takes dataset, target, metric,
    margin, number (the newest now), confidence (0.95), resamples (2000), seed and max_rows. approval takes count (1).
    signature_compatible and digest_verified take nothing.
    """
    model_id, settings = given("model", model, "--model"), dict(map(_setting, setting or []))
    with platform(tenant) as client:
        gate = client.gates.set(model_id, environment, name, kind.value, settings)
    if as_json:
        print_json(gate)
    else:
        out.print(f"Versions of {model_id} must now pass {gate.name!r} before {environment} serves them.")


@app.command("list")
def list_(
    tenant: TenantOption = None,
    model: ModelOption = None,
    environment: Annotated[str | None, typer.Option("--environment", "-e", help="Only of this one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List a model's gates."""
    model_id = given("model", model, "--model")
    with platform(tenant) as client:
        found = client.gates.list(model_id, environment)
        others = client.gates.list(model_id) if environment is not None and not found else []
        name = client.tenant_id
    if as_json:
        print_json(found)
        return
    where = f"{name}/{model_id}" if environment is None else f"{environment} of {name}/{model_id}"
    elsewhere = f" There are gates of: {', '.join(sorted({gate.environment for gate in others}))}." if others else ""
    print_rows(
        [{**dict(gate), "settings": _words(gate.settings)} for gate in found],
        ["environment", "name", "kind", "settings", "created_by"],
        as_json=False,
        empty=f"{where} has no gates.{elsewhere} Set one: mlcore gates set quality min_metric --tenant {name} "
        f"--model {model_id} --environment {environment or 'production'} --set metric=accuracy --set value=0.75",
    )


@app.command("remove")
def remove(
    name: NameArgument,
    tenant: TenantOption = None,
    model: ModelOption = None,
    environment: EnvironmentOption = "production",
    as_json: JsonOption = False,
) -> None:
    """Remove a gate."""
    model_id = given("model", model, "--model")
    with platform(tenant) as client:
        client.gates.remove(model_id, environment, name)
    if as_json:
        print_json({"model_id": model_id, "environment": environment, "name": name, "removed": True})
    else:
        out.print(f"Removed {name!r} of {environment} of {model_id}.")


def approve(
    version: Annotated[str, typer.Option("--version", "-v", help="The version, which somebody else registered.")],
    tenant: TenantOption = None,
    model: ModelOption = None,
    environment: EnvironmentOption = "production",
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the approval.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Approve a version for an environment. An approval counts from whoever did not register the version.

    On one machine that is the holder of a key: mlcore keys create --tenant acme --scope approve, then --key.
    """
    model_id = given("model", model, "--model")
    with platform(tenant) as client:
        approval = client.environments.approve(model_id, version, environment, reason=reason)
    if as_json:
        print_json(approval)
    else:
        out.print(f"{approval.approver} approved version {version} of {model_id} for {environment}.")


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
    try:
        return name, orjson.loads(value)
    except orjson.JSONDecodeError:
        return name, value
