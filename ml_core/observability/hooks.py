"""``Hooks``: the events of the platform, as methods that do nothing until a backend overrides them.

Eight places call them: the edge, the batcher, the predictor, the model table, the follower, the prediction log, the
trainer and the cache. A call of a method that does nothing costs about 30 ns, so no place asks whether anybody listens.
A hook is called on the thread on which the event happened, sometimes with a lock held, and must not wait.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ml_core.ids import VersionRef

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EndedTraining:
    """A training that ended, well or not.

    Attributes:
        tenant_id: Its tenant.
        model_id: Its model.
        stages: Stage → seconds, in the order in which they ran; a failure is of the last one.
        rows: Rows that were read, training and validation together; 0 if none were.
        algorithm: Of the fitted model; None: it ended before.
        version: That was registered; None: none was.
        error: Code of the error that ended it, or the name of its class; None: a version was registered.
    """

    tenant_id: str
    model_id: str
    stages: Mapping[str, float]
    rows: int = 0
    algorithm: str | None = None
    version: str | None = None
    error: str | None = None


class Hooks:
    """Override the methods whose events you want.

    An error that an override raises is logged once for that method and goes no further: what it watches goes on. All
    durations are wall time in seconds.
    """

    def __init_subclass__(cls) -> None:
        for name in EVENTS & vars(cls).keys():
            setattr(cls, name, _guarded(vars(cls)[name]))

    # The edge.

    def request_ended(self, route: str, status: int, seconds: float, tenant: str | None) -> None:
        """A request was answered, or its client left (status 499).

        Args:
            route: The path with its parameters as names, such as ``/t/{tenant}/v2``; ``unmatched`` for any other path.
            status: Of HTTP.
            seconds: From its head to its answer.
            tenant: The tenant that was authenticated; None: nobody was.
        """

    # The batcher.

    def rows_queued(self, rows: int) -> None:
        """Rows of a request wait for their model."""

    def rows_dequeued(self, rows: int) -> None:
        """Rows that waited do so no longer, whatever becomes of them."""

    def request_refused(self, reason: str) -> None:
        """A request gets no prediction; ``mlcore_queue_refused_total`` lists the reasons."""

    def batch_predicted(self, requests: int, rows: int, seconds: float) -> None:
        """One call of a model ended, well or not. May be called on the thread of the model."""

    def request_predicted(self, version: VersionRef, rows: int, waited_s: float, seconds: float) -> None:
        """The rows of a request were predicted. Called in the context of the request.

        Args:
            version: That answered.
            rows: Of this request.
            waited_s: Until its batch began.
            seconds: From there to its answer.
        """

    # The model table.

    def model_loaded(self, version: VersionRef, seconds: float) -> None:
        """A version was loaded, verified and proved by its self-test."""

    def model_load_failed(self, version: VersionRef, code: str, seconds: float) -> None:
        """A load failed; ``code`` is the error's."""

    def model_evicted(self) -> None:
        """A model was freed to make room for another."""

    def models_resident(self, models: int, size_bytes: int) -> None:
        """Models came or went; what is in memory now."""

    # The follower.

    def assignment_read(self, at: float) -> None:
        """A look at the registry succeeded, changed or not; ``at`` is seconds since 1970-01-01 UTC."""

    def assignment_applied(self, generation: int, seconds: float, *, is_new_epoch: bool) -> None:
        """A change of the assignment was handed to the model table.

        Args:
            generation: Of the assignment now.
            seconds: It took.
            is_new_epoch: Whether the registry was restored from a backup since the last one.
        """

    def assignment_read_failed(self, code: str) -> None:
        """A look at the registry failed; ``code`` is the error's, or the name of its class."""

    # The prediction log.

    def predictions_queued(self, rows: int) -> None:
        """Rows that wait to be written now."""

    def predictions_written(self, rows: int, withheld: int, seconds: float) -> None:
        """A batch was committed; ``withheld`` rows were left out of it, since their tenant allows no log any more."""

    def predictions_lost(self, reason: str, rows: int) -> None:
        """Answered rows will be missing in the prediction log; ``reason`` is a ``LossReason``."""

    # The cache.

    def cache_looked_up(self, *, is_hit: bool) -> None:
        """A value was asked for; without a hit it is computed."""

    def cache_failed(self, reason: str) -> None:
        """A shared cache failed: ``connection``, ``timeout``, or ``refused`` by the server. Its value is computed."""

    # The trainer.

    def training_ended(self, training: EndedTraining) -> None:
        """A training or search ended. Called on the thread that called the trainer, in its context."""

    # The owner of the process.

    def close(self) -> None:
        """Send what is left. Nothing happens afterwards."""


EVENTS = frozenset(name for name in vars(Hooks) if not name.startswith("_"))
"""The names of the methods."""

NO_HOOKS = Hooks()
"""Nobody listens."""
_OF_NOBODY = frozenset(vars(Hooks)[name] for name in EVENTS)


def combine(*hooks: Hooks) -> Hooks:
    """Hooks that call each of those given, in their order."""
    if len(hooks) == 1:
        return hooks[0]
    combined = Hooks()
    for name in EVENTS:
        # Without those that do nothing: some events are those of each request.
        methods = [method for one in hooks if not _does_nothing(method := getattr(one, name))]
        if methods:
            setattr(combined, name, methods[0] if len(methods) == 1 else _each(methods))
    return combined


def _does_nothing(method: Callable[..., None]) -> bool:
    return getattr(method, "__func__", None) in _OF_NOBODY


def _each(methods: list[Callable[..., None]]) -> Callable[..., None]:
    def call(*args: Any, **kwargs: Any) -> None:
        for method in methods:
            method(*args, **kwargs)

    return call


def _guarded(method: Callable[..., None]) -> Callable[..., None]:
    has_failed = False

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> None:
        nonlocal has_failed
        try:
            method(*args, **kwargs)
        except Exception:
            if not has_failed:  # once: it may fail with each request
                has_failed = True
                logger.exception("The hook %s failed; it is called again, and not logged again.", method.__qualname__)

    return call
