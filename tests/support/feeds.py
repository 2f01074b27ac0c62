"""The least that a replica does with the feed."""

from __future__ import annotations

from typing import Any

from ml_core.domain.assignment import AssignmentDelta
from ml_core.registry.feed import FeedReader


class FeedState:
    """What a reader knows that applied every delta so far."""

    def __init__(self, feed: FeedReader) -> None:
        self.feed = feed
        self.generation: int | None = None
        self.state: dict[str, dict[Any, Any]] = {"tenants": {}, "rollouts": {}, "keys": {}}

    def follow(self) -> AssignmentDelta:
        """Read and apply what is new."""
        delta = self.feed.read(self.generation)
        for kind, state in self.state.items():
            if delta.is_snapshot:
                state.clear()
            for name, value in getattr(delta, kind).items():
                if value:
                    state[name] = value
                else:
                    state.pop(name, None)
        self.generation = delta.generation
        return delta

    def is_up_to_date(self) -> bool:
        """Whether a reader that begins now knows the same."""
        fresh = FeedState(self.feed)
        fresh.follow()
        return (self.generation, self.state) == (fresh.generation, fresh.state)
