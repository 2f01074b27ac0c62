"""The routes of the Open Inference Protocol v2 over HTTP, under the prefix of a tenant; ``oip`` parses the requests.

The outputs are ``predictions`` ``[rows]`` and, for a classifier that has them, ``probabilities`` ``[rows, classes]`` in
the order of the signature's classes.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import Output, OutputKind, Signature
from ml_core.domain.values import category_text
from ml_core.inference.edge.http import HttpRequest, HttpResponse, json_response
from ml_core.inference.edge.oip import PREDICTIONS, PROBABILITIES, InferBody, parse_infer
from ml_core.inference.edge.routes import PARSE_ON_LOOP_BYTES, is_short_answer, json_labels
from ml_core.inference.edge.tensors import to_binary
from ml_core.inference.routing import Target
from ml_core.inference.service import Prediction, PredictionService

_DISTRIBUTION = "ml-core-platform"
PLATFORM = "mlcore_sklearn"
BACKEND = "mlcore"

_INPUT_TYPES = {
    ColumnKind.NUMBER: "FP64",
    ColumnKind.BOOLEAN: "BOOL",
    ColumnKind.DATETIME: "BYTES",
    ColumnKind.CATEGORY: "BYTES",
    ColumnKind.TEXT: "BYTES",
}
_LABEL_TYPES: dict[type, str] = {bool: "BOOL", int: "INT64", float: "FP64"}


class ProtocolRoutes:
    """The routes of the protocol."""

    def __init__(self, service: PredictionService) -> None:
        self._service = service
        self._max_rows = service.limits.max_rows
        self._release = metadata.version(_DISTRIBUTION)

    def describe_server(self) -> dict[str, Any]:
        """The metadata of the server."""
        extensions = ["binary_tensor_data", "model_configuration"]
        return {"name": "mlcore", "version": self._release, "extensions": extensions}

    async def describe_model(self, request: HttpRequest) -> dict[str, Any]:
        """The metadata of the request's model."""
        version = await self._service.router.describe(_target(request))
        return describe_model(request.model, version.ref.version, version.signature)

    async def describe_config(self, request: HttpRequest) -> dict[str, Any]:
        """The configuration of the request's model."""
        version = await self._service.router.describe(_target(request))
        return describe_config(request.model, version.ref.version, version.signature, self._max_rows)

    async def answer(
        self,
        request: HttpRequest,
        parse: Callable[[int], InferBody],
        render: Callable[[str, Prediction, InferBody], HttpResponse],
        *,
        is_short: bool = True,
    ) -> HttpResponse:
        """Answer a request for predictions.

        Args:
            request: The request.
            parse: Reads its tensors; gets the limit of rows.
            render: Makes the response of the model's name, the prediction and the tensors.
            is_short: Whether a request of few bytes is read soon.
        """
        size = len(request.body)
        if is_short and size <= PARSE_ON_LOOP_BYTES:
            body = parse(self._max_rows)
        elif size <= PARSE_ON_LOOP_BYTES:
            body = await self._service.on_thread(request.tenant, parse, self._max_rows)
        else:
            async with self._service.room_for(request.tenant, request.model, size):
                body = await self._service.on_thread(request.tenant, parse, self._max_rows)
        target = _target(request, body.key)
        prediction = await self._service.predict(
            target, body, proba=body.wants_probabilities, deadline=request.deadline
        )
        if is_short_answer(prediction):
            response = render(request.model, prediction, body)
        else:
            response = await self._service.on_thread(request.tenant, render, request.model, prediction, body)
        if self._service.recorder is not None:
            await self._service.recorder.record(target, prediction, request.arrived, body.size, self._service.threads)
        return response

    async def server(self, _: HttpRequest) -> HttpResponse:
        """``GET /t/{tenant}/v2``."""
        return json_response(self.describe_server())

    async def live(self, _: HttpRequest) -> HttpResponse:
        """``GET /t/{tenant}/v2/health/live``."""
        # A replica that authenticates the caller is alive.
        return json_response({"live": True})

    async def ready(self, _: HttpRequest) -> HttpResponse:
        """``GET /t/{tenant}/v2/health/ready``."""
        return json_response({"ready": self._service.is_ready})

    async def model(self, request: HttpRequest) -> HttpResponse:
        """``GET /t/{tenant}/v2/models/{model}[/versions/{version}]``."""
        return json_response(await self.describe_model(request))

    async def config(self, request: HttpRequest) -> HttpResponse:
        """``GET …/config``: the model configuration extension, which Triton's clients use."""
        return json_response(await self.describe_config(request))

    async def model_ready(self, request: HttpRequest) -> HttpResponse:
        """``GET …/ready``: whether the model can answer; loads the version if needed.

        Raises:
            ModelNotReadyError: The version is not loaded.
        """
        version = await self._service.ensure_ready(_target(request), request.deadline)
        return json_response({"name": request.model, "version": version.ref.version, "ready": True})

    async def infer(self, request: HttpRequest) -> HttpResponse:
        """``POST …/infer``."""
        header_length = request.header_length()
        return await self.answer(
            request, lambda max_rows: parse_infer(request.body, header_length, max_rows), infer_response
        )


