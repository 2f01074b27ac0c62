"""Runs as values: what may follow what, and what JSON sees of a series."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import orjson
import pytest

from ml_core.domain.run import MOVES, Point, RunStatus, RunTrigger, Series, sources


@pytest.mark.parametrize("ended", [RunStatus.FINISHED, RunStatus.FAILED, RunStatus.CANCELLED])
def test_only_resuming_follows_an_end(ended: RunStatus) -> None:
    """No other trigger leads out of a state in which a run has ended."""
    assert [trigger for state, trigger in MOVES if state is ended] == [RunTrigger.RESUME]


@pytest.mark.parametrize("trigger", RunTrigger)
def test_each_trigger_has_a_state_that_allows_it(trigger: RunTrigger) -> None:
    """It is the running one, or any other, and the target is the same from wherever it comes."""
    assert (sources(trigger) == [RunStatus.RUNNING]) == (trigger is not RunTrigger.RESUME)
    assert len({MOVES[source, trigger] for source in sources(trigger)}) == 1


def test_signs_of_life_change_no_state() -> None:
    """Beating and logging leave a run running, and resuming makes it run; each other trigger ends it in its own way.

    No trigger makes a run dead: silence is seen by the clock.
    """
    targets = {trigger: target for (_, trigger), target in MOVES.items()}
    assert {trigger for trigger, target in targets.items() if target is RunStatus.RUNNING} == {
        RunTrigger.BEAT,
        RunTrigger.LOG,
        RunTrigger.RESUME,
    }
    assert set(targets.values()) == set(RunStatus) - {RunStatus.DEAD}


def test_a_series_has_a_json_form() -> None:
    """By columns; what JSON has no literal for is null."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    series = Series("loss", 3, [Point(0, 0.5, at), Point(1, math.nan, at), Point(2, -math.inf, at)])
    assert orjson.loads(orjson.dumps(series.to_json())) == {
        "metric": "loss",
        "total": 3,
        "steps": [0, 1, 2],
        "values": [0.5, None, None],
        "at": ["2026-01-02T00:00:00+00:00"] * 3,
    }
