"""Tensors of the Open Inference Protocol v2, in JSON and in the binary-tensor extension.

The protocol: https://github.com/open-inference/open-inference-protocol (REST, and "Binary Tensor Data"). A binary
tensor is its elements in row-major order, little-endian; a ``BYTES`` element is a 4-byte length and that many bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_core.inference.edge.requests import invalid

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
"""Datatypes with elements of one size. ``BYTES`` is the other; ``BF16`` is not supported."""

_MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input. ``values`` are flat: an array for what came in binary, else JSON values, None among them."""

    field: str
    name: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[Any] | list[Any]

    @property
    def is_numeric(self) -> bool:
        """Whether the elements are numbers (booleans are not)."""
        return self.datatype not in ("BOOL", "BYTES")

    def as_list(self) -> list[Any]:
        """The flat values as Python objects."""
        return self.values if isinstance(self.values, list) else list(self.values.tolist())


def parse_shape(field: str, shape: Any) -> tuple[int, ...]:
    """A shape of at least one dimension.

    Raises:
        InvalidRequestError: It is no list of whole numbers.
    """
    if (
        type(shape) is not list
        or not 1 <= len(shape) <= _MAX_DIMENSIONS
        or not all(type(size) is int and 0 <= size < 2**31 for size in shape)
    ):
        raise invalid(field, "must be a list of whole numbers", "Send [rows] or [rows, columns].")
    return tuple(shape)


def values_from_json(field: str, data: Any, datatype: str, count: int) -> list[Any]:
    """The flat values of a JSON tensor, nested or flat; null is allowed and means missing.

    Raises:
        InvalidRequestError: They are not ``count`` values of the datatype.
    """
    if type(data) is not list:
        raise invalid(field, "must be a list", "Send the tensor's values in row-major order.")
    flat = _flatten(field, data, count)
    if len(flat) != count:
        raise invalid(field, f"has {len(flat)} values instead of the {count} of its shape", "Correct shape or data.")
    check = _CHECKS[_family(datatype)]
    for index, value in enumerate(flat):
        if value is not None and not check(value):
            raise invalid(f"{field}[{index}]", f"is no {datatype}", "Correct the value or the datatype.")
    if datatype.startswith(("INT", "UINT")):
        _check_range(field, flat, datatype)
    return flat


def values_from_binary(field: str, data: memoryview, datatype: str, count: int) -> NDArray[Any] | list[Any]:
    """The flat values of a binary tensor.

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
        booleans: NDArray[np.bool_] = np.frombuffer(data, np.uint8) != 0  # NumPy's own view takes 0 and 1 only
        return booleans
    return np.frombuffer(data, dtype)


def to_binary(values: NDArray[Any], datatype: str) -> bytes:
    """A binary tensor of flat values."""
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


def _check_range(field: str, values: Sequence[Any], datatype: str) -> None:
    bounds = np.iinfo(DTYPES[datatype])
    for index, value in enumerate(values):
        if value is not None and not bounds.min <= value <= bounds.max:
            raise invalid(
                f"{field}[{index}]", f"is out of the range of {datatype}", "Correct the value or the datatype."
            )


def _family(datatype: str) -> str:
    return datatype.rstrip("0123468")


def _is_int(value: Any) -> bool:
    return type(value) is int


def _is_float(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "BOOL": lambda value: type(value) is bool,
    "UINT": _is_int,
    "INT": _is_int,
    "FP": _is_float,
    "BYTES": lambda value: type(value) is str,
}
