"""Separate environments for the peers that benchmarks compare with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def peer_python(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of an environment with these packages, which is created on first use or when they changed.

    Args:
        name: The peer.
        requirements: The requirements for pip, with versions.

    Raises:
        RuntimeError: The packages can't be installed; says what pip said.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "mlcore-benchmarks" / name
    python, noted = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join(requirements)
    if python.exists() and noted.exists() and noted.read_text(encoding="utf-8") == wanted:
        return python
    print(f"installing {', '.join(requirements)} into {folder}", file=sys.stderr)
    _run(sys.executable, "-m", "venv", "--clear", str(folder))
    _run(str(python), "-m", "pip", "install", "--quiet", *requirements)
    noted.write_text(wanted, encoding="utf-8")  # last: an interrupted installation is done again
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
