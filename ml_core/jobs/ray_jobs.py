"""``RayJobRunner``: attempts as jobs of a Ray cluster, by its REST interface."""

from __future__ import annotations

import re
import shlex
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import httpx

from ml_core.domain.job import Attempt
from ml_core.exceptions import Action, PlatformError
from ml_core.ids import RunId

_TIMEOUT_S: Final = 30.0
_DISPATCHER: Final = "mlcore_dispatcher"
_ALIVE: Final = frozenset({"PENDING", "RUNNING"})
_KEPT_S: Final = 3_600.0
"""Time after its end for which Ray keeps a job with its log; Ray itself would keep it for ever."""


class RayJobRunner:
    """Submits a Ray job for each attempt; its submission id is the run's.

    Ray gives a job its cores when they are free, wherever in the cluster. The job reaches the registry by the address
    in the environment of its node. Its description has an empty variable for each other secret of the node, which hides
    that from its processes and tasks, and the seal. Whoever has Ray's token can read the seal there, but not use it
    without a login of the registry or after the attempt; and can start a process that reads the node's key.

    Args:
        url: Ray's REST interface, such as ``http://127.0.0.1:8265``.
        token: Ray's authentication token; None: the cluster asks for none.
        dispatcher: The name by which this runner knows its jobs again.
    """

    def __init__(self, url: str, token: str | None, dispatcher: str) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        # trust_env=False: a proxy must not get requests to the loopback interface.
        self._client = httpx.Client(base_url=f"{url}/api/jobs/", headers=headers, trust_env=False, timeout=_TIMEOUT_S)
        self._dispatcher = dispatcher
        self._ended: dict[RunId, dict[str, Any]] = {}

    def start(self, attempt: Attempt, variables: Mapping[str, str]) -> None:
        """See ``Runner``."""
        answer = self._ask(
            "POST",
            "",
            json={
                "entrypoint": shlex.join([sys.executable, *attempt.arguments_on_ray]),
                "submission_id": attempt.run_id,
                "entrypoint_num_cpus": attempt.process_cpus,
                "metadata": {_DISPATCHER: self._dispatcher, "tenant": attempt.tenant_id, "job": attempt.job_id},
                "runtime_env": {"env_vars": {**attempt.threads, **variables}},
            },
        )
        if answer.is_error and attempt.run_id not in self.seen():  # an answer that was lost may have been a yes
            raise _failed(answer, "refused the job")

    def seen(self) -> dict[RunId, str | None]:
        """See ``Runner``."""
        answer = self._ask("GET", "")
        if answer.is_error:
            raise _failed(answer, "did not list its jobs")
        own = [job for job in answer.json() if (job.get("metadata") or {}).get(_DISPATCHER) == self._dispatcher]
        self._ended = {RunId(job["submission_id"]): job for job in own if job["status"] not in _ALIVE}
        return {
            run_id: _end_of(self._ended[run_id]) if run_id in self._ended else None
            for run_id in (RunId(job["submission_id"]) for job in own)
        }

    def stop(self, run_id: RunId) -> None:
        """See ``Runner``. Ray kills a job that does not end within 3 s."""
        ended = self._ended.get(run_id)
        if ended is None:
            self._ask("POST", f"{run_id}/stop")
        elif time.time() - (ended.get("end_time") or 0) / 1_000 > _KEPT_S:
            self._ask("DELETE", run_id)

    def close(self) -> None:
        """Close the connection; the jobs go on."""
        self._client.close()

    def _ask(self, method: str, path: str, *, json: dict[str, Any] | None = None) -> httpx.Response:
        try:
            answer = self._client.request(method, path, json=json)
        except httpx.HTTPError as error:
            raise PlatformError(
                f"Ray's REST interface does not answer ({type(error).__name__}).",
                remedy="Start the platform, which also repairs it.",
                action=Action("up"),
                component="ray",
            ) from error
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise PlatformError(
                f"Ray refused the token (status {answer.status_code}).",
                remedy="Set MLCORE_RAY_TOKEN, or MLCORE_RAY_TOKEN_FILE, to the token of this cluster.",
                component="ray",
            )
        return answer


def _failed(answer: httpx.Response, what: str) -> PlatformError:
    return PlatformError(
        f"Ray {what} (status {answer.status_code}).",
        internal=answer.text.strip()[-500:],
        remedy="See Ray's dashboard and its logs.",
        component="ray",
    )


def _end_of(job: dict[str, Any]) -> str:
    """How a job ended. Ray's own words have the end of its log, which is the operator's."""
    code = re.search(r"exit code (-?\d+)", str(job.get("message")))
    if code is None:
        return f"Its Ray job is {job['status'].lower()}."
    hint = "; it may have run out of memory" if int(code[1]) in (-signal.SIGKILL, 128 + signal.SIGKILL) else ""
    return f"Its process ended with status {code[1]}{hint}."
