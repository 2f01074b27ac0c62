"""The kinds of jobs: a module each, with ``check`` for the submission and ``execute`` for the process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, Protocol

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.job import JobKind
from ml_core.domain.job_spec import JobSpec, PredictJobSpec, TrainJobSpec, TuneJobSpec
from ml_core.ids import TenantId
from ml_core.jobs.work import Work

SPECS: Final[Mapping[JobKind, type[JobSpec]]] = {
    spec.kind: spec for spec in (TrainJobSpec, TuneJobSpec, PredictJobSpec)
}
"""What a job of each kind executes."""


class Kind(Protocol):
    """The module of a kind, named as the kind is."""

    check: Callable[[DatabaseConnection, TenantId, Any], JobSpec]
    """Refuses what can be known to fail; returns the spec with each dataset's number."""
    execute: Callable[[Work[Any]], Mapping[str, Any]]
    """Does the work; returns the job's result, with what is in ``Work.made``."""


def kind_of(kind: JobKind) -> Kind:
    """The module of a kind. It is imported now: a server that submits no job needs no estimators."""
    module: Kind = import_module(f"{__name__}.{kind.value}")
    return module
