"""The audit of an artifact's schema: every node's kind, type, keys and file against the platform's list.

It reads the schema as plain JSON, before any object is built from it, and refuses everything unknown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Container, Mapping
from typing import Any

from ml_core.exceptions import UnsafeArtifactError
from ml_core.models import own_types
from ml_core.models.formats.allowed_types import ALLOWED, is_left_out
from ml_core.models.formats.schema import TOP_LEVEL_KEYS, Node, children, is_plain, keys_of, type_name
from ml_core.settings import RESERVED_MODULES

ARRAY_MEMBER = re.compile(r"[0-9]{1,20}\.npy")
# A TF-IDF of 500,000 terms has 13 MB and as many values.
MAX_SCHEMA_BYTES = 32 * 2**20
MAX_VALUES = 2_000_000
# Lists and objects of a schema: at most 500 bytes of memory and 15 µs each. The largest model measured, a one-vs-one of
# 100 classes, has 40,000.
MAX_NODES = 250_000
# Values, with each reference counted as its target: 60 nested pairs of references expand to 10**18.
MAX_EXPANDED = 5_000_000
MAX_DIGITS = 19
MAX_DEPTH = 100  # a stack of pipelines of column transformers has 25
_NO_SCALAR = ("", "[", "{", " ", "\t", "\n", "\r")
_REMEDY = "Train it on this platform, or build it from the types that the platform allows."
_NO_FUNCTIONS = "Put the function into a class of an installed module: of these only classes are loaded."


def parse_schema(text: bytes) -> Node:
    """The schema as JSON, its size bounded before it is parsed.

    Raises:
        UnsafeArtifactError: It exceeds a bound, or is not a JSON object.
    """
    check_size(text)
    try:
        schema = json.loads(text, parse_int=read_int)
    except (ValueError, RecursionError) as error:
        raise malformed(f"its schema is not JSON ({error})") from error
    if not isinstance(schema, dict) or "__loader__" not in schema:
        raise malformed("it holds no estimator; its root does not predict")
    return {key: value for key, value in schema.items() if key not in TOP_LEVEL_KEYS}


def check_size(text: bytes) -> None:
    """Check that a schema can be parsed and built in bounded memory and time.

    Raises:
        UnsafeArtifactError: It exceeds a bound.
    """
    # Brackets and commas inside of strings count as well, which can only overestimate.
    n_nodes, n_values = text.count(b"{") + text.count(b"["), text.count(b",")
    if len(text) > MAX_SCHEMA_BYTES or n_nodes > MAX_NODES or n_values > MAX_VALUES:
        raise UnsafeArtifactError(
            f"The artifact's schema has {len(text):,} bytes, {n_nodes:,} nodes and {n_values:,} values, above the "
            f"bound of {MAX_SCHEMA_BYTES:,} bytes, {MAX_NODES:,} nodes or {MAX_VALUES:,} values.",
            remedy="Keep numbers in numpy arrays, not in lists, and take fewer estimators or words. skops writes a "
            "node for each number: of a model with many words register the .joblib.",
        )


def read_int(text: str) -> int:
    """A JSON integer of at most 19 digits. Longer ones could be chosen to have equal hashes.

    Raises:
        ValueError: It is longer.
    """
    if len(text.removeprefix("-")) > MAX_DIGITS:
        raise ValueError("an integer has too many digits")
    return int(text)


def audit_schema(schema: Node, members: Collection[str], trust: Container[str] = ()) -> None:
    """Check a whole schema; ``trust`` has the classes that are loaded besides the platform's list.

    Raises:
        UnsafeArtifactError: Names every type that is not on the list, or the malformed node.
    """
    offending: dict[str, str] = {}  # type or function → kind of its node
    level: list[Node] = [schema]
    # Level by level instead of by recursion, whose depth an archive could exhaust.
    for _ in range(MAX_DEPTH):
        deeper: list[Node] = []
        for node in level:
            if isinstance(node, list) or is_plain(node) or _check_node(node, members, trust, offending):
                deeper.extend(children(node))
        if not deeper:
            break
        level = deeper
    else:
        raise malformed(f"its schema nests deeper than {MAX_DEPTH} levels")
    if offending:
        raise UnsafeArtifactError(
            f"The artifact holds types that the platform does not load: {', '.join(sorted(offending))}.",
            remedy=_remedy(offending),
            types=sorted(offending),
        )


def _remedy(offending: Mapping[str, str]) -> str:
    if any(name.partition(".")[0] == "__main__" for name in offending):
        return own_types.REMEDY_OF_SCRIPT
    of_callers = {loader for name, loader in offending.items() if name.partition(".")[0] not in RESERVED_MODULES}
    if "FunctionNode" in of_callers:
        return _NO_FUNCTIONS
    return own_types.REMEDY if of_callers == {"ObjectNode"} else _REMEDY


def malformed(what: str) -> UnsafeArtifactError:
    """The error for an archive that no version of the platform wrote."""
    return UnsafeArtifactError(f"The artifact is malformed: {what}.", remedy=_REMEDY)


def _check_node(
    node: dict[str, Any], members: Collection[str], trust: Container[str], offending: dict[str, str]
) -> bool:
    """Check one typed node; False if its children can't be visited, since its form is unknown."""
    if not all(isinstance(node.get(key), str) for key in ("__loader__", "__module__", "__class__")):
        raise malformed("a node of its schema has no type")
    name, loader = type_name(node), node["__loader__"]
    if is_left_out(name):
        return False
    if name not in ALLOWED.get(loader, frozenset()) and not (loader == "ObjectNode" and name in trust):
        offending[_describe(node)] = loader
        if loader not in ALLOWED:
            return False
    if name in ALLOWED["SparseMatrixNode"] and "file" in node:
        offending[name] = loader  # skops writes an archive inside of the archive
        return False
    if not node.keys() <= keys_of(loader):
        raise malformed(f"a {loader} has the unknown keys {sorted(node.keys() - keys_of(loader))}")
    if loader == "JsonNode" and (not isinstance(node.get("content"), str) or node["content"][:1] in _NO_SCALAR):
        raise malformed("a JsonNode holds no scalar")  # lists and dicts are nodes of their own, which are counted
    _check_references(node, members)
    return True


def _check_references(node: dict[str, Any], members: Collection[str]) -> None:
    # A repeated id refers to the first node of that id, so it must be a number.
    if not isinstance(node.get("__id__", 0), int) or isinstance(node.get("__id__"), bool):
        raise malformed("an id is not a number")
    if node["__loader__"] == "NdArrayNode" and node.get("type") == "numpy":
        file = node.get("file")
        if not isinstance(file, str) or not ARRAY_MEMBER.fullmatch(file) or file not in members:
            raise malformed("an array refers to a member that the archive does not have")


def _describe(node: dict[str, Any]) -> str:
    """The type as skops names it, with a method's name where the node is one."""
    content = node.get("content")
    if node["__loader__"] == "MethodNode" and isinstance(content, dict):
        return f"{type_name(node)}.{content.get('func')}"
    return type_name(node)
