"""Hostile artifacts: none of them runs code, fills the memory or crashes the process."""

import contextlib
import io
import json
import operator
import os
import pickle
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from ml_core.exceptions import MLFrameworkError, ModelLoadError, ModelSaveError, UnsafeArtifactError
from ml_core.ids import ModelId
from ml_core.models.formats import skops_format
from ml_core.models.formats.archive import read_members
from ml_core.models.formats.schema import PARTS
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest
from support import fitted as models


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch /tmp/mlcore-was-here",)


@pytest.fixture(autouse=True)
def nothing_ran():
    """The payload's trace must not appear."""
    trace = Path("/tmp/mlcore-was-here")
    trace.unlink(missing_ok=True)
    yield
    assert not trace.exists(), "the artifact ran code"


def pipeline_with(step):
    """A pipeline whose other parts are all allowed."""
    return Pipeline([("hostile", step), ("estimate", LogisticRegression())])


def with_attribute(value):
    """An allowed estimator that carries something."""
    estimator = LogisticRegression()
    estimator.extra = value
    return estimator


def edit(data, change):
    """The archive with its schema changed in place by ``change``, members kept."""
    members = read_members(data)
    schema = json.loads(members["schema.json"])
    change(schema)
    return archive({**members, "schema.json": json.dumps(schema).encode()})


def archive(members, compression=zipfile.ZIP_DEFLATED):
    """A zip of the members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def nodes(node, kind):
    """Every node of a kind in a schema."""
    if isinstance(node, dict):
        if node.get("__loader__") == kind:
            yield node
        for value in node.values():
            yield from nodes(value, kind)
    elif isinstance(node, list):
        for value in node:
            yield from nodes(value, kind)


def linear():
    """A small archive of the platform's own."""
    return skops_format.dump(models.linear().pipeline)


def foreign(fitted=None):
    """An archive as skops writes it, which spells out each number."""
    return skops.io.dumps((fitted or models.linear()).pipeline)


@pytest.mark.parametrize(
    "write", [pickle.dumps, lambda payload: _joblib(payload, 0), lambda payload: _joblib(payload, 3)]
)
def test_a_pickle_under_another_name_is_never_opened(write):
    """Not by falling back to joblib, as some readers do."""
    with pytest.raises(UnsafeArtifactError, match="never loaded"):
        skops_format.load(write(Payload()))


def test_a_pickle_before_a_zip_is_refused():
    """zipfile would find the archive at the end of any file."""
    with pytest.raises(UnsafeArtifactError, match="never loaded"):
        skops_format.load(pickle.dumps(Payload()) + linear())


@pytest.mark.parametrize(
    ("hostile", "named"),
    [
        (pipeline_with(FunctionTransformer(func=os.system)), "posix.system"),
        (pipeline_with(FunctionTransformer(func=np.fromfile)), "numpy.fromfile"),
        (pipeline_with(FunctionTransformer(func=np.apply_along_axis)), "numpy.apply_along_axis"),
        (with_attribute(os.system), "posix.system"),
        (with_attribute(eval), "builtins.eval"),
        (with_attribute(np.load), "numpy.load"),
        (with_attribute(operator.attrgetter("__class__.__init__")), "operator.attrgetter"),
        (with_attribute(operator.methodcaller("system", "id")), "operator.methodcaller"),
        (with_attribute(partial(os.system, "id")), "posix.system"),
        (with_attribute(LogisticRegression().fit), "LogisticRegression.fit"),
        (with_attribute(os._exit), "posix._exit"),
        (with_attribute(subprocess.Popen), "subprocess.Popen"),
        (with_attribute(b"bytes"), "builtins.bytes"),
        (with_attribute(sparse.eye(3).tocsr()), "scipy.sparse"),
        (with_attribute(np.array([os.system, None], dtype=object)), "posix.system"),
        (with_attribute({"a": [({"b": eval},)]}), "builtins.eval"),
    ],
)
def test_a_type_outside_the_list_is_refused_and_named(hostile, named):
    """However deep it lies, and whether skops itself would trust it or not."""
    written = skops.io.dumps(hostile)
    with pytest.raises(UnsafeArtifactError) as caught:
        skops_format.load(written)
    assert named is None or any(named in name for name in caught.value.types)


