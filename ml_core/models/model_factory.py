"""``ModelFactory`` builds an unfitted estimator from a model type and hyperparameters.

It can be extended in a process in two ways::

    ModelFactory.register("custom", lambda hyperparameters: MyEstimator(**hyperparameters))

    ModelFactory.create_model = lambda model_type, hyperparameters: (
        MyEstimator() if model_type == "custom" else ModelFactory._create_standard_model(model_type, hyperparameters)
    )

An installed distribution adds model types by entry points, see ``ml_core.models.plugins``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ml_core.domain.keywords import nearest
from ml_core.exceptions import TrainingError
from ml_core.models import plugins
from ml_core.models.algorithms import ALGORITHMS, Algorithm

Builder = Callable[[dict[str, Any]], Any]


class _OpenToAssignment(type):
    """Turns functions that are assigned to the class into static methods, so that they also work on instances."""

    def __setattr__(cls, name: str, value: Any) -> None:
        super().__setattr__(name, staticmethod(value) if inspect.isfunction(value) else value)


class ModelFactory(metaclass=_OpenToAssignment):
    """Builds estimators. Standard types: classification, regression, clustering, anomaly_detection."""

    _builders: ClassVar[dict[str, Builder]] = {}

    @classmethod
    def register(cls, model_type: str, builder: Builder) -> None:
        """Add a model type, or replace a standard one, in this process.

        Args:
            model_type: Its name.
            builder: Takes the hyperparameters as a dict and returns an unfitted estimator with ``fit`` and ``predict``.
        """
        cls._builders[model_type] = builder

    @classmethod
    def unregister(cls, model_type: str) -> None:
        """Remove a registered model type, if it exists."""
        cls._builders.pop(model_type, None)

    @classmethod
    def is_standard(cls, model_type: str) -> bool:
        """Whether the platform builds the type's estimators: neither ``register`` nor an assignment replaced that."""
        return model_type in ALGORITHMS and model_type not in cls._builders and cls.create_model is _CREATE_MODEL

    @classmethod
    def model_types(cls) -> tuple[str, ...]:
        """The standard and registered model types, and those of installed distributions."""
        return tuple(dict.fromkeys((*ALGORITHMS, *cls._builders, *plugins.model_types())))

    @staticmethod
    def create_model(model_type: str, hyperparameters: Mapping[str, Any] | None = None) -> Any:
        """Create an unfitted estimator.

        Args:
            model_type: A standard or registered model type.
            hyperparameters: ``algorithm`` selects the estimator; the others are its parameters, with scikit-learn's
                names.

        Raises:
            TrainingError: The type, the algorithm, or the name or value of a parameter is invalid; names the nearest
                valid ones. Or a builder failed, or a plug-in can't be used. ``stage`` is ``validate``.
        """
        builder, what = ModelFactory._builders.get(model_type), f"builder of the model type {model_type!r}"
        if builder is None and model_type not in ALGORITHMS:
            builder, what = plugins.builder_of(model_type)
        if builder is None:
            return ModelFactory._create_standard_model(model_type, hyperparameters)
        return _build(builder, dict(hyperparameters or {}), what)

    @staticmethod
    def _create_standard_model(model_type: str, hyperparameters: Mapping[str, Any] | None = None) -> Any:
        """``create_model`` for the standard types."""
        parameters = dict(hyperparameters or {})
        algorithm = find_algorithm(model_type, parameters.pop("algorithm", None))
        cls = algorithm.estimator_class()
        known = cls._get_param_names()
        aliases: dict[str, str] = getattr(cls, "parameter_aliases", dict)()
        for name in parameters:
            if name in aliases:
                raise TrainingError(
                    f"{algorithm.class_name} has no hyperparameter {name!r}.",
                    remedy=f"Use {aliases[name]}, which is its name here.",
                    stage="validate",
                )
            if name not in known:
                _refuse(f"{algorithm.class_name} has no hyperparameter {name!r}.", name, ["algorithm", *known])
        estimator = algorithm.build(parameters)
        try:
            estimator._validate_params()  # scikit-learn does it in fit, after the data was read
        except (ValueError, TypeError) as error:
            raise TrainingError(
                f"A hyperparameter has an invalid value: {error}", remedy="Correct it.", stage="validate"
            ) from error
        return estimator


_CREATE_MODEL = ModelFactory.create_model


def _build(builder: Builder, hyperparameters: dict[str, Any], what: str) -> Any:
    try:
        estimator = builder(hyperparameters)
    except TrainingError:
        raise
    except Exception as error:  # a builder of the caller's own can raise anything
        raise TrainingError.wrap(
            error,
            f"The {what} failed",
            remedy="Correct the hyperparameters or the builder.",
            stage="validate",
        ) from error
    if missing := [name for name in ("fit", "predict") if not callable(getattr(estimator, name, None))]:
        raise TrainingError(
            f"The {what} made a {type(estimator).__name__} without {missing[0]}.",
            remedy="Return an unfitted estimator with fit and predict.",
            stage="validate",
        )
    return estimator


def find_algorithm(model_type: str, name: str | None) -> Algorithm:
    """The algorithm of a standard model type by name; None: its default.

    Raises:
        TrainingError: The type or the algorithm is unknown.
    """
    if model_type not in ALGORITHMS:
        _refuse(f"There is no model type {model_type!r}.", model_type, list(ModelFactory.model_types()))
    algorithms = ALGORITHMS[model_type]
    if name is None:
        return next(iter(algorithms.values()))
    if name not in algorithms:
        _refuse(f"There is no algorithm {name!r} for {model_type}.", name, list(algorithms))
    return algorithms[name]


def _refuse(message: str, given: Any, valid: list[str]) -> None:
    raise TrainingError(message, remedy=nearest(given, valid), stage="validate", details={"valid": valid})
