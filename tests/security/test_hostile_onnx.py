"""Graphs that would lead onnxruntime out of its arrays, into files or in circles: none reaches it."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier

from ml_core.domain.version import CompiledForm
from ml_core.ids import Digest
from ml_core.models import sessions
from ml_core.models.ensembles import family_of
from ml_core.models.tree_graph import graph_of

WIDTH = 4


def _graphs():
    random = np.random.default_rng(0)
    features, target = random.normal(size=(120, WIDTH)), random.normal(size=120)
    forest = RandomForestClassifier(3, max_depth=4, random_state=0).fit(features, target > 0)
    boosting = HistGradientBoostingRegressor(max_iter=3).fit(features, target)
    return [graph_of(family_of(each).ensemble(each), WIDTH) for each in (forest, boosting)]


GRAPHS = _graphs()


def _trees(model):
    return next(node for node in model.graph.node if node.op_type == "TreeEnsemble")


def _attribute(model, name):
    return next(each for each in _trees(model).attribute if each.name == name)


def _set(name, place, value):
    def change(model):
        _attribute(model, name).ints[place] = value

    return change


def _replace(name, array):
    def change(model):
        attribute = _attribute(model, name)
        old = numpy_helper.to_array(attribute.t)
        attribute.t.CopyFrom(numpy_helper.from_array(array(old)))

    return change


def _cycle(model):
    """A node whose child is its root."""
    leaves = _attribute(model, "nodes_trueleafs").ints
    _attribute(model, "nodes_truenodeids").ints[next(i for i, leaf in enumerate(leaves) if not leaf)] = 0


def _own_cycle(model):
    """A node and its child that lead to each other, each with one parent, cut off from their root."""
    sides = [("nodes_truenodeids", "nodes_trueleafs"), ("nodes_falsenodeids", "nodes_falseleafs")]
    (true, true_leaf), (false, false_leaf) = [[_attribute(model, name).ints for name in side] for side in sides]
    roots = set(_attribute(model, "tree_roots").ints)
    upper = next(i for i in range(len(true)) if i not in roots and not true_leaf[i] and true_leaf[true[i]])
    for child, is_leaf in ((true, true_leaf), (false, false_leaf)):
        for place in range(len(child)):
            if child[place] == upper and not is_leaf[place]:
                child[place], is_leaf[place] = 0, 1
    lower = true[upper]
    true[lower], true_leaf[lower] = upper, 0


def _external(model):
    tensor = TensorProto(name="mlcore/secret", data_type=TensorProto.DOUBLE, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.initializer.append(tensor)


def _external_splits(model):
    tensor = _attribute(model, "nodes_splits").t
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def _foreign_operator(model):
    model.graph.node.insert(0, helper.make_node("LoadLibrary", ["features"], ["x"], domain="evil.corp"))


def _subgraph(model):
    branch = helper.make_graph([], "branch", [], [])
    _trees(model).attribute.append(helper.make_attribute("body", branch))


def _other_operator(model):
    model.graph.node[-1].op_type = "Identity"


def _function(model):
    model.functions.append(helper.make_function("evil", "f", ["a"], ["b"], [], []))


def _text_attribute(model):
    _trees(model).attribute.append(helper.make_attribute("nodes_modes", "BRANCH_LT"))


def _second_input(model):
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.DOUBLE, [None, 1]))


def _narrow(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1


def _back(model):
    """The trees take their own answer."""
    node = _trees(model)
    node.input[0] = node.output[0]


def _reference(name):
    return lambda model: setattr(_attribute(model, name), "ref_attr_name", "elsewhere")


def _twice(model):
    _trees(model).attribute.append(_attribute(model, "nodes_truenodeids"))


def _constant(name, array):
    def change(model):
        constant = next(each for each in model.graph.initializer if each.name == name)
        constant.CopyFrom(numpy_helper.from_array(array(numpy_helper.to_array(constant)), name))

    return change


def _axis_of_values(model):
    """The look-up would answer a row of every leaf for each row and tree."""
    next(node for node in model.graph.node if node.op_type == "Gather").attribute[0].i = 1


def _huge_table(model):
    """Of no bytes, and more rows than fit into memory."""
    table = next(each for each in model.graph.initializer if each.name == "mlcore/leaves")
    table.CopyFrom(TensorProto(name="mlcore/leaves", data_type=TensorProto.DOUBLE, dims=[2**40, 0], raw_data=b""))


def _other_table(model):
    """A table of another name, of which no size is known."""
    table = next(each for each in model.graph.initializer if each.name == "mlcore/leaves")
    table.name = next(node for node in model.graph.node if node.op_type == "Gather").input[0] = "table"


OF_FORESTS = {
    "an answer for each leaf": _axis_of_values,
    "a divisor for each of many answers": _constant("mlcore/divisor", lambda old: np.full((1000, 1, 1), old)),
    "the sum of other numbers": _constant("mlcore/axis", lambda old: old + 1),
    "a target without a tree": lambda model: setattr(_attribute(model, "n_targets"), "i", 99_999),
    "a table of nothing": _huge_table,
    "another table": _other_table,
    "a table of single precision": _constant("mlcore/leaves", lambda old: old.astype(np.float32)),
}


HOSTILE = {
    "a node beyond the nodes": _set("nodes_truenodeids", 0, 10**6),
    "a negative node": _set("nodes_falsenodeids", 0, -1),
    "a feature beyond the row": _set("nodes_featureids", 0, WIDTH),
    "a negative feature": _set("nodes_featureids", 0, -5),
    "a target beyond": _set("leaf_targetids", 0, 99),
    "a root beyond": _set("tree_roots", 0, 10**9),
    "two trees of one root": _set("tree_roots", 1, 0),
    "a leaf that is neither": _set("nodes_trueleafs", 0, 2),
    "a cycle to the root": _cycle,
    "a cycle beside the roots": _own_cycle,
    "fewer thresholds": _replace("nodes_splits", lambda old: old[:-1]),
    "fewer weights": _replace("leaf_weights", lambda old: old[:-1]),
    "thresholds of another type": _replace("nodes_splits", lambda old: old.astype(np.float32)),
    "other comparisons": _replace("nodes_modes", lambda old: old + 1),
    "a constant in a file": _external,
    "thresholds in a file": _external_splits,
    "an operator of another domain": _foreign_operator,
    "another operator": _other_operator,
    "a subgraph": _subgraph,
    "a function": _function,
    "an attribute twice": _twice,
    "an attribute of texts": _text_attribute,
    "a tensor by reference": _reference("nodes_modes"),
    "numbers by reference": _reference("nodes_truenodeids"),
    "a number by reference": _reference("n_targets"),
    "a second input": _second_input,
    "a narrower input": _narrow,
    "a node that takes its own answer": _back,
    "another version of ONNX": lambda model: setattr(model, "ir_version", 3),
    "an operator set twice": lambda model: model.opset_import.append(helper.make_opsetid("", 21)),
    "an older operator set": lambda model: setattr(model.opset_import[0], "version", 7),
    "more targets than memory": lambda model: setattr(_attribute(model, "n_targets"), "i", 2**40),
    "another sum": lambda model: setattr(_attribute(model, "aggregate_function"), "i", 3),
}


def _form(data):
    return CompiledForm(Digest(hashlib.sha256(data).hexdigest()), len(data), sessions.runtime_version())


@pytest.mark.parametrize("number", range(len(GRAPHS)))
def test_the_graphs_themselves_are_accepted(number):
    run = sessions.session_of(GRAPHS[number], _form(GRAPHS[number]), WIDTH)
    assert run(np.zeros((2, WIDTH))).shape[0] == 2


@pytest.mark.parametrize(
    ("number", "change"),
    [(number, each) for number in range(len(GRAPHS)) for each in HOSTILE] + [(0, each) for each in OF_FORESTS],
)
def test_a_hostile_graph_is_refused_before_the_runtime_sees_it(monkeypatch, number, change):
    model = onnx.load_from_string(GRAPHS[number])
    (HOSTILE | OF_FORESTS)[change](model)
    data = model.SerializeToString()
    monkeypatch.setattr(sessions, "open_session", lambda _data: pytest.fail("it reached the runtime"))
    with pytest.raises(sessions.UnusableFormError, match="not one of this release") as error:
        sessions.session_of(data, _form(data), WIDTH)
    assert len(str(error.value)) < 200  # it is logged, and kept as long as the model


def test_what_a_graph_says_is_not_repeated():
    """It may be of megabytes, or of several lines of a log."""
    model = onnx.load_from_string(GRAPHS[0])
    model.graph.node[0].op_type = "evil\n" * 1000
    data = model.SerializeToString()
    with pytest.raises(sessions.UnusableFormError) as error:
        sessions.session_of(data, _form(data), WIDTH)
    assert "evil" not in str(error.value)
    with pytest.raises(sessions.UnusableFormError) as error:
        sessions.session_of(data, dataclasses.replace(_form(data), runtime="1.0\n" * 1000), WIDTH)
    assert len(str(error.value)) < 200
    assert "\n" not in str(error.value)


def test_the_worst_of_bytes_take_no_more_memory_than_an_artifact(monkeypatch):
    """Two bytes of an empty message become an object of 150 to 200."""
    from ml_core.models.formats.archive import MAX_UNPACKED_BYTES

    assert sessions.MAX_BYTES * 100 < MAX_UNPACKED_BYTES
    monkeypatch.setattr(onnx, "load_from_string", lambda _data: pytest.fail("it reached the parser"))
    data = bytes(sessions.MAX_BYTES + 1)
    with pytest.raises(sessions.UnusableFormError, match="too large"):
        sessions.session_of(data, _form(data), WIDTH)


def test_leaves_of_another_table_are_refused():
    """The numbers of leaves are those of the table's rows, so the look-up stays inside."""
    model = onnx.load_from_string(GRAPHS[0])
    table = next(each for each in model.graph.initializer if each.name == "mlcore/leaves")
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table)[:-1], "mlcore/leaves"))
    data = model.SerializeToString()
    with pytest.raises(sessions.UnusableFormError, match="table of leaves"):
        sessions.session_of(data, _form(data), WIDTH)


