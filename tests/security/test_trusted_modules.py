"""Hostile artifacts that name what a trusted module makes reachable: its own classes are built, and nothing runs."""

import io
import json
import os
import sys
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from ml_core.exceptions import ModelLoadError, UnsafeArtifactError
from ml_core.models.formats import skops_format
from ml_core.models.formats.archive import read_members
from ml_core.models.formats.schema import PARTS
from ml_core.models.own_types import Trust
from support import acme

TRUST = Trust(("acme_models",))
OWN = {
    "acme_models": {"Scorer", "Totals", "Restored", "Eager"},
    "acme_models.steps": {"Spread"},
}
MODULES = [
    *OWN,
    *("acme_models.os", "acme_models.os.path", "acme_models.subprocess", "acme_models.__main__", "acme_models.Scorer"),
    *("acme_models.alias", "acme_models..steps", "acme_models/steps", "acme_models.steps.", ".acme_models", ""),
    *("acme_modelsx", "os", "posix", "subprocess", "builtins", "sklearn.neighbors", "sys", "__main__"),
]
NAMES = [
    *("Scorer", "Totals", "Restored", "Eager", "Spread", "Inner", "Scorer.Inner", "Points", "Matrix", "Table"),
    *("build", "erase", "system", "os.system", "Popen", "subprocess.Popen", "_Environ", "path", "KDTree"),
    *("DataProcessor", "BaseEstimator", "os", "__class__", "__builtins__", "__dict__", "__loader__", "__spec__"),
    *("Scorer.fit", "Scorer.__init__", "exec", "eval", "object", "type", "modules", "mro", ""),
]


@pytest.fixture(scope="module", autouse=True)
def distribution(tmp_path_factory):
    """Installed, with a module of Python's under another name of its own."""
    with acme.installed(tmp_path_factory.mktemp("acme")):
        sys.modules["acme_models.alias"] = os
        yield


@pytest.fixture(autouse=True)
def nothing_ran():
    """Neither a constructor, nor a function, nor a program of the module."""
    yield
    assert os.environ.pop(acme.TRACE, None) is None


def holding(node):
    """The archive of an estimator that carries a node."""
    members = read_members(skops_format.dump(LogisticRegression()))
    schema = json.loads(members["schema.json"])
    schema["content"]["extra"] = node
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in {**members, "schema.json": json.dumps(schema).encode()}.items():
            file.writestr(name, data)
    return buffer.getvalue()


STATES = st.sampled_from(
    [
        None,
        {},
        {"power": 3.0},
        {"fit": "erase"},
        {"__class__": 1},
        {"__reduce__": []},
        {"__setstate__": {"__loader__": "TypeNode", "__module__": "builtins", "__class__": "int"}},
        {"predict": {"__loader__": "FunctionNode", "__module__": "acme_models", "__class__": "erase"}},
        {"power": {"__loader__": "ObjectNode", "__module__": "acme_models", "__class__": "Popen", "content": {}}},
    ]
)


@pytest.mark.parametrize("module", MODULES)
def test_no_name_of_a_module_leads_out_of_it(module):
    """Each name that is reachable, as an object: what the module imports is of another module."""
    for name in NAMES:
        node = {"__loader__": "ObjectNode", "__module__": module, "__class__": name, "content": {}}
        try:
            made = skops_format.load(holding(node), TRUST).extra
        except (UnsafeArtifactError, ModelLoadError):  # or there is no such module
            assert name not in OWN.get(module, ())
        else:
            assert (type(made).__module__, type(made).__qualname__) == (module, name)
            assert name in OWN[module]


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(PARTS)), module=st.sampled_from(MODULES), name=st.sampled_from(NAMES), state=STATES)
def test_only_classes_of_the_module_itself_are_built(kind, module, name, state):
    """Whatever kind of node names what is reachable, in whatever spelling."""
    node = {"__loader__": kind, "__module__": module, "__class__": name}
    if "content" in PARTS[kind][0] or "content" in PARTS[kind][1]:
        node["content"] = state
    try:
        made = skops_format.load(holding(node), TRUST).extra
    except (UnsafeArtifactError, ModelLoadError):
        assert not (kind == "ObjectNode" and name in OWN.get(module, ()) and state in (None, {}, {"power": 3.0}))
        return
    if type(made).__module__.startswith("acme_models"):
        assert (kind, type(made).__module__, type(made).__qualname__) == ("ObjectNode", module, name)
        assert name in OWN[module]
    else:  # a type of the platform's list, or nothing at all
        assert not module.startswith("acme_models")


@pytest.mark.parametrize("name", ["Points", "Matrix", "Table"])
def test_a_class_over_compiled_code_is_refused(name):
    """Its state would reach code that checks nothing."""
    node = {"__loader__": "ObjectNode", "__module__": "acme_models", "__class__": name}
    with pytest.raises(UnsafeArtifactError, match=f"acme_models.{name} is of compiled code"):
        skops_format.load(holding(node), TRUST)


def test_a_state_is_set_as_its_class_does(distribution):
    """The class's own __setstate__ is code that the operator trusts."""
    from acme_models import Restored

    made = Restored().fit([[0.0], [1.0]], [0, 1])
    assert skops_format.load(skops_format.dump(made), TRUST).restored_ is True


@pytest.mark.parametrize(
    ("trust", "reads"),
    [
        (Trust(("acme_models",)), True),
        (Trust(("acme_models.steps",)), True),
        (Trust(("acme",)), False),
        (Trust(("acme_models.step",)), False),
        (Trust(types=frozenset(["acme_models.steps.Spread"])), True),
        (Trust(), False),
    ],
)
def test_trust_covers_a_module_and_its_submodules(trust, reads):
    """By whole names, not by their beginning."""
    node = {"__loader__": "ObjectNode", "__module__": "acme_models.steps", "__class__": "Spread"}
    if reads:
        assert type(skops_format.load(holding(node), trust).extra).__name__ == "Spread"
    else:
        with pytest.raises(UnsafeArtifactError, match=r"acme_models\.steps\.Spread"):
            skops_format.load(holding(node), trust)


def test_what_is_trusted_but_not_installed_is_refused_before_it_is_imported(tmp_path, monkeypatch):
    """A module on the path that belongs to no distribution is none that an operator installed."""
    (tmp_path / "stray.py").write_text(f"import os\nos.environ['{acme.TRACE}'] = 'stray'\nclass Model: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    node = {"__loader__": "ObjectNode", "__module__": "stray", "__class__": "Model"}
    with pytest.raises(UnsafeArtifactError, match=r"stray\.Model"):
        skops_format.load(holding(node), Trust(("stray",)))
