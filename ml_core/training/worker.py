"""A training in a process of its own: what it is comes from standard input, what happens goes to standard output.

Standard input is one JSON object, see ``Assignment``. Standard output has one JSON object a line: ``{"run_id": …}``
when the training begins, then ``{"report": …}`` or ``{"error": …}``.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import IO, Any, Self

import orjson

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import Grant
from ml_core.domain.principal import Principal
from ml_core.domain.train_spec import TrainSpec
from ml_core.domain.training_report import TrainingReport
from ml_core.exceptions import MLFrameworkError, TrainingError
from ml_core.ids import ModelId, TenantId
from ml_core.training.trainer import Trainer

_NICENESS = 10
"""Each step is worth about a tenth of the processor between two programs that both want it: replicas come first."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A training, and on whose behalf it is done."""

    principal: Principal
    request_id: str
    tenant_id: TenantId
    model_id: ModelId
    spec: TrainSpec

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
        return cls(
            principal, document["request_id"], TenantId(document["tenant_id"]), ModelId(document["model_id"]), spec
        )

    def execute(self, db: DatabaseConnection, on_start: Any = None) -> TrainingReport:
        """Do the training.

        Args:
            db: The registry.
            on_start: See ``Trainer.train_spec``.
        """
        acting = db.acting_as(self.principal, self.request_id)
        return Trainer(acting, self.tenant_id).train_spec(self.model_id, self.spec, on_start=on_start)


def main() -> None:
    """Do what standard input says."""
    os.nice(_NICENESS)
    output, sys.stdout = sys.stdout.buffer, sys.stderr  # what a library prints is not for whoever reads the events
    assignment = Assignment.from_json(orjson.loads(sys.stdin.buffer.read()))
    try:
        with closing(DatabaseConnection()) as db:
            report = assignment.execute(db, lambda run_id: _tell(output, {"run_id": run_id}))
        _tell(output, {"report": report.to_json()})
    except MLFrameworkError as error:
        _tell(output, {"error": error.to_json()})
    except Exception as error:  # noqa: BLE001 - whoever waits must learn of it, whatever it is
        _tell(output, {"error": TrainingError.wrap(error, "The training failed", stage="fit").to_json()})


def _tell(output: IO[bytes], event: dict[str, Any]) -> None:
    output.write(orjson.dumps(event, default=str) + b"\n")
    output.flush()


if __name__ == "__main__":
    main()
