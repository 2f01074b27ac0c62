"""Each action that an error may carry is an operation that exists, with arguments that it takes, and has a command."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import ml_core
from ml_core.api.app import NOUNS, create_app, noun_of
from ml_core.api.operation import Operation
from ml_core.cli.actions import command_of
from ml_core.cli.main import app
from ml_core.exceptions import Action
from support.operations import DOCUMENT

SOURCE = Path(ml_core.__file__).parent


def operations() -> dict[str, set[str]]:
    """Operation id → the names of its parameters and of the fields of its body."""
    schemas = DOCUMENT["components"]["schemas"]
    found = {}
    for methods in DOCUMENT["paths"].values():
        for described in methods.values():
            names = {parameter["name"] for parameter in described.get("parameters", ())}
            content = described.get("requestBody", {}).get("content", {}).get("application/json", {})
            found[described["operationId"]] = names | fields(content.get("schema", {}), schemas)
    return found


def fields(schema: Any, schemas: dict[str, Any]) -> set[str]:
    """The names of all fields of a schema, those of nested ones included."""
    if isinstance(schema, list):
        return {name for each in schema for name in fields(each, schemas)}
    if not isinstance(schema, dict):
        return set()
    own = schemas.get(schema.get("$ref", "").rpartition("/")[2], {})
    names = {*own.get("properties", {}), *schema.get("properties", {})}
    return names.union(fields(list(schema.values()), schemas), fields(list(own.values()), schemas))


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """The path of each verb, with points, and the names of its options and positions."""
    for name, child in getattr(command, "commands", {}).items():
        yield from verbs(child, (*path, name))
    if not hasattr(command, "commands"):
        options = {option.lstrip("-") for parameter in command.params for option in parameter.opts}
        positions = {str(parameter.name) for parameter in command.params}
        yield ".".join(path).replace("-", "_"), {name.replace("-", "_") for name in options | positions}


OPERATIONS, VERBS = operations(), dict(verbs(get_command(app)))
SINGULAR = {"tag": "tags", "scope": "scopes", "name": "gate"}
"""Names of arguments that a body or path has under another name."""


def constructed() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Each ``Action(…)`` of the sources: where it is, its operation, and the arguments that are written out."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("Action", "Action.of"):
                continue
            operation = node.args[0] if node.args else None
            if not (isinstance(operation, ast.Constant) and isinstance(operation.value, str)):
                continue  # one that is read from JSON, or chosen among several
            names = [keyword.arg for keyword in node.keywords if keyword.arg]
            for argument in node.args[1:]:
                names += [key.value for key in getattr(argument, "keys", ()) if isinstance(key, ast.Constant)]
            yield f"{file.relative_to(SOURCE)}:{node.lineno}", operation.value, tuple(names)


CONSTRUCTED = [pytest.param(operation, names, id=f"{operation} {place}") for place, operation, names in constructed()]


@pytest.mark.parametrize("noun", NOUNS)
def test_a_command_loads_the_noun_of_a_path(noun: str) -> None:
    """Each path of an operation is found in the module that has it."""
    app = create_app(None, nouns=[noun])
    undocumented = [route.path for route in app.routes if isinstance(route, Operation) and not route.include_in_schema]
    paths = undocumented or app.openapi()["paths"]
    assert {noun_of(path) for path in paths} == {noun}


def test_there_are_actions() -> None:
    """Else the test below would test nothing."""
    assert len(CONSTRUCTED) > 50


@pytest.mark.parametrize(("operation", "names"), CONSTRUCTED)
def test_an_action_names_what_exists(operation: str, names: tuple[str, ...]) -> None:
    """An operation of the OpenAPI document, or a verb of one machine; and parameters that it has."""
    known = OPERATIONS.get(operation) or VERBS.get(operation)
    assert known is not None, f"there is no operation {operation}"
    command = command_of(Action(operation, {name: f"x{position}" for position, name in enumerate(names)}))
    assert command is not None, f"no verb performs {operation}"
    lost = [name for position, name in enumerate(names) if f"x{position}" not in command and f"--{name}" not in command]
    assert lost == [], command
    if operation in OPERATIONS:
        given = {SINGULAR.get(name, name) for name in names if f"{name}_id" not in known}
        assert given - known - {"tenant_ids"} <= {"tenant"}, known


@pytest.mark.parametrize(
    ("action", "command"),
    [
        (Action.of("tenants.create", tenant="acme"), "mlcore tenants create acme"),
        (Action.of("runs.get", tenant="acme", run="run_1"), "mlcore runs show run_1 --tenant acme"),
        (
            Action.of("datasets.restore", tenant="acme", dataset="tickets", number=3),
            "mlcore datasets restore tickets@3 --tenant acme",
        ),
        (
            Action.of("environments.promote", tenant="acme", model="m", environment="staging"),
            "mlcore promote --tenant acme --model m --environment staging --version VERSION",
        ),
        (
            Action.of("environments.replicas", tenant="acme", model="m", environment="staging"),
            "mlcore rollouts show --tenant acme --model m --environment staging",
        ),
        (Action.of("keys.revoke", tenant="acme", key="ab12"), "mlcore keys revoke ab12 --tenant acme"),
        (Action.of("keys.create", tenant="acme", scope="read"), "mlcore keys create --tenant acme --scope read"),
        (Action.of("runs.list", tag=["a=b", "c=d e"]), "mlcore runs list --tag a=b --tag 'c=d e'"),
        (Action.of("datasets.create", encoding="cp1252"), "mlcore datasets create NAME --encoding cp1252"),
        (Action.of("jobs.submit", tenant="acme", model="m"), "mlcore train --tenant acme --model m"),
        (Action.of("fsck", repair=True), "mlcore fsck --repair"),
        (Action.of("db.tenant_key"), "mlcore db tenant-key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_action_becomes_the_command_that_is_typed(action: Action, command: str) -> None:
    """Positions first, then options in the order of the action; what is required and not known is in capitals."""
    assert command_of(action) == command


def test_an_operation_of_a_newer_platform_has_no_command() -> None:
    """The message is shown without one."""
    assert command_of(Action("forecasts.create")) is None
