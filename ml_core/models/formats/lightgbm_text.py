"""The text of a LightGBM model: the part that predicting needs, every number of it checked.

LightGBM's parser and its prediction trust the text (``src/io/tree.cpp``, ``src/boosting/gbdt_model_text.cpp``): they
follow the numbers of children, features and bitsets unchecked, and search for a sign beyond the end. So it never sees a
text that it is given: ``canonical`` reads that with a strict grammar, checks it, and writes it anew. Left out are the
parameters of the training, such as the addresses of its workers, and the ranges of the features. The counts of rows are
kept where a text has them: explanations weigh the sides of a split by them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.models.formats.trees import require

MAX_TREES = 100_000
MAX_FEATURES = 1_000_000
MAX_BYTES = 128 * 2**20  # about a million leaves
_KIND = "LightGBM text"
_END = "\nend of trees\n"
_NODES = ("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child")
_SETS = ("cat_boundaries", "cat_threshold")
_COUNTS = ("leaf_count", "internal_count")
_KEPT = ("num_leaves", "num_cat", *_NODES, "leaf_value", *_COUNTS, *_SETS, "is_linear", "shrinkage")
_LEFT_OUT = frozenset({"leaf_weight", "internal_value", "internal_weight"})
_HEAD_LEFT_OUT = frozenset({"feature_names", "feature_infos", "tree_sizes"})
# Possessive repeats: the others would keep a position for each number.
_INTEGERS = re.compile(r"(?:-?[0-9]{1,10}(?: -?[0-9]{1,10})*+)?")
_NUMBER = r"-?[0-9]{1,25}(?:\.[0-9]{1,25})?(?:e[+-]?[0-9]{1,3})?"
_NUMBERS = re.compile(rf"(?:{_NUMBER}(?: {_NUMBER})*+)?")
# ``inf`` parts the missing values from all others.
_THRESHOLDS = re.compile(rf"(?:(?:inf|{_NUMBER})(?: (?:inf|{_NUMBER}))*+)?")
_CATEGORICAL, _MISSING_TYPES = 1, 3  # bits of a decision type: categorical, default left, two of the missing type


def canonical(text: str, n_features: int, n_outputs: int, objective: str) -> str:
    """The canonical text of a model that LightGBM or this function wrote; equal for equal trees.

    ``n_outputs`` is the number of trees a round; ``objective`` is the objective as LightGBM writes it.

    Raises:
        UnsafeArtifactError: The text is too large, has another form or other features, outputs or objective, or a
            number leads out of the arrays of its tree.
    """
    require(text.isascii() and len(text) <= MAX_BYTES and n_features <= MAX_FEATURES, f"{_KIND} with its size")
    body, end, _ = text.partition(_END)
    head, *blocks = body.split("\nTree=")
    require(end == _END and 0 < len(blocks) <= MAX_TREES and len(blocks) % n_outputs == 0, f"{_KIND} with its trees")
    facts = {
        "version": "v4",
        "num_class": str(n_outputs),
        "num_tree_per_iteration": str(n_outputs),
        "label_index": "0",
        "max_feature_idx": str(n_features - 1),
        "objective": objective,
    }
    first, *lines = head.split("\n")
    require(first == "tree" and _fields(lines, tuple(facts), _HEAD_LEFT_OUT) == facts, f"{_KIND} with its head")
    trees = [_tree(index, block) for index, block in enumerate(blocks)]
    _check(trees, n_features)
    pieces = [
        "".join([f"Tree={index}\n", *(f"{key}={tree[key]}\n" for key in _KEPT if key in tree), "\n\n"])
        for index, tree in enumerate(trees)
    ]
    facts |= {
        "feature_names": " ".join(f"Column_{index}" for index in range(n_features)),
        "feature_infos": " ".join(["none"] * n_features),
        "tree_sizes": " ".join(str(len(piece)) for piece in pieces),
    }
    return "".join(["tree\n", *(f"{key}={value}\n" for key, value in facts.items()), "\n", *pieces, _END[1:]])


def arrays(text: str) -> list[dict[str, NDArray[np.float64]]]:
    """The numbers of each tree of a canonical text by key; without ``leaf_count`` where the text has no counts."""
    blocks = text.partition(_END)[0].split("\nTree=")[1:]
    fields = (line.split("=") for block in blocks for line in block.split("\n"))
    trees: list[dict[str, NDArray[np.float64]]] = []
    for key, *value in fields:
        if not value:  # the number of a tree, or the blank line after one
            trees += [{}] if key else []
        else:
            trees[-1][key] = np.fromstring(value[0], sep=" ") if value[0] else np.empty(0)
    return trees


def _fields(lines: Sequence[str], kept: Sequence[str], left_out: frozenset[str]) -> dict[str, str]:
    """Key → value of the ``kept`` keys of ``key=value`` lines, each at most once; other keys than ``left_out`` fail."""
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition("=")
        if line and key not in left_out:
            require(key in kept and key not in found, f"{_KIND} with {key[:40]!r}")
            found[key] = value
    return found


def _tree(index: int, block: str) -> dict[str, str]:
    number, *lines = block.split("\n")
    tree = _fields(lines, _KEPT, _LEFT_OUT)
    if tree.get("num_leaves") == "1":  # LightGBM does not read the count of a single leaf
        for key in _COUNTS:
            tree.pop(key, None)
    missing = set(_KEPT) - tree.keys() - {*_SETS, *_COUNTS}
    require(number == str(index) and not missing and tree["is_linear"] == "0", f"{_KIND} with tree {index}")
    return tree


def _check(trees: Sequence[dict[str, str]], n_features: int) -> None:
    def read(key: str, counts: NDArray[Any], form: re.Pattern[str] = _INTEGERS, dtype: type = np.int64) -> NDArray[Any]:
        """The numbers of all trees under a key, one after another, of which each tree has as many as ``counts``."""
        values = [tree.get(key, "") for tree in trees]
        has = [value.count(" ") + 1 if value else 0 for value in values]
        joined = " ".join(filter(None, values))
        require(has == counts.tolist() and form.fullmatch(joined) is not None, f"{_KIND} with its {key}")
        return np.fromstring(joined, dtype=dtype, sep=" ") if joined else np.empty(0, dtype)

    one = np.ones(len(trees), dtype=np.int64)
    n_leaves, n_sets = read("num_leaves", one), read("num_cat", one)
    # The bound keeps sums from wrapping around.
    require(bool(((n_leaves >= 1) & (n_leaves <= MAX_BYTES) & (n_sets >= 0) & (n_sets < n_leaves)).all()), _KIND)
    counts = n_leaves - 1
    feature, kinds = read("split_feature", counts), read("decision_type", counts)
    require(bool(((feature >= 0) & (feature < n_features)).all()), f"{_KIND} with its features")
    require(bool(((kinds >= 0) & (kinds >> 2 < _MISSING_TYPES)).all()), f"{_KIND} with its decisions")
    threshold = read("threshold", counts, _THRESHOLDS, np.float64)
    require(bool((threshold > -np.inf).all()), f"{_KIND} with its thresholds")
    gain, shrinkage = read("split_gain", counts, _NUMBERS, np.float64), read("shrinkage", one, _NUMBERS, np.float64)
    for values in (read("leaf_value", n_leaves, _NUMBERS, np.float64), gain, shrinkage):
        require(bool((np.abs(values) < np.inf).all()), f"{_KIND} with its numbers")
    require(bool((np.abs(gain) <= np.finfo(np.float32).max).all()), f"{_KIND} with its gains")
    for key, wanted in zip(_COUNTS, (n_leaves, counts), strict=True):
        has = np.array([key in tree for tree in trees])
        require(bool((read(key, np.where(has, wanted, 0)) >= 0).all()), f"{_KIND} with its {key}")
    _check_links(counts, read("left_child", counts), read("right_child", counts))
    _check_sets(n_sets, threshold, kinds & _CATEGORICAL == 1, counts, trees)
    words = read("cat_threshold", np.array([int(_ends(tree)[-1]) for tree in trees]))
    require(bool(((words >= 0) & (words < 2**32)).all()), f"{_KIND} with its bitsets")


def _check_links(counts: NDArray[Any], *children: NDArray[Any]) -> None:
    """A child is a later node of the same tree, so a walk ends, or ``~leaf`` of one of its leaves."""
    bounds = np.repeat(counts, counts)
    parents = np.arange(len(bounds)) - np.repeat(np.cumsum(counts) - counts, counts)
    for child in children:
        holds = np.where(child < 0, ~child <= bounds, (child > parents) & (child < bounds))
        require(bool(holds.all()), f"{_KIND} with its children")


def _check_sets(
    n_sets: NDArray[Any], threshold: NDArray[Any], categorical: NDArray[Any], counts: NDArray[Any], trees: Any
) -> None:
    """A categorical node's threshold is the number of a bitset of its tree; each bitset ends after it begins."""
    numbers, bounds = threshold[categorical], np.repeat(n_sets, counts)[categorical]
    require(
        bool(((numbers >= 0) & (numbers < bounds) & (numbers == np.floor(numbers))).all()), f"{_KIND} with its sets"
    )
    for n, tree in zip(n_sets.tolist(), trees, strict=True):
        ends = _ends(tree)
        require(len(ends) == n + 1 and ends[0] == 0 and sorted(ends) == ends, f"{_KIND} with its bitsets")


def _ends(tree: dict[str, str]) -> list[int]:
    """Where the bitsets of a tree end, after 0."""
    text = tree.get("cat_boundaries") or "0"
    require(_INTEGERS.fullmatch(text) is not None, f"{_KIND} with its bitsets")
    return [int(end) for end in text.split(" ")]
