"""The operation that an error names, as the command that performs it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from typer.main import get_command

from ml_core.exceptions import Action, MLFrameworkError

_VERBS = {
    "environments.approve": "approve",
    "environments.list": "versions list",
    "environments.policies": "environments list",
    "environments.promote": "promote",
    "environments.replicas": "rollouts show",
    "environments.rollback": "rollback",
    "environments.withdraw": "withdraw",
    "job_batches.list": "jobs batches",
    "jobs.submit": "train",
}
"""Operations whose verb is not where their name says."""


_OF_PLATFORM = "platform_"
# The platform's own nouns: ``platform_keys.list`` is ``keys list --platform``.


def command_of(action: Action) -> str | None:
    """The command that performs an action; words in capitals are for the reader to replace.

    Returns:
        None where no verb performs it: the platform may be newer than this command.
    """
    words = _words(action.operation)
    verb = _find(words)
    if verb is None:
        return None
    left = dict(action.arguments)
    if action.operation.startswith(_OF_PLATFORM):
        left["platform"] = True
    for parameter in verb.params:
        if parameter.param_type_name == "argument":
            words += _positional(parameter, _noun(action, verb), left)
    options = _options(verb)
    for option, value in options_of(Action(action.operation, left)):
        if option in options:
            is_flag = getattr(options.pop(option), "is_flag", False)
            for one in value if isinstance(value, list | tuple) else [value]:
                words += [option] if is_flag else [option, shlex.quote(str(one))]
    for option, parameter in options.items():
        if parameter.required and option == parameter.opts[0] and option.startswith("--"):
            words += [option, _placeholder(parameter)]
    return " ".join(["mlcore", *words])


def options_of(action: Action) -> Iterator[tuple[str, Any]]:
    """The options that carry the arguments of an action, with their values."""
    return ((f"--{name.replace('_', '-')}", value) for name, value in action.arguments.items())


@contextmanager
def completing(*operations: str) -> Iterator[None]:
    """Turns the action of an error into the options that the command lacks, where the action is that very command.

    Args:
        *operations: What the command performs.
    """
    try:
        yield
    except MLFrameworkError as error:
        if error.action is not None and error.action.operation in operations:
            lacking = " ".join(f"{option} {shlex.quote(str(value))}" for option, value in options_of(error.action))
            error.remedy, error.action = f"{error.remedy or ''} Here: {lacking}.".strip(), None
        raise


def _words(operation: str) -> list[str]:
    """The words of an operation's verb: ``datasets restore`` of ``datasets.restore``."""
    noun, _, name = operation.partition(".")
    noun = noun.removeprefix(_OF_PLATFORM)
    verb = _VERBS.get(operation) or f"{noun} {'show' if name == 'get' else name}"
    return verb.replace("_", "-").split()


def _find(words: Sequence[str]) -> Any:
    """The verb as Click has it; None: there is none."""
    # Imported late: it is the root of what imports this module.
    from ml_core.cli.main import app

    command: Any = get_command(app)
    for word in words:
        if word not in getattr(command, "commands", ()):
            return None
        command = command.commands[word]
    return None if hasattr(command, "commands") else command


def _noun(action: Action, verb: Any) -> str:
    """The argument that the verbs of a noun take by its position: ``dataset`` of ``datasets.restore``."""
    noun = action.operation.partition(".")[0].removesuffix("s")
    return "" if f"--{noun}" in _options(verb) else noun


def _options(verb: Any) -> dict[str, Any]:
    """The options of a verb by name, but for those that say which platform is asked, and with which key."""
    options = {name: parameter for parameter in verb.params for name in parameter.opts}
    return {name: parameter for name, parameter in options.items() if name not in ("--url", "--key")}


def _positional(parameter: Any, noun: str, left: dict[str, Any]) -> list[str]:
    """What a command has at the position of a parameter; it is taken from the arguments that are left."""
    name = parameter.name if parameter.name in left else noun
    if name in left:
        number = f"@{left.pop('number')}" if "number" in left else ""
        value = left.pop(name)
        return [shlex.quote(f"{one}{number}") for one in (value if isinstance(value, list | tuple) else [value])]
    return [_placeholder(parameter)] if parameter.required else []


def _placeholder(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper()).rstrip(".")
