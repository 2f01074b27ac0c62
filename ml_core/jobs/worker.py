"""The process of one attempt: ``python -m ml_core.jobs.worker [--on-ray] TENANT JOB RUN``.

It needs the registry's address only.
"""

from __future__ import annotations

import argparse
import logging
import os
from contextlib import closing

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import MLFrameworkError
from ml_core.jobs.execution import execute
from ml_core.registry.jobs import JobQueue

_NICENESS = 10
"""Each step is worth about a tenth of the processor between two programs that both want it: replicas come first."""


def main() -> int:
    """Execute the attempt that the arguments name; 0 if its job has an end or goes on in another attempt."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    parser = argparse.ArgumentParser(description="Execute one attempt of a job.")
    for name in ("tenant", "job", "run"):
        parser.add_argument(name)
    parser.add_argument("--on-ray", action="store_true", help="It is a Ray job, whose tasks get the cores.")
    given = parser.parse_args()
    os.nice(_NICENESS)
    with closing(DatabaseConnection()) as db:
        try:
            state = execute(db, JobQueue(db).attempt(given.tenant, given.job, given.run), on_ray=given.on_ray)
        except MLFrameworkError as error:
            logging.error("%s", error)
            return 1
    logging.info("The job %s is %s.", given.job, state)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
