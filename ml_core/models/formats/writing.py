"""Writing a fitted pipeline: a schema of typed nodes and its arrays, canonical.

Equal fitted pipelines have equal bytes in any process and at any time: nodes are in the order of attributes, ids are
numbered in the order of first use, and sets are sorted. State that only fitting needs is left out
(``allowed_types.is_left_out``).
"""

from __future__ import annotations

import io
import json
from collections import OrderedDict, defaultdict
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
from scipy import sparse
from scipy.interpolate import BSpline
from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
from sklearn.tree._tree import Tree
from sklearn.utils import Bunch

from ml_core.models.formats import trees
from ml_core.models.formats.allowed_types import is_left_out
from ml_core.models.formats.audit import MAX_DIGITS
from ml_core.models.formats.schema import Node

_SCALARS = (bool, int, float, str)
_DICTS = (dict, Bunch, OrderedDict)
_COMPILED_LOSSES = ("sklearn._loss._loss", "sklearn.linear_model._sgd_fast")
_FUNCTIONS = (np.ufunc, FunctionType, BuiltinFunctionType, MethodType, type(np.nan_to_num))
# State of histogram gradient boosting's early stopping, which only a further fit needs: itself and its own methods.
_FIT_ONLY = frozenset({"_raw_predict", "_scorer"})
_OPEN: dict[str, Any] = {}  # marks an object that is being written


class UnsupportedError(TypeError):
    """An object has no safe form; the message names it."""


