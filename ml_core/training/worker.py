"""A training in a process of its own: what it is comes from standard input, what happens goes to standard output.

Standard input is one JSON object on a line, see ``Assignment``; where it ends, so does this process. Standard output
has one JSON object a line: ``{"begun": true}`` when the training was checked and its run has begun, then
``{"report": …}`` or ``{"error": …}``.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import closing
from typing import IO, Any

import orjson

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import MLFrameworkError, TrainingError
from ml_core.training.assignment import Assignment

_NICENESS = 10
"""Each step is worth about a tenth of the processor between two programs that both want it: replicas come first."""


def main() -> None:
    """Do what standard input says."""
    os.nice(_NICENESS)
    output, sys.stdout = sys.stdout.buffer, sys.stderr  # what a library prints is not for whoever reads the events
    assignment = Assignment.from_json(orjson.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        with closing(DatabaseConnection()) as db:
            report = assignment.execute(db, lambda: _tell(output, {"begun": True}))
        _tell(output, {"report": report.to_json()})
    except MLFrameworkError as error:
        _tell(output, {"error": error.to_json()})
    except Exception as error:  # noqa: BLE001 - whoever waits must learn of it, whatever it is
        _tell(output, {"error": TrainingError.wrap(error, "The training failed", stage="fit").to_json()})


def _end_with_input() -> None:
    """End with the process that reads the events, also where that was killed: then the pipe is closed."""
    os.read(0, 1)  # not with sys.stdin, whose lock would be held when this process ends
    os._exit(1)


def _tell(output: IO[bytes], event: dict[str, Any]) -> None:
    output.write(orjson.dumps(event, default=str) + b"\n")
    output.flush()


if __name__ == "__main__":
    main()
