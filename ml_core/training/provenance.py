"""Where a version came from: its data, its code and its libraries, for the lineage."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_LIBRARIES = ("ml-core-platform", "numpy", "pandas", "scikit-learn", "scipy", "skops")
_COMMIT_LENGTH = 40


def library_versions() -> dict[str, str]:
    """Distribution → version of what a fitted pipeline's numbers depend on, and of Python."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # running from a checkout that was not installed
    return versions


def dataset_digest(frame: pd.DataFrame, target: NDArray[Any] | None) -> str:
    """sha256 over names, values and order of a table and its target; the same for equal tables in any process."""
    digest = hashlib.sha256()
    digest.update("\x1f".join(map(str, frame.columns)).encode())
    for position in range(frame.shape[1]):
        hashes = pd.util.hash_pandas_object(_hashable(frame.iloc[:, position]), index=False)
        digest.update(hashes.to_numpy(dtype=np.uint64).tobytes())
    if target is not None:
        digest.update(target.dtype.str.encode() + target.tobytes())
    return digest.hexdigest()


def _hashable(series: pd.Series[Any]) -> pd.Series[Any]:
    return series.map(str) if series.dtype == object else series


def code_commit(folder: Path | None = None) -> str | None:
    """The git commit of the working folder, read from the repository's files; None where there is none."""
    start = (folder or Path.cwd()).absolute()
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
