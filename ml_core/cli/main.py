"""The command's root: puts the verbs together and turns errors into messages and exit codes."""

from __future__ import annotations

import inspect
import signal
import sys
from importlib import metadata
from types import FrameType
from typing import Annotated

import typer

from ml_core.cli import (
    audit,
    database,
    datasets,
    environments,
    fsck,
    gates,
    gc,
    history,
    holds,
    keys,
    models,
    platform,
    predict,
    promote,
    removal,
    rollouts,
    runs,
    tenants,
    train,
    version_search,
    versions,
)
from ml_core.cli.console import err, print_error
from ml_core.cli.demo import verb as demo
from ml_core.exceptions import MLFrameworkError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
"""What Typer, like every shell, reports for a program that Ctrl-C ended."""

app = typer.Typer(
    name="mlcore",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
platform.add_to(app)
demo.add_to(app)
app.add_typer(tenants.app, name="tenants")
app.add_typer(keys.app, name="keys")
audit.add_to(app)
app.add_typer(database.app, name="db")
train.add_to(app)
app.add_typer(models.app, name="models")
app.add_typer(versions.app, name="versions")
version_search.add_to(versions.app)
removal.add_to(versions.app)
app.add_typer(datasets.app, name="datasets")
app.add_typer(runs.app, name="runs")
app.add_typer(environments.app, name="environments")
gates.add_to(app)
app.add_typer(rollouts.app, name="rollouts")
promote.add_to(app)
app.add_typer(history.app, name="history")
app.add_typer(holds.app, name="holds")
gc.add_to(app)
fsck.add_to(app)
predict.add_to(app)

_PANELS = {
    "This machine": ("up", "down", "status", "demo"),
    "Tenants": ("tenants", "keys", "audit"),
    "From data to versions": ("datasets", "train", "runs", "models", "versions"),
    "What is served": (
        "promote",
        "rollback",
        "withdraw",
        "environments",
        "gates",
        "approve",
        "rollouts",
        "predict",
        "history",
    ),
    "The registry": ("db", "holds", "gc", "fsck"),
}
"""How the verbs are put together in the help, in the order in which a newcomer meets them."""


def _arrange() -> None:
    """Give each verb its panel, and the panels and verbs their order."""
    place = {
        name: (index, panel) for index, (name, panel) in enumerate((n, p) for p, ns in _PANELS.items() for n in ns)
    }
    for registered in (app.registered_commands, app.registered_groups):
        for info in registered:
            info.rich_help_panel = place[str(info.name)][1]
        registered.sort(key=lambda info: place[str(info.name)][0])


def _join_lines(group: typer.Typer) -> None:
    """Give each verb its docstring with one line a paragraph: the help wraps it to the terminal's width."""
    for verb in group.registered_commands:
        paragraphs = (inspect.getdoc(verb.callback) or "").split("\n\n")
        verb.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for info in group.registered_groups:
        if info.typer_instance is not None:
            _join_lines(info.typer_instance)


_arrange()
_join_lines(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mlcore {metadata.version('ml-core-platform')}")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


@app.callback()
def root(version: VersionOption = False) -> None:
    """Machine-learning models for each of your customers: train, compare, promote and predict."""


def run() -> None:
    """The entry point: exit 0 when done, 1 on an error, 2 on wrong usage, 130 on Ctrl-C."""
    # A polite kill is handled as Ctrl-C is: whatever was started is stopped on the way out.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except MLFrameworkError as error:
        print_error(error, as_json="--json" in sys.argv)
        raise SystemExit(EXIT_ERROR) from None
    except SystemExit as request:
        if request.code == EXIT_INTERRUPTED:
            err.print("Interrupted.")
        raise


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
