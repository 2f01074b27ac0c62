"""One tenant of the demo: its table, its model, and a client with its key."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ml_core.cli.jobs import ended
from ml_core.cli.train import trained
from ml_core.client import MLClient
from ml_core.data.cells import typed_series
from ml_core.data.reading import read_table, rows_from_frame
from ml_core.domain.replica_report import LoadState
from ml_core.exceptions import PlatformError, TenantExistsError

if TYPE_CHECKING:
    from ml_core.api.schemas.jobs import Job
    from ml_core.api.schemas.trainings import TrainingReport

_SCOPES = ("predict", "read", "train", "promote")
_SERVED_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class DemoTenant:
    """What the demo does for each of its tenants, with nothing but an address and the tenant's key."""

    url: str
    tenant_id: str
    key: str
    model_id: str
    table: Path
    target: str

    @staticmethod
    def create(url: str, platform_key: str, tenant_id: str) -> str:
        """Create a tenant, unless an earlier demo did, and a key for it."""
        with MLClient(url, api_key=platform_key, tenant_id=tenant_id) as operator:
            with suppress(TenantExistsError):
                operator.tenants.create([tenant_id])
            return operator.keys.create(_SCOPES, name="demo").key

    def client(self) -> MLClient:
        """A client of its own."""
        return MLClient(self.url, api_key=self.key, tenant_id=self.tenant_id)

    def train(self, **hyperparameters: Any) -> TrainingReport:
        """Upload the CSV file as a dataset, and train a version on it."""
        with self.client() as client:
            dataset = client.datasets.create(self.model_id, self.table).reference
            return trained(client, self.model_id, dataset, target=self.target, hyperparameters=hyperparameters)

    def tune(self, **search: Any) -> Job:
        """Search for hyperparameters, and train a version with the best; the job once it has succeeded."""
        with self.client() as client:
            training = {"target": self.target}
            return ended(client, client.jobs.tune(self.model_id, self.model_id, training=training, search=search))

    def sample_rows(self, count: int) -> list[dict[str, Any]]:
        """Rows of the file without the target, drawn at random but the same each time; at most all of them."""
        frame = read_table(self.table).drop(columns=[self.target])
        values = pd.DataFrame({name: typed_series(frame[name]) for name in frame.columns})
        return rows_from_frame(values.sample(min(count, len(values)), random_state=0))

    def promote(self, client: MLClient, version: str) -> None:
        """Promote a version to production and wait until every replica serves it.

        Raises:
            PlatformError: A replica did not load it in time.
        """
        client.environments.promote(self.model_id, version, reason="demo")
        answers = client.environments.replicas(self.model_id, version=version, wait_s=_SERVED_TIMEOUT_S)
        late = [
            f"{answer.state.value} {answer.reason or ''}" for answer in answers if answer.state is not LoadState.LOADED
        ]
        if late or not answers:
            raise PlatformError(
                f"{self.tenant_id}/{self.model_id} version {version} is not served: "
                f"{'; '.join(late) or 'no replica runs'}.",
                remedy="See `mlcore status` and the replicas' logs.",
                component="serve",
            )
