"""A training with everything that another thread or process needs to do it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_core.domain.document import Document
from ml_core.domain.principal import Principal
from ml_core.domain.train_spec import TrainSpec
from ml_core.ids import ModelId, RunId, TenantId

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection
    from ml_core.domain.training_report import TrainingReport


@dataclass(frozen=True, slots=True)
class Assignment(Document):
    """A training, the run that will record it, and on whose behalf it is done."""

    principal: Principal
    request_id: str
    tenant_id: TenantId
    model_id: ModelId
    spec: TrainSpec
    run_id: RunId

    def execute(self, db: DatabaseConnection, on_start: Callable[[], object]) -> TrainingReport:
        """Do the training; ``on_start`` is that of ``Trainer.train_spec``."""
        # Imported late: whoever hands an assignment to another process needs no numerical library.
        from ml_core.training.trainer import Trainer

        acting = db.acting_as(self.principal, self.request_id)
        return Trainer(acting, self.tenant_id).train_spec(
            self.model_id, self.spec, run_id=self.run_id, on_start=on_start
        )
