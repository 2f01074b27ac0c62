"""``mlcore rollouts``: a canary or a shadow beside what an environment serves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ml_core.cli.console import (
    AsKeyOption,
    JsonOption,
    ModelOption,
    TenantOption,
    err,
    out,
    print_gates,
    print_json,
    print_rows,
)
from ml_core.cli.context import existing_tenant
from ml_core.cli.replicas import WAIT_S, NoWaitOption, WaitOption, print_answers, print_move
from ml_core.exceptions import PromotionRefusedError

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection
    from ml_core.ids import VersionId
    from ml_core.registry.promotion.pointers import Pointer
    from ml_core.registry.promotion.rollouts import RolloutRepository

app = typer.Typer(help="Canaries and shadows: try a version beside the one that is served.", no_args_is_help=True)

VersionOption = Annotated[str, typer.Option("--version", "-v", help="The version to try.")]
OneModelOption = Annotated[str | None, typer.Option("--model", "-m", help="Only of this model.")]
PercentOption = Annotated[int, typer.Option("--percent", "-p", help="Of the keys that it answers, 1 to 99.")]
EnvironmentOption = Annotated[str, typer.Option("--environment", "-e", help="The environment.")]
ExpectedOption = Annotated[int | None, typer.Option(help="Refuse unless the pointer has this generation.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]
OverrideOption = Annotated[
    str | None, typer.Option("--override", help="Why to do it although a gate refuses; needs an admin.")
]


@app.command("start")
def start(
    tenant: TenantOption,
    model: ModelOption,
    version: VersionOption,
    percent: PercentOption,
    environment: EnvironmentOption = "production",
    sticky: Annotated[
        str | None,
        typer.Option("--sticky", help="Column that is a request's key where it names none, such as customer_id."),
    ] = None,
    expected_generation: ExpectedOption = None,
    reason: ReasonOption = "",
    override: OverrideOption = None,
    wait: WaitOption = WAIT_S,
    no_wait: NoWaitOption = False,
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a canary: a version that answers a share of the keys. A request goes to one version, with all its rows."""
    with _rollouts(tenant, as_key, as_json=as_json) as (rollouts, database):
        pointer = rollouts.start(
            model,
            version,
            percent,
            environment,
            sticky=sticky,
            expected_generation=expected_generation,
            reason=reason,
            override=override,
        )
        _print(database, pointer, _canary(pointer), None if no_wait else wait, as_json=as_json)
    if not as_json:
        _tell_key(pointer)


