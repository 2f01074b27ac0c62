"""``Proposals``: the configurations of a search, from a grid, at random, or by Optuna from the results before."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import orjson

from ml_core.domain.search_space import Dimension
from ml_core.domain.tune_spec import Sampler, TuneSpec
from ml_core.models.model_factory import ModelFactory
from ml_core.training.spaces import Space

Configuration: TypeAlias = Mapping[str, Any]
"""``algorithm`` and the hyperparameters that are searched."""

_TRIES: Final = 100
"""Draws in a row that were proposed before, after which nothing new is expected."""


class Proposals:
    """Proposes each configuration once.

    Those of a grid and random ones are a function of the seed and their place. Random ones and Optuna's begin with the
    estimators' own values, where the space has them.

    Args:
        search: The search.
        model_type: Of the estimators.
        spaces: The spaces by algorithm.
        n_done: Trials that were done before; they are told by ``learn``.
    """

    def __init__(self, search: TuneSpec, model_type: str, spaces: Mapping[str, Space], n_done: int) -> None:
        self._seen: set[bytes] = set()
        self._study: _Study | None = None
        self._source: Iterator[Configuration]
        starts = [_own_values(model_type, algorithm, space) for algorithm, space in spaces.items()]
        if search.sampler is Sampler.GRID:
            self._source = _grid(spaces)
        elif search.sampler is Sampler.RANDOM:
            self._source = _random(spaces, starts, search.seed)
        else:
            # Otherwise the random draws that Optuna begins with would be those of the attempt before.
            self._source = self._study = _Study(spaces, starts, search.seed + n_done)

    def propose(self) -> Configuration | None:
        """A configuration that was neither proposed nor learned before; None: there is none, or hardly any."""
        # Each of those that were seen may come once more, from a grid or at random after another attempt.
        for found in itertools.islice(self._source, _TRIES + len(self._seen)):
            if (key := key_of(found)) not in self._seen:
                self._seen.add(key)
                return found
            if self._study is not None:
                self._study.learn(found, {}, is_complete=False)
        return None

    def learn(self, configuration: Configuration, scores: Mapping[int, float], *, is_complete: bool) -> None:
        """Take note of a result.

        Args:
            configuration: Proposed here, or done before.
            scores: Rows of the fits → score, higher is better; empty: the trial failed.
            is_complete: Whether the last score is of all rows and folds.
        """
        self._seen.add(key_of(configuration))
        if self._study is not None:
            self._study.learn(configuration, scores, is_complete=is_complete)


def key_of(configuration: Configuration) -> bytes:
    """A text that is the same for equal configurations."""
    return orjson.dumps(dict(configuration), option=orjson.OPT_SORT_KEYS)


def _own_values(model_type: str, algorithm: str, space: Space) -> dict[str, Any]:
    """The estimator's own values that its space has."""
    own = ModelFactory.create_model(model_type, {"algorithm": algorithm}).get_params(deep=False)
    return {"algorithm": algorithm} | {name: own[name] for name, of in space.items() if of.contains(own[name])}


def _grid(spaces: Mapping[str, Space]) -> Iterator[Configuration]:
    for algorithm, space in spaces.items():
        for values in itertools.product(*([of.value(at) for at in range(of.size or 0)] for of in space.values())):
            yield {"algorithm": algorithm, **dict(zip(space, values, strict=True))}


def _random(spaces: Mapping[str, Space], starts: list[dict[str, Any]], seed: int) -> Iterator[Configuration]:
    random, names = np.random.default_rng(seed), list(spaces)
    for index in itertools.count():
        start = starts[index] if index < len(starts) else {"algorithm": names[int(random.integers(len(names)))]}
        yield {**{name: of.draw(random) for name, of in spaces[start["algorithm"]].items()}, **start}


class _Study:
    """Optuna's study; it is asked by iteration."""

    def __init__(self, spaces: Mapping[str, Space], starts: list[dict[str, Any]], seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._spaces = spaces
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        self._asked: dict[bytes, Any] = {}
        self._starts = iter(starts)

    def __iter__(self) -> Iterator[Configuration]:
        return self

    def __next__(self) -> Configuration:
        if (start := next(self._starts, None)) is not None:
            self._enqueue(start)
        return self._ask()

    def learn(self, configuration: Configuration, scores: Mapping[int, float], *, is_complete: bool) -> None:
        key, states = key_of(configuration), self._optuna.trial.TrialState
        if key not in self._asked:
            if not self._has(configuration):
                return
            self._enqueue(configuration)
            self._ask(key)
        trial = self._asked.pop(key)
        for rows, score in sorted(scores.items()):
            trial.report(score, rows)
        if is_complete:
            self._study.tell(trial, scores[max(scores)])
        else:
            self._study.tell(trial, state=states.PRUNED if scores else states.FAIL)

    def _ask(self, key: bytes | None = None) -> Configuration:
        trial, names = self._study.ask(), list(self._spaces)
        algorithm = names[trial.suggest_categorical("algorithm", range(len(names)))] if len(names) > 1 else names[0]
        space = self._spaces[algorithm]
        found = {"algorithm": algorithm} | {
            name: suggest(trial, f"{algorithm}.{name}", of) for name, of in space.items()
        }
        self._asked[key or key_of(found)] = trial
        return found

    def _enqueue(self, known: Mapping[str, Any]) -> None:
        """Have the next trial get these values; the others are drawn."""
        algorithm = known["algorithm"]
        values = {"algorithm": list(self._spaces).index(algorithm)} if len(self._spaces) > 1 else {}
        for name, of in self._spaces[algorithm].items():
            if name in known:
                values[f"{algorithm}.{name}"] = of.choices.index(known[name]) if of.choices else known[name]
        self._study.enqueue_trial(values)

    def _has(self, configuration: Configuration) -> bool:
        """Whether a configuration is of these spaces: an earlier attempt may be of another release."""
        space = self._spaces.get(configuration.get("algorithm", ""), {})
        is_whole = space.keys() == configuration.keys() - {"algorithm"}
        return is_whole and all(of.contains(configuration[name]) for name, of in space.items())


def suggest(trial: Any, name: str, of: Dimension) -> Any:
    """The value of a dimension that an ``optuna.Trial`` suggests."""
    if of.choices:
        return of.choices[trial.suggest_categorical(name, range(len(of.choices)))]  # by place: they may be lists
    if of.is_whole:
        return trial.suggest_int(name, of.low, of.high, log=of.log, step=of.step or 1)
    return of.short(trial.suggest_float(name, of.low, of.high, log=of.log, step=of.step))
