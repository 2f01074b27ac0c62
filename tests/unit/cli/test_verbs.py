"""All verbs are alike: one way to give the files that are read, those that are written, and JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from ml_core.cli.main import app
from ml_core.cli.options import FILES


def verbs() -> Iterator[tuple[str, Any]]:
    """Each verb, by its words."""
    waiting: list[tuple[str, Any]] = [("", get_command(app))]
    while waiting:
        words, command = waiting.pop()
        if hasattr(command, "commands"):
            waiting += [(f"{words} {name}".strip(), each) for name, each in command.commands.items()]
        else:
            yield words, command


def options(command: Any) -> Iterator[tuple[str, Any]]:
    """The options of a verb, by their first names."""
    return ((max(each.opts, key=len), each) for each in command.params if each.param_type_name == "option")


def test_a_file_that_is_read_is_an_argument_and_one_that_is_written_is_output() -> None:
    """But for the second table of a training."""
    for words, command in verbs():
        for name, option in options(command):
            reads_table = FILES in (option.help or "")
            assert not reads_table or (words, name) == ("train", "--validation"), (words, name)
        for each in command.params:
            if re.search("does not exist yet|new file", getattr(each, "help", None) or ""):
                assert each.opts == ["--output"], (words, each.opts)


def test_an_option_is_called_alike_by_each_verb() -> None:
    """Also in short; a version that is made has no short name."""
    short: dict[str, set[tuple[str, ...]]] = {}
    for words, command in verbs():
        names = dict(options(command))
        assert "--json" in names or words == "demo", words
        assert "--all" not in names, words
        for name, option in names.items():
            if "The name of the version" not in (option.help or "") and "Which row" not in (option.help or ""):
                short.setdefault(name, set()).add(tuple(sorted(option.opts)))
    assert {name: found for name, found in short.items() if len(found) > 1} == {}
