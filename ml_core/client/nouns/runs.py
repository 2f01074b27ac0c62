"""Runs: experiment tracking."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ml_core.api.schemas.base import Page
from ml_core.api.schemas.runs import (
    NewRun,
    Points,
    Run,
    RunComparison,
    RunEnd,
    RunFile,
    Series,
    TagChanges,
)
from ml_core.client.calls import (
    Call,
    Download,
    Mode,
    Noun,
    Progress,
    Upload,
    json_text,
    list_of,
    listing,
    operation,
    quoted,
)
from ml_core.domain.diagnostics import DIAGNOSTICS_FILE, Diagnostics
from ml_core.domain.keywords import texts
from ml_core.domain.run import RunStatus
from ml_core.ids import ModelId

_FILE_S = 3600.0


class Runs(Noun[Mode]):
    """The runs of a tenant: parameters, metrics, tags and files."""

    @operation
    def start(
        self,
        model_id: str,
        *,
        kind: str = "train",
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        parent_run_id: str | None = None,
    ) -> Call[Run]:
        """Start a run. It counts as dead where it gives no sign of life, see ``beat``."""
        body = NewRun(
            model_id=model_id,
            kind=kind,
            parameters=dict(parameters or {}),
            tags=dict(tags or {}),
            parent_run_id=parent_run_id,
        )
        return Call("POST", f"{self._root}/runs", Run, body=body)

    @operation
    def beat(self, run_id: str) -> Call[None]:
        """Give a sign of life."""
        return Call("POST", f"{self._run(run_id)}/beat", type(None))

    @operation
    def finish(self, run_id: str) -> Call[Run]:
        """End a run that succeeded."""
        return self._end(run_id, RunEnd(status=RunStatus.FINISHED))

    @operation
    def fail(self, run_id: str, error: str) -> Call[Run]:
        """End a run that failed."""
        return self._end(run_id, RunEnd(status=RunStatus.FAILED, error=error))

    @operation
    def cancel(self, run_id: str, reason: str = "") -> Call[Run]:
        """End a run that is no longer wanted."""
        return self._end(run_id, RunEnd(status=RunStatus.CANCELLED, error=reason))

    @operation
    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> Call[None]:
        """Log values of metrics at one step."""
        body = Points(metrics=[*metrics], steps=[step], values=[_sent(value) for value in metrics.values()])
        return Call("POST", f"{self._run(run_id)}/metrics", type(None), body=body)

    @operation
    def log_series(self, run_id: str, metric: str, steps: Sequence[int], values: Sequence[float]) -> Call[None]:
        """Log one value of a metric at each step."""
        body = Points(metrics=[metric], steps=[*steps], values=[_sent(value) for value in values])
        return Call("POST", f"{self._run(run_id)}/metrics", type(None), body=body)

    @listing
    def list(
        self,
        model_id: str | None = None,
        *,
        kind: str | None = None,
        status: RunStatus | str | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
        parent_run_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        sort: str | None = None,
        descending: bool | None = None,
    ) -> Call[Page[Run]]:
        """Runs, newest first; what is left out does not restrict.

        Args:
            model_id: Of this model.
            kind: Of this kind.
            status: In this state.
            tags: With all of these.
            metrics: With each of these bounds on the last value, such as ``loss<=0.1``.
            parameters: With all of these values; a name with points leads into objects: ``hyperparameters.C``.
            parent_run_id: Parts of this run.
            since: Started at this moment or later.
            until: Started before this moment.
            sort: ``started``, or a metric as it was logged: then only runs that have it.
            descending: Newest or highest first; None: the newest, or the best of the metric, first.
        """
        params = {
            "model": model_id and ModelId(model_id),
            "kind": kind,
            "status": status,
            "tag": [f"{key}={value}" for key, value in (tags or {}).items()] or None,
            "metric": texts("metrics", metrics) or None,
            "parameter": [f"{name}={json_text(value)}" for name, value in (parameters or {}).items()] or None,
            "parent_run_id": parent_run_id,
            "since": since and since.isoformat(),
            "until": until and until.isoformat(),
            "sort": sort,
            "descending": descending,
        }
        return Call("GET", f"{self._root}/runs", Page[Run], params)

    @operation
    def get(self, run_id: str) -> Call[Run]:
        """A run."""
        return Call("GET", self._run(run_id), Run)

    @operation
    def series(
        self,
        run_id: str,
        metric: str,
        *,
        max_points: int = 1000,
        after_step: int | None = None,
        until_step: int | None = None,
    ) -> Call[Series]:
        """A metric's points in the order of steps; of more than ``max_points`` a selection that keeps extremes."""
        params = {"metric": metric, "max_points": max_points, "after_step": after_step, "until_step": until_step}
        return Call("GET", f"{self._run(run_id)}/series", Series, params)

    @operation
    def compare(self, run_ids: Sequence[str]) -> Call[RunComparison]:
        """What differs between runs, and which is best in each metric."""
        return Call("GET", f"{self._root}/run-comparison", RunComparison, {"run": texts("run_ids", run_ids)})

    @operation
    def tag(self, run_id: str, tags: Mapping[str, str | None]) -> Call[Run]:
        """Set tags; None removes one, others stay."""
        return Call("PATCH", self._run(run_id), Run, body=TagChanges(tags=dict(tags)))

    @operation
    def log_file(
        self, run_id: str, name: str, file: str | Path, *, on_progress: Progress | None = None
    ) -> Call[RunFile]:
        """Keep a file with a run."""
        upload = Upload(Path(file), "application/octet-stream", on_progress)
        return Call("PUT", self._file(run_id, name), RunFile, upload=upload, timeout_s=_FILE_S)

    @operation
    def files(self, run_id: str) -> Call[list_of[RunFile]]:
        """The files of a run."""
        return Call("GET", f"{self._run(run_id)}/files", list_of[RunFile])

    @operation
    def download_file(
        self, run_id: str, name: str, file: str | Path, *, on_progress: Progress | None = None
    ) -> Call[None]:
        """Write a file of a run as a file that does not exist yet."""
        download = Download(Path(file), on_progress)
        return Call("GET", self._file(run_id, name), type(None), download=download, timeout_s=_FILE_S)

    @operation
    def diagnostics(self, run_id: str) -> Call[Diagnostics]:
        """What a training found on its held-out rows: confusion or residuals, calibration and importances."""
        return Call("GET", self._file(run_id, DIAGNOSTICS_FILE), Diagnostics)

    @operation
    def delete_file(self, run_id: str, name: str) -> Call[None]:
        """Delete a file of a run."""
        return Call("DELETE", self._file(run_id, name), type(None))

    @operation
    def delete(self, run_id: str) -> Call[None]:
        """Delete a run, permanently."""
        return Call("DELETE", self._run(run_id), type(None))

    def _end(self, run_id: str, body: RunEnd) -> Call[Run]:
        return Call("POST", f"{self._run(run_id)}/end", Run, body=body)

    def _run(self, run_id: str) -> str:
        return f"{self._root}/runs/{quoted(run_id)}"

    def _file(self, run_id: str, name: str) -> str:
        return f"{self._run(run_id)}/files/{quoted(name)}"


def _sent(value: float) -> float | None:
    """JSON has neither NaN nor infinities."""
    return value if math.isfinite(value) else None
