"""The stored state of compiled objects, checked before their constructors see it.

``Tree``'s constructor copies as many class counts as it is told to, and ``Tree.__setstate__`` believes a node count
that nothing compares with the nodes (scikit-learn 1.9, ``tree/_tree.pyx``). Both read outside of their arrays if the
artifact lies, so this can't wait until the tree is built. What the nodes themselves say, ``native`` checks afterwards.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ml_core.models.formats.archive import array_header
from ml_core.models.formats.audit import malformed
from ml_core.models.formats.schema import Node, walk

# More classes than any table has; bounds the memory that a lying tree could ask for.
_MAX_CLASSES = 1_000_000
_STATE = frozenset({"max_depth", "node_count", "nodes", "values"})


def check_compiled_state(schema: Node, members: Mapping[str, bytes]) -> None:
    """Check every tree and loss of a schema that passed the audit.

    Args:
        schema: The audited schema.
        members: Member name → bytes, each array of the size that it claims.

    Raises:
        UnsafeArtifactError: A constructor's arguments or a state are not of the form that scikit-learn writes.
    """
    for node in walk(schema):
        try:
            if node["__loader__"] == "TreeNode":
                _check_tree(node, members)
            elif node["__loader__"] == "LossNode":
                _check_loss(node)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise malformed(f"a {node['__class__']} has a state that scikit-learn does not write") from error


def _check_tree(node: Node, members: Mapping[str, bytes]) -> None:
    n_features, n_classes, n_outputs = node["__reduce__"]["args"]["content"]
    # One output: the platform's models predict one target.
    _require(_integer(n_features) >= 0 and _integer(n_outputs) == 1)
    counts = np.load(io.BytesIO(_array(n_classes, members)), allow_pickle=False)
    _require(counts.shape == (1,) and counts.dtype == np.intp and 1 <= int(counts[0]) <= _MAX_CLASSES)
    state = node["content"]["content"]
    _require(node["content"]["__loader__"] == "DictNode" and state.keys() == _STATE)
    shape, _ = array_header(_array(state["nodes"], members))
    _require(len(shape) == 1 and shape[0] >= 1 and _integer(state["node_count"]) == shape[0])
    _require(_integer(state["max_depth"]) >= 0)
    _array(state["values"], members)


def _check_loss(node: Node) -> None:
    """Its arguments are numbers (a quantile, a delta), and it has no state besides."""
    arguments = [json.loads(argument["content"]) for argument in node["__reduce__"]["args"]["content"]]
    _require(all(isinstance(argument, int | float) for argument in arguments))
    _require(not node["content"].get("content"))


def _integer(node: Node) -> int:
    value: Any = json.loads(node["content"])
    _require(node["__loader__"] == "JsonNode" and type(value) is int and abs(value) < 2**31)
    return int(value)


def _array(node: Node, members: Mapping[str, bytes]) -> bytes:
    _require(node["__loader__"] == "NdArrayNode" and node["__class__"] == "ndarray" and node["type"] == "numpy")
    return members[node["file"]]


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("not of the form that scikit-learn writes")
