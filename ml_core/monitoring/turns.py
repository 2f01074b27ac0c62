"""The turns of what looks at live models for as long as the control loop runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from ml_core.exceptions import MLFrameworkError

_log = logging.getLogger(__name__)

# A turn may count labels of the prediction log, which takes seconds where a day has a million rows.
_EVERY_S: Final = 30.0


def take_turns(turn: Callable[[], None], stopped: threading.Event, what: str) -> None:
    """Take turns until the event is set. An error ends a turn only: all tenants wait for the next one.

    Args:
        turn: A turn.
        stopped: Ends the turns.
        what: What can't be done, for the log: a sentence without a period.
    """
    while not stopped.wait(_EVERY_S):
        try:
            turn()
        except MLFrameworkError as error:
            _log.warning("%s: %s", what, error)
        except Exception:  # noqa: BLE001 - a fault of ours must not end what all tenants wait for
            _log.exception("%s.", what)