@pytest.mark.parametrize(
    "loader", ["ConstructorFromReduceNode", "FunctionNode", "PartialNode", "CachedNode", "NoSuchNode"]
)
def test_a_known_type_under_another_kind_of_node_is_refused(loader):
    """A kind decides how its type is used: called with arguments, for one."""

    def change(schema):
        schema["__loader__"] = loader

    with pytest.raises(UnsafeArtifactError):
        skops_format.load(edit(linear(), change))


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("builtins", "eval"), ("builtins", "map"), ("sklearn.pipeline", "Pipeline.fit"), ("", "")],
)
@pytest.mark.parametrize("kind", sorted(PARTS))
def test_no_kind_of_node_takes_another_name(kind, module, name):
    """Each kind has its own exact names; there are no prefixes."""
    node = {"__loader__": kind, "__module__": module, "__class__": name}

    def change(schema):
        (next(nodes(schema, kind), None) or node).update(node)
        schema["content"]["extra"] = node

    with pytest.raises(UnsafeArtifactError):
        skops_format.load(edit(linear(), change))


def test_an_older_protocol_opens_no_older_reader():
    """skops keeps its former readers; the audit comes before any of them."""

    def change(schema):
        schema["protocol"] = 0
        node = next(nodes(schema, "TypeNode"))
        node.update(__loader__="FunctionNode", content={"module_path": "os", "function": "system"})

    with pytest.raises(UnsafeArtifactError, match="FunctionNode"):
        skops_format.load(edit(foreign(), change))


def test_object_arrays_are_never_unpickled():
    """An .npy member may hold a pickle; it is refused by its header."""
    stream = io.BytesIO()
    np.save(stream, np.array([Payload()], dtype=object), allow_pickle=True)
    members = read_members(linear())
    with pytest.raises(UnsafeArtifactError, match="pickled Python objects"):
        skops_format.load(archive({**members, "1.npy": stream.getvalue()}))


def test_a_structured_array_can_not_hide_objects():
    """Neither in a field."""
    stream = io.BytesIO()
    np.save(stream, np.zeros(1, dtype=[("a", object)]), allow_pickle=True)
    with pytest.raises(UnsafeArtifactError, match="pickled Python objects"):
        skops_format.load(archive({**read_members(linear()), "1.npy": stream.getvalue()}))


@pytest.mark.parametrize(
    "shape", [(10**12,), (2**40, 2**40), (-1,), (3,)], ids=["terabytes", "overflow", "negative", "too short"]
)
def test_an_array_can_not_claim_more_than_it_has(shape):
    """numpy would ask for the memory first and read afterwards."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    data = archive({**read_members(linear()), "1.npy": stream.getvalue() + b"\0" * 16})
    with pytest.raises(UnsafeArtifactError, match=r"size that it claims|is not an array"):
        skops_format.load(data)


def test_a_bomb_is_refused_by_its_size():
    """A kilobyte that unpacks to megabytes is not unpacked."""
    bomb = archive({**read_members(linear()), "999.npy": b"\0" * 50_000_000})
    assert len(bomb) < 100_000
    with pytest.raises(UnsafeArtifactError, match="above the bound"):
        skops_format.load(bomb, max_bytes=10_000_000)


def test_a_bomb_that_lies_about_its_size_stays_small():
    """The entry claims 100 bytes; no more than that is ever unpacked."""
    bomb = bytearray(archive({**read_members(linear()), "999.npy": b"\0" * 50_000_000}))
    size = (50_000_000).to_bytes(4, "little")
    while (at := bomb.find(size)) >= 0:
        bomb[at : at + 4] = (100).to_bytes(4, "little")
    with pytest.raises(UnsafeArtifactError):
        skops_format.load(bytes(bomb), max_bytes=10_000_000)


@pytest.mark.parametrize("keep", [0, 1, 4, 100, 0.5, 0.99])
def test_a_truncated_archive_is_refused(keep):
    """At any length."""
    data = linear()
    with pytest.raises(UnsafeArtifactError):
        skops_format.load(data[: keep if isinstance(keep, int) else int(len(data) * keep)])


def test_any_flipped_bit_is_refused_or_harmless():
    """Without the digest even: an error of ours, or a pipeline; never another exception."""
    data = linear()
    random = np.random.default_rng(0)
    for position in random.integers(0, len(data), 300):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(random.integers(0, 8))
        with contextlib.suppress(MLFrameworkError):
            skops_format.load(bytes(damaged))


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "/etc/passwd", "a/b.npy", "x.bin", "1.npy/../2.npy", "1.npz"])
def test_a_member_is_a_schema_or_an_array(name):
    """Nothing is extracted, but no such file is ours either."""
    with pytest.raises(UnsafeArtifactError, match="unexpected member"):
        skops_format.load(archive({**read_members(linear()), name: b"x"}))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused():
    """Two readers could see two different files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in [*read_members(linear()).items(), ("schema.json", b"{}")]:
            file.writestr(name, data)
    with pytest.raises(UnsafeArtifactError, match="two members of one name"):
        skops_format.load(buffer.getvalue())


