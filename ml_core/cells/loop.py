"""The loop that applies the plan: the only writer of Serve's configuration.

It is level-triggered: each turn compares what is wanted with what is seen, and does one step. Of several loops one acts
(``Leadership``), and a killed one leaves nothing that another one could not continue.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from ml_core.cells.plan import Application, Plan, SeenApplication
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.placement import Placements
from ml_core.exceptions import MLFrameworkError
from ml_core.registry.leadership import Leadership
from ml_core.registry.placements import PlacementRepository

logger = logging.getLogger(__name__)

_TURN_S = 1.0


class Serve(Protocol):
    """Where the applications are declared: Ray's REST interface, or the RayService of a Kubernetes cluster."""

    def status(self) -> Mapping[str, SeenApplication]:
        """The status of each application, by name."""

    def declare(self, applications: Sequence[Application]) -> None:
        """Replace the applications."""


class Planner(Protocol):
    """``plan``, with the arguments that depend on the place."""

    def __call__(self, placements: Placements, seen: Mapping[str, SeenApplication], *, now: float) -> Plan:
        """Plan the applications."""


class CellLoop:
    """Turns placements into Serve applications until it is stopped.

    Args:
        db: The registry, with a principal of the platform.
        serve: Where they are declared.
        planner: Makes the plan.
    """

    def __init__(self, db: DatabaseConnection, serve: Serve, planner: Planner) -> None:
        self._placements = PlacementRepository(db)
        self._leadership = Leadership(db.platform, 1)
        self._serve = serve
        self._plan = planner
        self._last: Plan | None = None

    def run(self, stopped: threading.Event) -> None:
        """Take turns until an event is set. An error is logged when it begins."""
        failure = None
        try:
            while not stopped.wait(_TURN_S):
                try:
                    self.turn()
                    failure = None
                except MLFrameworkError as error:
                    if error.cause != failure:
                        logger.warning("The cells can't be looked after: %s", error.cause)
                    failure = error.cause
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
        wanted = self._plan(self._placements.placed(), seen, now=time.time())
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
