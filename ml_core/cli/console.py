"""How the command line speaks: tables or JSON on standard output, progress and errors on standard error."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_core.exceptions import InvalidRequestError, MLFrameworkError, status_of

if TYPE_CHECKING:
    from ml_core.api.schemas.base import Page

_WIDTH_IN_A_PIPE = 160
"""Columns of a table where there is no terminal to ask; what reads a pipe does not mind."""

_OF_PLATFORM = 500
"""The HTTP status from which an error is the platform's, whose log has the request."""
_GAP = 2
"""Columns of the terminal that a column of a table takes besides its text."""

wants_json: ContextVar[bool] = ContextVar("wants_json", default=False)
"""Whether the verb that runs was given ``--json``."""

out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_IN_A_PIPE)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _WIDTH_IN_A_PIPE)


def command() -> str:
    """How this command can be called again: as ``.venv/bin/mlcore`` from a project's folder, else by its name."""
    path = Path(sys.argv[0]).absolute()  # relative as ``make demo`` calls it
    if path.name == "__main__.py":
        return "python -m ml_core.cli"
    is_here = path.is_relative_to(Path.cwd()) and shutil.which("mlcore") is None
    return str(path.relative_to(Path.cwd())) if is_here else "mlcore"


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(orjson.dumps(data, default=_plain, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode())


def printed_as_json(document: Any) -> bool:
    """Print the result of a verb as JSON if ``--json`` was given; whether it was."""
    if wants_json.get():
        print_json(document)
    return wants_json.get()


def say(text: str, *, style: str = "") -> None:
    """A sentence on standard output; the terminal wraps it, so that a command in it can be copied."""
    out.print(Text(text, style=style), soft_wrap=True)


def note(text: str, *, style: str = "dim") -> None:
    """A sentence on standard error, beside the result."""
    err.print(Text(text, style=style), soft_wrap=True)


def answer(document: Any, text: str) -> None:
    """The result of a verb: a sentence, or the document with ``--json``."""
    if not printed_as_json(document):
        say(text)


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, empty: str) -> None:
    """A list as a table.

    Args:
        rows: One mapping a row.
        columns: Which keys to show, in this order.
        empty: What to say when there is no row; says how to make one.
    """
    if not rows:
        say(empty)
        return
    names = [column.replace("_", " ") for column in columns]
    cells = [[_cell(column, row[column]) for column in columns] for row in rows]
    widths = _widths([[name, *column] for name, column in zip(names, zip(*cells, strict=True), strict=True)])
    if widths is None:  # the terminal is too narrow for a table
        for position, row_cells in enumerate(cells):
            if position:
                out.print()
            print_fields(zip(names, row_cells, strict=True))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, width in zip(names, widths, strict=True):
        table.add_column(name, width=width)
    for row_cells in cells:
        table.add_row(*map(Text, row_cells))
    out.print(table)


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """What is known of one thing: a line for each name and value."""
    lines = [(name.replace("_", " "), show(value)) for name, value in fields]
    indent = max(len(name) for name, _ in lines)
    for name, text in lines:
        out.print(Text(f"{name:{indent}}  ", style="bold") + Text(text), soft_wrap=True)


def configured(hyperparameters: Mapping[str, Any]) -> str:
    """An algorithm and its hyperparameters: ``gradient_boosting max_iter=150``."""
    own = sorted((name, value) for name, value in hyperparameters.items() if name != "algorithm")
    return " ".join([hyperparameters["algorithm"], *(f"{name}={show(value)}" for name, value in own)])


def pairs(values: Mapping[str, Any]) -> str:
    """Names and values as a person reads them: ``C=0.5, max_iter=1000``."""
    return ", ".join(f"{name}={show(value)}" for name, value in values.items()) or "-"


def print_page(
    page: Page[Any],
    columns: Sequence[str],
    *,
    empty: str,
    shown: Mapping[str, Callable[[Any], Any]] | None = None,
    with_archived: bool = False,
) -> None:
    """A page of a list as a table, or with ``--json`` as a document: ``items`` and ``next_cursor``.

    Args:
        page: The page.
        columns: Which fields to show in the table, in this order.
        empty: What to say when there is no item; says how to make one.
        shown: Column → how its field is shown; of a column that is no field, how the item is.
        with_archived: Whether the page has archived items; the table then shows when each was archived.
    """
    if printed_as_json(page):
        return
    print_items(page.items, [*columns, "archived_at"] if with_archived else columns, empty=empty, shown=shown)
    if page.next_cursor is not None:
        note(f"More: --cursor {page.next_cursor}")


def print_items(
    items: Sequence[Any],
    columns: Sequence[str],
    *,
    empty: str,
    shown: Mapping[str, Callable[[Any], Any]] | None = None,
) -> None:
    """A whole list as a table, or with ``--json`` as a document; arguments as for ``print_page``."""
    if printed_as_json(items):
        return
    rows = [dict(item) for item in items]
    for name, words in (shown or {}).items():
        for row, item in zip(rows, items, strict=True):
            row[name] = words(getattr(item, name, item))
    print_rows(rows, columns, empty=empty)


