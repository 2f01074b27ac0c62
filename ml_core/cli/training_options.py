"""The options that say how to train; each verb that trains has them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from ml_core.cli.options import json_or_text
from ml_core.cli.target import Options, with_options
from ml_core.domain.columns import ColumnKind
from ml_core.domain.train_spec import Calibration
from ml_core.exceptions import ConfigurationError

_Text, _Texts = str | None, list[str] | None


def _option(kind: Any, text: str, *names: str) -> tuple[Any, None]:
    return Annotated[kind, typer.Option(*names, help=text)], None


_OPTIONS: Options = {
    "target": _option(_Text, "The column to predict; not with --type clustering."),
    "model_type": _option(
        _Text, "classification, regression, clustering or anomaly_detection; default: by the target.", "--type"
    ),
    "validation_dataset": _option(_Text, "A dataset to measure on, instead of a held-out fifth of the rows."),
    "group": _option(_Text, "A column, such as customer, whose equal values are held out together; it is no input."),
    "time": _option(_Text, "A column of dates or numbers, by which the latest fifth is held out."),
    "weight": _option(_Text, "A column of weights, with which rows count in the fit; it is no input."),
    "rare_classes": _option(
        _Text,
        "Classes of fewer than 2 rows: drop leaves their rows out, merge:other makes them one class, keep trains on "
        "them; drop:5 and merge:other:5: of fewer than 5.",
    ),
    "param": _option(
        _Texts,
        "A hyperparameter, such as algorithm=logistic_regression; repeat for several. Without one the algorithm is "
        "selected by cross-validation.",
        "--param",
        "-p",
    ),
    "selection_seconds": _option(float | None, "About how long the selection of the algorithm may take; default: 20."),
    "calibration": _option(Calibration | None, "Calibrate the probabilities of a classification."),
    "cross_validation": _option(int | None, "Repeat the training in so many folds of its rows, and measure each."),
    "split_seed": _option(int | None, "Hold out other rows; default: 42."),
    "kind": _option(
        _Texts, "The kind of a column, instead of the inferred one: zip=category; repeat for several.", "--kind", "-k"
    ),
    "ignore": _option(_Texts, "A column to leave out; repeat for several.", "--ignore"),
    "version": _option(_Text, "The name of the version; default: the next number."),
}


def trains(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options that say how to train, as its parameter ``training``: fields of ``TrainSpec``."""
    hints = get_type_hints(verb, include_extras=True)
    parameters = inspect.signature(verb).parameters
    own = {name: (hints[name], each.default) for name, each in parameters.items() if name != "training"}

    @functools.wraps(verb)
    def run(**values: Any) -> None:
        verb(training=_training(**{name: values.pop(name) for name in _OPTIONS}), **values)

    return with_options(run, own | _OPTIONS)


def _training(*, param: list[str] | None, kind: list[str] | None, **given: Any) -> dict[str, Any]:
    given["hyperparameters"] = hyperparameters(param)
    given["kinds"] = {name: _kind(text) for name, text in pairs_of(kind, "--kind", "zip=category")}
    return {name: value for name, value in given.items() if value not in (None, "", [], {})}


def hyperparameters(texts: list[str] | None) -> dict[str, Any]:
    """The hyperparameters that ``--param NAME=VALUE`` gives.

    Raises:
        ConfigurationError: One has another form.
    """
    return {key: json_or_text(text) for key, text in pairs_of(texts, "--param", "max_depth=8")}


def pairs_of(texts: list[str] | None, option: str, example: str) -> list[tuple[str, str]]:
    """The ``NAME=VALUE`` texts of an option as pairs.

    Raises:
        ConfigurationError: One has another form.
    """
    pairs = []
    for text in texts or []:
        name, separator, value = text.partition("=")
        if not (separator and name and value):
            raise ConfigurationError(
                f"{option} {text} is not of the form name=value.",
                remedy=f"Write it like {option} {example}.",
                setting=option,
            )
        pairs.append((name, value))
    return pairs


def _kind(text: str) -> ColumnKind:
    try:
        return ColumnKind(text)
    except ValueError:
        raise ConfigurationError(
            f"{text!r} is not a kind of column.", remedy=f"Use one of {', '.join(ColumnKind)}.", setting="--kind"
        ) from None