class Writer:
    """Writes one object; ``members`` are its arrays as ``.npy`` files, in order."""

    def __init__(self) -> None:
        self.members: dict[str, bytes] = {}
        # Keeps the objects alive, so that no address is used twice.
        self._written: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._n_ids = 0

    def write(self, item: Any) -> Node:
        """The node of any object.

        Raises:
            UnsupportedError: It has no safe form.
        """
        # By exact type: a subclass of int, such as an enum, would be read back as another type.
        if item is None or type(item) in _SCALARS:
            if type(item) is int and abs(item) >= 10**MAX_DIGITS:
                raise UnsupportedError(f"an integer of more than {MAX_DIGITS} digits has no safe form")
            return item
        if type(item) is list:
            return self._list(item)
        if isinstance(item, dict):
            return self._dict(item)
        if isinstance(item, np.generic):
            return self._scalar(item)
        if isinstance(item, np.dtype):
            return _node("DTypeNode", "numpy.dtype", content=_dtype_text(item))
        if isinstance(item, type):
            return _node("TypeNode", _name(item))
        if isinstance(item, _FUNCTIONS):
            name = _function_name(item)
            return None if is_left_out(name) else _node("FunctionNode", name)
        return self._shared(item)

    def _shared(self, item: Any) -> Node:
        """The node of an object; a reference where it was written before."""
        if is_left_out(_name(type(item))):
            return None
        _, known = self._written.get(id(item), (None, None))
        if known is _OPEN:
            raise UnsupportedError(f"a {_name(type(item))} holds itself")
        if known is not None:
            if "__id__" not in known:
                self._n_ids += 1
                known["__id__"] = self._n_ids
            return _node("CachedNode", "builtins.object", __id__=known["__id__"])
        self._written[id(item)] = (item, _OPEN)
        node = self._typed(item)
        self._written[id(item)] = (item, node)
        return node

    def _typed(self, item: Any) -> dict[str, Any]:
        kind = type(item)
        if isinstance(item, tuple):
            return _node("TupleNode", _name(kind), content=[self.write(value) for value in item])
        if isinstance(item, set | frozenset):
            return _node("SetNode", _name(kind), content=sorted((self.write(v) for v in item), key=_text))
        if kind is partial:
            content = {"func": item.func, "args": item.args, "kwds": item.keywords}
            return _node("PartialNode", "functools.partial", content=self.write(content))
        if isinstance(item, slice):
            bounds = {"start": item.start, "stop": item.stop, "step": item.step}
            return _node("SliceNode", "builtins.slice", content=bounds)
        return self._compiled(item) or self._object(item)

    def _compiled(self, item: Any) -> dict[str, Any] | None:
        """The node of an object whose state compiled code reads; None for other objects."""
        kind = type(item)
        if isinstance(item, np.ndarray):
            return self._array(np.asarray(item))
        if sparse.issparse(item):
            return self._sparse(item)
        if isinstance(item, BSpline):
            content = {"t": item.t, "c": item.c, "k": int(item.k), "extrapolate": item.extrapolate, "axis": item.axis}
            return _node("SplineNode", "scipy.interpolate._bsplines.BSpline", content=self.write(content))
        if isinstance(item, Tree):
            _, arguments, state = item.__reduce__()
            state["nodes"] = state["nodes"].astype(trees.PACKED_NODE)
            return _node("TreeNode", _name(kind), __reduce__={"args": self.write(arguments)}, content=self.write(state))
        if kind.__module__ in _COMPILED_LOSSES:
            return _node("LossNode", _name(kind), __reduce__={"args": self.write(_loss_arguments(item))})
        return None

    def _object(self, item: Any) -> dict[str, Any]:
        # Of protocol 2 on, most objects are a class and a state (copyreg.__newobj__), with no call of __init__.
        if "." in type(item).__qualname__:
            raise UnsupportedError(f"{_name(type(item))} is not at the top of its module, so it can't be found again")
        constructor, arguments, *rest = item.__reduce_ex__(2)
        state = rest[0] if rest else None
        if constructor.__name__ != "__newobj__" or len(arguments) != 1 or any(part is not None for part in rest[1:]):
            raise UnsupportedError(f"a {_name(type(item))} has no safe form")
        if not isinstance(state, dict | None) or not all(type(key) is str for key in state or {}):
            raise UnsupportedError(f"a {_name(type(item))} does not keep its state in plain attributes")
        if isinstance(item, BaseHistGradientBoosting) and state is not None:
            state = {name: value for name, value in state.items() if name not in _FIT_ONLY}
        return _node("ObjectNode", _name(type(item)), content=None if state is None else self.write(state))

    def _list(self, items: list[Any]) -> Node:
        if trees.are_predictors(items):
            content = self.write(trees.pack_predictors(items))
            return _node("PredictorsNode", "builtins.list", content=content)
        return self._trees(items) or [self.write(item) for item in items]

    def _trees(self, items: list[Any], shape: tuple[int, ...] | None = None) -> dict[str, Any] | None:
        packed = trees.pack_trees(items)
        if packed is None:
            return None
        content, random_states, arrays = (self.write(part) for part in packed)
        parts = {"content": content, "random_states": random_states, "trees": arrays}
        if shape is not None:
            parts["shape"] = list(shape)
        return _node("TreesNode", _name(type(items[0])), **parts)

    def _dict(self, items: dict[Any, Any]) -> Node:
        kind = dict if isinstance(items, defaultdict) else type(items)
        if kind not in _DICTS:
            raise UnsupportedError(f"a {_name(kind)} has no safe form")
        if all(type(value) is np.int64 for value in items.values()):  # a vocabulary that was cut to its top terms
            items = {key: int(value) for key, value in items.items()}
        if kind is dict and all(type(key) is str for key in items) and "__loader__" not in items:
            return {key: self.write(value) for key, value in items.items()}
        pairs = [[self.write(key), self.write(value)] for key, value in items.items()]
        return _node("DictNode", _name(kind), content=pairs)

    def _scalar(self, item: np.generic) -> Node:
        value = item.item()
        if type(value) not in _SCALARS:
            raise UnsupportedError(f"a {_name(type(item))} has no safe form")
        return _node("ScalarNode", _name(type(item)), content=value)

    def _array(self, array: np.ndarray[Any, Any]) -> dict[str, Any]:
        if array.dtype == object:
            items = array.ravel().tolist()
            packed = self._trees(items, array.shape)
            if packed is not None:
                return packed
            content, shape = [self.write(item) for item in items], list(array.shape)
            return _node("NdArrayNode", "numpy.ndarray", type="json", content=content, shape=shape)
        stream = io.BytesIO()
        np.save(stream, array, allow_pickle=False)
        name = f"{len(self.members) + 1}.npy"
        self.members[name] = stream.getvalue()
        return _node("NdArrayNode", "numpy.ndarray", type="numpy", file=name)

    def _sparse(self, matrix: Any) -> dict[str, Any]:
        if matrix.format not in ("csr", "csc"):
            raise UnsupportedError(f"a {_name(type(matrix))} has no safe form; use its tocsr()")
        content = [self.write(part) for part in (matrix.data, matrix.indices, matrix.indptr)]
        return _node("SparseMatrixNode", _name(type(matrix)), content=content, shape=list(map(int, matrix.shape)))


def _node(loader: str, name: str, **parts: Any) -> dict[str, Any]:
    module, _, kind = name.rpartition(".")
    return {"__loader__": loader, "__module__": module, "__class__": kind, **parts}


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _function_name(item: Any) -> str:
    name = item.__name__ if isinstance(item, np.ufunc) else item.__qualname__
    if isinstance(item, np.ufunc):
        return f"numpy.{name}" if getattr(np, name, None) is item else f"scipy.special.{name}"
    if not name.isidentifier():
        raise UnsupportedError(f"the function {name or item!r} is not an attribute of a module")
    return f"{item.__module__}.{name}"


def _dtype_text(dtype: np.dtype[Any]) -> str:
    if dtype.kind not in "biufSUO":
        raise UnsupportedError(f"the numpy dtype {dtype} has no safe form")
    return dtype.str


def _loss_arguments(loss: Any) -> tuple[Any, ...]:
    """Its constructor's arguments; Cython gives ``(type, arguments)`` or ``(unpickle, (type, sum, arguments))``."""
    reduced = loss.__reduce__()
    if reduced[0] is type(loss):
        return tuple(reduced[1])
    return () if len(reduced) == 3 else tuple(reduced[1][2] or ())


def _text(node: Node) -> str:
    return json.dumps(node, sort_keys=True)
