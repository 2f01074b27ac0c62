"""What the loop says while it can do nothing."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ml_core.cells import loop
from ml_core.exceptions import PlatformError


def test_a_failure_is_logged_when_it_begins(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Not at each turn, and without the advice for whoever asked; another one, and the same after a success, again."""
    stopped, told = threading.Event(), iter(["away", "away", "refused", "refused", None, "refused"])

    def turn(_: loop.CellLoop) -> None:
        message = next(told, "end")
        if message == "end":
            stopped.set()
        elif message is not None:
            raise PlatformError(message, remedy="Run `mlcore up`.", component="ray")

    monkeypatch.setattr(loop, "_TURN_S", 0.0)
    monkeypatch.setattr(loop.CellLoop, "turn", turn)
    nothing = cast("Any", None)
    loop.CellLoop(cast("Any", SimpleNamespace(platform=None)), nothing, nothing).run(stopped)
    assert [each.args for each in caplog.records] == [("away",), ("refused",), ("refused",)]
