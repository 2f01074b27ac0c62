"""Reading a zip that may be hostile: within bounds, in memory, each array's declared size checked before allocation."""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from functools import lru_cache
from typing import Any

import numpy as np

from ml_core.exceptions import UnsafeArtifactError
from ml_core.models.formats.audit import ARRAY_MEMBER, MAX_SCHEMA_BYTES, malformed
from ml_core.models.formats.schema import SCHEMA_MEMBER

# Unpacked bytes of one artifact: by default a replica's memory for all of its models.
MAX_UNPACKED_BYTES = 2 * 2**30
# A pure-Python reader spends about 30 µs a member: this is 1.5 seconds. A one-vs-one of 100 classes has 15,000.
MAX_MEMBERS = 50_000
# Every kind of member that skops writes; the audit decides by type which of them the platform loads.
_MEMBER = re.compile(r"[0-9A-Za-z-]{1,64}\.(npy|npz|bin)")
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_members(data: bytes, max_bytes: int = MAX_UNPACKED_BYTES) -> dict[str, bytes]:
    """Unpack an archive into memory: member name → bytes, all together at most ``max_bytes``.

    Raises:
        UnsafeArtifactError: It is not a zip, exceeds the bound, is damaged or encrypted, or has a member that no skops
            archive has (a path, a second copy, another kind of file).
    """
    if not data.startswith(b"PK\x03\x04"):
        raise UnsafeArtifactError(
            "The artifact is not a skops archive. Other files, such as pickle and joblib files, are never loaded.",
            remedy="Save the model with skops.io.dump, or register the .joblib through ModelManager.register_model.",
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive.infolist(), max_bytes)
            # zipfile reads no more than the entry's declared size, and checks the CRC.
            return {info.filename: archive.read(info) for info in archive.infolist()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise malformed(f"its zip can't be read ({error})") from error


def check_array(name: str, member: bytes) -> None:
    """Check that a member is an ``.npy`` array of exactly the size that its header declares, without Python objects.

    Raises:
        UnsafeArtifactError: It is not.
    """
    if not ARRAY_MEMBER.fullmatch(name):
        raise malformed(f"it has the unexpected member {name!r}")
    try:
        shape, _, dtype = _parse_header(member[: _data_start(member)])
    except (ValueError, KeyError, IndexError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise malformed(f"{name} is not an array ({error})") from error
    if dtype.hasobject:
        raise malformed(f"{name} holds pickled Python objects")
    if any(length < 0 for length in shape) or math.prod(shape) * dtype.itemsize != len(member) - _data_start(member):
        raise malformed(f"{name} does not have the size that it claims")


def load_array(member: bytes) -> np.ndarray[Any, Any]:
    """The array of a member that passed ``check_array``."""
    start = _data_start(member)
    shape, is_fortran, dtype = _parse_header(member[:start])
    values = np.frombuffer(member, dtype, offset=start).reshape(shape, order="F" if is_fortran else "C")
    return values.copy(order="K")  # writable, and frees the member


def _data_start(member: bytes) -> int:
    # Format 1.0 and 2.0 are the only ones that numpy writes for the allowed types.
    width = {1: 2, 2: 4}[member[6]]
    return 8 + width + int.from_bytes(member[8 : 8 + width], "little")


@lru_cache(maxsize=1024)  # a model has many arrays of few shapes, and numpy takes 15 µs to read a header
def _parse_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    stream = io.BytesIO(header)
    return _READERS[np.lib.format.read_magic(stream)](stream)


def _check_members(infos: list[zipfile.ZipInfo], max_bytes: int) -> None:
    names = [info.filename for info in infos]
    if len(set(names)) != len(names):
        raise malformed("it has two members of one name")
    if strange := [name for name in names if name != SCHEMA_MEMBER and not _MEMBER.fullmatch(name)]:
        raise malformed(f"it has the unexpected member {strange[0][:80]!r}")
    if SCHEMA_MEMBER not in names:
        raise malformed(f"it has no {SCHEMA_MEMBER}")
    schema_bytes = next(info.file_size for info in infos if info.filename == SCHEMA_MEMBER)
    if schema_bytes > MAX_SCHEMA_BYTES:
        raise UnsafeArtifactError(
            f"The artifact's schema has {schema_bytes:,} bytes, above the bound of {MAX_SCHEMA_BYTES:,}.",
            remedy="Keep numbers in numpy arrays; of a model with many words register the .joblib.",
        )
    check_unpacked(len(names), sum(info.file_size for info in infos), max_bytes)


def check_unpacked(n_members: int, n_bytes: int, max_bytes: int = MAX_UNPACKED_BYTES) -> None:
    """Check the members of an archive against the bounds.

    Raises:
        UnsafeArtifactError: They exceed one.
    """
    if n_bytes > max_bytes or n_members > MAX_MEMBERS:
        raise UnsafeArtifactError(
            f"The artifact unpacks to {n_bytes:,} bytes in {n_members:,} members, above the bound of {max_bytes:,} "
            f"bytes or {MAX_MEMBERS:,} members.",
            remedy="Train a smaller model: fewer or shallower trees, fewer words.",
        )
