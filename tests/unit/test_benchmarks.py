"""The benchmarks import what there is: between releases nothing else notices what was renamed or removed."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
PATHS = {path.stem: path for path in FOLDER.glob("*.py")}
OURS = {"ml_core", "deployments", "k8s", "support"}
PEERS = {"mlflow"}  # installed in an environment of their own
OPTIONAL = {"playwright"}  # installed by `make console-test`


def names_of(path: Path) -> set[str]:
    """What a file defines or imports at its top."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        else:
            found |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_a_benchmark_imports_what_there_is(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        module = node.module.removeprefix("benchmarks.")
        root = module.split(".")[0]
        if module in PATHS:
            assert {alias.name for alias in node.names} <= names_of(PATHS[module])
        elif root in OURS:
            found = importlib.import_module(module)
            for alias in node.names:
                assert hasattr(found, alias.name) or importlib.util.find_spec(f"{module}.{alias.name}"), alias.name
        elif node in tree.body:
            assert root in PEERS | OPTIONAL or importlib.util.find_spec(root), module
