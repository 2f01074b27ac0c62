"""Submits a job and executes it here: ``ray job submit -- python -m deployments.train_job --spec spec.json``.

For people who live in Ray's tools. The file has what a job executes as JSON: the members of its specification, and with
them or as options ``kind`` (``train`` by default) and ``tenant``. The job is in the queue of the platform like any
other, with its checks and quotas, so ``mlcore jobs show`` has it. It ends with this process, also as Ray stops it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import Job, JobKind
from ml_core.domain.job_spec import JobSpec
from ml_core.exceptions import InvalidRequestError, MLFrameworkError
from ml_core.ids import TenantId
from ml_core.jobs.execution import LEASE_S
from ml_core.jobs.here import executing
from ml_core.jobs.kinds import SPECS
from ml_core.jobs.submission import Jobs
from ml_core.jobs.worker import NICENESS
from ml_core.platform.processes import set_priority
from ml_core.registry.limits import check_choice

_EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the job that the arguments name, and print its result as JSON; 0: it succeeded."""
    parser = argparse.ArgumentParser(prog="deployments.train_job", description="Submit a job and execute it here.")
    parser.add_argument("--spec", required=True, help="a file with the specification as JSON; -: standard input")
    parser.add_argument("--tenant", help="the tenant; default: the member tenant of the specification")
    parser.add_argument("--kind", help=f"one of {', '.join(JobKind)}; default: the member kind, else train")
    parser.add_argument("--cpus", type=float, default=1.0, help="the cores that it counts as, for the tenant's quota")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, _interrupt)  # how Ray stops a job
    try:
        tenant_id, spec = read_spec(given.spec, tenant=given.tenant, kind=given.kind)
        set_priority(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
        with closing(DatabaseConnection()) as db:
            job = _done(db, tenant_id, spec, cpus=given.cpus)
    except MLFrameworkError as error:
        logging.error("%s", error)
        return 1
    except KeyboardInterrupt:
        logging.error("Interrupted.")
        return _EXIT_INTERRUPTED
    print(json.dumps({"job_id": job.job_id, **job.result}))  # noqa: T201 - for whoever reads the output
    return 0


def _done(db: DatabaseConnection, tenant_id: TenantId, spec: JobSpec, *, cpus: float) -> Job:
    jobs = Jobs(db, tenant_id)
    job = jobs.submit_spec(spec, cpus=cpus, max_attempts=1, reserved_s=LEASE_S)
    logging.info("The job %s of %s begins.", job.job_id, tenant_id)
    with executing(db, tenant_id, job.job_id):
        return jobs.wait(job.job_id)


def read_spec(path: str, *, tenant: str | None = None, kind: str | None = None) -> tuple[TenantId, JobSpec]:
    """The tenant and the specification of a file.

    Args:
        path: The file; ``-``: standard input.
        tenant: The tenant; None: that of the file.
        kind: The kind; None: that of the file, else ``train``.

    Raises:
        InvalidRequestError: The file can't be read, has no JSON object, or names no tenant or another than ``tenant``;
            or a member is missing, unknown or of another type.
        MLFrameworkError: As ``JobSpec.from_json``.
    """
    members = dict(_read(path))
    for name, option in (("tenant", tenant), ("kind", kind)):
        if option is not None and members.setdefault(name, option) != option:
            raise _invalid(f"has the {name} {members[name]!r}, and --{name} is {option!r}", "Give one of them.", name)
    name = members.pop("tenant", None)
    if not isinstance(name, str):
        raise _invalid("names no tenant", "Give --tenant, or the member tenant.", "tenant")
    of_kind = check_choice(JobKind, members.pop("kind", JobKind.TRAIN), "kind")
    return TenantId(name), SPECS[of_kind].from_json(members)


def _read(path: str) -> Mapping[str, Any]:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        members = json.loads(text)
    except OSError as error:
        raise InvalidRequestError(
            f"The file {path} can't be read: {error.strerror}.",
            remedy="A Ray job has the files of its working directory: submit it with --working-dir, or give - and the "
            "specification on standard input.",
            field="spec",
        ) from error
    except ValueError as error:  # also what is no UTF-8
        raise _invalid(f"is no JSON: {error}", "Correct the file.", "spec") from error
    if not isinstance(members, Mapping):
        raise _invalid("is no JSON object", 'Begin it with {"tenant": …, "model_id": …, "training": {…}}.', "spec")
    return members


def _invalid(what: str, remedy: str, field: str) -> InvalidRequestError:
    return InvalidRequestError(f"The specification {what}.", remedy=remedy, field=field)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
