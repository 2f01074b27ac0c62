"""The Open Inference Protocol v2 over gRPC: the methods of ``inference.GRPCInferenceService`` as routes.

HAProxy speaks HTTP/2 with the client, and passes a call on as an HTTP/1.1 request, whose path begins with the tenant
in the call's metadata. So a call is a request like any other: only its message, its answer and the form of its errors
are gRPC's. The rules are those of ``oip`` and ``protocol``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from ml_core.inference.edge.grpc_headers import trailers_of
from ml_core.inference.edge.grpc_messages import MESSAGES
from ml_core.inference.edge.http import HttpRequest, HttpResponse, decompress, invalid, plain_error
from ml_core.inference.edge.oip import InferBody, Values, read_infer
from ml_core.inference.edge.protocol import ProtocolRoutes, outputs_of
from ml_core.inference.edge.routes import PARSE_ON_LOOP_BYTES
from ml_core.inference.edge.tensors import DTYPES, to_binary, values_from_binary, values_from_json
from ml_core.inference.service import Prediction, PredictionService

MAX_PARTS: Final = 10_000
"""Tensors and parameters of one call: as many as a dataset has columns. Each takes 6 µs, 1 kB, and may be two bytes."""
_PARTS_ON_LOOP: Final = 1_000
# Before each message: whether it is compressed, and its length.
_PREFIX_BYTES: Final = 5
_CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Datatype → field of ``InferTensorContents``; FP16 has none."""
# The number of a datatype in the model configuration.
_CONFIG_TYPES = {f"TYPE_{name}": number for number, name in enumerate([*DTYPES, "STRING"], 1)}


class GrpcRoutes:
    """The methods of the service."""

    def __init__(self, service: PredictionService, protocol: ProtocolRoutes) -> None:
        self._service = service
        self._protocol = protocol
        self._max_bytes = service.limits.max_body_bytes

    async def server_live(self, _: HttpRequest) -> HttpResponse:
        """``ServerLive``."""
        return _reply("ServerLiveResponse", live=True)

    async def server_ready(self, _: HttpRequest) -> HttpResponse:
        """``ServerReady``."""
        return _reply("ServerReadyResponse", ready=self._service.is_ready)

    async def server_metadata(self, _: HttpRequest) -> HttpResponse:
        """``ServerMetadata``."""
        return _reply("ServerMetadataResponse", **self._protocol.describe_server())

    async def model_ready(self, request: HttpRequest) -> HttpResponse:
        """``ModelReady``: loads the version if needed."""
        await self._name_model(request, "ModelReadyRequest")
        await self._protocol.model_ready(request)
        return _reply("ModelReadyResponse", ready=True)

    async def model_metadata(self, request: HttpRequest) -> HttpResponse:
        """``ModelMetadata``."""
        await self._name_model(request, "ModelMetadataRequest")
        metadata = await self._protocol.describe_model(request)
        for tensor in (*metadata["inputs"], *metadata["outputs"]):
            tensor.pop("parameters", None)  # the message has none
        return _reply("ModelMetadataResponse", **metadata)

    async def model_config(self, request: HttpRequest) -> HttpResponse:
        """``ModelConfig``: the model configuration extension, which Triton's clients use."""
        await self._name_model(request, "ModelConfigRequest")
        config = await self._protocol.describe_config(request)
        for tensor in (*config["input"], *config["output"]):
            tensor["data_type"] = _CONFIG_TYPES[tensor["data_type"]]
        return _reply("ModelConfigResponse", config=config)

    async def model_infer(self, request: HttpRequest) -> HttpResponse:
        """``ModelInfer``."""
        message = await self._message(request, "ModelInferRequest")
        request.model, request.version = message.model_name, message.model_version or None
        size, is_short = len(request.body), len(message.inputs) <= _PARTS_ON_LOOP
        return await self._protocol.answer(
            request, lambda max_rows: parse_message(message, max_rows, size), infer_reply, is_short=is_short
        )

    async def unknown(self, request: HttpRequest) -> HttpResponse:
        """Any other method."""
        return plain_error(
            405, "method_not_allowed", "The service does not have the method.", request.path, request.request_id
        )

    async def _name_model(self, request: HttpRequest, name: str) -> None:
        message = await self._message(request, name)
        request.model, request.version = message.name, message.version or None

    async def _message(self, request: HttpRequest, name: str) -> Any:
        if len(request.body) <= PARSE_ON_LOOP_BYTES and request.body[:1] != b"\1":
            return read_message(request.body, request.grpc_encoding, name, self._max_bytes)
        return await self._service.on_thread(
            request.tenant, read_message, request.body, request.grpc_encoding, name, self._max_bytes
        )


