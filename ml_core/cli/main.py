"""The command's root: puts the verbs together and turns errors into messages and exit codes."""

from __future__ import annotations

import signal
import sys
from importlib import metadata
from types import FrameType
from typing import Annotated

import typer

from ml_core.cli import keys, models, platform, predict, promote, tenants, train
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
train.add_to(app)
app.add_typer(models.models_app, name="models")
app.add_typer(models.versions_app, name="versions")
promote.add_to(app)
predict.add_to(app)


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