@pytest.mark.parametrize(
    "schema",
    [b"", b"{", b"[]", b"null", b"{}", b'{"__loader__": 1}', b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe"],
)
def test_a_schema_that_is_none_is_refused(schema):
    """Broken, of another shape, or nested beyond the parser's depth."""
    with pytest.raises(UnsafeArtifactError):
        skops_format.load(archive({"schema.json": schema}))


def test_deep_nesting_of_allowed_nodes_is_an_error_of_ours():
    """skops builds its tree by recursion."""
    node = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": []}
    for _ in range(400):
        node = {**node, "content": [node]}
    with pytest.raises(ModelLoadError):
        skops_format.load(archive({"schema.json": json.dumps({**node, "protocol": 2}).encode()}))


@pytest.mark.parametrize("steps", [[], None, 3, ["ab"], [["a", "b", "c"]], [["a", None]], [["a", 1], ["b", 2]]])
def test_a_pipeline_of_no_steps_is_refused(steps):
    """Each node is allowed, but together they are no model."""
    pipeline = models.fitted(algorithm="logistic_regression").pipeline
    pipeline.steps = steps
    with pytest.raises(ModelLoadError):
        skops_format.load(skops_format.dump(pipeline))


@pytest.mark.parametrize("thing", [{}, [1, 2], "text", np.zeros(3), None])
def test_an_artifact_that_is_no_model_is_refused(thing):
    """It must predict."""
    with pytest.raises(ModelLoadError, match="does not predict"):
        skops_format.load(skops_format.dump(thing))


def test_an_encoder_can_not_bring_its_own_lookup():
    """A private lookup that points outside of the matrix would lead compiled code astray."""

    def change(schema):
        encoder = next(n for n in nodes(schema, "ObjectNode") if n["__class__"] == "TextEncoder")
        state = encoder["content"]
        state["_index"] = state.pop("name")

    with pytest.raises(UnsafeArtifactError, match="derives itself"):
        skops_format.load(edit(linear(), change))


_LOAD_WITHIN_200_MB = """
import resource, sys
import psutil
from ml_core.exceptions import UnsafeArtifactError
from ml_core.ids import ModelId
from ml_core.models.formats import skops_format
bound = psutil.Process().memory_info().vms + 200 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
for path in sys.argv[1:]:
    try:
        skops_format.load(open(path, "rb").read(), max_bytes=100_000_000)
    except UnsafeArtifactError as error:
        print("refused", error)
"""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((child, value) for child in ("left_child", "right_child") for value in (2**31, -2, 0)),
        ("right_child", -1),
        ("feature", 2**31),
        ("feature", -2),
    ],
)
def test_a_tree_that_points_elsewhere_is_refused(field, value):
    """scikit-learn's C code follows these numbers unchecked: a segmentation fault or an endless loop."""

    def change(nodes):
        nodes[field][0] = value

    with pytest.raises(UnsafeArtifactError, match="could crash"):
        skops_format.load(_with_nodes(models.forest(), "left_child", change))


@pytest.mark.parametrize(
    ("field", "value"), [("left", 2**31), ("right", 0), ("feature_idx", 2**40), ("feature_idx", -1), ("bitset_idx", 7)]
)
def test_a_boosted_tree_that_points_elsewhere_is_refused(field, value):
    """The same for histogram gradient boosting, its categorical splits included."""

    def change(nodes):
        nodes[field][0] = value
        if field == "bitset_idx":
            nodes["is_categorical"][0] = 1

    with pytest.raises(UnsafeArtifactError, match="could crash"):
        skops_format.load(_with_nodes(models.boosting(), "is_leaf", change))


