"""``mlcore promote``, ``rollback``, ``withdraw`` and ``rollouts``: change what an environment serves."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from ml_core.cli.console import note, print_gates, print_page, printed_as_json, say, wants_json
from ml_core.cli.environments import canary_words
from ml_core.cli.options import (
    CursorOption,
    EnvironmentOption,
    LimitOption,
    ModelOption,
    OnlyModelOption,
    VersionOption,
)
from ml_core.cli.target import Options, platform, with_options
from ml_core.domain.gates import GateKind
from ml_core.domain.replica_report import LoadState
from ml_core.exceptions import (
    Action,
    DeadlineExceededError,
    ModelLoadError,
    PermissionDeniedError,
    PromotionRefusedError,
    did_you_mean,
)

if TYPE_CHECKING:
    from ml_core.api.schemas.environments import Pointer, ReplicaAnswer
    from ml_core.client import MLClient

ASKS = "tenant"

_WAIT_S = 10.0
"""Loading takes milliseconds, a large forest a few seconds; a replica that died is known to be dead after 7 s."""

PercentOption = Annotated[
    int, typer.Option("--percent", "-p", min=1, max=99, help="Percentage of the keys that the canary answers.")
]
OverrideOption = Annotated[
    str | None,
    typer.Option("--override", help="Proceed although a gate fails, for this reason; needs the scope admin."),
]

_EVERY_MOVE: Options = {
    "model": (ModelOption, inspect.Parameter.empty),
    "environment": (EnvironmentOption, "production"),
    "expected_generation": (
        Annotated[int | None, typer.Option(help="Refuse unless the pointer is at this generation.")],
        None,
    ),
    "reason": (Annotated[str, typer.Option("--reason", help="The reason; kept in the history.")], ""),
    "wait": (
        Annotated[float, typer.Option(min=0, help="Seconds to wait for the replicas to load the version.")],
        _WAIT_S,
    ),
    "no_wait": (Annotated[bool, typer.Option("--no-wait", help="Do not wait for the replicas.")], False),
}
"""Options that every verb that moves a pointer has: name → type and default."""

app = typer.Typer(help="Run a canary or a shadow: a second version beside the served one.", no_args_is_help=True)


def _moving(concerns: Callable[[Pointer], str | None]) -> Callable[[Callable[..., Pointer]], Callable[..., None]]:
    """Make a verb of a function that moves a pointer: with the options of every move, and what comes after it.

    Args:
        concerns: The version that the move is about, of the pointer after it; replicas are asked for this one.
    """

    def decorate(move: Callable[..., Pointer]) -> Callable[..., None]:
        @functools.wraps(move)
        def verb(*, model: str, wait: float, no_wait: bool, **options: Any) -> None:
            with platform() as client:
                try:
                    moved = move(client, model, **options)
                except PromotionRefusedError as refusal:
                    if not wants_json.get():  # the JSON error has them
                        print_gates(refusal.attributes()["gates"])
                        _note_how_to_approve(client, refusal)
                    raise
                _report(client, moved, concerns(moved), None if no_wait else wait)

        signature = inspect.signature(move)
        own = [name for name in signature.parameters if name not in ("client", "model", "moving")]
        hints = get_type_hints(move, include_extras=True, localns={"MLClient": Any, "Pointer": Any})
        options = {name: (hints[name], signature.parameters[name].default) for name in own} | _EVERY_MOVE
        return with_options(verb, options)

    return decorate


def _stable(pointer: Pointer) -> str | None:
    return pointer.version


def _canary(pointer: Pointer) -> str | None:
    return None if pointer.canary is None else pointer.canary.version


def _shadow(pointer: Pointer) -> str | None:
    return pointer.shadow


@_moving(_stable)
def promote(
    client: MLClient, model: str, version: VersionOption, override: OverrideOption = None, **moving: Any
) -> Pointer:
    """Point an environment to a version, and wait until every replica serves it. Exit code 1 if one can't."""
    return client.environments.promote(model, version, override=override, **moving)


@_moving(_stable)
def rollback(client: MLClient, model: str, **moving: Any) -> Pointer:
    """Point an environment back to the version that it served before."""
    return client.environments.rollback(model, **moving)


