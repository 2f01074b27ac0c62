"""The loop that applies the plan: the only writer of Serve's configuration.

It is level-triggered: each turn compares what is wanted with what is seen, and does one step. Of several loops one acts
(``Leadership``), and a killed one leaves nothing that another one could not continue.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ml_core.cells.plan import Application, Plan, SeenApplication, plan
from ml_core.cells.serve_api import ServeApi
from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import MLFrameworkError
from ml_core.registry.leadership import Leadership
from ml_core.registry.placements import PlacementRepository

logger = logging.getLogger(__name__)

_TURN_S = 1.0


class CellLoop:
    """Turns placements into Serve applications until it is stopped.

    Args:
        db: The registry, with a principal of the platform.
        serve: Ray's REST interface.
        options: As for ``plan``.
        others: As for ``plan``.
    """

    def __init__(
        self, db: DatabaseConnection, serve: ServeApi, *, options: Mapping[str, Any], others: Sequence[Application]
    ) -> None:
        self._placements = PlacementRepository(db)
        self._leadership = Leadership(db)
        self._serve = serve
        self._options = options
        self._others = others
        self._last: Plan | None = None

    def run(self, stopped: threading.Event) -> None:
        """Take turns until an event is set."""
        try:
            while not stopped.wait(_TURN_S):
                try:
                    self.turn()
                except MLFrameworkError as error:
                    logger.warning("The cells can't be looked after: %s", error)
                except Exception:
                    logger.exception("The cells can't be looked after.")
        finally:
            self._leadership.release()

    def turn(self) -> Plan | None:
        """Do what is next.

        Returns:
            The plan; None if another loop acts, or Serve reports nothing, as while it restarts.

        Raises:
            PlatformError: Serve can't be reached or refused the configuration.
            RegistryUnavailableError: Postgres can't be reached.
        """
        if not self._leadership.holds():
            return None
        seen = self._serve.status()
        if not seen:
            return None
        wanted = plan(self._placements.placed(), seen, now=time.time(), options=self._options, others=self._others)
        if self._last is None or self._last.notes != wanted.notes:
            logger.info("The plan:\n%s", wanted)
        self._last = wanted
        for tenant, to_dedicated in wanted.moves.items():
            self._placements.move(tenant, to_dedicated=to_dedicated)
        if _differ(wanted.applications, seen) and self._leadership.holds():
            self._serve.declare(wanted.applications)
        return wanted


def _differ(wanted: Sequence[Application], seen: Mapping[str, SeenApplication]) -> bool:
    declared = {name: each.config for name, each in seen.items() if each.status != "DELETING"}
    return {each["name"]: each for each in wanted} != declared
