"""The peers of the serving benchmark: each serves the same three scikit-learn pipelines, one process, on one port.

    PEER_PYTHON benchmarks/serving_peers.py NAME PORT

runs in the environment of the peer (``benchmarks/peers.py``), fits the pipelines and serves them until it is ended.
Each is set up as its documentation says for throughput: adaptive batching where the peer has it, no access log. None of
them authenticates, checks the columns or logs predictions.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

_SKLEARN = ("scikit-learn", "pandas")
REQUIREMENTS = {
    "mlserver": ("mlserver==1.7.1", "mlserver-sklearn==1.7.1"),
    "bentoml": ("bentoml==1.4.*", *_SKLEARN),
    "kserve": ("kserve==0.21.*", *_SKLEARN),
    "fastapi": ("fastapi", "uvicorn[standard]", *_SKLEARN),
}
BATCH, BATCH_WITHIN_S = 64, 0.001


def request_of(peer: str, model: str, row: dict[str, Any]) -> tuple[str, str]:
    """The path and the body that ask a peer for one row."""
    is_ticket = any(isinstance(value, str) for value in row.values())
    rows = [row] if is_ticket else [list(row.values())]
    if peer == "kserve":
        return f"/v1/models/{model}:predict", json.dumps({"instances": rows})
    if peer != "mlserver":
        return f"/{model}", json.dumps({"rows": rows})
    if is_ticket:
        inputs = [
            {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [value], "parameters": {"content_type": "str"}}
            for name, value in row.items()
        ]
        body: dict[str, Any] = {"inputs": inputs, "parameters": {"content_type": "pd"}}
    else:
        body = {"inputs": [{"name": "x", "shape": [1, len(row)], "datatype": "FP64", "data": rows}]}
    return f"/v2/models/{model}/infer", json.dumps(body)


def predict(pipeline: Any, rows: list[Any]) -> list[Any]:
    """Labels of rows: lists of numbers, or objects."""
    import numpy as np
    import pandas as pd

    table = pd.DataFrame(rows) if isinstance(rows[0], dict) else np.asarray(rows, dtype=float)
    return list(pipeline.predict(table).tolist())


def fastapi(port: int) -> None:
    """A plain application."""
    import uvicorn
    from fastapi import FastAPI, Request
    from serving_tables import pipelines

    app = FastAPI()
    for model, pipeline in pipelines().items():
        app.post(f"/{model}")(_route_of(pipeline, Request))
    uvicorn.run(app, port=port, access_log=False, log_level="warning")


def _route_of(pipeline: Any, request_type: type) -> Any:
    async def answer(request: Any) -> dict[str, Any]:
        return {"predictions": predict(pipeline, (await request.json())["rows"])}

    answer.__annotations__ = {"request": request_type}
    return answer


def kserve(port: int) -> None:
    """Its model server with a model of our own, since its scikit-learn image is another installation."""
    from kserve import Model, ModelServer
    from serving_tables import pipelines

    class Served(Model):  # type: ignore[misc]
        def __init__(self, name: str, pipeline: Any) -> None:
            super().__init__(name)
            self.pipeline, self.ready = pipeline, True

        def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:  # noqa: ARG002
            return {"predictions": predict(self.pipeline, payload["instances"])}

    models = [Served(name, pipeline) for name, pipeline in pipelines().items()]
    ModelServer(http_port=port, enable_grpc=False, workers=1, access_log_format=None).start(models)


def mlserver(port: int) -> None:
    """Its runtime for scikit-learn, in the process of the server, with adaptive batching."""
    import joblib
    from mlserver import MLServer, ModelSettings, Settings
    from serving_tables import pipelines

    folder = Path(tempfile.mkdtemp())
    models = []
    for name, pipeline in pipelines().items():
        joblib.dump(pipeline, folder / f"{name}.joblib")
        parameters = {"uri": str(folder / f"{name}.joblib")}
        models.append(
            ModelSettings(
                name=name,
                implementation="mlserver_sklearn.SKLearnModel",
                parameters=parameters,
                max_batch_size=BATCH,
                max_batch_time=BATCH_WITHIN_S,
            )
        )
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=_free_port(),
        metrics_endpoint=None,
        parallel_workers=0,
        debug=False,
    )
    asyncio.run(MLServer(settings).start(models))


def bentoml(port: int) -> None:
    """A service with a batchable API for each model, started by its own command."""
    here = str(Path(__file__).resolve().parent)
    command = [
        sys.executable,
        "-m",
        "bentoml",
        "serve",
        "serving_bento:Peer",
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
    ]
    os.chdir(here)
    os.execv(sys.executable, command)


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    globals()[sys.argv[1]](int(sys.argv[2]))
