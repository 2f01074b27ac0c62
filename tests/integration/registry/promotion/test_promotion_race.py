"""Two real processes promote at once: exactly one wins each generation, and the history has no gap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from support.registry import TICKETS, register

ROUNDS = 200

# Told a generation a line, it promotes with that expectation and answers with the outcome.
CONTENDER = """
import sys
from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import PromotionConflictError
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository

tenant, name = sys.argv[1:]
environments = EnvironmentRepository(DatabaseConnection(), TenantId(tenant))
environments.list()
print("ready", flush=True)
for line in sys.stdin:
    expected = int(line)
    try:
        pointer = environments.promote(
            ModelId("tickets"), VersionId(name), PRODUCTION, expected_generation=expected, actor=name
        )
        print("won", pointer.generation, flush=True)
    except PromotionConflictError as error:
        print("lost", error.actual_generation, flush=True)
"""


def contender(db: DatabaseConnection, tenant_id: TenantId, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CONTENDER, tenant_id, name]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = {**os.environ, **db.environment}
    process = subprocess.Popen(command, text=True, cwd=Path(__file__).parents[4], env=environment, **pipes)  # type: ignore[call-overload]
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_one_of_two_processes_wins_each_round(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """In each round one process moves the pointer, the other gets the conflict, and the history tells who won."""
    for name in ("left", "right"):
        register(db, tenant_id, name)
    processes = [contender(db, tenant_id, name) for name in ("left", "right")]
    outcomes = []
    for expected in range(ROUNDS):
        order = processes if expected % 2 else processes[::-1]
        for process in order:
            assert process.stdin is not None
            process.stdin.write(f"{expected}\n")
            process.stdin.flush()
        outcomes.append([process.stdout.readline().split() for process in processes if process.stdout])
    for process in processes:
        process.communicate("", timeout=30)
    history = EnvironmentRepository(db, tenant_id).history(TICKETS, PRODUCTION, limit=ROUNDS + 1).items
    assert all(sorted(o[0] for o in outcome) == ["lost", "won"] for outcome in outcomes), json.dumps(outcomes)
    assert all({o[1] for o in outcome} == {str(index + 1)} for index, outcome in enumerate(outcomes))
    assert [entry.generation for entry in history] == list(range(ROUNDS, 0, -1))
    assert [entry.actor for entry in history[::-1]] == ["left" if o[0][0] == "won" else "right" for o in outcomes]
    assert all(entry.version == entry.actor for entry in history)
