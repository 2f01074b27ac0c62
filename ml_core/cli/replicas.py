"""What replicas answer after a pointer was moved, for the verbs that move one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ml_core.cli.console import out, print_json
from ml_core.domain.replica_report import LoadState, ReplicaAnswer
from ml_core.exceptions import DeadlineExceededError, ModelLoadError

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection
    from ml_core.ids import VersionId
    from ml_core.registry.promotion.pointers import Pointer

WAIT_S = 10.0
"""Loading takes milliseconds, a large forest a few seconds; a replica that died is known to be dead after 7 s."""

WaitOption = Annotated[
    float, typer.Option("--wait", min=0, help="Seconds to wait at most until every replica serves it or says why not.")
]
NoWaitOption = Annotated[bool, typer.Option("--no-wait", help="Do not ask the replicas.")]


def print_move(
    database: DatabaseConnection,
    pointer: Pointer,
    version: VersionId | None,
    said: str,
    *,
    wait_s: float | None,
    as_json: bool,
) -> None:
    """Print a pointer, wait for the replicas, and print what each answered.

    Args:
        database: The registry.
        pointer: After the move.
        version: The version that the move is about; None for a withdrawal.
        said: The line that describes it.
        wait_s: Seconds to wait at most; None: the replicas are not asked.
        as_json: One JSON document instead: the pointer, with ``replicas``.

    Raises:
        ModelLoadError: A replica can't load the version.
        DeadlineExceededError: A replica has not loaded it in time.
    """
    from ml_core.registry.replicas import ask_replicas

    if not as_json:
        out.print(said, markup=False, soft_wrap=True)
    answers = None
    if wait_s is not None:
        subject = (pointer.tenant_id, pointer.model_id, pointer.environment)
        answers = ask_replicas(database, *subject, version, wait_s=wait_s)
    if as_json:
        print_json({**dataclasses.asdict(pointer), "replicas": answers})
    if answers is None:
        return
    if not as_json:
        print_answers(answers)
    _require_served(pointer, version, answers, wait_s or 0.0)


def print_answers(answers: Sequence[ReplicaAnswer]) -> None:
    """How many replicas have done what the pointer says, and of each other one what it answered."""
    if not answers:
        out.print("No replica is running: those that start will serve it.", style="dim")
        return
    for answer in answers:
        if answer.state is not LoadState.LOADED:
            out.print(f"  replica {answer.replica_id}: {_describe(answer)}", markup=False, soft_wrap=True)
    done = sum(answer.state is LoadState.LOADED for answer in answers)
    out.print(Text(f"Replicas that have applied it: {done} of {len(answers)}."), soft_wrap=True)


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
    pointer: Pointer, version: VersionId | None, answers: Sequence[ReplicaAnswer], wait_s: float
) -> None:
    names = f"--tenant {pointer.tenant_id} --model {pointer.model_id} --environment {pointer.environment}"
    moved = f"The pointer has moved, to generation {pointer.generation}"
    failed = [answer for answer in answers if answer.state is LoadState.FAILED]
    if failed:
        is_canary = pointer.canary is not None and pointer.canary.version == version
        undo = "rollouts abort" if is_canary else "rollouts unshadow" if version == pointer.shadow else "rollback"
        raise ModelLoadError(
            f"{len(failed)} of {len(answers)} replicas can't load version {failed[0].version}: {failed[0].reason}",
            remedy=f"{moved}; replicas try again, with growing pauses. To take it back: mlcore {undo} {names}",
            tenant_id=pointer.tenant_id,
            model_id=str(pointer.model_id),
            version=failed[0].version,
            details={"replicas": [dataclasses.asdict(answer) for answer in failed]},
        )
    late = [answer for answer in answers if not answer.is_final]
    if late:
        what = "applied the move" if version is None else f"loaded version {version}"
        raise DeadlineExceededError(
            f"{len(late)} of {len(answers)} replicas have not {what} within {wait_s:g} s.",
            remedy=f"{moved}, and they go on. To look again: mlcore rollouts show {names}",
            tenant_id=pointer.tenant_id,
            model_id=pointer.model_id,
            version=version,
            deadline_ms=int(wait_s * 1000),
        )