def read_message(body: bytes, encoding: bytes, name: str, max_bytes: int) -> Any:
    """Read the only message of a call.

    Args:
        body: The message after its prefix.
        encoding: The encoding of a compressed message.
        name: The name of the message.
        max_bytes: Limit of its decompressed bytes.

    Raises:
        InvalidRequestError: It is no such message.
        UnsupportedEncodingError, RequestTooLargeError: See ``decompress``.
    """
    content = body[_PREFIX_BYTES:]
    if body[:1] not in (b"\0", b"\1") or len(content) != int.from_bytes(body[1:_PREFIX_BYTES], "big"):
        raise invalid("body", "is not one gRPC message", "Call the method with a single message.")
    if body[:1] == b"\1":
        content = decompress(content, encoding, max_bytes)
    try:
        return MESSAGES[name].FromString(content)
    except DecodeError:
        raise invalid("body", f"is not a {name}", "Send the message that the protocol defines.") from None


def parse_message(message: Any, max_rows: int, size: int) -> InferBody:
    """Parse a ``ModelInferRequest`` of ``size`` bytes.

    The outputs are sent as the inputs are: raw, or as typed contents.

    Raises as ``parse_infer``.
    """
    if len(message.inputs) + len(message.outputs) + len(message.parameters) > MAX_PARTS:
        raise invalid(
            "inputs", f"has more than {MAX_PARTS:,} tensors and parameters", "Send all columns in one tensor."
        )
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise invalid(
            "raw_input_contents", f"has {len(raw)} tensors instead of {len(message.inputs)}", "Send one per input."
        )
    inputs = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "contents": raw[index] if raw else tensor.contents,
        }
        for index, tensor in enumerate(message.inputs)
    ]
    parameters = {
        name: getattr(value, value.WhichOneof("choice") or "", None) for name, value in message.parameters.items()
    }
    data = {
        "id": message.id or None,
        "inputs": inputs,
        "outputs": [{"name": output.name} for output in message.outputs] or None,
        "parameters": {**parameters, "binary_data_output": bool(raw)},
    }
    return read_infer(data, _read_raw if raw else _read_contents, max_rows, size)


def _read_raw(field: str, item: Mapping[str, Any], datatype: str, count: int) -> Values:
    return values_from_binary(field, memoryview(item["contents"]), datatype, count)


def _read_contents(field: str, item: Mapping[str, Any], datatype: str, count: int) -> Values:
    name = _CONTENTS.get(datatype)
    if name is None:
        raise invalid(f"{field}.datatype", "has no typed contents", "Send it in raw_input_contents.")
    field, values = f"{field}.contents.{name}", list(getattr(item["contents"], name))
    if datatype == "BYTES":
        values = [_text(f"{field}[{index}]", value) for index, value in enumerate(values)]
    elif datatype in ("FP32", "FP64") and len(values) == count:
        return np.array(values, DTYPES[datatype])  # as in binary, NaN is a missing value
    return values_from_json(field, values, datatype, count)


def _text(field: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise invalid(field, "is not UTF-8", "Encode strings as UTF-8.") from None


def infer_reply(model: str, prediction: Prediction, body: InferBody) -> HttpResponse:
    """The answer to ``ModelInfer``."""
    outputs: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for name, datatype, values in outputs_of(prediction, body):
        output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": values.shape}
        if body.is_binary(name):
            raw.append(to_binary(values, datatype))
        else:
            output["contents"] = {_CONTENTS[datatype]: _typed(values, datatype)}
        outputs.append(output)
    return _reply(
        "ModelInferResponse",
        model_name=model,
        model_version=prediction.version.ref.version,
        id=body.id,
        parameters={"rollout": {"string_param": prediction.rollout}},
        outputs=outputs,
        raw_output_contents=raw,
    )


def _typed(values: NDArray[Any], datatype: str) -> list[Any]:
    flat = values.ravel().tolist()
    return [text.encode() for text in flat] if datatype == "BYTES" else flat


def _reply(name: str, /, **fields: Any) -> HttpResponse:
    """The answer to a call that succeeded."""
    content = MESSAGES[name](**fields).SerializeToString()
    body = b"\0" + len(content).to_bytes(_PREFIX_BYTES - 1, "big") + content
    return HttpResponse(200, body, content_type=b"application/grpc", trailers=trailers_of(200))
