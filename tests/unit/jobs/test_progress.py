"""The progress of a job as a line: what it says, and where it is not shown."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import pytest
from rich.console import Console

from ml_core.jobs.progress import summary, watching
from ml_core.jobs.work import Progress


@dataclass
class Seen:
    """A job as it is shown."""

    progress: dict[str, Any] = field(default_factory=dict)
    state: str = "running"
    job_id: str = "job_1"


@pytest.mark.parametrize(
    ("job", "stage", "part", "detail"),
    [
        (Seen(state="queued", progress={"stage": "fit"}), "queued", (0, None), ""),
        (Seen(), "running", (0, None), ""),
        (Seen({"stage": "fit", "elapsed_s": 2.0}), "fit", (0, None), ""),
        (Seen({"stage": "fit", "done": 3, "total": 60, "unit": "trials"}), "fit", (3, 60), "3/60 trials"),
        (Seen({"stage": "fit", "done": 0, "total": 1e6}), "fit", (0, 1e6), "0/1,000,000"),
        (Seen({"stage": "fit", "done": 0, "total": 0}), "fit", (0, None), ""),
        (Seen({"stage": "fit", "done": 3}), "fit", (0, None), ""),
        (Seen({"stage": "fit", "done": "x", "total": None, "metrics": 3}), "fit", (0, None), ""),
        (Seen({"metrics": {"loss": 0.12345, "rounds": 7, "c": 1}}), "running", (0, None), "loss 0.1235  rounds 7"),
    ],
)
def test_what_is_shown_of_a_job(job: Seen, stage: str, part: tuple[float, float | None], detail: str) -> None:
    """Whichever of the optional fields there are, and whatever they hold."""
    said = summary(job)
    assert said["description"] == f"job_1  {stage}"
    assert (said["completed"], said["total"], said["detail"]) == (*part, detail)


def drawn(*jobs: Seen, shown: bool = True, **console: Any) -> str:
    """What a console shows of a job's states."""
    file = io.StringIO()
    with watching(Console(file=file, width=120, **console), shown=shown) as show:
        for job in jobs:
            show(job)
    return file.getvalue()


def test_a_terminal_shows_stage_percent_and_metrics() -> None:
    """Names of a metric are no markup, and a later stage begins at nothing."""
    fit = Seen({"stage": "fit", "done": 30, "total": 60, "unit": "trials", "metrics": {"[red]loss": 0.5}})
    terminal = {"force_terminal": True, "color_system": None, "legacy_windows": False, "_environ": {"TERM": "xterm"}}
    text = drawn(fit, **terminal)
    assert all(part in text for part in ("job_1  fit", "50%", "30/60 trials", "[red]loss 0.5"))
    last = drawn(fit, Seen({"stage": "register"}), **terminal).rpartition("job_1")[2]
    assert "register" in last
    assert "50%" not in last


@pytest.mark.parametrize(
    ("shown", "console"),
    [
        (True, {"force_terminal": False}),
        (True, {"force_terminal": True, "_environ": {"TERM": "dumb"}}),
        (False, {"force_terminal": True, "_environ": {"TERM": "xterm"}}),
    ],
    ids=["pipe", "dumb terminal", "not wanted"],
)
def test_nothing_is_written_where_no_line_can_be_redrawn(shown: bool, console: dict[str, Any]) -> None:
    """Not even control characters."""
    assert drawn(Seen({"stage": "fit", "done": 1, "total": 2}), shown=shown, **console) == ""


def test_a_notebook_shows_the_same_in_one_line() -> None:
    """Without a library of widgets: a shorter text covers the longer one before."""
    fit = Seen({"stage": "fit", "done": 30, "total": 60, "unit": "trials", "metrics": {"loss": 0.5}})
    text = drawn(fit, Seen({"stage": "register"}), force_jupyter=True)
    first, second = text.strip("\r\n").split("\r")
    assert first.rstrip() == "job_1  fit  50%  30/60 trials  loss 0.5"
    assert (second.rstrip(), len(second)) == ("job_1  register", len(first))


def test_the_time_to_the_end_of_a_stage_is_that_of_its_pace() -> None:
    """From the second count on: what an earlier attempt had done, or another stage, took another time."""
    now = [0.0]
    progress = Progress(clock=lambda: now[0])
    progress.enter("read")
    now[0] = 50.0
    progress.enter("fit")
    progress.advance(80, 100, "rounds")  # of another attempt
    assert "eta_s" not in progress.to_json()
    now[0] = 60.0
    progress.advance(85, 100, "rounds")
    assert (progress.to_json()["eta_s"], progress.to_json()["elapsed_s"]) == (30.0, 60.0)
    progress.advance(90, None, "rounds")
    assert "eta_s" not in progress.to_json()
    progress.enter("evaluate")
    assert "eta_s" not in progress.to_json()
    progress.advance(0, 10, "rows")
    progress.advance(0, 10, "rows")
    now[0] = 70.0
    progress.advance(0, 10, "rows")
    assert "eta_s" not in progress.to_json(), "at this pace there is no end"
