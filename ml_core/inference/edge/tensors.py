"""Tensors of the Open Inference Protocol v2, in JSON and in the binary tensor data extension.

The protocol: https://github.com/open-inference/open-inference-protocol. A binary tensor has its elements in row-major
order, little-endian; a ``BYTES`` element is a 4-byte length followed by that many bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.inference.edge.http import invalid

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Datatypes with elements of fixed size. ``BYTES`` has variable size; ``BF16`` is not supported."""

_MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input tensor. ``values`` are flat: an array for binary data, otherwise JSON values, possibly None."""

    # Not converted before the kind of the column is known: float64 can't represent an integer category above 2^53.

    field: str
    name: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[Any] | list[Any]

    @property
    def is_numeric(self) -> bool:
        """Whether the elements are numbers (booleans are not)."""
        return self.datatype not in ("BOOL", "BYTES")

    def column(self, index: int, of: int) -> Tensor:
        """A column of a tensor with the shape ``[rows, of]``."""
        return Tensor(self.field, self.name, self.datatype, self.shape[:1], self.values[index::of])

    def value(self, index: int) -> Any:
        """One flat value, converted as by ``as_list``."""
        one = self.values[index : index + 1]
        return Tensor(self.field, self.name, self.datatype, self.shape, one).as_list()[0]

    def as_list(self) -> list[Any]:
        """The flat values as the Python objects of a JSON row."""
        values = self.values if isinstance(self.values, list) else self.values.tolist()
        if self.datatype not in ("FP16", "FP32"):
            return values
        precision = DTYPES[self.datatype].type
        return [_shortest(precision(value)) if type(value) is float else value for value in values]

    def as_floats(self) -> NDArray[np.float64]:
        """The flat values of a numeric tensor as ``(n,) float64``; NaN if missing."""
        return np.array(self.values, np.float64)


def parse_shape(field: str, shape: Any) -> tuple[int, ...]:
    """Parse a shape with at least one dimension.

    Raises:
        InvalidRequestError: The shape is not a list of whole numbers.
    """
    if (
        type(shape) is not list
        or not 1 <= len(shape) <= _MAX_DIMENSIONS
        or not all(type(size) is int and 0 <= size < 2**31 for size in shape)
    ):
        raise invalid(field, "must be a list of whole numbers", "Send [rows] or [rows, columns].")
    return tuple(shape)


def values_from_json(field: str, data: Any, datatype: str, count: int) -> list[Any]:
    """Flatten and check the values of a JSON tensor; null is a missing value.

    Raises:
        InvalidRequestError: The data is not ``count`` values of the datatype.
    """
    if type(data) is not list:
        raise invalid(field, "must be a list", "Send the tensor's values in row-major order.")
    flat = _flatten(field, data, count)
    if len(flat) != count:
        raise invalid(field, f"has {len(flat)} values instead of the {count} of its shape", "Correct shape or data.")
    _check_json(field, flat, datatype)
    return flat


def values_from_binary(field: str, data: memoryview, datatype: str, count: int) -> NDArray[Any] | list[Any]:
    """Decode a binary tensor to flat values.

    Raises:
        InvalidRequestError: The bytes are not ``count`` elements of the datatype.
    """
    if datatype == "BYTES":
        return _strings_from_binary(field, data, count)
    dtype = DTYPES[datatype]
    wanted = count * dtype.itemsize
    if len(data) != wanted:
        raise invalid(field, f"has {len(data)} bytes instead of the {wanted} of its shape", "Correct shape or data.")
    if datatype == "BOOL":
        booleans: NDArray[np.bool_] = np.frombuffer(data, np.uint8) != 0  # a bool view is undefined except for 0 and 1
        return booleans
    return np.frombuffer(data, dtype)


def to_binary(values: NDArray[Any], datatype: str) -> bytes:
    """Encode flat values as a binary tensor."""
    if datatype != "BYTES":
        return np.ascontiguousarray(values, DTYPES[datatype]).tobytes()
    encoded = [str(value).encode() for value in values.tolist()]
    return b"".join(part for text in encoded for part in (struct.pack("<I", len(text)), text))


def _strings_from_binary(field: str, data: memoryview, count: int) -> list[Any]:
    strings: list[str] = []
    offset = 0
    while offset < len(data) and len(strings) < count:
        if offset + 4 > len(data):
            break
        (length,) = struct.unpack_from("<I", data, offset)
        text = data[offset + 4 : offset + 4 + length]
        if len(text) != length:
            break
        try:
            strings.append(str(text, "utf-8"))
        except UnicodeDecodeError:
            raise invalid(f"{field}[{len(strings)}]", "is not UTF-8", "Encode strings as UTF-8.") from None
        offset += 4 + length
    if len(strings) != count or offset != len(data):
        raise invalid(field, f"does not hold the {count} strings of its shape", "Correct shape or data.")
    return strings


def _flatten(field: str, data: list[Any], count: int) -> list[Any]:
    flat = data
    for _ in range(_MAX_DIMENSIONS):
        if not any(type(item) is list for item in flat):
            return flat
        if not all(type(item) is list for item in flat) or len(flat) > count:
            break
        flat = [value for item in flat for value in item]
    raise invalid(field, "is nested unevenly or too deeply", "Send the tensor's values in row-major order.")


def _check_json(field: str, values: Sequence[Any], datatype: str) -> None:
    """Check the type and the range of each value."""
    allowed = _JSON_TYPES[_family(datatype)]
    found = set(map(type, values))
    if not found <= allowed:
        index = next(i for i, value in enumerate(values) if type(value) not in allowed)
        raise invalid(f"{field}[{index}]", f"is not of the type {datatype}", "Correct the value or the datatype.")
    bounds = _BOUNDS.get(datatype)
    if bounds is None:
        return
    numbers = [value for value in values if value is not None] if NoneType in found else values
    if numbers and not (bounds[0] <= min(numbers) and max(numbers) <= bounds[1]):
        index = next(i for i, v in enumerate(values) if v is not None and not bounds[0] <= v <= bounds[1])
        raise invalid(f"{field}[{index}]", f"is out of the range of {datatype}", "Correct the value or the datatype.")


def _family(datatype: str) -> str:
    return datatype.rstrip("0123468")


def _shortest(value: np.floating[Any]) -> float:
    """Convert to the float64 with the fewest digits that the datatype rounds to the same value."""
    # 0.1 in single precision becomes 0.1 and not 0.10000000149011612. Whole numbers are exact.
    return float(value if value.is_integer() else str(value))


def _bounds(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind == "f":
        limit = np.finfo(dtype).max
        largest = max(float(limit), float(str(limit)))  # str() rounds the largest number, possibly up
        return -largest, largest
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


_JSON_TYPES: dict[str, frozenset[type]] = {
    "BOOL": frozenset({bool, NoneType}),
    "UINT": frozenset({int, NoneType}),
    "INT": frozenset({int, NoneType}),
    "FP": frozenset({int, float, NoneType}),
    "BYTES": frozenset({str, NoneType}),
}
_BOUNDS = {name: _bounds(dtype) for name, dtype in DTYPES.items() if name != "BOOL"}