@app.command("step")
def step(
    tenant: TenantOption,
    model: ModelOption,
    percent: PercentOption,
    environment: EnvironmentOption = "production",
    expected_generation: ExpectedOption = None,
    reason: ReasonOption = "",
    wait: WaitOption = WAIT_S,
    no_wait: NoWaitOption = False,
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change the share that the canary answers. Who had it keeps it while the share grows."""
    with _rollouts(tenant, as_key) as (rollouts, database):
        pointer = rollouts.step(model, percent, environment, expected_generation=expected_generation, reason=reason)
        _print(database, pointer, _canary(pointer), None if no_wait else wait, as_json=as_json)


@app.command("finish")
def finish(
    tenant: TenantOption,
    model: ModelOption,
    environment: EnvironmentOption = "production",
    expected_generation: ExpectedOption = None,
    reason: ReasonOption = "",
    override: OverrideOption = None,
    wait: WaitOption = WAIT_S,
    no_wait: NoWaitOption = False,
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the canary the version that answers everything."""
    with _rollouts(tenant, as_key, as_json=as_json) as (rollouts, database):
        pointer = rollouts.finish(
            model, environment, expected_generation=expected_generation, reason=reason, override=override
        )
        _print(database, pointer, pointer.version, None if no_wait else wait, as_json=as_json)


@app.command("abort")
def abort(
    tenant: TenantOption,
    model: ModelOption,
    environment: EnvironmentOption = "production",
    expected_generation: ExpectedOption = None,
    reason: ReasonOption = "",
    wait: WaitOption = WAIT_S,
    no_wait: NoWaitOption = False,
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drop the canary: the stable version answers everything again."""
    with _rollouts(tenant, as_key) as (rollouts, database):
        pointer = rollouts.abort(model, environment, expected_generation=expected_generation, reason=reason)
        _print(database, pointer, pointer.version, None if no_wait else wait, as_json=as_json)


@app.command("shadow")
def shadow(
    tenant: TenantOption,
    model: ModelOption,
    version: VersionOption,
    environment: EnvironmentOption = "production",
    expected_generation: ExpectedOption = None,
    reason: ReasonOption = "",
    wait: WaitOption = WAIT_S,
    no_wait: NoWaitOption = False,
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a version predict what the stable one is asked. /healthz counts how often they agree."""
    with _rollouts(tenant, as_key) as (rollouts, database):
        pointer = rollouts.shadow(model, version, environment, expected_generation=expected_generation, reason=reason)
        _print(database, pointer, pointer.shadow, None if no_wait else wait, as_json=as_json)


@app.command("unshadow")
def unshadow(
    tenant: TenantOption,
    model: ModelOption,
    environment: EnvironmentOption = "production",
    expected_generation: ExpectedOption = None,
    reason: ReasonOption = "",
    wait: WaitOption = WAIT_S,
    no_wait: NoWaitOption = False,
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drop the shadow."""
    with _rollouts(tenant, as_key) as (rollouts, database):
        pointer = rollouts.unshadow(model, environment, expected_generation=expected_generation, reason=reason)
        _print(database, pointer, pointer.version, None if no_wait else wait, as_json=as_json)


@app.command("list")
def list_(tenant: TenantOption, model: OneModelOption = None, as_json: JsonOption = False) -> None:
    """List the canaries and shadows that run."""
    with _rollouts(tenant) as (rollouts, _):
        pointers = rollouts.list(model, limit=1000).items
    if as_json:
        print_json(pointers)
        return
    rows = [
        {
            "model_id": pointer.model_id,
            "environment": pointer.environment,
            "version": pointer.version,
            "canary": pointer.canary and f"{pointer.canary.version} for {pointer.canary.percent} %",
            "shadow": pointer.shadow,
            "generation": pointer.generation,
            "updated_by": pointer.updated_by,
            "updated_at": pointer.updated_at,
        }
        for pointer in pointers
    ]
    print_rows(
        rows,
        list(rows[0]) if rows else [],
        as_json=False,
        empty=f"No canary or shadow runs. Start one: mlcore rollouts start --tenant {tenant} --model MODEL",
    )


@app.command("show")
def show(
    tenant: TenantOption, model: ModelOption, environment: EnvironmentOption = "production", as_json: JsonOption = False
) -> None:
    """Say what an environment serves, and what each replica has made of it."""
    from ml_core.registry.promotion.environments import EnvironmentRepository

    with existing_tenant(tenant) as (database, tenant_id):
        environments = EnvironmentRepository(database, tenant_id)
        pointer, answers = environments.get(model, environment), environments.replicas(model, environment)
    if as_json:
        print_json({**dataclasses.asdict(pointer), "replicas": answers})
    else:
        out.print(_said(pointer), markup=False, soft_wrap=True)
        _tell_agreement(pointer)
        print_answers(answers)


@contextmanager
def _rollouts(
    tenant: str, as_key: str | None = None, *, as_json: bool = True
) -> Iterator[tuple[RolloutRepository, DatabaseConnection]]:
    """The tenant's rollouts; if a gate refuses, what each gate found is printed, unless the JSON error carries it."""
    from ml_core.registry.promotion.rollouts import RolloutRepository

    with existing_tenant(tenant, as_key) as (database, tenant_id):
        try:
            yield RolloutRepository(database, tenant_id), database
        except PromotionRefusedError as refusal:
            if not as_json:
                print_gates(refusal)
            raise


def _canary(pointer: Pointer) -> VersionId | None:
    return None if pointer.canary is None else pointer.canary.version


def _print(
    database: DatabaseConnection, pointer: Pointer, version: VersionId | None, wait_s: float | None, *, as_json: bool
) -> None:
    if not as_json:
        _tell_agreement(pointer)
    print_move(database, pointer, version, _said(pointer), wait_s=wait_s, as_json=as_json)


def _said(pointer: Pointer) -> str:
    parts = [f"version {pointer.version}" if pointer.version else "nothing"]
    if pointer.canary is not None:
        canary = pointer.canary
        by = f"by {canary.sticky}" if canary.sticky else "by request"
        parts.append(f"canary {canary.version} for {canary.percent} % {by}")
    if pointer.shadow is not None:
        parts.append(f"shadow {pointer.shadow}")
    name = f"{pointer.environment} of {pointer.tenant_id}/{pointer.model_id}"
    return f"{name} serves {', '.join(parts)} (generation {pointer.generation})."


def _tell_agreement(pointer: Pointer) -> None:
    if pointer.shadow is not None:
        err.print("How often the shadow agrees: /healthz of the replicas, under shadows.", style="dim")


def _tell_key(pointer: Pointer) -> None:
    """Say where the key comes from if the model has no such column: a typo would make each request its own key."""
    from ml_core.registry.missing import did_you_mean
    from ml_core.registry.versions.repository import VersionRepository

    canary = pointer.canary
    if canary is None or canary.sticky is None:
        return
    with existing_tenant(pointer.tenant_id) as (database, tenant_id):
        version = VersionRepository(database, tenant_id).get(pointer.model_id, canary.version)
    columns = [column.name for column in version.servable.signature.inputs]
    if canary.sticky not in columns:
        err.print(
            Text(
                f"Note: version {canary.version} reads no column {canary.sticky!r}. "
                f"{did_you_mean(canary.sticky, columns)}A request keeps to one side only if its first row has that "
                "column, or if it names its key."
            ),
            soft_wrap=True,
        )