def confirm(warning: str, name: str, *, yes: bool) -> None:
    """Have the name of what is deleted typed, unless ``--yes`` was given.

    Raises:
        InvalidRequestError: Another name was typed, or JSON output was asked for, where nothing is asked.
    """
    if yes:
        return
    if wants_json.get():
        raise InvalidRequestError(
            "With --json nothing is asked, so nothing was deleted.", remedy="Confirm with --yes.", field="--yes"
        )
    if typer.prompt(f"{warning} Type its name", err=True).strip() != name:
        raise InvalidRequestError(
            f"That is not {name}; nothing was deleted.", remedy="Type the name, or use --yes.", field="name"
        )


def _widths(columns: Sequence[Sequence[str]]) -> list[int] | None:
    """How wide each column of a table is, never narrower than its longest word; None: the terminal has no such room.

    Rich shares the room out without regard to words, and half an id is of no use to anybody.
    """
    words = [max(map(_longest_word, column)) for column in columns]
    wanted = [max(map(cell_len, column)) - width for column, width in zip(columns, words, strict=True)]
    spare = out.width - sum(words) - _GAP * len(columns)
    if spare < 0:
        return None
    for position in sorted(range(len(wanted)), key=wanted.__getitem__):  # so that it is the long texts that wrap
        more = min(wanted[position], spare)
        words[position] += more
        spare -= more
    return words


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)


def print_error(error: MLFrameworkError, *, as_json: bool) -> None:
    """An error with its remedy, on standard error."""
    if as_json:
        details = {**error.attributes(), **({"tenant_id": error.tenant_id} if error.tenant_id else {})}
        document: dict[str, Any] = {"error": {"code": error.code, "message": str(error), "details": details}}
        if error.action is not None:
            document["error"]["action"] = error.action.to_json()
        typer.echo(orjson.dumps(document, default=_plain, option=orjson.OPT_INDENT_2).decode(), err=True)
        return
    err.print(Text("Error: ", style="bold red") + Text(error.cause), soft_wrap=True)
    if error.remedy:
        note(error.remedy, style="")
    if status_of(error) >= _OF_PLATFORM and "request_id" in error.details:
        note(f"Request id: {error.details['request_id']}")
    if error.action is not None:
        # Imported late: most commands fail seldom.
        from ml_core.cli.actions import command_of

        if (mending := command_of(error.action)) is not None:
            note(f"  {mending}", style="bold")


def print_gates(gates: Sequence[Mapping[str, Any]]) -> None:
    """What each gate found, one line a gate, on standard error."""
    for gate in gates:
        mark = Text("✓", style="green") if gate["passed"] else Text("✗", style="red")
        err.print(mark + Text(f" {gate['name']} ({gate['kind']}): {gate['message']}"), soft_wrap=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Show a step while it lasts, and its duration: a spinner on a terminal, else lines. With ``--json``, nothing."""
    if wants_json.get():
        yield
        return
    started = time.monotonic()
    if err.is_terminal:
        with err.status(f"{name} …"):
            yield
    else:
        err.print(f"  {name} …")
        yield
    err.print(Text(f"✓ {name}  ", style="green") + Text(f"{time.monotonic() - started:.1f} s", style="dim"))


@contextmanager
def advancing(name: str, detail: Callable[[], str] = lambda: "") -> Iterator[Callable[[float, float | None], object]]:
    """See ``observability.terminal.advancing``; with ``--json`` nothing is shown."""
    from ml_core.observability import terminal

    if wants_json.get():
        yield lambda _done, _total: None
        return
    # Standard output that is no terminal must not be redirected to the console of the line.
    with terminal.advancing(err, name, detail, redirects=out.is_terminal) as advance:
        yield advance


@contextmanager
def transferring() -> Iterator[Callable[[int, int], object] | None]:
    """A bar for bytes that are sent or received, as clients take it; none where there is no terminal."""
    if not err.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=err, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total or None)


_BACKGROUND = 10
"""Steps of niceness; each is worth about a tenth of the processor between two programs that both want it."""


@contextmanager
def in_background() -> Iterator[None]:
    """Leave the processors to replicas on this machine while something long runs here.

    Whoever is not root can't take the lower priority back, so this is for a program that ends afterwards.
    """
    from ml_core.platform.processes import set_priority

    before = os.getpriority(os.PRIO_PROCESS, 0)
    set_priority(before + _BACKGROUND)
    try:
        yield
    finally:
        with suppress(PermissionError):
            set_priority(before)


def _cell(column: str, value: Any) -> str:
    is_size = column.endswith("bytes") and isinstance(value, int)
    return f"{value:,}" if is_size else show(value)


def show(value: Any) -> str:
    """A value as a person reads it in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value + 0.0:.4g}"  # no "-0"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple | frozenset | set):
        return ", ".join(sorted(map(str, value)) if isinstance(value, frozenset | set) else map(str, value)) or "-"
    if isinstance(value, Mapping):
        return orjson.dumps(value, default=str).decode()
    return str(value)


def shorten(text: str, width: int) -> str:
    """The beginning of a text for a table, cut where a word ends; a word that fills the line is cut itself."""
    if len(text) <= width:
        return text
    head = text[:width]  # with the character that the ellipsis takes, so that a word that ends there stays
    words = head.rpartition(" ")[0].rstrip(" ,;:")
    return f"{words if len(words) > width // 2 else head[:-1]}…"


def _plain(value: Any) -> Any:
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, frozenset | set):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "model_dump"):  # a schema; pydantic need not be imported to know it
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
