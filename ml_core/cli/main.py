"""The command's root: puts the verbs together and turns errors into messages and exit codes."""

from __future__ import annotations

import functools
import importlib
import inspect
import signal
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from types import FrameType
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup
from typer.main import get_group

from ml_core.cli.console import err, print_error
from ml_core.cli.target import complete
from ml_core.exceptions import MLFrameworkError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
"""What Typer, like every shell, reports for a program that Ctrl-C ended."""

_PANELS = {
    "Local platform": {"up": "platform", "down": "platform", "status": "platform", "demo": "demo.verb"},
    "Connection": {"login": "login", "logout": "login"},
    "Tenants and access": {"tenants": "tenants", "placements": "placements", "keys": "keys", "audit": "audit"},
    "Training": {
        "datasets": "datasets",
        "train": "train",
        "jobs": "jobs",
        "schedules": "schedules",
        "runs": "runs",
        "models": "models",
        "versions": "versions",
    },
    "Serving": {
        "promote": "moves",
        "rollback": "moves",
        "withdraw": "moves",
        "environments": "environments",
        "gates": "gates",
        "approve": "gates",
        "rollouts": "moves",
        "predict": "predict",
        "explain": "explain",
        "predictions": "predictions",
        "quality": "quality",
        "alerts": "live",
        "traffic": "live",
    },
    "Maintenance": {"db": "database", "holds": "holds", "gc": "gc", "fsck": "fsck"},
}
"""Panel of the help → verb → the module that has it, in the order in which a newcomer meets them.

A verb is the function of its name in the module; where there is none, it is the group of verbs ``app``."""


class _Verbs(Mapping[str, Any]):
    """The verbs, each imported when it is asked for: a light one does not wait for what others need."""

    def __init__(self) -> None:
        self._places = {verb: (panel, name) for panel, verbs in _PANELS.items() for verb, name in verbs.items()}

    def __getitem__(self, verb: str) -> Any:
        return _load(verb, *self._places[verb])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@functools.cache
def _load(verb: str, panel: str, name: str) -> Any:
    module = importlib.import_module(f"ml_core.cli.{name}")
    group = typer.Typer(rich_markup_mode="rich")
    if hasattr(module, verb):
        group.command(verb)(getattr(module, verb))
    else:
        group.add_typer(module.app, name=verb)
    _prepare(group, asks=getattr(module, "ASKS", None), prints_json=getattr(module, "PRINTS_JSON", True))
    command: Any = get_group(group).commands[verb]
    command.rich_help_panel = panel
    return command


class _Root(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = cast("MutableMapping[str, Any]", _Verbs())  # only read from


def _prepare(group: typer.Typer, **options: Any) -> None:
    """Complete each verb, see ``target.complete``; its help has one line a paragraph, which the terminal wraps."""
    for verb in group.registered_commands:
        paragraphs = (inspect.getdoc(verb.callback) or "").split("\n\n")
        verb.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        if verb.callback is not None:
            verb.callback = complete(verb.callback, **options)
    for info in group.registered_groups:
        if info.typer_instance is not None:
            _prepare(info.typer_instance, **options)


app = typer.Typer(
    name="mlcore",
    cls=_Root,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"mlcore {metadata.version('ml-core-platform')}")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


@app.callback()
def root(version: VersionOption = False) -> None:
    """ML Core: train, register, promote and serve machine-learning models for many tenants.

    Begin with `mlcore demo`: it starts a platform on this machine and shows each step.

    `mlcore VERB --help` describes a verb.
    """


def run() -> None:
    """The entry point: exit 0 when done, 1 on an error, 2 on wrong usage, 3 on an alert, 130 on Ctrl-C."""
    # A polite kill is handled as Ctrl-C is: whatever was started is stopped on the way out.
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except MLFrameworkError as error:
        print_error(error, as_json="--json" in sys.argv)
        raise SystemExit(EXIT_ERROR) from None
    except SystemExit as request:
        if request.code == EXIT_INTERRUPTED:
            err.print("Interrupted.")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)  # whoever calls this in its own process ends as it did before


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
