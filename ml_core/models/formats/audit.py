"""The audit of an artifact's schema: every node's kind, type, keys and file against the platform's list.

It reads the schema as plain JSON, before anything is built from it, and refuses what it does not know. skops's own
audit runs after it, on the objects that skops would build.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from ml_core.exceptions import UnsafeArtifactError
from ml_core.models.formats.allowed_types import ALLOWED
from ml_core.models.formats.schema import TOP_LEVEL_KEYS, Node, children, keys_of, type_name

ARRAY_MEMBER = re.compile(r"[0-9]{1,20}\.npy")
_LEAVES = frozenset({"JsonNode", "TypeNode"})  # two of three nodes; their form says that they hold no other node
_REMEDY = "Train it on this platform, or build it from the types that the platform allows."


def audit_schema(schema: Any, members: Collection[str], own_types: Collection[str] = ()) -> None:
    """Check a whole schema.

    Args:
        schema: The parsed ``schema.json``.
        members: The names of the archive's members.
        own_types: Types of objects that the calling process vouches for besides; a server vouches for none.

    Raises:
        UnsafeArtifactError: Names every type that is not on the list, or the malformed node.
    """
    if not isinstance(schema, dict):
        raise malformed("its schema is not an object")
    offending: set[str] = set()
    named: dict[int, Node] = {}
    pending: list[Any] = [{key: value for key, value in schema.items() if key not in TOP_LEVEL_KEYS}]
    while pending:
        node = pending.pop()
        _check_form(node)
        name, loader = type_name(node), node["__loader__"]
        if name not in ALLOWED.get(loader, frozenset()) and not (loader == "ObjectNode" and name in own_types):
            offending.add(_describe(node))
            if loader not in ALLOWED:
                continue  # its form is unknown, so what it holds can't be walked
        _check_identity(node, named)
        if loader in _LEAVES:
            continue
        _check_members(node, members)
        _check_own_state(node)
        pending.extend(children(node))
    if offending:
        raise UnsafeArtifactError(
            f"The artifact holds what the platform does not load: {', '.join(sorted(offending))}.",
            remedy=_REMEDY,
            types=sorted(offending),
        )


def malformed(what: str) -> UnsafeArtifactError:
    """The error for an archive that no version of the platform wrote."""
    return UnsafeArtifactError(f"The artifact is malformed: {what}.", remedy=_REMEDY)


def _check_form(node: Any) -> None:
    if not isinstance(node, dict) or not all(
        isinstance(node.get(key), str) for key in ("__loader__", "__module__", "__class__")
    ):
        raise malformed("a node of its schema has no type")
    loader = node["__loader__"]
    if loader in ALLOWED and not node.keys() <= keys_of(loader):
        raise malformed(f"a {loader} has the unknown keys {sorted(node.keys() - keys_of(loader))}")
    if loader == "JsonNode" and not isinstance(node.get("content"), str):
        raise malformed("a JsonNode holds no text")
    identity = node.get("__id__")
    # skops answers a repeated id with the first node of that id, so only an id that is a number is a name.
    if identity is not None and (isinstance(identity, bool) or not isinstance(identity, int)):
        raise malformed("an id is not a number")


def _check_identity(node: Node, named: dict[int, Node]) -> None:
    """Nodes of one id are equal: skops builds the first of them and does not look at the others, which were audited."""
    identity = node.get("__id__")
    if identity is None:
        return
    try:
        same = named.setdefault(identity, node) == node
    except RecursionError:
        same = False
    if not same:
        raise malformed("two different nodes have one id")


def _check_members(node: Node, members: Collection[str]) -> None:
    if node["__loader__"] != "NdArrayNode" or node.get("type") != "numpy":
        return
    name = node.get("file")
    if not isinstance(name, str) or not ARRAY_MEMBER.fullmatch(name) or name not in members:
        raise malformed("an array refers to a member that the archive does not have")


def _check_own_state(node: Node) -> None:
    """Private attributes of the platform's own encoders are derived from the others when they are built, never stored.

    Accepting them would let an artifact replace a lookup by one that points outside of the matrix.
    """
    if node["__loader__"] != "ObjectNode" or not node["__module__"].startswith("ml_core."):
        return
    state = node.get("content")
    attributes = state.get("content") if isinstance(state, dict) else None
    if not isinstance(attributes, dict) or any(name.startswith("_") for name in attributes):
        raise malformed(f"a {node['__class__']} carries state that it derives itself")


def _describe(node: Node) -> str:
    """The type as skops names it, with a method's name where the node is one."""
    name = type_name(node)
    content = node.get("content")
    if node["__loader__"] == "MethodNode" and isinstance(content, dict):
        return f"{name}.{content.get('func')}"
    return name
