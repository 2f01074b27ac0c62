"""The stages of one training, timed for the hooks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ml_core.exceptions import MLFrameworkError
from ml_core.observability import Hooks


class Stages:
    """Seconds by stage; a stage lasts until the next is entered.

    Attributes:
        rows: Rows that were read.
        seconds: Stage → seconds, in the order in which they ran.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.seconds: dict[str, float] = {}
        self._stage: str | None = None
        self._since = 0.0

    def enter(self, stage: str | None) -> None:
        """End the stage that runs, and begin another unless that is None."""
        now = time.perf_counter()
        if self._stage is not None:
            self.seconds[self._stage] += now - self._since
        if stage is not None:
            self.seconds.setdefault(stage, 0.0)
        self._stage, self._since = stage, now


@contextmanager
def reported(hooks: Hooks, model_id: str) -> Iterator[Stages]:
    """Call ``training_ended`` when the block is left, however it is."""
    stages, error = Stages(), None
    stages.enter("read")
    try:
        yield stages
    except BaseException as raised:
        error = raised.code if isinstance(raised, MLFrameworkError) else type(raised).__name__
        raise
    finally:
        stages.enter(None)
        hooks.training_ended(model_id, stages.seconds, stages.rows, error)
