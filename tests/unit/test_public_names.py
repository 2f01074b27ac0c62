"""What ``ml_core`` shows, and what importing it costs."""

import inspect
import re
import subprocess
import sys

import pytest

import ml_core


def test_the_public_names_are_those_promised():
    """Sorted, and each can be had."""
    assert ml_core.__all__ == sorted(ml_core.__all__)
    assert set(ml_core.__all__) == {
        "DataProcessor",
        "MLSystem",
        "ModelManager",
        "ModelRegistry",
        "Predictor",
        "Trainer",
    }
    for name in ml_core.__all__:
        assert getattr(ml_core, name).__name__ == name
    with pytest.raises(AttributeError, match="Trainr"):
        ml_core.Trainr  # noqa: B018


@pytest.mark.parametrize("name", ml_core.__all__)
def test_each_public_method_explains_itself(name):
    """Its help says what it does, and doesn't send the reader to another class for that."""
    methods = inspect.getmembers(getattr(ml_core, name), inspect.isfunction)
    for method, function in methods:
        if not method.startswith("_"):
            told = inspect.getdoc(function)
            assert told, method
            assert not re.search(r"\bsee ``[\w.]+\.\w+", told, re.IGNORECASE), method


def test_importing_starts_nothing_heavy():
    """Neither Ray nor a Kubernetes client nor a compiled runtime is loaded, here, by the façade or by a command."""
    heavy = ("ray", "kubernetes", "onnxruntime", "lightgbm")
    statement = "import sys, ml_core.cli.main, ml_core.platform.local; from ml_core import MLSystem, Trainer"
    code = f"{statement}\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_alone_loads_no_library():
    """The public names are loaded when they are first used."""
    code = "import sys, ml_core; print([m for m in ('numpy', 'pandas', 'sklearn', 'sqlalchemy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
