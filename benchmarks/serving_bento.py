"""The service that ``bentoml serve`` imports, see ``serving_peers.py``."""

from typing import Any

import bentoml
from serving_peers import BATCH, predict
from serving_tables import FOREST, LINEAR, TICKET, pipelines


@bentoml.service(workers=1, traffic={"timeout": 60})
class Peer:
    """The three pipelines."""

    def __init__(self) -> None:
        self.pipelines = pipelines()

    @bentoml.api(batchable=True, max_batch_size=BATCH, route=f"/{LINEAR}")
    def linear(self, rows: list[list[float]]) -> list[str]:
        """Labels of rows of numbers."""
        return predict(self.pipelines[LINEAR], rows)

    @bentoml.api(batchable=True, max_batch_size=BATCH, route=f"/{FOREST}")
    def forest(self, rows: list[list[float]]) -> list[str]:
        """Labels of rows of numbers."""
        return predict(self.pipelines[FOREST], rows)

    @bentoml.api(batchable=True, max_batch_size=BATCH, route=f"/{TICKET}")
    def ticket(self, rows: list[dict[str, Any]]) -> list[str]:
        """Labels of tickets."""
        return predict(self.pipelines[TICKET], rows)
