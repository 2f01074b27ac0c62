"""The client of Triton or of KServe, unchanged, against one model: for ``protocols.py``, in an environment of its own.

    PYTHON protocols_clients.py triton|kserve < ASKED

``ASKED`` is ``{"address", "tenant", "key", "model", "rows", "seconds"}``. Prints a list of ``{"client", "predictions",
"probabilities", "requests_a_second"}``: the answer to all rows, and how many requests of one row are answered in turn.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Infer = Callable[[np.ndarray], tuple[Any, Any]]
"""From rows to predictions and probabilities."""


def triton(asked: dict[str, Any]) -> dict[str, Infer]:
    """Triton's clients by name."""
    # Not both at the top: each registers the package ``inference``, which a process can have once.
    import tritonclient.grpc
    import tritonclient.http

    address, headers = asked["address"], {"authorization": f"Bearer {asked['key']}"}
    metadata = {**headers, "mlcore-tenant": asked["tenant"]}

    def by(module: Any, url: str, sent: dict[str, str], **options: bool) -> Infer:
        client = module.InferenceServerClient(url)
        checks = (client.is_server_live(sent), client.is_server_ready(sent))
        _require(*checks, client.is_model_ready(asked["model"], headers=sent))

        def infer(rows: np.ndarray) -> tuple[Any, Any]:
            tensor = module.InferInput("x", list(rows.shape), "FP64").set_data_from_numpy(rows, **options)
            answer = client.infer(asked["model"], [tensor], headers=sent)
            return answer.as_numpy("predictions"), answer.as_numpy("probabilities")

        return infer

    url = f"{address}/t/{asked['tenant']}"
    return {
        "tritonclient HTTP, JSON": by(tritonclient.http, url, headers, binary_data=False),
        "tritonclient HTTP, binary": by(tritonclient.http, url, headers, binary_data=True),
        "tritonclient gRPC": by(tritonclient.grpc, address, metadata),
    }


def kserve(asked: dict[str, Any]) -> dict[str, Infer]:
    """KServe's clients by name."""
    from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
    from kserve.inference_client import RESTConfig

    loop, model, url = asyncio.new_event_loop(), asked["model"], f"http://{asked['address']}/t/{asked['tenant']}"
    headers = {"authorization": f"Bearer {asked['key']}"}
    metadata = [*headers.items(), ("mlcore-tenant", asked["tenant"])]

    async def connect() -> tuple[Any, Any]:
        rest, grpc = InferenceRESTClient(RESTConfig(protocol="v2")), InferenceGRPCClient(asked["address"])
        _require(
            await rest.is_server_live(url, headers=headers),
            await rest.is_server_ready(url, headers=headers),
            await rest.is_model_ready(url, model, headers=headers),
            await grpc.is_server_live(headers=metadata),
            await grpc.is_server_ready(headers=metadata),
            await grpc.is_model_ready(model, headers=metadata),
        )
        return rest, grpc

    rest, grpc = loop.run_until_complete(connect())

    def by(send: Callable[[Any], Any], *, binary: bool) -> Infer:
        def infer(rows: np.ndarray) -> tuple[Any, Any]:
            tensor = InferInput("x", list(rows.shape), "FP64")
            tensor.set_data_from_numpy(rows, binary_data=binary)
            answer = loop.run_until_complete(send(InferRequest(model, [tensor])))
            found = {output.name: output.as_numpy() for output in answer.outputs}
            return found["predictions"], found["probabilities"]

        return infer

    def over_rest(request: Any) -> Any:
        return rest.infer(url, request, headers=dict(headers), model_name=model)

    def over_grpc(request: Any) -> Any:
        return grpc.infer(request, headers=metadata)

    return {
        "KServe REST, JSON": by(over_rest, binary=False),
        "KServe REST, binary": by(over_rest, binary=True),
        "KServe gRPC, typed": by(over_grpc, binary=False),
        "KServe gRPC, raw": by(over_grpc, binary=True),
    }


def _require(*checks: bool) -> None:
    if not all(checks):
        raise RuntimeError(f"The client finds the server or the model not ready: {checks}")


def measure(infer: Infer, asked: dict[str, Any]) -> dict[str, Any]:
    """The answer to all rows, and the rate of requests of one row."""
    rows, count = np.array(asked["rows"], dtype="float64"), 0
    predictions, probabilities = infer(rows)
    started = time.perf_counter()
    while time.perf_counter() - started < asked["seconds"]:
        infer(rows[:1])
        count += 1
    return {
        "predictions": [each.decode() if isinstance(each, bytes) else str(each) for each in predictions],
        "probabilities": np.asarray(probabilities).tolist(),
        "requests_a_second": round(count / (time.perf_counter() - started), 1),
    }


def main() -> None:
    """Ask by each client, and print what it answered."""
    asked = json.load(sys.stdin)
    found = {"triton": triton, "kserve": kserve}[sys.argv[1]](asked)
    json.dump([{"client": name, **measure(infer, asked)} for name, infer in found.items()], sys.stdout)


if __name__ == "__main__":
    main()
