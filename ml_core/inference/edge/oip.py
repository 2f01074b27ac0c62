"""Requests of the Open Inference Protocol v2; ``protocol`` has the routes and the responses, ``grpc`` those of gRPC.

The inputs are one tensor per column, ``[rows]`` or ``[rows, 1]``, or one numeric ``[rows, columns]`` tensor with all
columns in the order of the metadata.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.domain.columns import ColumnKind, Columns
from ml_core.domain.signature import InputColumn, Signature
from ml_core.exceptions import SignatureMismatchError, shown
from ml_core.inference.edge.http import invalid
from ml_core.inference.edge.routes import check_rows, parse_object, sticky_key
from ml_core.inference.edge.tensors import DTYPES, Tensor, parse_shape, values_from_binary, values_from_json
from ml_core.inference.routing import key_text

# The range of ``datetime``, years 1 to 9999, in seconds since 1970-01-01 UTC; the end is excluded.
_FIRST_SECOND = -62_135_596_800.0
_END_SECOND = 253_402_300_800.0

Values = NDArray[Any] | list[Any]
ReadValues = Callable[[str, Mapping[str, Any], str, int], Values]
"""Reads the flat values of a tensor: its field, its object, its datatype and their number."""

PREDICTIONS = "predictions"
PROBABILITIES = "probabilities"


@dataclass(slots=True)
class InferBody:
    """The body of ``infer``; implements ``Table``.

    Attributes:
        id: The request id of the protocol, which the response repeats.
        tensors: The inputs.
        outputs: Requested output → whether in binary; empty: all outputs.
        all_binary: Whether outputs are binary by default.
        size: Bytes of the body.
        key: The key for the choice of a canary, from the ``parameters``.
    """

    id: str | None
    tensors: list[Tensor]
    outputs: dict[str, bool]
    all_binary: bool
    size: int
    key: str | None = None

    @property
    def rows(self) -> int:
        """See ``Table``."""
        return self.tensors[0].shape[0]

    @property
    def wants_probabilities(self) -> bool:
        """Whether the response includes probabilities, if the model has them."""
        return not self.outputs or PROBABILITIES in self.outputs

    def wants(self, output: str) -> bool:
        """Whether the response includes an output."""
        return not self.outputs or output in self.outputs

    def is_binary(self, output: str) -> bool:
        """Whether an output is sent in binary."""
        return self.outputs.get(output, self.all_binary)

    def columns(self, signature: Signature) -> Columns:
        """See ``Table``.

        Raises:
            InvalidRequestError: A tensor is not an input of the model, or has the wrong shape.
            SignatureMismatchError: A value does not fit the signature.
        """
        by_name = {column.name: column for column in signature.inputs}
        matrix = self._matrix(by_name)
        if matrix is not None:
            width = len(signature.inputs)
            return {column.name: _read(column, matrix.column(i, width)) for i, column in enumerate(signature.inputs)}
        given = {tensor.name: tensor for tensor in self.tensors}
        for tensor in self.tensors:
            if tensor.name not in by_name:
                raise invalid(
                    f"{tensor.field}.name", f"is not an input of the model: {shown(tensor.name, 80)}", _known(by_name)
                )
            if math.prod(tensor.shape[1:]) != 1:
                raise invalid(f"{tensor.field}.shape", "must be [rows] or [rows, 1]", "Send one tensor per column.")
        return {
            column.name: _read(column, given[column.name]) if column.name in given else column.read([None] * self.rows)
            for column in signature.inputs
        }

    def first_value(self, column: str, signature: Signature) -> str | None:
        """See ``Table``."""
        for tensor in self.tensors:
            if tensor.name == column and math.prod(tensor.shape[1:]) == 1:
                return key_text(tensor.value(0))
        names, first = [column.name for column in signature.inputs], self.tensors[0]
        if column not in names or len(self.tensors) > 1 or first.shape[1:] != (len(names),):
            return None
        return key_text(first.value(names.index(column)))

    def _matrix(self, by_name: Mapping[str, InputColumn]) -> Tensor | None:
        """The tensor with all columns, if the request has the matrix form."""
        tensor = self.tensors[0]
        is_one_column = tensor.name in by_name and math.prod(tensor.shape[1:]) == 1
        if len(self.tensors) > 1 or len(tensor.shape) != 2 or is_one_column:
            return None
        if not tensor.is_numeric:
            raise invalid(f"{tensor.field}.datatype", "must be numeric for all columns in one tensor", "Send FP64.")
        if tensor.shape[1] != len(by_name):
            raise invalid(
                f"{tensor.field}.shape", f"has {tensor.shape[1]} columns instead of {len(by_name)}", _known(by_name)
            )
        return tensor


def parse_infer(body: bytes, header_length: int | None, max_rows: int) -> InferBody:
    """Parse the body of ``infer``.

    Args:
        body: JSON, followed by binary tensors if the request has ``Inference-Header-Content-Length``.
        header_length: The value of that header.
        max_rows: Limit of rows.

    Raises:
        InvalidRequestError: The body is malformed; names the field.
        RequestTooLargeError: The body has too many rows.
    """
    if header_length is not None and header_length > len(body):
        raise invalid("inference-header-content-length", "is larger than the body", "Correct the header.")
    view = memoryview(body)
    data = parse_object(view[:header_length] if header_length is not None else body)
    binary = _Binary(view[header_length:] if header_length is not None else view[:0])

    def read_values(field: str, item: Mapping[str, Any], datatype: str, count: int) -> Values:
        size = _parameters(f"{field}.parameters", item).get("binary_data_size")
        if size is None:
            return values_from_json(f"{field}.data", item.get("data"), datatype, count)
        return values_from_binary(field, binary.take(f"{field}.parameters.binary_data_size", size), datatype, count)

    parsed = read_infer(data, read_values, max_rows, len(body))
    if binary.left:
        raise invalid("body", f"has {binary.left} bytes that belong to no tensor", "Correct binary_data_size.")
    return parsed


def read_infer(data: Mapping[str, Any], read_values: ReadValues, max_rows: int, size: int) -> InferBody:
    """Check a request in the form that it has as JSON.

    Args:
        data: The object.
        read_values: Reads the values of a tensor, which may be elsewhere.
        max_rows: Limit of rows.
        size: Bytes of the request.

    Raises as ``parse_infer``.
    """
    inputs = data.get("inputs")
    if type(inputs) is not list or not inputs:
        raise invalid("inputs", "must be a list of at least one tensor", "Send one tensor per column.")
    tensors = [_read_tensor(f"inputs[{i}]", item, read_values, max_rows) for i, item in enumerate(inputs)]
    _check_together(tensors)
    identity = data.get("id")
    if identity is not None and type(identity) is not str:
        raise invalid("id", "must be a string", "Correct or omit it.")
    parameters = _parameters("parameters", data)
    all_binary = _flag("parameters", parameters, "binary_data_output") or False
    outputs, key = _parse_outputs(data.get("outputs"), all_binary), sticky_key("parameters.key", parameters.get("key"))
    return InferBody(identity, tensors, outputs, all_binary, size, key)


class _Binary:
    """The binary part of a body, read in order."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._offset = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._offset

    def take(self, field: str, size: Any) -> memoryview:
        if type(size) is not int or not 0 <= size <= self.left:
            raise invalid(field, "exceeds the body or is not a size", "Correct it, or Inference-Header-Content-Length.")
        self._offset += size
        return self._data[self._offset - size : self._offset]