def test_a_deep_tree_is_refused():
    """onnxruntime builds trees by recursion, which a chain of 100,000 nodes would overflow."""
    from ml_core.models.tree_graph import Ensemble, Tree

    n = 100_000
    numbers, yes = np.arange(n), np.ones(n, dtype=bool)
    last = numbers == n - 1
    left = np.where(last, n, numbers + 1)
    chain = Tree(numbers * 0, np.zeros(n), left, numbers, last, yes, yes, np.zeros((n + 1, 1)))
    data = graph_of(Ensemble([chain], 1, is_rounded=False), WIDTH)
    with pytest.raises(sessions.UnusableFormError, match="too deep"):
        sessions.session_of(data, _form(data), WIDTH)


def test_random_bytes_are_refused():
    """Flipped and cut bytes either are refused, or are a graph in which every index is inside."""
    random = np.random.default_rng(1)
    for number in range(300):
        data = bytearray(GRAPHS[number % len(GRAPHS)])
        if number % 3 == 0:
            data = data[: random.integers(len(data))]
        for place in random.integers(len(data), size=3) if data else ():
            data[place] = random.integers(256)
        form = dataclasses.replace(_form(bytes(data)), size_bytes=len(data))
        try:
            run = sessions.session_of(bytes(data), form, WIDTH)
        except sessions.UnusableFormError:
            continue
        assert len(run(random.normal(size=(5, WIDTH)))) == 5
