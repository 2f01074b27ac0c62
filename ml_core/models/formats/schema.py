"""The grammar of an artifact's schema: how its nodes nest.

It is the grammar of skops 0.16 with two shorter forms. Plain data is plain JSON: a number, a string, null, a list, and
an object without ``__loader__``, which is a dict with string keys. Similar trees are one node (``trees``). Every other
node is a JSON object with ``__loader__`` (its kind), ``__module__`` and ``__class__`` (its type), and the keys in
``PARTS``. Later nodes refer to a node by its ``__id__``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Node = Any  # a JSON value

SCHEMA_MEMBER = "schema.json"
TOP_LEVEL_KEYS = frozenset({"protocol", "_skops_version"})
_COMMON_KEYS = frozenset({"__loader__", "__module__", "__class__", "__id__"})

CONTAINERS = frozenset({dict, list})  # the JSON values that hold others

# Kind → the keys that hold nodes, and the keys that hold other JSON.
PARTS: dict[str, tuple[tuple[str, ...], frozenset[str]]] = {
    "CachedNode": ((), frozenset()),
    "DTypeNode": (("content",), frozenset()),
    "DictNode": (("content", "key_types"), frozenset()),
    "FunctionNode": ((), frozenset()),
    "JsonNode": ((), frozenset({"content", "is_json"})),
    "ListNode": (("content",), frozenset()),
    "LossNode": (("__reduce__", "content"), frozenset()),
    "NdArrayNode": (("content", "shape"), frozenset({"type", "file"})),
    "ObjectNode": (("content",), frozenset()),
    "PartialNode": (("content",), frozenset()),
    "PredictorsNode": (("content",), frozenset()),
    "ScalarNode": ((), frozenset({"content"})),
    "SetNode": (("content",), frozenset()),
    "SliceNode": ((), frozenset({"content"})),
    "SparseMatrixNode": (("content", "shape"), frozenset()),
    "SplineNode": (("content",), frozenset()),
    "TreeNode": (("__reduce__", "content"), frozenset()),
    "TreesNode": (("content", "trees", "random_states", "shape"), frozenset()),
    "TupleNode": (("content",), frozenset()),
    "TypeNode": ((), frozenset()),
}


def type_name(node: dict[str, Any]) -> str:
    """``module.class`` of a node."""
    return f"{node['__module__']}.{node['__class__']}"


def is_plain(node: Node) -> bool:
    """Whether a JSON value is a plain dict, not a typed node."""
    return isinstance(node, dict) and "__loader__" not in node


def keys_of(loader: str) -> frozenset[str]:
    """The keys that a node of a kind may have."""
    nodes, others = PARTS[loader]
    return _COMMON_KEYS | set(nodes) | others


def children(node: Node) -> Iterator[Node]:
    """The direct children of a node that are not scalars."""
    if type(node) is list:
        inside = node
    elif is_plain(node):
        inside = list(node.values())
    else:
        inside = [node[key] for key in PARTS[node["__loader__"]][0] if key in node]
    return (child for child in inside if type(child) in CONTAINERS)
