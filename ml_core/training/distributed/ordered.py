"""Tables that a pool of Ray actors makes, in the order of what they are made from, streamed by Ray Data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError, RayTaskError

from ml_core.exceptions import MLFrameworkError, PlatformError
from ml_core.training.distributed.cluster import join

_ITEM: Final = "item"
_RESTARTS: Final = 2
"""Of an actor whose process was lost; Ray's default is without end. Ray 2.60 deprecates these two arguments, which it
is to drop in 2.64, and has no other bound."""


def free_workers(cpus: float) -> int:
    """How many actors of one core each may start now on the cluster of this process; 0 if it is in none."""
    if not join():
        return 0
    free = ray.available_resources()  # type: ignore[no-untyped-call]
    return int(min(cpus, free.get("CPU", 0)))


def stream(
    make: Callable[[], Callable[[int], Iterable[pa.Table]]], items: Sequence[int], workers: int
) -> Iterator[pa.Table]:
    """The tables for each item, in order. Of those that are not consumed yet Ray keeps a bounded number.

    Args:
        make: Called once in each actor; returns the function that makes the tables of an item. It is pickled, and
            must reach what is secret or large by itself.
        items: What the tables are made from.
        workers: Actors, of one core each.

    Raises:
        MLFrameworkError: What ``make`` or its function raised.
        PlatformError: The actors were lost, again and again.
    """
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    made = ray.data.from_items([{_ITEM: item} for item in items], override_num_blocks=len(items)).map_batches(
        _Actor,
        fn_constructor_args=(make,),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        max_restarts=_RESTARTS,
        max_task_retries=_RESTARTS,
    )
    try:
        yield from made.iter_batches(batch_size=None, batch_format="pyarrow")
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else None
        if isinstance(cause, MLFrameworkError):
            raise cause from error
        raise PlatformError(
            "The workers of the job were lost, or failed.",
            internal=str(error).strip()[-2_000:],
            remedy="They may have run out of memory: submit the job with fewer cores, or give it more memory.",
            component="ray",
        ) from error


class _Actor:
    def __init__(self, make: Callable[[], Callable[[int], Iterable[pa.Table]]]) -> None:
        self._tables_of = make()

    def __call__(self, batch: Any) -> Iterator[pa.Table]:
        for item in batch.column(_ITEM).to_pylist():
            yield from self._tables_of(item)