def _tree_state(key, value):
    """A change of a tree's stored state."""

    def change(schema):
        tree = next(nodes(schema, "TreeNode"))
        if key in ("n_features", "n_outputs"):
            argument = tree["__reduce__"]["args"]["content"][0 if key == "n_features" else 2]
            argument["content"] = value
            del argument["__id__"]  # else it is the first node of that id, which says another number
        elif key == "n_classes":
            tree["__reduce__"]["args"]["content"][1] = tree["content"]["content"]["values"]
        elif value is None:
            names = list(tree["content"]["content"])
            del tree["content"]["content"][key]
            del tree["content"]["key_types"]["content"][names.index(key)]
        else:
            tree["content"]["content"][key]["content"] = value
            tree["content"]["content"][key].pop("__id__")

    return change


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_outputs", "1000000"),
        ("n_outputs", "0"),
        ("n_outputs", "null"),
        ("n_features", "-1"),
        ("n_features", "1e3"),
        ("n_classes", None),
        ("node_count", "1000000000"),
        ("node_count", "0"),
        ("node_count", "true"),
        ("node_count", None),
        ("nodes", None),
    ],
)
def test_a_tree_that_lies_about_its_arrays_is_refused_unbuilt(key, value):
    """Its constructor would read past their ends: found by fuzzing, as a segmentation fault inside skops."""
    with pytest.raises(ModelLoadError, match=r"could crash|several targets"):
        skops_format.load(edit(foreign(models.forest()), _tree_state(key, value)))


def test_a_loss_takes_numbers_only():
    """Its constructor is compiled code, too."""

    def change(schema):
        loss = next(nodes(schema, "LossNode"))
        empty = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": []}
        loss["__reduce__"]["args"]["content"] = [empty]

    with pytest.raises(UnsafeArtifactError, match="scikit-learn does not write"):
        skops_format.load(edit(skops_format.dump(models.boosting().pipeline), change))


def test_what_a_node_of_a_repeated_id_shows_does_not_matter():
    """The first node of an id is built, so the checks are of what was built: here, class counts of another length."""

    def change(schema):
        tree = next(nodes(schema, "TreeNode"))
        counts = tree["__reduce__"]["args"]["content"][1]
        hidden = {**tree["content"]["content"]["values"], "__id__": counts["__id__"]}
        attributes = schema["content"]
        attributes["content"] = {"extra": hidden, **attributes["content"]}
        attributes["key_types"]["content"].insert(0, attributes["key_types"]["content"][0])

    with pytest.raises(UnsafeArtifactError, match="could crash"):
        skops_format.load(edit(foreign(models.forest()), change))


def test_clusters_do_not_choose_the_number_of_threads():
    """OpenMP ends the process when it can't have them."""
    fitted = fit_model(
        TrainingRequest(ModelId("m"), "clustering", (models.table()[0], None), hyperparameters={"n_clusters": 2})
    )
    fitted.pipeline.steps[-1][1]._n_threads = 10**6
    with pytest.raises(UnsafeArtifactError, match="could crash"):
        skops_format.load(skops_format.dump(fitted.pipeline))


def test_a_tree_without_nodes_is_refused():
    """Its first node would be read anyway."""
    with pytest.raises(ModelLoadError):
        skops_format.load(_with_nodes(models.boosting(), "is_leaf", None))


def test_a_tree_for_more_features_than_its_forest_is_refused():
    """The forest checks the width of the rows, the tree does not."""
    fitted = models.fitted(n_estimators=2)
    forest = fitted.pipeline.steps[-1][1]
    forest.n_features_in_ = 3
    with pytest.raises(UnsafeArtifactError, match="could crash"):
        skops_format.load(skops_format.dump(fitted.pipeline))


