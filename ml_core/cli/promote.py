"""``mlcore promote``, ``rollback`` and ``withdraw``: move what an environment serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ml_core.cli.console import AsKeyOption, JsonOption, ModelOption, TenantOption, err, print_gates
from ml_core.cli.context import existing_tenant
from ml_core.cli.replicas import WAIT_S, NoWaitOption, WaitOption, print_move
from ml_core.domain.gates import GateKind
from ml_core.exceptions import PromotionRefusedError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection
    from ml_core.registry.promotion.environments import Pointer

EnvironmentOption = Annotated[str, typer.Option("--environment", "-e", help="The pointer to move.")]
ExpectedOption = Annotated[int | None, typer.Option(help="Refuse unless the pointer has this generation.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command("promote")(promote)
    app.command("rollback")(rollback)
    app.command("withdraw")(withdraw)


def promote(
    tenant: TenantOption,
    model: ModelOption,
    version: Annotated[str, typer.Option("--version", "-v", help="The version to serve.")],
    environment: EnvironmentOption = "production",
    expected_generation: ExpectedOption = None,
    reason: ReasonOption = "",
    override: Annotated[
        str | None, typer.Option("--override", help="Why to promote although a gate refuses; needs an admin.")
    ] = None,
    wait: WaitOption = WAIT_S,
    no_wait: NoWaitOption = False,
    as_key: AsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Point an environment to a version, and wait until every replica serves it. Exit code 1 if one can't."""
    from ml_core.registry.promotion.environments import EnvironmentRepository

    model_id, version_id, name = ModelId(model), VersionId(version), EnvironmentName(environment)
    with existing_tenant(tenant, as_key) as (database, tenant_id):
        try:
            pointer = EnvironmentRepository(database, tenant_id).promote(
                model_id,
                version_id,
                name,
                expected_generation=expected_generation,
                reason=reason,
                override=override,
            )
        except PromotionRefusedError as refusal:
            if not as_json:  # the JSON error carries them
                print_gates(refusal)
                _tell_how_to_approve(refusal, tenant_id)
            raise
        _print(database, pointer, None if no_wait else wait, as_json=as_json)


def rollback(
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
    """Point an environment back to the version that it served before."""
    from ml_core.registry.promotion.environments import EnvironmentRepository

    model_id, name = ModelId(model), EnvironmentName(environment)
    with existing_tenant(tenant, as_key) as (database, tenant_id):
        pointer = EnvironmentRepository(database, tenant_id).rollback(
            model_id, name, expected_generation=expected_generation, reason=reason
        )
        _print(database, pointer, None if no_wait else wait, as_json=as_json)


def withdraw(
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
    """Let an environment serve nothing: no stable version, no canary, no shadow. `mlcore rollback` undoes it."""
    from ml_core.registry.promotion.environments import EnvironmentRepository

    model_id, name = ModelId(model), EnvironmentName(environment)
    with existing_tenant(tenant, as_key) as (database, tenant_id):
        pointer = EnvironmentRepository(database, tenant_id).withdraw(
            model_id, name, expected_generation=expected_generation, reason=reason
        )
        _print(database, pointer, None if no_wait else wait, as_json=as_json)


def _tell_how_to_approve(refusal: PromotionRefusedError, tenant_id: TenantId) -> None:
    """On one machine everybody is the same user: somebody else is the holder of a key."""
    failed = {gate["kind"] for gate in refusal.attributes()["gates"] if not gate["passed"]}
    if GateKind.APPROVAL in failed:
        of = f"--tenant {tenant_id} --model {refusal.attributes()['model_id']}"
        how = (
            f"To approve: mlcore keys create --tenant {tenant_id} --scope approve, then mlcore approve {of} "
            f"--version {refusal.attributes()['version']} --environment {refusal.attributes()['environment']} "
            "--as-key KEY"
        )
        err.print(Text(how), style="dim", soft_wrap=True)


def _print(database: DatabaseConnection, pointer: Pointer, wait_s: float | None, *, as_json: bool) -> None:
    now = "serves nothing now" if pointer.version is None else f"is now version {pointer.version}"
    name = f"{pointer.environment} of {pointer.tenant_id}/{pointer.model_id}"
    said = f"{name} {now} (generation {pointer.generation})."
    print_move(database, pointer, pointer.version, said, wait_s=wait_s, as_json=as_json)
