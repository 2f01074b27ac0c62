"""``mlcore gates`` and ``mlcore approve``: what a version must pass before an environment may point to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from ml_core.cli.console import AsKeyOption, JsonOption, ModelOption, TenantOption, out, print_json, print_rows
from ml_core.cli.context import existing_tenant
from ml_core.domain.gates import GateKind
from ml_core.exceptions import InvalidRequestError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId

if TYPE_CHECKING:
    from ml_core.registry.promotion.gates import GateRecord

app = typer.Typer(help="The gates that a version must pass to be promoted.", no_args_is_help=True)

EnvironmentOption = Annotated[str, typer.Option("--environment", "-e", help="The environment.")]
NameArgument = Annotated[str, typer.Argument(help="The gate's own name, such as quality.")]


def add_to(root: typer.Typer) -> None:
    """Register the verbs."""
    root.add_typer(app, name="gates")
    root.command("approve")(approve)


@app.command("set")
def set_(
    name: NameArgument,
    kind: Annotated[GateKind, typer.Argument(help="What it asks.")],
    tenant: TenantOption,
    model: ModelOption,
    environment: EnvironmentOption = "production",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE, such as metric=accuracy or value=0.75; repeat for several."),
    ] = None,
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a gate, or replace the one of this name.

    min_metric takes metric, value, split (validation) and higher_is_better. not_worse takes dataset, target, metric,
    margin, number (the newest now), confidence (0.95), resamples (2000), seed and max_rows. approval takes count (1).
    signature_compatible and digest_verified take nothing.
    """
    from ml_core.registry.promotion.gates import GateRepository

    settings = dict(_setting(text) for text in setting or [])
    model_id, at = ModelId(model), EnvironmentName(environment)
    with existing_tenant(tenant, as_key) as (database, tenant_id):
        record = GateRepository(database, tenant_id).set(model_id, at, name, kind.value, settings)
    if as_json:
        print_json(_row(record, tenant_id))
    else:
        out.print(f"Versions of {tenant_id}/{model_id} now pass {record.gate.name!r} before they go to {at}.")


@app.command("list")
def list_(
    tenant: TenantOption,
    model: ModelOption,
    environment: Annotated[str | None, typer.Option("--environment", "-e", help="Only of this one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List a model's gates."""
    from ml_core.registry.missing import require_model
    from ml_core.registry.promotion.gates import GateRepository
    from ml_core.registry.promotion.rules import check_environment

    model_id, at = ModelId(model), None if environment is None else EnvironmentName(environment)
    with existing_tenant(tenant) as (database, tenant_id):
        records = GateRepository(database, tenant_id).list(model_id, at)
        others: set[str] = set()
        if not records:
            require_model(database, tenant_id, model_id)
            if at is not None:
                check_environment(database, tenant_id, at)
                others = {str(record.environment) for record in GateRepository(database, tenant_id).list(model_id)}
    rows = [_row(record, tenant_id) for record in records]
    shown = rows if as_json else [{**row, "settings": _words(row["settings"])} for row in rows]
    where = f"{at} of {tenant_id}/{model_id}" if at is not None else f"{tenant_id}/{model_id}"
    elsewhere = f" {' and '.join(sorted(others))} {'has' if len(others) == 1 else 'have'} some." if others else ""
    print_rows(
        shown,
        ["environment", "name", "kind", "settings", "created_by"],
        as_json=as_json,
        empty=f"{where} has no gate.{elsewhere} Make one: mlcore gates set quality min_metric --tenant {tenant_id} "
        f"--model {model_id} --environment {at or 'production'} --set metric=accuracy --set value=0.75",
    )


@app.command("remove")
def remove(
    name: NameArgument,
    tenant: TenantOption,
    model: ModelOption,
    environment: EnvironmentOption = "production",
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a gate."""
    from ml_core.registry.promotion.gates import GateRepository

    model_id, at = ModelId(model), EnvironmentName(environment)
    with existing_tenant(tenant, as_key) as (database, tenant_id):
        GateRepository(database, tenant_id).remove(model_id, at, name)
    if as_json:
        print_json({"tenant_id": tenant_id, "model_id": model_id, "environment": at, "name": name, "removed": True})
    else:
        out.print(f"Removed {name!r} of {at} of {tenant_id}/{model_id}.")


def approve(
    tenant: TenantOption,
    model: ModelOption,
    version: Annotated[str, typer.Option("--version", "-v", help="The version, which somebody else registered.")],
    environment: EnvironmentOption = "production",
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the approval.")] = "",
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve a version for an environment. An approval counts from whoever did not register the version.

    On one machine that is the holder of a key: mlcore keys create --tenant acme --scope approve, then --as-key.
    """
    from ml_core.registry.promotion.gates import GateRepository

    model_id, version_id, at = ModelId(model), VersionId(version), EnvironmentName(environment)
    with existing_tenant(tenant, as_key) as (database, tenant_id):
        record = GateRepository(database, tenant_id).approve(model_id, version_id, at, reason)
    if as_json:
        print_json({"tenant_id": tenant_id, **dataclasses.asdict(record)})
    else:
        out.print(f"{record.approver} approved version {version_id} of {tenant_id}/{model_id} for {at}.")


def _row(record: GateRecord, tenant_id: TenantId) -> dict[str, Any]:
    return {
        "tenant_id": tenant_id,
        "model_id": record.model_id,
        "environment": record.environment,
        "name": record.gate.name,
        "kind": record.gate.kind.value,
        "settings": record.gate.settings,
        "created_at": record.created_at,
        "created_by": record.created_by,
    }


def _words(settings: Mapping[str, Any]) -> str:
    """Settings as ``--set`` takes them."""
    given = {name: value for name, value in settings.items() if value is not None}
    return " ".join(f"{n}={v if isinstance(v, str) else orjson.dumps(v).decode()}" for n, v in given.items()) or "-"


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
