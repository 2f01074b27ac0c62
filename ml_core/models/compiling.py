"""Compilation of an estimator with its proof, where a version is registered: in a worker, never in a cell.

The compiled form is used only if it answered every row of the proof as scikit-learn did, to the last bit, and if it is
both faster and affordable. The rows: held-out ones, those with each column missing, unseen or extreme, one row, none
and all at once; and of every split of every tree a row that reaches it, at its threshold and one ulp on either side.
The latter ask a graph of that tree alone, written by the same code: all trees at once would take minutes.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ml_core.domain.columns import ColumnKind, Columns, concatenate, take
from ml_core.domain.version import Compilation, CompiledForm, FormCost, ParityProof
from ml_core.ids import Digest
from ml_core.models.ensembles import Answer, NotCompilableError, family_of
from ml_core.models.formulas import Answerer, formula_of
from ml_core.models.graph import measure_bytes
from ml_core.models.loading import LoadedModel
from ml_core.models.sessions import UnusableFormError, check_graph, in_parts, memory_of, open_session, runtime_version

if TYPE_CHECKING:
    from ml_core.models.tree_graph import Ensemble, Tree

_log = logging.getLogger(__name__)

BYTES_PER_US = 64_000
"""What a form may cost in memory for each microsecond that it saves a request of one row. A usual machine has 4 GB a
core, and a microsecond saved 16 times a second is that share of a core: 16e-6 of 4 GB. A model that is asked less is
evicted before one that is asked more."""
MAX_CELLS = 100_000_000
"""Splits times features, of which the proof makes three rows each: some seconds. A larger model is not compiled."""
_TREE_CELLS = 10_000_000  # of one tree, whose rows are in memory at once
_SPLIT_BYTES = 9  # of a graph, at least: a threshold and one index
_HELD_OUT = 1_000
_CHANGED = 8  # rows, for each column and special value
_CHANGED_CELLS = 2_000_000
_SINGLE = 16
_SPECIAL = (np.nan, 0.0, 1e308, -1e308, 5e-324, 1e-38, 3.4e38)  # numbers; of a boolean the first two
_SEEN_BY_NONE = "a value that no training has seen"
_KEPT = 20  # rows of each tree
_LARGEST = float(np.finfo(np.float32).max)  # of a feature, see ``NumberEncoder``
_TIMED_S = 0.02
_CALL_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a compilation found, and the bytes of the form if it is to be used."""

    compilation: Compilation
    data: bytes | None = None


def compile_model(model: LoadedModel, held_out: Columns) -> Compiled:
    """Compile the estimator of a model, prove it and choose a form. It never fails: the reason says what happened.

    Args:
        model: As a server would load it: from its saved bytes, and tuned.
        held_out: Canonical columns of rows that the model was not fitted on; of all of them the first are used.
    """
    try:
        return _compile(model, held_out)
    except (NotCompilableError, UnusableFormError) as error:
        why = str(error).removesuffix(".")
        return Compiled(Compilation(f"It can't be compiled: {why[:1].lower()}{why[1:]}."))
    except Exception as error:  # noqa: BLE001 - a finished training must not be lost for its compilation
        # The name of the class only: a message may quote a cell.
        _log.warning("%s could not be compiled.", type(_estimator(model)).__name__, exc_info=True)
        return Compiled(Compilation(f"Its compilation failed ({type(error).__name__})."))


