"""The process of one attempt: ``python -m ml_core.jobs.worker [--on-ray] TENANT JOB RUN``.

It needs the registry's address, and the seal of its attempt, with which it acts in the job's tenant only until the job
ends. Its start takes longer than the training of a small model, so one of a batch has the platform's key instead: it
goes on with the jobs of the batch whose turn is next, each on behalf of its own submitter in its own tenant.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from contextlib import closing

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import Attempt
from ml_core.exceptions import MLFrameworkError
from ml_core.jobs.execution import LEASE_S, execute
from ml_core.registry.jobs import JobQueue, JobRepository

NICENESS = 10
"""Each step is worth about a tenth of the processor between two programs that both want it: replicas come first."""
_MOST_S = 600.0
"""After which a process takes no further job: memory that the libraries keep does not grow for ever."""


def main() -> int:
    """Execute the attempt that the arguments name; 0 if its job has an end or goes on in another attempt."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    parser = argparse.ArgumentParser(description="Execute one attempt of a job.")
    for name in ("tenant", "job", "run"):
        parser.add_argument(name)
    parser.add_argument("--on-ray", action="store_true", help="It is a Ray job, whose tasks get the cores.")
    given = parser.parse_args()
    os.nice(NICENESS)
    with closing(DatabaseConnection()) as db:
        try:
            work(db, JobRepository(db, given.tenant).attempt(given.job, given.run), on_ray=given.on_ray)
        except MLFrameworkError as error:
            logging.error("%s", error)
            return 1
    return 0


def work(db: DatabaseConnection, attempt: Attempt, *, on_ray: bool = False) -> None:
    """Execute an attempt, and the jobs of its batch that follow; ``on_ray`` as for ``execute``.

    Raises:
        MLFrameworkError: As ``execute``; what was claimed is settled when this process has ended.
    """
    queue, until = JobQueue(db), time.monotonic() + _MOST_S
    following: Attempt | None = attempt
    while following is not None:
        attempt, following = following, None

        def claim(last: Attempt = attempt) -> None:
            nonlocal following
            try:
                following = queue.claim_following(last, LEASE_S) if time.monotonic() < until else None
            except MLFrameworkError as error:
                logging.warning("No further job is claimed: %s", error)

        state = execute(db, attempt, on_ray=on_ray, before_report=claim)
        logging.info("The job %s of %s is %s.", attempt.job_id, attempt.tenant_id, state)


if __name__ == "__main__":
    raise SystemExit(main())
