"""A served model as the prediction log and the labels show it: the versions answer here, without a replica."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy.dialects.postgresql import insert

from ml_core.data.canonical import columns_from_frame
from ml_core.database.connection import DatabaseConnection
from ml_core.database.tables import feedback
from ml_core.domain.prediction_record import AnsweredRequest
from ml_core.domain.rollout import Side, choose
from ml_core.domain.tenant_policies import PredictionPolicy
from ml_core.registry.predictions import PredictionRepository
from ml_core.system import MLSystem
from support.predictions import write


@dataclass
class LiveModel:
    """Sends rows to what an environment serves, writes the answers to the log, and labels them."""

    db: DatabaseConnection
    system: MLSystem
    model_id: str
    environment: str = "production"

    def keep(self, policy: PredictionPolicy = PredictionPolicy.INPUTS) -> None:
        """What the log keeps from now on."""
        PredictionRepository(self.db, self.system.tenant_id).set_policy(policy)

    def ask(self, frame: pd.DataFrame, labels: Any = None, *, at: float | None = None) -> dict[str, np.ndarray]:
        """Answer each row as a request of its own, by the stable version or the canary, and label those that have one.

        Returns:
            Version → its answers.
        """
        pointer = self.system.environments.get(self.model_id, self.environment)
        keys = [uuid.uuid4().hex for _ in range(len(frame))]
        of = (str(self.system.tenant_id), self.model_id, self.environment)
        percent = pointer.canary.percent if pointer.canary else 0
        sides = np.array([choose(of, percent, key) for key in keys])
        found = {}
        for side, version in ((Side.STABLE, pointer.version), (Side.CANARY, pointer.canary and pointer.canary.version)):
            rows = np.flatnonzero(sides == side)
            if version is not None and len(rows):
                found[str(version)] = self._answer(frame.iloc[rows], [keys[row] for row in rows], version, side, at)
        if labels is not None:
            self._label(keys, list(labels))
        return found

    def _answer(self, frame: pd.DataFrame, keys: list[str], version: str, side: str, at: float | None) -> np.ndarray:
        answers = np.asarray(self.system.predict(self.model_id, frame, version=version, use_cache=False))
        signature = self.system.registry.versions.get(self.model_id, version).signature
        columns = columns_from_frame(frame, signature.inputs)
        moment, requests = time.time() if at is None else at, []
        for row, key in enumerate(keys):
            one = {name: values[row : row + 1] for name, values in columns.items()}
            requests.append(
                AnsweredRequest(
                    str(self.system.tenant_id), self.model_id, version, self.environment, str(side), key, moment, 1.0,
                    signature, one, answers[row : row + 1], None, PredictionPolicy.INPUTS,
                )
            )  # fmt: skip
        write(self.db, *requests)
        return answers

    def _label(self, keys: list[str], labels: list[Any]) -> None:
        """Many at once: one statement each takes a millisecond."""
        rows = [
            {
                "tenant_id": self.system.tenant_id,
                "model_id": self.model_id,
                "request_id": key,
                "row_number": 0,
                "label": label.item() if isinstance(label, np.generic) else label,
            }
            for key, label in zip(keys, labels, strict=True)
        ]
        with self.db.tenant(self.system.tenant_id) as connection:
            connection.execute(insert(feedback), rows)


def days_ago(days: float) -> float:
    """A moment in seconds since 1970."""
    return datetime.now(UTC).timestamp() - days * 86_400
