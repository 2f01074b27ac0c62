"""Types outside the allow-list: what an artifact may hold beside the platform's own list, and for whom.

Two kinds are loaded. Classes of an installed module that the operator names in ``MLCORE_TRUSTED_MODULES`` are loaded
everywhere. Classes that a process trained with are loaded in that process, which runs their code anyway; a server does
not train, so it has none.

Trust is in a module's classes, never in its functions: ``formats.building`` creates an object without ``__init__`` and
gives it its state, through ``__setstate__`` where the class has one. So that is the code to review before a module is
trusted, with what its methods do with any state.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from threading import Lock

from ml_core.domain.version import RequiredModule
from ml_core.settings import RESERVED_MODULES, Settings

REMEDY = (
    "Let the operator install the module with pip where models are served and name it in MLCORE_TRUSTED_MODULES, see "
    "docs/own_code.md. Or use types of the platform's list."
)

REMEDY_OF_SCRIPT = (
    "No other process has what a script or notebook defines: put it as a class into a module, see docs/own_code.md."
)

_lock = Lock()
_types: set[str] = set()


@dataclass(frozen=True, slots=True)
class Trust:
    """The types that are loaded beside the platform's list; ``in`` asks for one by ``module.name``.

    Attributes:
        modules: Those of ``MLCORE_TRUSTED_MODULES``; their submodules are trusted with them.
        types: Single types, by ``module.name``.
    """

    modules: tuple[str, ...] = ()
    types: frozenset[str] = frozenset()

    def __contains__(self, name: object) -> bool:
        return name in self.types or (isinstance(name, str) and self._trusts(name.rpartition(".")[0]))

    def _trusts(self, module: str) -> bool:
        return self._names(module) and distribution_of(module) is not None

    def _names(self, module: str) -> bool:
        parts = module.split(".")
        named = any(f"{module}.".startswith(f"{each}.") for each in self.modules)
        # Importing a __main__ runs a program.
        return named and "__main__" not in parts and all(map(str.isidentifier, parts))

    def refusal(self, module: RequiredModule) -> str | None:
        """Why the classes of a module are not loaded here, as a clause; None: they are."""
        name = module.module
        if self._trusts(name):
            return None
        if self._names(name):
            return f"{module} is trusted, but not installed here"
        if "__main__" in name.split("."):
            return f"{name} is a script or notebook, not an installed module"
        if name.partition(".")[0] in RESERVED_MODULES:
            return f"{name} can't be trusted as a whole: the platform's list names its types one by one"
        if module.distribution is None:
            return f"{name} is of no installed distribution"
        return f"{module} is not named in MLCORE_TRUSTED_MODULES"

    def refusals(self, modules: Iterable[RequiredModule]) -> list[str]:
        """``refusal`` of each module that is refused."""
        return [why for each in modules if (why := self.refusal(each)) is not None]


def trusted(settings: Settings) -> Trust:
    """What every process of the platform loads."""
    return Trust(settings.models.trusted)


def known(settings: Settings) -> Trust:
    """``trusted``, and what this process trained with."""
    with _lock:
        return Trust(settings.models.trusted, frozenset(_types))


def remember(names: Iterable[str]) -> None:
    """Trust types, by ``module.name``, for the lifetime of this process."""
    with _lock:
        _types.update(names)


def required_by(types: Iterable[str]) -> tuple[RequiredModule, ...]:
    """The modules of types outside the allow-list, with the distributions that are installed in this process."""
    modules = sorted({name.rpartition(".")[0] for name in types})
    return tuple(RequiredModule(module, *(distribution_of(module) or (None, None))) for module in modules)


def differing(modules: Iterable[RequiredModule]) -> list[str]:
    """A clause on each module whose distribution is another one here than when the version was registered."""
    found = [(each, distribution_of(each.module)) for each in modules]
    return [
        f"{each} is of {' '.join(here)} here"
        for each, here in found
        if here is not None and here != (each.distribution, each.version)
    ]


def distribution_of(module: str) -> tuple[str, str] | None:
    """Name and version of the installed distribution that a module is of; None: of none. Nothing is imported."""
    return _distribution_of(module, tuple(sys.path))


@lru_cache(maxsize=256)  # an audit asks for each object
def _distribution_of(module: str, path: tuple[str, ...]) -> tuple[str, str] | None:
    top, found = module.partition(".")[0], []
    for name in dict.fromkeys(_distributions(path).get(top, [top])):  # an editable installation lists no module
        try:
            found.append(metadata.distribution(name))
        except metadata.PackageNotFoundError:
            continue
    if len(found) > 1:  # they share a namespace package
        file = module.replace(".", "/")
        paths = {f"{file}.py", f"{file}/__init__.py"}
        found = [each for each in found if paths & {path.as_posix() for path in each.files or ()}] or found
    return None if not found else (found[0].name, found[0].version)


@lru_cache(maxsize=4)  # it reads the lists of files of all distributions, which takes about a second
def _distributions(_path: tuple[str, ...]) -> Mapping[str, list[str]]:
    return metadata.packages_distributions()
