"""Model types of installed distributions: their entry points of the group ``ml_core.model_types``.

An entry point maps the name of a model type to a builder, as ``ModelFactory.register`` takes it. It is loaded when the
model type is used, and only if ``MLCORE_TRUSTED_MODULES`` names its module: a package that is installed for another
reason runs no code in a server, and a version of a type that is loaded can be served.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ml_core.domain.version import RequiredModule
from ml_core.exceptions import TrainingError
from ml_core.models import own_types
from ml_core.settings import Settings

GROUP = "ml_core.model_types"


def model_types() -> tuple[str, ...]:
    """The names of the model types of installed distributions, also of those that are not trusted."""
    return tuple(sorted(entry_points(group=GROUP).names))


def builder_of(model_type: str) -> tuple[Callable[[dict[str, Any]], Any] | None, str]:
    """The builder of a model type, and what it is for messages; None: no distribution has such a type.

    Raises:
        TrainingError: Its module is not trusted or can't be imported, it is no function, or two distributions have the
            type. Names the distribution; ``stage`` is ``validate``.
    """
    found = list(entry_points(group=GROUP, name=model_type))
    if not found:
        return None, ""
    point, others = found[0], found[1:]
    if others:
        both = " and ".join(map(_distribution, found))
        raise _refused(f"{both} both have the model type {model_type!r}.", "Uninstall one of them.")
    trust = own_types.trusted(Settings.from_environment())
    refusal = trust.refusal(_module(point))
    if refusal is not None:
        message = f"The model type {model_type!r} is a plug-in of {_distribution(point)}, and {refusal}."
        raise _refused(message, "Name the module in MLCORE_TRUSTED_MODULES of each process of the platform.")
    what = f"plug-in {model_type!r} of {_distribution(point)}"
    try:
        builder = point.load()
    except Exception as error:  # a module may raise anything
        raise TrainingError.wrap(
            error,
            f"The {what} can't be loaded",
            remedy="Correct it, or install what it needs.",
            stage="validate",
        ) from error
    # By another distribution's entry point, or a dotted attribute, one would reach what the module imports.
    if f"{getattr(builder, '__module__', None)}.{point.attr}" not in trust:
        message = f"The {what} names {point.value}, which is not defined in a trusted module."
        raise _refused(message, "Name a function that is defined in the module.")
    if not callable(builder) or isinstance(builder, type):
        message = f"The {what} names {point.value}, which is no function."
        raise _refused(message, "Name a function of the hyperparameters, a dict, that returns an unfitted estimator.")
    return builder, what


def _distribution(point: EntryPoint) -> str:
    return "an unknown distribution" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _module(point: EntryPoint) -> RequiredModule:
    installed = (None, None) if point.dist is None else (point.dist.name, point.dist.version)
    return RequiredModule(point.module, *installed)


def _refused(message: str, remedy: str) -> TrainingError:
    return TrainingError(message, remedy=remedy, stage="validate")
