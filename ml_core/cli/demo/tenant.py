"""One tenant of the demo: its table, its model, its key."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ml_core.client import MLClient
from ml_core.data.cells import typed_series
from ml_core.data.reading import read_table, rows_from_frame
from ml_core.domain.api_key import Scope
from ml_core.exceptions import MLFrameworkError, PlatformError, TenantExistsError
from ml_core.ids import EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.training.trainer import Trainer

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection
    from ml_core.domain.training_report import TrainingReport

PRODUCTION = EnvironmentName("production")
_ACTOR = "demo"
_SERVED_TIMEOUT_S = 30.0
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class DemoTenant:
    """What the demo does for each of its tenants, through the API that a program would use."""

    database: DatabaseConnection
    tenant_id: TenantId
    model_id: ModelId
    table: Path
    target: str

    def create(self) -> str:
        """Create the tenant, unless an earlier demo did, and a key for it."""
        with suppress(TenantExistsError):
            TenantRepository(self.database).create(self.tenant_id)
        scopes = frozenset({Scope.PREDICT, Scope.READ})
        return str(KeyRepository(self.database, self.tenant_id).create("demo", scopes))

    def train(self, **hyperparameters: Any) -> tuple[VersionId, TrainingReport]:
        """Train on the CSV file and register a version."""
        frame = read_table(self.table)
        data = (frame.drop(columns=[self.target]), frame[self.target])
        trainer = Trainer(self.database, self.tenant_id)
        result = trainer.train(self.model_id, None, data, hyperparameters=hyperparameters)
        return VersionId(result["version"]), result["report"]

    def promote(self, version: VersionId) -> None:
        """Point production to a version."""
        EnvironmentRepository(self.database, self.tenant_id).promote(
            self.model_id, version, PRODUCTION, actor=_ACTOR, reason="demo"
        )

    def sample_rows(self, count: int) -> list[dict[str, Any]]:
        """Rows of the file, without the target, spread over it."""
        frame = read_table(self.table).drop(columns=[self.target])
        values = pd.DataFrame({name: typed_series(frame[name]) for name in frame.columns})
        return rows_from_frame(values.iloc[:: max(1, len(values) // count)].head(count))

    def wait_until_served(self, client: MLClient, version: VersionId) -> float:
        """Ask until the version answers. Returns the seconds that it took.

        Raises:
            PlatformError: It did not answer in time.
        """
        started = time.monotonic()
        rows = self.sample_rows(1)
        last = "no answer"
        while time.monotonic() - started < _SERVED_TIMEOUT_S:
            try:
                last = client.predict(self.model_id, rows).version
                if last == version:
                    return time.monotonic() - started
            except MLFrameworkError as error:
                last = str(error)
            time.sleep(_LOOK_EVERY_S)
        raise PlatformError(
            f"{self.tenant_id}/{self.model_id} version {version} is not served after {_SERVED_TIMEOUT_S:.0f} s: {last}",
            remedy="See `mlcore status` and the replicas' logs.",
            component="serve",
        )