def _compile(model: LoadedModel, held_out: Columns) -> Compiled:
    encoder, estimator = model.encoder, _estimator(model)
    family, name = family_of(estimator), type(estimator).__name__
    if encoder is None:
        return Compiled(Compilation("Its pipeline is not the platform's encoder and an estimator."))
    if formula_of(estimator) is not None and (family is None or hasattr(estimator, "tree_")):
        return Compiled(Compilation(f"{name} is answered by its formula, which takes microseconds."))
    if family is None:
        return Compiled(Compilation(f"There is no compiled form of {name}."))
    if encoder.texts_ and not encoder.dense_text:
        return Compiled(Compilation("Its features are sparse, because a column is a text."))
    runtime, width = runtime_version(), encoder.n_features_out
    from ml_core.models.tree_graph import graph_of

    ensemble = family.ensemble(estimator)
    if ensemble.n_splits * width > MAX_CELLS or max(len(tree.feature) for tree in ensemble.trees) * width > _TREE_CELLS:
        raise NotCompilableError(f"its {ensemble.n_splits:,} splits are too many to be proved")
    features = np.asarray(encoder.transform(_changed(model, held_out)), dtype=np.float64)
    # As a replica has it: what the encoder made is not checked again, and one thread computes it.
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True), threadpool_limits(limits=1):
        plain = formula_of(estimator) or getattr(estimator, "predict_proba", estimator.predict)
        original = _cost(measure_bytes(estimator), plain, features)
        least = memory_of(_SPLIT_BYTES * ensemble.n_splits)
        if least > BYTES_PER_US * original.row_us:  # before the proof, which takes seconds of such a model
            why = f"it would take at least {least / 2**20:,.1f} MB for a request of {original.row_us:,.0f} µs"
            return Compiled(Compilation(f"A compiled form is not affordable: {why}.", original_cost=original))
        data = graph_of(ensemble, width)
        run, answer_of = in_parts(check_graph(data, width), data), family.answer(estimator)

        def answer(rows: Any) -> Answer:
            return answer_of(run(rows))

        found, at_splits = _at_splits(ensemble, family.trees(estimator), features)
        found += _compared(estimator, answer, np.concatenate([features, at_splits]))
        difference = found.max_difference if np.isfinite(found.max_difference) else None
        proof = ParityProof(found.rows, ensemble.n_splits, difference, found.flips, runtime)
        if found.flips or not found.is_equal:
            why = f"{found.flips} of {found.rows:,} rows get another label or number"
            return Compiled(Compilation(f"The compiled form is not equal: {why}.", proof=proof))
        return _chosen(data, proof, original, _cost(memory_of(len(data)), answer, features))


@dataclass(frozen=True, slots=True)
class _Found:
    """What comparing rows found."""

    rows: int = 0
    max_difference: float = 0.0
    flips: int = 0
    is_equal: bool = True

    def __add__(self, other: _Found) -> _Found:
        largest = max(self.max_difference, other.max_difference)
        return _Found(self.rows + other.rows, largest, self.flips + other.flips, self.is_equal and other.is_equal)


def _estimator(model: LoadedModel) -> Any:
    steps = getattr(model.pipeline, "steps", None)
    return steps[-1][1] if steps else model.pipeline


