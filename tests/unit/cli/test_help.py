"""What the command shows without a registry: help, tables, and how it names itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from rich.text import Text
from typer.main import get_command

from ml_core.cli import console
from ml_core.cli.main import app


def verbs(command: typer.core.TyperCommand, path: str = "mlcore") -> Iterator[tuple[str, typer.core.TyperCommand]]:
    """Each verb with its path."""
    for name, child in getattr(command, "commands", {}).items():
        yield from verbs(child, f"{path} {name}")
    if not hasattr(command, "commands"):
        yield path, command


ROOT = get_command(app)
VERBS = dict(verbs(ROOT))


@pytest.mark.parametrize("command", [ROOT, *VERBS.values()], ids=["mlcore", *VERBS])
def test_no_paragraph_of_the_help_is_broken_by_the_source(command: typer.core.TyperCommand) -> None:
    """A terminal wraps it where it ends itself."""
    assert all("\n" not in paragraph for paragraph in (command.help or "").split("\n\n"))


@pytest.mark.parametrize("verb", VERBS)
def test_no_help_loses_words_in_brackets(verb: str) -> None:
    """Rich takes ``[…]`` for markup and leaves it out, so that a sentence ends in " ."."""
    texts = [VERBS[verb].help or "", *(getattr(parameter, "help", None) or "" for parameter in VERBS[verb].params)]
    for text in texts:
        assert Text.from_markup(text).plain == text


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_prints_json(verb: str) -> None:
    """All but the demo, which is for people."""
    assert ("--json" in options(verb)) == (verb != "mlcore demo")


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_offers_a_platform_only_if_it_asks_one(verb: str) -> None:
    """Where ``--url`` is in the panel of the platform, there is a key; and no verb of this machine has them."""
    in_panel = {name for name, parameter in options(verb).items() if parameter.rich_help_panel == "Platform"}
    local = verb.split()[1] in ("up", "down", "status", "demo", "login", "logout", "db", "gc", "fsck")
    assert in_panel == (set() if local or verb == "mlcore predictions prune" else {"--url", "--key"})


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_about_one_model_takes_that_of_the_login(verb: str) -> None:
    """So the option is never required of the user, whatever the signature says."""
    assert not any(parameter.required for name, parameter in options(verb).items() if name == "--model")


def options(verb: str) -> dict[str, typer.core.TyperOption]:
    """The options of a verb by name."""
    return {name: each for each in VERBS[verb].params for name in each.opts if name.startswith("--")}


def test_a_table_speaks_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    """Yes and no, and sizes with separators; JSON keeps the values."""
    rows = [{"is_protected": True, "size_bytes": 1234567, "number": 1234567, "is_new": False}]
    console.print_rows(rows, list(rows[0]), empty="")
    assert capsys.readouterr().out.splitlines()[1].split() == ["yes", "1,234,567", "1234567", "no"]


@pytest.mark.parametrize(
    ("called", "on_path", "named"),
    [
        ("/elsewhere/bin/mlcore", None, "mlcore"),
        ("{here}/.venv/bin/mlcore", None, ".venv/bin/mlcore"),
        (".venv/bin/mlcore", None, ".venv/bin/mlcore"),  # as ``make demo`` calls it
        ("{here}/.venv/bin/mlcore", "{here}/.venv/bin/mlcore", "mlcore"),
        ("{here}/ml_core/cli/__main__.py", None, "python -m ml_core.cli"),
    ],
)
def test_a_hint_holds_no_absolute_path(
    called: str, on_path: str | None, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command as it can be typed in this folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [called.format(here=tmp_path)])
    monkeypatch.setattr("shutil.which", lambda _: on_path)
    assert console.command() == named
