"""Fifty customers are not fifty commands, and a command loads only what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

HEAVY = {"alembic", "fastapi", "httpx", "numpy", "pandas", "pyarrow", "ray", "scipy", "sklearn", "sqlalchemy"}
LOADED = f"""
import sys
from ml_core.cli.main import run
try:
    run()
finally:
    print(sorted({HEAVY} & set(sys.modules)), file=sys.stderr)
"""


@pytest.fixture
def names() -> list[str]:
    return [f"t{uuid.uuid4().hex[:10]}" for _ in range(3)]


def test_several_tenants_with_a_key_each(mlcore: Callable, names: list[str]) -> None:
    """One command creates them, another gives each a key that opens it; a name that is repeated counts once."""
    created = mlcore("tenants", "create", *names, names[0])
    assert created.out.splitlines() == [f"Created tenant {name}." for name in names]
    options = [word for name in names for word in ("-t", name)]
    made = mlcore("keys", "create", *options)
    keys = dict(line.split() for line in made.out.splitlines())
    assert list(keys) == names
    assert "Their scopes, each in its tenant: predict." in made.err
    for name, key in keys.items():
        assert [each["key_id"] for each in mlcore("keys", "list", "-t", name, "--json").json["items"]] == [
            key.split("_")[1]
        ]


def test_as_json_several_are_a_list_and_one_is_an_object(mlcore: Callable, names: list[str]) -> None:
    """What is asked for one tenant keeps its form."""
    created = mlcore("tenants", "create", *names[:2], "--json").json
    assert [tenant["tenant_id"] for tenant in created] == names[:2]
    assert mlcore("tenants", "create", names[2], "--json").json["tenant_id"] == names[2]
    options = [word for name in names for word in ("-t", name)]
    assert [each["tenant_id"] for each in mlcore("keys", "create", *options, "--json").json] == names
    assert mlcore("keys", "create", "-t", names[0], "--json").json["tenant_id"] == names[0]


@pytest.mark.parametrize("bad", ["Not A Name", "taken"])
def test_where_one_name_can_not_be_taken_no_tenant_is_created(mlcore: Callable, names: list[str], bad: str) -> None:
    """The error names it."""
    if bad == "taken":
        bad = names.pop()
        mlcore("tenants", "create", bad)
    refused = mlcore("tenants", "create", *names, bad)
    assert (refused.code, bad in refused.err) == (1, True)
    known = {tenant["tenant_id"] for tenant in mlcore("tenants", "list", "--json").json["items"]}
    assert known.isdisjoint(names)


def test_where_one_tenant_does_not_exist_no_key_is_made(mlcore: Callable, names: list[str]) -> None:
    """A typo among fifty names leaves no key behind that nobody was shown."""
    mlcore("tenants", "create", *names[:2])
    refused = mlcore("keys", "create", "-t", names[0], "-t", names[2], "-t", names[1])
    assert (refused.code, refused.out) == (1, "")
    assert mlcore("keys", "list", "-t", names[0], "--json").json["items"] == []


@pytest.mark.parametrize(
    ("verb", "loaded"),
    [
        ("--help", "['numpy']"),
        ("tenants create --help", "[]"),
        ("models list -t {tenant} --url {url} --key {key}", "['httpx']"),
        ("tenants list", "['fastapi', 'httpx', 'numpy', 'sqlalchemy']"),
        ("models list -t {tenant}", "['fastapi', 'httpx', 'numpy', 'sqlalchemy']"),
    ],
)
def test_a_verb_loads_what_it_needs(
    mlcore: Callable, verb: str, loaded: str, cli_home: Path, tenant: str, control_api: str
) -> None:
    """Over HTTP neither server nor database driver; in process neither tables nor estimators."""
    environment = {**os.environ, "MLCORE_HOME": str(cli_home)}
    key = mlcore("keys", "create", "-t", tenant, "--scope", "read", "--json").json["key"]
    words = verb.format(tenant=tenant, url=control_api, key=key).split()
    done = subprocess.run([sys.executable, "-c", LOADED, *words], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, loaded)