def _changed(model: LoadedModel, held_out: Columns) -> Columns:
    """Held-out rows, and some of them with one column missing, unseen or extreme."""
    inputs = model.version.signature.inputs
    rows = take(held_out, slice(0, _HELD_OUT))
    few = take(rows, slice(0, max(1, min(_CHANGED, _CHANGED_CELLS // (len(_SPECIAL) * len(inputs) ** 2)))))
    tables = [rows]
    for column in inputs:
        if column.kind.is_numeric:
            special: Sequence[Any] = _SPECIAL[:2] if column.kind is ColumnKind.BOOLEAN else _SPECIAL
        else:
            special = (None, _SEEN_BY_NONE)
        if column.kind is ColumnKind.DATETIME:
            special = (np.nan, 0.0, -1e10, 1e10)
        tables += [{**few, column.name: np.full_like(few[column.name], value)} for value in special]
    return concatenate(tables)


def _compared(estimator: Any, answer: Answerer, features: NDArray[np.float64]) -> _Found:
    """The estimator's own answers against the compiled ones: all rows at once, and the first ones one by one."""
    wanted = _plain(estimator, features)
    whole = _difference(wanted, answer(features))
    for row in range(min(_SINGLE, len(features))):
        one = slice(row, row + 1)
        whole += _difference(_part(wanted, one), answer(features[one]))
    if len(answer(features[:0]).predictions):
        return replace(whole, is_equal=False)
    return whole


def _part(answer: Answer, rows: slice) -> Answer:
    others = (None if part is None else part[rows] for part in answer[1:])
    return Answer(answer.predictions[rows], *others)


def _plain(estimator: Any, features: Any) -> Answer:
    """What scikit-learn's own methods answer."""
    probabilities = estimator.predict_proba(features) if hasattr(estimator, "predict_proba") else None
    scores = -estimator.score_samples(features) if hasattr(estimator, "score_samples") else None
    return Answer(estimator.predict(features), probabilities, scores)


def _difference(wanted: Answer, found: Answer) -> _Found:
    """A number of another dtype or shape counts as another label in every row."""
    rows, is_number = len(wanted.predictions), wanted.predictions.dtype.kind == "f"
    pairs = [(wanted.probabilities, found.probabilities), (wanted.scores, found.scores)]
    pairs += [(wanted.predictions, found.predictions)] if is_number else []
    numbers = []
    for left, right in pairs:
        if left is None and right is None:
            continue
        if left is None or right is None or left.shape != right.shape:
            return _Found(rows, np.inf, rows, is_equal=False)
        numbers.append(_apart(left, right))
    total = _Found(0, max([each.max_difference for each in numbers], default=0.0), 0, all(e.is_equal for e in numbers))
    if is_number:
        return replace(total, rows=rows)
    is_same = wanted.predictions.dtype == found.predictions.dtype and len(found.predictions) == rows
    flips = int((wanted.predictions != found.predictions).sum()) if is_same else rows
    return replace(total, rows=rows, flips=flips)


def _apart(wanted: NDArray[Any], found: NDArray[Any]) -> _Found:
    """Two arrays of numbers; ``flips`` are rows in which they differ: the last bit would decide between equal votes."""
    differs = wanted != found  # also where either is NaN
    flips = int(differs.reshape(len(differs), -1).any(axis=1).sum()) if len(differs) else 0
    largest = float(np.nan_to_num(np.abs(wanted - found), nan=np.inf).max(initial=0.0))
    return _Found(len(wanted), largest, flips, not differs.any())


def _at_splits(
    ensemble: Ensemble, originals: Sequence[Callable[[Any], NDArray[np.float64]]], features: NDArray[np.float64]
) -> tuple[_Found, NDArray[np.float64]]:
    """Each tree alone at each of its splits; and some of these rows, to be answered by all trees together."""
    from ml_core.models.tree_graph import Ensemble as EnsembleOf
    from ml_core.models.tree_graph import graph_of

    random, found, kept = np.random.default_rng(0), _Found(), []
    for tree, original in zip(ensemble.trees, originals, strict=True):
        if not len(tree.feature):
            continue
        alone = EnsembleOf([replace(tree, target=0)], 1, ensemble.is_rounded)
        run = open_session(graph_of(alone, features.shape[1]))
        base = features[random.integers(len(features))]
        rows = _split_rows(tree, base, is_rounded=ensemble.is_rounded)
        found += _apart(original(rows), run(rows))
        kept.append(rows[random.integers(len(rows), size=min(len(rows), _KEPT))])
    return found, np.concatenate(kept) if kept else features[:0]


def _split_rows(tree: Tree, base: NDArray[np.float64], *, is_rounded: bool) -> NDArray[np.float64]:
    """Three rows for each split that reach it, ``(3 * n_inner, width)``: its feature at the threshold, below and above.

    A row is that of the parent, with the parent's feature moved to the side on which the split is.
    """
    below, above = _sides(tree.threshold, is_rounded=is_rounded)
    rows = np.empty((len(tree.feature), len(base)))
    rows[0] = base.astype(np.float32) if is_rounded else base
    level = np.zeros(1, dtype=np.int64)
    while len(level):
        children = []
        for child, is_leaf, is_left in ((tree.left, tree.left_is_leaf, True), (tree.right, tree.right_is_leaf, False)):
            parent = level[~is_leaf[level]]
            made, feature = rows[parent], tree.feature[parent]
            place = np.arange(len(parent)), feature
            value = made[place]
            moved = np.minimum(value, below[parent]) if is_left else np.maximum(value, above[parent])
            made[place] = moved
            rows[child[parent]] = made
            children.append(child[parent])
        level = np.concatenate(children)
    three = np.repeat(rows, 3, axis=0)
    under = below if is_rounded else np.nextafter(tree.threshold, -np.inf)
    values = np.stack([under, tree.threshold, above], axis=1).ravel()
    three[np.arange(len(three)), np.repeat(tree.feature, 3)] = np.clip(values, -_LARGEST, _LARGEST)
    return three


def _sides(threshold: NDArray[np.float64], *, is_rounded: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The largest value that a comparison takes for at most the threshold, and the smallest above it."""
    if not is_rounded:
        return threshold, np.nextafter(threshold, np.inf)
    near = np.clip(threshold, -_LARGEST, _LARGEST).astype(np.float32)
    down, up = np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))
    below = np.where(near <= threshold, near, down)
    return below.astype(np.float64), np.where(near <= threshold, up, near).astype(np.float64)


def _cost(memory_bytes: int, answer: Callable[[Any], object], features: NDArray[np.float64]) -> FormCost:
    rows = np.ascontiguousarray(np.resize(features, (64, features.shape[1])))
    return FormCost(memory_bytes, _microseconds(answer, rows[:1]), _microseconds(answer, rows))


def _microseconds(answer: Callable[[Any], object], rows: NDArray[np.float64]) -> float:
    """CPU time of a call: the least of some, within a fraction of a second."""
    answer(rows)
    began, best, calls = time.thread_time(), np.inf, 1
    while time.thread_time() - began < _TIMED_S:
        start = time.thread_time_ns()
        for _ in range(calls):
            answer(rows)
        taken = time.thread_time_ns() - start
        best, calls = min(best, taken / 1e3 / calls), calls if taken > _CALL_NS else calls * 2
    return round(float(best), 1)


def _chosen(data: bytes, proof: ParityProof, original: FormCost, compiled: FormCost) -> Compiled:
    saved, megabytes = original.row_us - compiled.row_us, compiled.memory_bytes / 2**20
    cost = f"{megabytes:,.1f} MB of memory and {compiled.row_us:,.0f} µs for one row instead of {original.row_us:,.0f}"
    undecided = Compilation("", proof=proof, original_cost=original, compiled_cost=compiled)
    if saved <= 0:
        return Compiled(replace(undecided, reason=f"The compiled form is not faster: it takes {cost}."))
    if compiled.memory_bytes > BYTES_PER_US * saved:
        allowed = BYTES_PER_US * saved / 2**20
        reason = f"The compiled form takes {cost}; {allowed:,.1f} MB would be affordable for that."
        return Compiled(replace(undecided, reason=reason))
    most = _rows_until_slower(original, compiled)
    reason = f"The compiled form takes {cost}" + (f"; it answers up to {most} rows." if most else ".")
    form = CompiledForm(Digest(hashlib.sha256(data).hexdigest()), len(data), proof.runtime, most)
    return Compiled(replace(undecided, reason=reason, form=form), data)


def _rows_until_slower(original: FormCost, compiled: FormCost) -> int | None:
    """The number of rows of which both take as long, as costs grow evenly with rows; None if there is none."""
    slower = (compiled.rows_64_us - original.rows_64_us) / 63 + (original.row_us - compiled.row_us) / 63
    rows = 1 + (original.row_us - compiled.row_us) / slower if slower > 0 else np.inf
    return None if compiled.rows_64_us <= original.rows_64_us else max(1, int(rows))
