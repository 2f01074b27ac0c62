"""Hooks that note what they were called with."""

from __future__ import annotations

from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from ml_core.observability import Hooks
from ml_core.observability.hooks import EVENTS


class Noted(Hooks):
    """Every event with its arguments, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        for name in EVENTS:
            setattr(self, name, partial(self._note, name))

    def _note(self, name: str, *args: Any, **kwargs: Any) -> None:
        self.events.append((name, args, kwargs))

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of each event of a name."""
        return [args for event, args, _ in self.events if event == name]


def values(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    """Values of the labels → the value, of one series."""
    samples = (sample for family in registry.collect() for sample in family.samples)
    return {tuple(sample.labels.values()): sample.value for sample in samples if sample.name == name}