@_moving(_stable)
def withdraw(client: MLClient, model: str, **moving: Any) -> Pointer:
    """Serve nothing in an environment: no stable version, no canary, no shadow. `mlcore rollback` undoes it."""
    return client.environments.withdraw(model, **moving)


@app.command("start")
@_moving(_canary)
def start(
    client: MLClient,
    model: str,
    version: VersionOption,
    percent: PercentOption,
    sticky: Annotated[
        str | None,
        typer.Option("--sticky", help="Column that is the key of a request that sends none, such as customer_id."),
    ] = None,
    override: OverrideOption = None,
    **moving: Any,
) -> Pointer:
    """Start a canary: a version that answers a share of the keys. A request goes to one version, with all its rows."""
    moved = client.rollouts.start(model, version, percent, sticky=sticky, override=override, **moving)
    if sticky is not None:
        _note_unread_key(client, model, version, sticky)
    return moved


@app.command("step")
@_moving(_canary)
def step(client: MLClient, model: str, percent: PercentOption, **moving: Any) -> Pointer:
    """Change the share that the canary answers. Who had it keeps it while the share grows."""
    return client.rollouts.step(model, percent, **moving)


@app.command("finish")
@_moving(_stable)
def finish(client: MLClient, model: str, override: OverrideOption = None, **moving: Any) -> Pointer:
    """Make the canary the version that answers everything."""
    return client.rollouts.finish(model, override=override, **moving)


@app.command("abort")
@_moving(_stable)
def abort(client: MLClient, model: str, **moving: Any) -> Pointer:
    """Drop the canary: the stable version answers everything again."""
    return client.rollouts.abort(model, **moving)


@app.command("shadow")
@_moving(_shadow)
def shadow(client: MLClient, model: str, version: VersionOption, **moving: Any) -> Pointer:
    """Let a version predict what the stable one is asked. /healthz counts how often they agree."""
    return client.rollouts.shadow(model, version, **moving)


@app.command("unshadow")
@_moving(_stable)
def unshadow(client: MLClient, model: str, **moving: Any) -> Pointer:
    """Drop the shadow."""
    return client.rollouts.unshadow(model, **moving)


@app.command("list")
def list_(model: OnlyModelOption = None, limit: LimitOption = 100, cursor: CursorOption = None) -> None:
    """List the canaries and shadows that run."""
    with platform() as client:
        page = client.rollouts.list(model).page(limit=limit, cursor=cursor)
    columns = ["model_id", "environment", "version", "canary", "shadow", "generation", "updated_by", "updated_at"]
    empty = "No canary or shadow runs. Start one with mlcore rollouts start."
    print_page(page, columns, empty=empty, shown={"canary": canary_words})


@app.command("show")
def show(model: ModelOption, environment: EnvironmentOption = "production") -> None:
    """Show what an environment serves, and what each replica has made of it."""
    with platform() as client:
        pointer = client.environments.get(model, environment)
        answers = client.environments.replicas(model, environment)
        if not printed_as_json({**pointer.model_dump(mode="json"), "replicas": answers}):
            _print_pointer(client, pointer)
            _print_answers(answers)


def _report(client: MLClient, moved: Pointer, version: str | None, wait_s: float | None) -> None:
    """Print a pointer, wait for the replicas, and print what each answered.

    Raises:
        ModelLoadError: A replica can't load the version.
        DeadlineExceededError: A replica has not loaded it in time.
    """
    if not wants_json.get():
        print_gates([gate.model_dump() for gate in moved.gates])
        _print_pointer(client, moved)
    answers = None
    if wait_s is not None:
        try:
            answers = client.environments.replicas(moved.model_id, moved.environment, version=version, wait_s=wait_s)
        except PermissionDeniedError:  # the key was only for the move, which is made
            note("The replicas were not asked: the key lacks the scope read.")
    is_printed = printed_as_json({**moved.model_dump(mode="json"), "replicas": answers})
    if answers is not None:
        if not is_printed:
            _print_answers(answers)
        _require_served(client.tenant_id, moved, version, answers, wait_s or 0.0)


