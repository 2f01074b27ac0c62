"""How far a job is, as a line of a terminal or notebook: for the command line and for ``Jobs.wait``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

_MAX_METRICS = 2
_RUNNING = "running"


class Shown(Protocol):
    """What a job shows of itself; one of the registry or of the control API."""

    @property
    def job_id(self) -> str:
        """The job."""

    @property
    def state(self) -> str:
        """Its state."""

    @property
    def progress(self) -> Mapping[str, Any]:
        """What its process said last: ``stage``, perhaps ``done``, ``total``, ``unit`` and ``metrics``."""


def is_live(console: Console) -> bool:
    """Whether a line can be redrawn where the console writes."""
    return console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal)


def summary(job: Shown) -> dict[str, Any]:
    """A job's progress as fields of a task of rich: ``description``, ``completed``, ``total`` and ``detail``."""
    said = job.progress if job.state == _RUNNING else {}
    done, total = (value if isinstance(value := said.get(name), int | float) else None for name in ("done", "total"))
    details = [f"{done:,.0f}/{total:,.0f} {said.get('unit') or ''}".strip()] if done is not None and total else []
    metrics = said.get("metrics")
    for name, value in list(metrics.items() if isinstance(metrics, Mapping) else ())[:_MAX_METRICS]:
        details.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    stage = str(said.get("stage") or job.state)
    return {
        "description": f"{job.job_id}  {stage}",
        "completed": done if done is not None and total else 0,
        "total": total or None,
        "detail": "  ".join(details),
    }


def _line(of: Mapping[str, Any]) -> str:
    """The summary of a job as one line of text."""
    percent = f"{of['completed'] / of['total']:.0%}" if of["total"] else ""
    return "  ".join(part for part in (of["description"], percent, of["detail"]) if part)


@contextmanager
def watching(console: Console, *, shown: bool = True) -> Iterator[Callable[[Shown], object]]:
    """Show stage, percent, remaining time and metrics of a job while the block runs; it is called with the job.

    Nothing is shown where the console writes to a pipe or file, and unless ``shown``.
    """
    if not (shown and is_live(console)):
        yield lambda _job: None
        return
    if console.is_jupyter:  # in which rich draws nothing without ipywidgets
        width = 0

        def rewrite(job: Shown) -> None:
            nonlocal width
            line = _line(summary(job))
            console.file.write(f"\r{line:<{width}}")
            width = len(line)

        try:
            yield rewrite
        finally:
            console.file.write("\n")
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, detail="")

        def show(job: Shown) -> None:
            now = summary(job)
            if now["description"] != bar.tasks[0].description:  # another stage, whose pace is not that of the last
                bar.reset(task)
            bar.update(task, **now)

        yield show
