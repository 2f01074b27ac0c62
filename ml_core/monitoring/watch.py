"""``Watch``: measures the live versions of all tenants in turn, so that their last verdicts are known without a report.

It is level-triggered: what is measured next is what was measured longest ago. Any number of them may run, and each can
be killed at any time.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import Final

from ml_core.database.connection import DatabaseConnection
from ml_core.database.errors import is_timeout
from ml_core.domain.quality import Verdict
from ml_core.exceptions import MLFrameworkError, ModelNotFoundError, RegistryUnavailableError, TenantNotFoundError
from ml_core.monitoring.quality import Quality
from ml_core.monitoring.turns import take_turns
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.verdicts import Unmeasured, VerdictRepository, unmeasured

_log = logging.getLogger(__name__)

_AT_ONCE: Final = 100
# Of the time, so that neither the control loop nor the database is kept from other work. A report takes tens of
# milliseconds where little was answered: 20,000 environments are measured in about three hours.
_SHARE: Final = 0.1


class Watch:
    """Keeps the verdicts of all tenants recent.

    Args:
        db: The registry; its principal belongs to no tenant.
    """

    def __init__(self, db: DatabaseConnection) -> None:
        self._db = db

    def run(self, stopped: threading.Event) -> None:
        """Take turns until the event is set. An error ends a turn."""
        take_turns(partial(self.turn, stopped), stopped, "Live versions are not measured")

    def turn(self, stopped: threading.Event) -> None:
        """Measure what was not measured for an hour, up to a hundred, with pauses.

        Raises:
            RegistryUnavailableError: The registry is away; the rest is measured later.
        """
        for each in unmeasured(self._db, _AT_ONCE):
            began = time.monotonic()
            self._measure(each)
            if stopped.wait((time.monotonic() - began) / _SHARE):
                return

    def _measure(self, each: Unmeasured) -> None:
        of = (each.model_id, each.environment)
        try:
            version = EnvironmentRepository(self._db, each.tenant_id).pointed(*of)
            VerdictRepository(self._db, each.tenant_id).set(*of, version, *self._verdicts(each))
        except (ModelNotFoundError, TenantNotFoundError):  # it was withdrawn or deleted meanwhile
            pass

    def _verdicts(self, each: Unmeasured) -> list[Verdict]:
        """Of quality and of drift; unknown from the first that fails, for whatever reason: else all others would wait.

        Raises:
            ModelNotFoundError: The environment serves nothing any more.
            RegistryUnavailableError: The registry is away, and not only slow with the rows of this one.
        """
        quality, found = Quality(self._db, each.tenant_id), [Verdict.UNKNOWN, Verdict.UNKNOWN]
        try:
            found[0] = quality.report(each.model_id, each.environment).verdict
            found[1] = quality.drift(each.model_id, each.environment).verdict
        except ModelNotFoundError:
            raise
        except Exception as error:
            if isinstance(error, RegistryUnavailableError) and not is_timeout(error):
                raise
            names = (each.model_id, each.tenant_id, each.environment)
            is_expected = isinstance(error, MLFrameworkError)
            _log.warning("%s of %s in %s can't be measured: %s", *names, error, exc_info=not is_expected)
        return found
