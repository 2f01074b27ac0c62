"""A training with everything that another thread or process needs to do it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from ml_core.domain.api_key import Grant
from ml_core.domain.principal import Principal
from ml_core.domain.train_spec import TrainSpec
from ml_core.ids import ModelId, RunId, TenantId

if TYPE_CHECKING:
    from ml_core.database.connection import DatabaseConnection
    from ml_core.domain.training_report import TrainingReport


@dataclass(frozen=True, slots=True)
class Assignment:
    """A training, the run that will record it, and on whose behalf it is done."""

    principal: Principal
    request_id: str
    tenant_id: TenantId
    model_id: ModelId
    spec: TrainSpec
    run_id: RunId

    def to_json(self) -> dict[str, Any]:
        """A JSON object; ``from_json`` reads it back."""
        who = self.principal
        return {
            "principal": {
                "name": who.name,
                "scopes": Grant(who.scopes, who.promotes).names,
                "tenant_id": who.tenant_id,
                "is_operator": who.is_operator,
            },
            "request_id": self.request_id,
            "tenant_id": self.tenant_id,
            "model_id": self.model_id,
            "spec": self.spec.to_json(),
            "run_id": self.run_id,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The assignment that ``to_json`` described."""
        who = document["principal"]
        grant = Grant.read(who["scopes"])
        owner = who["tenant_id"]
        principal = Principal(
            who["name"], grant.scopes, grant.promotes, None if owner is None else TenantId(owner), who["is_operator"]
        )
        spec = TrainSpec.from_json(document["spec"])
        tenant_id, model_id = TenantId(document["tenant_id"]), ModelId(document["model_id"])
        return cls(principal, document["request_id"], tenant_id, model_id, spec, RunId(document["run_id"]))

    def execute(self, db: DatabaseConnection, on_start: Callable[[], object]) -> TrainingReport:
        """Do the training.

        Args:
            db: The registry.
            on_start: See ``Trainer.train_spec``.
        """
        # Imported late: whoever hands an assignment to another process needs no numerical library.
        from ml_core.training.trainer import Trainer

        acting = db.acting_as(self.principal, self.request_id)
        return Trainer(acting, self.tenant_id).train_spec(
            self.model_id, self.spec, run_id=self.run_id, on_start=on_start
        )