def _print_pointer(client: MLClient, pointer: Pointer) -> None:
    parts = [f"version {pointer.version}" if pointer.version else "nothing"]
    if pointer.canary is not None:
        by = f"by {pointer.canary.sticky}" if pointer.canary.sticky else "by request"
        parts.append(f"canary {canary_words(pointer.canary)} {by}")
    if pointer.shadow is not None:
        parts.append(f"shadow {pointer.shadow}")
    name = f"{pointer.environment} of {client.tenant_id}/{pointer.model_id}"
    say(f"{name} serves {', '.join(parts)} (generation {pointer.generation}).")
    if pointer.shadow is not None:
        note("How often the shadow agrees: /healthz of the replicas, under shadows.")


def _print_answers(answers: Sequence[ReplicaAnswer]) -> None:
    """How many replicas have done what the pointer says, and of each other one what it answered."""
    if not answers:
        say("No replica is running: those that start will serve it.", style="dim")
        return
    for answer in answers:
        if answer.state is not LoadState.LOADED:
            say(f"  replica {answer.replica_id}: {_describe(answer)}")
    done = sum(answer.state is LoadState.LOADED for answer in answers)
    say(f"Replicas that have applied it: {done} of {len(answers)}.")


def _describe(answer: ReplicaAnswer) -> str:
    if answer.state is LoadState.BEHIND:
        return "has not read the pointer's last move yet"
    if answer.version is None:
        return "is loading many versions"
    meanwhile = "requests are refused" if answer.serves is None else f"version {answer.serves} answers"
    match answer.state:
        case LoadState.DEFERRED:
            return f"loads version {answer.version} with the first request, since its memory is full"
        case LoadState.LOADING:
            return f"is loading version {answer.version}; {meanwhile} until then"
        case _:
            return f"can't load version {answer.version} ({answer.code}): {answer.reason} Meanwhile {meanwhile}."


def _require_served(
    tenant_id: str, pointer: Pointer, version: str | None, answers: Sequence[ReplicaAnswer], wait_s: float
) -> None:
    names = {"tenant": tenant_id, "model": pointer.model_id, "environment": pointer.environment}
    moved = f"The pointer has moved, to generation {pointer.generation}"
    failed = [answer for answer in answers if answer.state is LoadState.FAILED]
    if failed:
        is_canary = _canary(pointer) == version
        undo = "rollouts.abort" if is_canary else "rollouts.unshadow" if version == pointer.shadow else "rollback"
        raise ModelLoadError(
            f"{len(failed)} of {len(answers)} replicas can't load version {failed[0].version}: {failed[0].reason}",
            remedy=f"{moved}; replicas try again, with growing pauses. To take it back:",
            action=Action(undo if "." in undo else f"environments.{undo}", names),
            tenant_id=tenant_id,
            model_id=pointer.model_id,
            version=failed[0].version,
            details={"replicas": [answer.model_dump(mode="json") for answer in failed]},
        )
    late = [answer for answer in answers if not answer.state.is_final]
    if late:
        what = "applied the move" if version is None else f"loaded version {version}"
        raise DeadlineExceededError(
            f"{len(late)} of {len(answers)} replicas have not {what} within {wait_s:g} s.",
            remedy=f"{moved}, and they continue. To look again:",
            action=Action("rollouts.show", names),
            tenant_id=tenant_id,
            model_id=pointer.model_id,
            version=version,
            deadline_ms=int(wait_s * 1000),
        )


def _note_how_to_approve(client: MLClient, refusal: PromotionRefusedError) -> None:
    """Say how somebody else gets a key: on one machine everybody is the same user."""
    failed = {gate["kind"] for gate in refusal.attributes()["gates"] if not gate["passed"]}
    if GateKind.APPROVAL in failed:
        create = f"mlcore keys create --tenant {client.tenant_id} --scope approve"
        note(f"A key for who approves it, to give with --key: {create}")


def _note_unread_key(client: MLClient, model: str, version: str, sticky: str) -> None:
    """Note a key that the version does not read: a typo would make each request its own key."""
    try:
        columns = [column["name"] for column in client.versions.get(model, version).signature["inputs"]]
    except PermissionDeniedError:  # the key was only for the move, which is made
        return
    if sticky in columns:
        return
    hint = did_you_mean(sticky, columns)
    note(
        f"Note: version {version} reads no column {sticky!r}. {hint}A request keeps to one side only if its first row "
        "has that column, or if it names its key.",
        style="",
    )
