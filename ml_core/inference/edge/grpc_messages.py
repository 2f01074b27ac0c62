"""The protocol buffer messages of the Open Inference Protocol v2, as far as the platform has them.

The fields are those of https://github.com/open-inference/open-inference-protocol (``open_inference_grpc.proto``), and
of Triton's ``model_config.proto`` for the model configuration extension.
"""

# Built at import: generated code would be ten times as long, fit one release of protobuf, and register the package
# ``inference`` in the default pool, where the clients of Triton and KServe register theirs. Names of messages are not
# sent, so messages that the protocol nests are not nested here.

from __future__ import annotations

import re
from typing import Any, Final

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_PACKAGE: Final = "inference"
_MESSAGES: Final = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live = 1;",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready = 1;",
    "ModelReadyRequest": "string name = 1; string version = 2;",
    "ModelReadyResponse": "bool ready = 1;",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name = 1; string version = 2; repeated string extensions = 3;",
    "ModelMetadataRequest": "string name = 1; string version = 2;",
    "ModelMetadataResponse": """
        string name = 1; repeated string versions = 2; string platform = 3;
        repeated TensorMetadata inputs = 4; repeated TensorMetadata outputs = 5;""",
    "TensorMetadata": "string name = 1; string datatype = 2; repeated int64 shape = 3;",
    "ModelConfigRequest": "string name = 1; string version = 2;",
    "ModelConfigResponse": "ModelConfig config = 1;",
    "ModelConfig": """
        string name = 1; string platform = 2; int32 max_batch_size = 4;
        repeated ModelInput input = 5; repeated ModelOutput output = 6; string backend = 17;""",
    "ModelInput": "string name = 1; int32 data_type = 2; repeated int64 dims = 4; bool optional = 8;",
    "ModelOutput": "string name = 1; int32 data_type = 2; repeated int64 dims = 3;",
    "InferParameter": "oneof bool bool_param = 1; oneof int64 int64_param = 2; oneof string string_param = 3;",
    "InferTensorContents": """
        repeated bool bool_contents = 1; repeated int32 int_contents = 2; repeated int64 int64_contents = 3;
        repeated uint32 uint_contents = 4; repeated uint64 uint64_contents = 5; repeated float fp32_contents = 6;
        repeated double fp64_contents = 7; repeated bytes bytes_contents = 8;""",
    "ModelInferRequest": """
        string model_name = 1; string model_version = 2; string id = 3; map InferParameter parameters = 4;
        repeated InferInputTensor inputs = 5; repeated InferRequestedOutputTensor outputs = 6;
        repeated bytes raw_input_contents = 7;""",
    "InferInputTensor": """
        string name = 1; string datatype = 2; repeated int64 shape = 3; InferTensorContents contents = 5;""",
    "InferRequestedOutputTensor": "string name = 1;",
    "ModelInferResponse": """
        string model_name = 1; string model_version = 2; string id = 3; map InferParameter parameters = 4;
        repeated InferOutputTensor outputs = 5; repeated bytes raw_output_contents = 6;""",
    "InferOutputTensor": """
        string name = 1; string datatype = 2; repeated int64 shape = 3; InferTensorContents contents = 5;""",
}
_FIELD = re.compile(r"(?:(repeated|map|oneof) )?(\w+) (\w+) = (\d+);")
_SCALARS: Final = ("bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes")


def _build() -> dict[str, type[Any]]:
    file = FileDescriptorProto(name="open_inference.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for label, kind, field, number in _FIELD.findall(fields):
            _add(message, label, kind, field, int(number))
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES}


def _add(message: DescriptorProto, label: str, kind: str, name: str, number: int) -> None:
    is_many = label in ("repeated", "map")
    field = message.field.add(name=name, number=number)
    field.label = FieldDescriptorProto.LABEL_REPEATED if is_many else FieldDescriptorProto.LABEL_OPTIONAL
    if label == "map":
        entry = message.nested_type.add(name="ParametersEntry")
        entry.options.map_entry = True
        _add(entry, "", "string", "key", 1)
        _add(entry, "", kind, "value", 2)
        kind = f"{message.name}.{entry.name}"
    elif label == "oneof":
        if not message.oneof_decl:
            message.oneof_decl.add(name="choice")
        field.oneof_index = 0
    if kind in _SCALARS:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    else:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{kind}"


MESSAGES: Final = _build()
"""Name → class of a message."""
