"""``advancing``: how far something long is, as a line of a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


@contextmanager
def advancing(
    console: Console, name: str, detail: Callable[[], str] = lambda: "", *, redirects: bool = True
) -> Iterator[Callable[[float, float | None], object]]:
    """Show the elapsed time while the block runs, and once it is called with done and total, share and remaining time.

    Nothing is shown where the console writes to no terminal.

    Args:
        console: Of standard error.
        name: What is done.
        detail: What to show besides, asked a few times a second from another thread.
        redirects: Whether standard output is a terminal too, so that its lines are printed above this one.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda _done, _total: None
        return

    class Detail(ProgressColumn):
        def render(self, task: Any) -> Text:  # noqa: ARG002 - of rich
            return Text(detail())

    named, elapsed = TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    columns = (SpinnerColumn(), named, BarColumn(24), TaskProgressColumn(), elapsed, TimeRemainingColumn(), Detail())
    with Progress(*columns, console=console, transient=True, redirect_stdout=redirects) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