def _read_tensor(field: str, item: Any, read_values: ReadValues, max_rows: int) -> Tensor:
    if type(item) is not dict:
        raise invalid(field, "must be an object", "Send name, shape, datatype and data.")
    name, datatype = item.get("name"), item.get("datatype")
    if type(name) is not str:
        raise invalid(f"{field}.name", "must be a string", "Name the column.")
    if type(datatype) is not str or (datatype != "BYTES" and datatype not in DTYPES):
        raise invalid(f"{field}.datatype", "is not known", f"Use one of {', '.join([*DTYPES, 'BYTES'])}.")
    shape = parse_shape(f"{field}.shape", item.get("shape"))
    if shape[0] < 1:
        raise invalid(f"{field}.shape", "has no rows", "Send at least one row.")
    check_rows(shape[0], max_rows)
    return Tensor(field, name, datatype, shape, read_values(field, item, datatype, math.prod(shape)))


def _check_together(tensors: list[Tensor]) -> None:
    names: set[str] = set()
    for tensor in tensors:
        if tensor.shape[0] != tensors[0].shape[0]:
            raise invalid(f"{tensor.field}.shape", "differs in rows from the first tensor", "Send equally many rows.")
        if tensor.name in names:
            raise invalid(f"{tensor.field}.name", "is repeated", "Send each column once.")
        names.add(tensor.name)