def _target(request: HttpRequest, key: str | None = None) -> Target:
    return Target(
        request.tenant,
        request.model,
        version=request.version,
        key=key,
        request_id=request.request_id,
        is_only=request.is_only,
    )


def infer_response(model: str, prediction: Prediction, body: InferBody) -> HttpResponse:
    """The response to ``infer``: JSON, followed by the binary outputs."""
    outputs: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for name, datatype, values in outputs_of(prediction, body):
        output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(values.shape)}
        if body.is_binary(name):
            binary.append(to_binary(values, datatype))
            output["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            output["data"] = json_labels(values.ravel())
        outputs.append(output)
    answer = {
        "model_name": model,
        "model_version": prediction.version.ref.version,
        "parameters": {"rollout": prediction.rollout},
        "outputs": outputs,
    }
    if body.id is not None:
        answer["id"] = body.id
    if not binary:
        return json_response(answer)
    header = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return HttpResponse(
        200,
        b"".join([header, *binary]),
        content_type=b"application/octet-stream",
        headers={b"inference-header-content-length": b"%d" % len(header)},
    )


def outputs_of(prediction: Prediction, body: InferBody) -> list[tuple[str, str, NDArray[Any]]]:
    """The requested outputs: name, datatype and values, with the shape of the output."""
    predictions, probabilities = prediction.answer.predictions, prediction.answer.probabilities
    found: list[tuple[str, str, NDArray[Any]]] = []
    if body.wants(PREDICTIONS):
        datatype = prediction_datatype(prediction.version.signature.output)
        if datatype == "BYTES":
            predictions = np.array([category_text(label) for label in predictions.tolist()], dtype=object)
        found.append((PREDICTIONS, datatype, predictions))
    if body.wants(PROBABILITIES) and probabilities is not None:
        found.append((PROBABILITIES, "FP64", probabilities))
    return found


def prediction_datatype(output: Output) -> str:
    """The datatype of ``predictions``."""
    if output.kind is OutputKind.NUMBER:
        return "FP64"
    if output.kind is not OutputKind.CLASSES:
        return "INT64"
    kinds = {type(label) for label in output.classes}
    return _LABEL_TYPES.get(kinds.pop(), "BYTES") if len(kinds) == 1 else "BYTES"


def describe_model(name: str, version: str, signature: Signature) -> dict[str, Any]:
    """The metadata of a version in the form of the protocol."""
    output = signature.output
    outputs: list[dict[str, Any]] = [{"name": PREDICTIONS, "datatype": prediction_datatype(output), "shape": [-1]}]
    if output.kind is OutputKind.CLASSES:
        outputs.append(
            {
                "name": PROBABILITIES,
                "datatype": "FP64",
                "shape": [-1, len(output.classes)],
                "parameters": {"classes": list(output.classes)},
            }
        )
    return {
        "name": name,
        "versions": [version],
        "platform": PLATFORM,
        "inputs": [
            {
                "name": column.name,
                "datatype": _INPUT_TYPES[column.kind],
                "shape": [-1],
                "parameters": {"kind": column.kind.value, "nullable": column.nullable},
            }
            for column in signature.inputs
        ],
        "outputs": outputs,
    }


def describe_config(name: str, version: str, signature: Signature, max_rows: int) -> dict[str, Any]:
    """The configuration of a version in the form of the model configuration extension.

    ``dims`` are the shapes of the metadata without the first dimension, the rows; ``max_batch_size`` bounds the rows.
    """
    metadata = describe_model(name, version, signature)
    inputs = [_config_of(tensor) for tensor in metadata["inputs"]]
    for column, tensor in zip(signature.inputs, inputs, strict=True):
        tensor["optional"] = column.nullable
    return {
        "name": name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "max_batch_size": max_rows,
        "input": inputs,
        "output": [_config_of(tensor) for tensor in metadata["outputs"]],
    }


def _config_of(tensor: dict[str, Any]) -> dict[str, Any]:
    datatype = "STRING" if tensor["datatype"] == "BYTES" else tensor["datatype"]
    return {"name": tensor["name"], "data_type": f"TYPE_{datatype}", "dims": tensor["shape"][1:]}
