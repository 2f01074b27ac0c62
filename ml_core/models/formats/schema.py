"""The grammar of a skops schema: how its nodes nest. Shared by the audit and by the canonical writer.

A node is a JSON object with ``__loader__`` (its kind), ``__module__`` and ``__class__`` (its type), maybe ``__id__``
(nodes with one id are one object), and what ``child_slots`` names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Node = dict[str, Any]

SCHEMA_MEMBER = "schema.json"
TOP_LEVEL_KEYS = frozenset({"protocol", "_skops_version"})
_COMMON_KEYS = frozenset({"__loader__", "__module__", "__class__", "__id__"})
_OWN_KEYS: dict[str, frozenset[str]] = {
    "DTypeNode": frozenset({"content"}),
    "DictNode": frozenset({"content", "key_types"}),
    "JsonNode": frozenset({"content", "is_json"}),
    "ListNode": frozenset({"content"}),
    "LossNode": frozenset({"__reduce__", "content"}),
    "NdArrayNode": frozenset({"type", "file", "content", "shape"}),
    "ObjectNode": frozenset({"content"}),
    "SetNode": frozenset({"content"}),
    "TreeNode": frozenset({"__reduce__", "content"}),
    "TupleNode": frozenset({"content"}),
    "TypeNode": frozenset(),
}


def type_name(node: Node) -> str:
    """``module.class`` of a node."""
    return f"{node['__module__']}.{node['__class__']}"


def keys_of(loader: str) -> frozenset[str]:
    """The keys that a node of a kind may have."""
    return _COMMON_KEYS | _OWN_KEYS[loader]


def children(node: Node) -> Iterator[Any]:
    """The nodes directly inside a node, in the order in which they are written; not checked to be nodes."""
    reduce = node.get("__reduce__")
    if isinstance(reduce, dict):
        yield from reduce.values()
    content = node.get("content")
    loader = node["__loader__"]
    if loader == "DictNode" and isinstance(content, dict):
        yield from content.values()
    elif isinstance(content, list):
        yield from content
    elif loader != "JsonNode" and content is not None:
        yield content
    for key in ("key_types", "shape"):
        if key in node:
            yield node[key]


def walk(schema: Node) -> Iterator[Node]:
    """Every node of a well-formed schema, a parent before its children, in the order in which they are written."""
    pending: list[Node] = [schema]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(list(children(node))))