def _parse_outputs(outputs: Any, all_binary: bool) -> dict[str, bool]:
    if outputs is None:
        return {}
    if type(outputs) is not list:
        raise invalid("outputs", "must be a list", "Omit it for all outputs.")
    wanted: dict[str, bool] = {}
    for index, item in enumerate(outputs):
        field = f"outputs[{index}]"
        if type(item) is not dict or item.get("name") not in (PREDICTIONS, PROBABILITIES):
            raise invalid(f"{field}.name", "is not an output", f"Outputs are {PREDICTIONS} and {PROBABILITIES}.")
        binary = _flag(f"{field}.parameters", _parameters(f"{field}.parameters", item), "binary_data")
        wanted[item["name"]] = all_binary if binary is None else binary
    return wanted


def _parameters(field: str, item: Mapping[str, Any]) -> dict[str, Any]:
    parameters = item.get("parameters")
    if parameters is not None and type(parameters) is not dict:
        raise invalid(field, "must be an object", "Correct or omit it.")
    return parameters or {}


def _flag(field: str, parameters: Mapping[str, Any], name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        raise invalid(f"{field}.{name}", "must be true or false", "Correct or omit it.")
    return value


def _read(column: InputColumn, tensor: Tensor) -> NDArray[Any]:
    if tensor.is_numeric and column.kind in (ColumnKind.NUMBER, ColumnKind.DATETIME):
        return _read_numbers(column, tensor.as_floats())
    return column.read(tensor.as_list())


def _read_numbers(column: InputColumn, values: NDArray[np.float64]) -> NDArray[Any]:
    """Check the values of a number or datetime column; for a datetime, seconds since 1970-01-01 UTC.

    Raises:
        SignatureMismatchError: A value does not fit.
    """
    is_date = column.kind is ColumnKind.DATETIME
    bad = np.isinf(values) if column.nullable else ~np.isfinite(values)
    if is_date:
        bad |= (values < _FIRST_SECOND) | (values >= _END_SECOND)  # False for NaN, a missing value
    if bad.any():
        row = int(bad.argmax())
        if np.isnan(values[row]):
            what = "is missing; it had no missing value in training"
        elif np.isinf(values[row]):
            what = "is not a finite number"
        else:
            what = f"is {values[row]:g}, which is outside the years 1 to 9999"
        expected = "seconds since 1970-01-01 UTC" if is_date else "a number"
        raise SignatureMismatchError(
            f"Row {row}: column {column.name!r} {what}.",
            remedy=f"Send {expected}{' or NaN' if column.nullable else ''} for it.",
            row=row,
            column=column.name,
        )
    return values


def _known(by_name: Mapping[str, InputColumn]) -> str:
    return f"Inputs are {', '.join(list(by_name)[:50])}."
