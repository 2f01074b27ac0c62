"""The console uses every operation of the control API, but those that its manual names as made for programs."""

from __future__ import annotations

import re
from pathlib import Path

from ml_core.api.app import PREFIX
from support.operations import operations

FOR_PROGRAMS = {
    "runs.start": "A training elsewhere reports that it began,",
    "runs.beat": "that it goes on,",
    "runs.log_metrics": "what it measures,",
    "runs.log_file": "and what it makes.",
    "models.check_training": "A program asks before it uploads the data of a training.",
    "rollouts.list": "It is a part of what environments.list answers.",
    "predictions.get": "It is a part of what predictions.list answers.",
    "platform.alive": "Load balancers ask it.",
}
"""Operation → why the console does not use it."""

MANUAL = Path(__file__).parents[2] / "docs" / "console.md"
PATHS = sorted(
    (
        path.count("{"),
        method.upper(),
        re.sub(r"\{\w+\}", ".+" if "/files/" in path else "[^/]+", path),
        described["operationId"],
    )
    for method, path, described in operations()
)
"""Those with fewer names first: `jobs/plan` is not a job."""


def operation_of(method: str, path: str) -> str | None:
    """The operation that a request is; None: it is of the session, of the prediction plane or a file."""
    below = path.removeprefix(PREFIX)
    return next((name for _, verb, form, name in PATHS if verb == method and re.fullmatch(form, below)), None)


def test_the_manual_names_what_is_made_for_programs():
    """Exactly these, and each is an operation."""
    section = MANUAL.read_text().split("## Without the console")[1].strip().split("\n\n")[0]
    assert set(re.findall(r"`(\w+\.\w+)`", section)) == FOR_PROGRAMS.keys()
    assert {name for *_, name in PATHS} > FOR_PROGRAMS.keys()


def test_every_other_operation_is_used(asked_by_all):
    """By the browsers of the other tests: what is added to the API is added to the console with a test, or above."""
    used = {operation_of(*each) for each in asked_by_all} - {None}
    assert used == {name for *_, name in PATHS} - FOR_PROGRAMS.keys()