def load_within_200_mb(*paths):
    """What a process that has 200 MB left says of artifacts, a line for each."""
    command = [sys.executable, "-c", _LOAD_WITHIN_200_MB, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_refusing_a_bomb_takes_no_memory(tmp_path):
    """A process with 200 MB left refuses 360 MB in a small file, instead of trying."""
    path = tmp_path / "bomb.skops"
    path.write_bytes(archive({**read_members(linear()), **{f"{n}.npy": b"\0" * 30_000_000 for n in range(100, 112)}}))
    (told,) = load_within_200_mb(path)
    assert told.startswith("refused")


def _bomb(item, count):
    """An archive of the platform's own whose first attribute is a list of items."""
    members = read_members(linear())
    schema = members["schema.json"].replace(
        b'"content":{', b'"content":{"extra":[' + b",".join([item] * count) + b"],", 1
    )
    return archive({**members, "schema.json": schema})


_ITEMS = {
    "numbers as skops writes them": (
        b'{"__class__":"str","__module__":"builtins","__loader__":"JsonNode","content":"0","is_json":true}',
        1_000_000,
    ),
    "objects": (b'{"__loader__":"ObjectNode","__module__":"sklearn.dummy","__class__":"DummyRegressor"}', 1_000_000),
    "dicts": (b"{}", 1_000_000),
    "lists": (b"[]", 1_000_000),
    "strings": (b'"ab"', 5_000_000),
    "numbers": (b"0", 40_000_000),
}


def test_a_bomb_of_nodes_is_refused_before_it_is_parsed(tmp_path):
    """A third of a megabyte of types on the list made 1.2 GB in 50 s; a process with 200 MB left refuses each kind."""
    paths = [tmp_path / name for name in _ITEMS]
    for path, items in zip(paths, _ITEMS.values(), strict=True):
        path.write_bytes(_bomb(*items))
        assert path.stat().st_size < 500_000
    told = load_within_200_mb(*paths)
    assert ["above the bound" in each for each in told] == [True] * len(_ITEMS), told


def test_nodes_can_not_hide_in_a_string():
    """skops keeps a scalar as JSON within JSON; a list there would be counted by nobody."""

    def change(schema):
        next(nodes(schema, "JsonNode"))["content"] = "[[],[]]"

    with pytest.raises(UnsafeArtifactError, match="no scalar"):
        skops_format.load(edit(foreign(), change))


def test_integers_can_not_be_chosen_to_collide():
    """Multiples of 2**61 - 1 have one hash: a set of a million of them would take hours to build."""
    members = read_members(linear())
    schema = members["schema.json"].replace(b'"content":{', b'"content":{"extra":[23058430092136939510],', 1)
    with pytest.raises(UnsafeArtifactError, match="too many digits"):
        skops_format.load(archive({**members, "schema.json": schema}))


def test_what_no_server_would_load_is_not_written():
    """So a training or a registration ends with the error, not a promotion."""
    with pytest.raises(ModelSaveError, match="above the bound"):
        skops_format.dump(with_attribute([[]] * 300_000))


def _joblib(payload, compress):
    buffer = io.BytesIO()
    joblib.dump(payload, buffer, compress=compress)
    return buffer.getvalue()


def _with_nodes(fitted, marker, change):
    """The model's archive with the node array of its first tree changed, or emptied."""
    members = read_members(skops_format.dump(fitted.pipeline))
    for name, data in members.items():
        if name.endswith(".npy"):
            array = np.load(io.BytesIO(data))
            if array.dtype.names and marker in array.dtype.names and len(array) > 1:
                if change is None:
                    array = array[:0]
                else:
                    change(array)
                stream = io.BytesIO()
                np.save(stream, array)
                return archive({**members, name: stream.getvalue()})
    raise AssertionError("the model has no tree")


def typed(loader, name, **parts):
    """A node of a schema."""
    module, _, kind = name.rpartition(".")
    return {"__loader__": loader, "__module__": module, "__class__": kind, **parts}


def doubled(loader, name, levels=60):
    """Containers of which each holds the one before twice, and a reference to the last."""
    nodes = [typed(loader, name, content=[1], __id__=1001)]
    for level in range(1001, 1001 + levels):
        twice = [typed("CachedNode", "builtins.object", __id__=level)] * 2
        nodes.append(typed(loader, name, content=twice, __id__=level + 1))
    return nodes, typed("CachedNode", "builtins.object", __id__=1001 + levels)


@pytest.mark.parametrize(
    "use",
    [
        lambda nested: typed("SetNode", "builtins.set", content=[nested]),
        lambda nested: typed("DictNode", "builtins.dict", content=[[nested, 1]]),
        lambda nested: typed("NdArrayNode", "numpy.ndarray", type="json", content=nested, shape=[2]),
        lambda nested: typed(
            "PartialNode",
            "functools.partial",
            content={"func": typed("FunctionNode", "numpy.mean"), "args": nested, "kwds": {}},
        ),
        lambda nested: nested,
    ],
)
@pytest.mark.parametrize("container", [("TupleNode", "builtins.tuple"), ("ListNode", "builtins.list")])
def test_repeated_references_are_bounded(use, container):
    """A few lines that stand for 2**60 values: to hash them, or to make an array of them, would never end."""
    nodes, last = doubled(*container)

    def change(schema):
        schema["content"]["extra"] = [*nodes, use(last)]

    with pytest.raises(UnsafeArtifactError, match="repeated"):
        skops_format.load(edit(linear(), change))
