"""The origin of a version for its lineage: its data, code and libraries."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_core.domain.columns import Columns
from ml_core.domain.signature import InputColumn

_LIBRARIES = ("ml-core-platform", "numpy", "pandas", "scikit-learn", "lightgbm", "scipy")
_COMMIT_LENGTH = 40


@functools.cache  # reading them takes as long as a small fit
def library_versions() -> Mapping[str, str]:
    """Distribution → version of the libraries that influence a fitted pipeline's numbers, and of Python."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # running from a checkout that was not installed
    return versions


def data_digest(columns: Columns, inputs: Sequence[InputColumn], target: NDArray[Any] | None) -> str:
    """sha256 over a canonical table and its target.

    Equal data has an equal digest in any process, whether it came as a file, a data frame or a dataset, since canonical
    columns don't depend on the container's types. Other columns, kinds, rows or another order have another digest.

    ``inputs`` names the columns that are used, in order; the target is ``(n_rows,)`` of float64, int64, bool or texts.
    """
    digest = hashlib.sha256()
    for column in inputs:
        digest.update(f"{len(column.name)}:{column.name}:{column.kind}\0".encode())
        digest.update(_bytes(columns[column.name]))
    if target is not None:
        digest.update(f"target:{target.dtype.kind}\0".encode())
        digest.update(_bytes(target))
    return digest.hexdigest()


def row_digests(columns: Columns, inputs: Sequence[InputColumn]) -> NDArray[Any]:
    """A number for each row, ``(n_rows,) uint64``, equal for rows that are equal in every column used."""
    frame = pd.DataFrame({column.name: _one_zero(columns[column.name]) for column in inputs})
    digests: NDArray[Any] = pd.util.hash_pandas_object(frame, index=False).to_numpy(dtype=np.uint64)
    return digests


def _one_zero(values: NDArray[Any]) -> NDArray[Any]:
    """The values with a single zero and NaN, of which float64 has several."""
    if values.dtype.kind != "f":
        return values
    return np.where(np.isnan(values), np.nan, values + 0.0)  # adding 0.0 turns -0.0 into 0.0


def _bytes(values: NDArray[Any]) -> bytes:
    if values.dtype.kind == "f":
        return _one_zero(values).astype("<f8").tobytes()
    if values.dtype.kind in "OU":
        return pd.util.hash_array(values.astype(object)).astype("<u8").tobytes()  # texts have no fixed width
    return values.tobytes()


def code_commit() -> str | None:
    """The git commit of the working folder, read from the repository's files; None outside of a repository."""
    start = Path.cwd()
    git = next((parent / ".git" for parent in (start, *start.parents) if (parent / ".git").is_dir()), None)
    if git is None:
        return None
    try:
        head = (git / "HEAD").read_text().strip()
        commit = _resolve(git, head.removeprefix("ref: ")) if head.startswith("ref: ") else head
    except (OSError, UnicodeDecodeError):
        return None
    return commit if commit is not None and len(commit) == _COMMIT_LENGTH else None


def _resolve(git: Path, ref: str) -> str | None:
    if (git / ref).is_file():
        return (git / ref).read_text().strip()
    packed = git / "packed-refs"
    if packed.is_file():
        for line in packed.read_text().splitlines():
            if line.endswith(f" {ref}"):
                return line.split(" ", 1)[0]
    return None
