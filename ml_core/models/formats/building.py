"""Building a pipeline from an audited schema.

Every constructor of compiled code gets values that were checked for it, so no node is trusted about another. Objects
are created without ``__init__`` and get their attributes, as in unpickling; types are looked up only by names that
passed the audit.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import BuiltinFunctionType
from typing import Any

import numpy as np
from scipy.interpolate import BSpline
from sklearn.neighbors import BallTree, KDTree

from ml_core.exceptions import ModelLoadError
from ml_core.models.formats import trees
from ml_core.models.formats.allowed_types import ALLOWED, is_left_out
from ml_core.models.formats.archive import load_array
from ml_core.models.formats.audit import MAX_EXPANDED, malformed, read_int
from ml_core.models.formats.schema import CONTAINERS, Node, is_plain, type_name
from ml_core.models.graph import MAX_NAMES

_SEARCH_TREES = {"ball_tree": BallTree, "kd_tree": KDTree}
_ARGUMENTS = (bool, int, float, str, type, np.dtype, np.generic)  # of a partial
_IS_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: of each class statement
_DTYPE = re.compile(r"[<>|=]?[biufSUO][0-9]{0,4}")
_KEYS: dict[str, dict[str, Any]] = {
    "bool": {"True": True, "False": False, "true": True, "false": False},
    "NoneType": {"null": None},
}


class Builder:
    """Builds the objects of one archive, whose members are arrays that passed ``check_array``."""

    def __init__(self, members: Mapping[str, bytes]) -> None:
        self._members = members
        self._built: dict[int, tuple[Any, int]] = {}  # objects with an id, and how many values they hold
        self._n_values = 0  # a repeated object counts each time, since code that visits the pipeline meets it each time

    def build(self, node: Node) -> Any:
        """The object of a node.

        Raises:
            UnsafeArtifactError: A value does not fit the object that is built from it.
            Exception: Any error of a constructor for values that do not fit.
        """
        self._n_values += len(node) if isinstance(node, list | dict) else 1
        if isinstance(node, list):
            if len(node) <= MAX_NAMES:  # the models of a replica share the names of columns and categories
                node = [sys.intern(child) if type(child) is str else child for child in node]
            return [self.build(child) if type(child) in CONTAINERS else child for child in node]
        if not isinstance(node, dict):
            return sys.intern(node) if type(node) is str else node
        if is_plain(node):
            return {key: self.build(child) if type(child) in CONTAINERS else child for key, child in node.items()}
        identity = node.get("__id__")
        if identity in self._built:
            made, n_values = self._built[identity]
            self._n_values += n_values
            if self._n_values > MAX_EXPANDED:
                raise malformed(f"its repeated parts amount to more than {MAX_EXPANDED:,} values")
            return made
        n_before = self._n_values
        made = None if is_left_out(type_name(node)) else _MAKERS[node["__loader__"]](self, node)
        if identity is not None:
            self._built[identity] = made, self._n_values - n_before
        return made

    def _dict(self, node: Node) -> Any:
        made, content = _import(node)(), node["content"]
        if isinstance(content, list):
            made.update((self.build(key), self.build(value)) for key, value in content)
        else:  # as skops writes it: all keys are strings, their types beside
            kinds = [child["__class__"] for child in node["key_types"]["content"]]
            keys = [_key(kind, key) for kind, key in zip(kinds, content, strict=True)]
            made.update(zip(keys, map(self.build, content.values()), strict=True))
        return made

    def _tuple(self, node: Node) -> Any:
        values = [self.build(child) for child in node["content"]]
        kind = _import(node)
        return tuple(values) if kind is tuple else kind(*values)

    def _array(self, node: Node) -> Any:
        if node["type"] == "numpy":
            array = load_array(self._members[node["file"]])
            return array if node["__class__"] == "ndarray" else _import(node)(array)
        shape = self.build(node["shape"])
        items = self.build(node["content"])
        if "__loader__" in (node["shape"] if isinstance(node["shape"], dict) else {}):
            for _ in range(len(shape) - 1):  # skops nests the lists of an array of more dimensions
                items = [item for part in items for item in part]
        return _object_array(items, shape)

    def _dtype(self, node: Node) -> np.dtype[Any]:
        content = node["content"]
        if isinstance(content, str):
            if not _DTYPE.fullmatch(content):
                raise malformed("it has an unknown dtype")
            return np.dtype(content)
        empty: np.ndarray[Any, np.dtype[Any]] = self.build(content)
        return empty.dtype  # as skops writes it: that of an empty array

    def _object(self, node: Node) -> Any:
        kind: Any = _import(node) if type_name(node) in ALLOWED["ObjectNode"] else _own_class(node)
        made = kind.__new__(kind)  # without __init__, whose arguments an archive does not have
        state = self.build(node["content"]) if node.get("content") is not None else None
        if state is None:
            return made
        if type(state) is not dict:
            raise malformed(f"a {node['__class__']} has a state that is no dict")
        # Private attributes of the platform's own encoders are derived from the others, never stored. Accepting them
        # would let an artifact replace a lookup by one that points outside of the matrix.
        if node["__module__"].startswith("ml_core.") and any(name.startswith("_") for name in state):
            raise malformed(f"a {node['__class__']} carries state that it derives itself")
        _check_names(kind, state)
        state = {sys.intern(name) if type(name) is str else name: value for name, value in state.items()}
        if hasattr(made, "__setstate__"):
            made.__setstate__(state)
        else:
            made.__dict__.update(state)
        return made

    def _loss(self, node: Node) -> Any:
        arguments = self.build(node["__reduce__"]["args"])
        if any(type(argument) not in (int, float) for argument in arguments) or self.build(node.get("content")):
            raise malformed(f"a {node['__class__']} has a state that scikit-learn does not write")
        return _import(node)(*arguments)

    def _trees(self, node: Node) -> Any:
        shared, *parts = [self.build(node[key]) for key in ("content", "random_states", "trees")]
        _check_names(_import(node), shared)
        items = trees.unpack_trees(_import(node), shared, *parts)
        return items if "shape" not in node else _object_array(items, node["shape"])

    def _partial(self, node: Node) -> Any:
        content = node["content"]
        if content["func"]["__loader__"] != "FunctionNode" or self.build(content.get("namespace")):
            raise malformed("a partial is not of a function")
        arguments, keywords = self.build(content["args"]), self.build(content["kwds"])
        # No check would find an estimator in there.
        if not all(map(_is_argument, (*arguments, *keywords.values()))):
            raise malformed("a partial holds more than numbers, strings and types")
        return partial(self.build(content["func"]), *arguments, **keywords)

    def _sparse(self, node: Node) -> Any:
        kind, shape = _import(node), tuple(node["shape"])
        data, indices, ends = self.build(node["content"])
        rows, columns = shape if node["__class__"].startswith("csr") else shape[::-1]
        # Compiled code follows these unchecked. scipy's own check takes differences, which overflow (scipy 1.17).
        holds = (
            all(array.ndim == 1 for array in (data, indices, ends))
            and indices.dtype.kind == ends.dtype.kind == "i"
            and len(ends) == rows + 1
            and int(ends[0]) == 0
            and bool((ends[1:] >= ends[:-1]).all())
            and int(ends[-1]) == len(indices) == len(data)
            and bool(((indices >= 0) & (indices < columns)).all())
        )
        trees.require(holds, node["__class__"])
        return kind((data, indices, ends), shape=shape)

    def _spline(self, node: Node) -> Any:
        state = self.build(node["content"])
        # The constructor checks that knots and coefficients fit together; compiled code relies on it.
        return BSpline(state["t"], state["c"], state["k"], extrapolate=state["extrapolate"], axis=state["axis"])

    def _dangling(self, node: Node) -> Any:
        raise malformed(f"it refers to the object {node.get('__id__')}, which comes later or not at all")


def rebuild_search_trees(estimators: Iterable[Any]) -> None:
    """Give each estimator over neighbours the search tree that its ``fit`` made, in place.

    Search trees are not stored, since their state can't be checked; they are made again from their points.
    """
    for estimator in estimators:
        tree = _SEARCH_TREES.get(getattr(estimator, "_fit_method", ""))
        if tree is not None:
            parameters = estimator.effective_metric_params_
            estimator._tree = tree(
                estimator._fit_X, estimator.leaf_size, metric=estimator.effective_metric_, **parameters
            )


def _object_array(items: list[Any], shape: Iterable[int]) -> np.ndarray[Any, Any]:
    array = np.empty(len(items), dtype=object)
    array[:] = items  # np.array(items) would take items that are sequences apart
    return array.reshape(tuple(shape))


def _key(kind: str, text: str) -> Any:
    if kind in _KEYS:
        return _KEYS[kind][text]
    return {"int": int, "float": float}.get(kind.rstrip("0123456789"), str)(text)


def _import(node: Node) -> Any:
    """The type or function that a node names, which is on the list."""
    return getattr(importlib.import_module(node["__module__"]), node["__class__"])


def _own_class(node: Node) -> type:
    """The class that a node names, of a module that the process trusts: the module's own, and Python code throughout.

    So an artifact reaches nothing that the module imports, and no compiled code gets a state that nobody checked.
    """
    try:
        module = importlib.import_module(node["__module__"])
    except Exception as error:  # a module may raise anything
        remedy = "Install it, and what it needs, where the model is loaded."
        raise ModelLoadError.wrap(error, f"The module {node['__module__']} can't be imported", remedy=remedy) from error
    found = vars(module).get(node["__class__"])  # not getattr, which may call the module's own code
    if not isinstance(found, type) or f"{found.__module__}.{found.__qualname__}" != type_name(node):
        raise malformed(f"{type_name(node)} is no class that {node['__module__']} defines")
    if any(map(_is_compiled, found.__mro__[:-1])):  # the last is object
        raise malformed(f"{type_name(node)} is of compiled code, whose state can't be checked")
    return found


def _is_compiled(kind: type) -> bool:
    return not kind.__flags__ & _IS_HEAP_TYPE or isinstance(vars(kind).get("__new__"), BuiltinFunctionType)


def _check_names(kind: type, state: Mapping[str, Any]) -> None:
    """Refuse an attribute that would replace a method: methods check rows before compiled code reads them."""
    for name in state:
        if hasattr(getattr(kind, name, None), "__get__"):
            raise malformed(f"a {kind.__name__} has an attribute in the place of its method {name[:80]}")


def _is_argument(value: Any) -> bool:
    if type(value) in (list, tuple):
        return all(map(_is_argument, value))
    return value is None or isinstance(value, _ARGUMENTS)


def _scalar(_: Builder, node: Node) -> Any:
    content = node["content"]
    if type(content) not in (bool, int, float, str):
        raise malformed("a ScalarNode holds no scalar")
    return _import(node)(content)


_MAKERS: dict[str, Callable[[Builder, Any], Any]] = {
    "CachedNode": Builder._dangling,
    "DTypeNode": Builder._dtype,
    "DictNode": Builder._dict,
    "FunctionNode": lambda _, node: _import(node),
    "JsonNode": lambda _, node: json.loads(node["content"], parse_int=read_int),
    "ListNode": lambda builder, node: builder.build(node["content"]),
    "LossNode": Builder._loss,
    "NdArrayNode": Builder._array,
    "ObjectNode": Builder._object,
    "PartialNode": Builder._partial,
    "PredictorsNode": lambda builder, node: trees.unpack_predictors(builder.build(node["content"])),
    "ScalarNode": _scalar,
    "SetNode": lambda builder, node: _import(node)(builder.build(node["content"])),
    "SliceNode": lambda _, node: slice(*(node["content"][bound] for bound in ("start", "stop", "step"))),
    "SparseMatrixNode": Builder._sparse,
    "SplineNode": Builder._spline,
    "TreeNode": lambda builder, node: trees.build_tree(
        builder.build(node["__reduce__"]["args"]), builder.build(node["content"])
    ),
    "TreesNode": Builder._trees,
    "TupleNode": Builder._tuple,
    "TypeNode": lambda _, node: _import(node),
}
