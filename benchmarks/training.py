"""Every benchmark of training in one run, ours and the peers side by side: one table after the other, one JSON file.

    .venv/bin/python benchmarks/training.py [--small] [--only PART …] [--json FILE]

Each part is a program of its own, ``benchmarks/training_PART.py``, which says what it measures; it runs in a process of
its own, one after another. ``--small`` shows in some minutes that all of them work; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS: Mapping[str, Sequence[str]] = {
    "many": ("--tenants", "20"),
    "strategies": ("--rows", "100000"),
    "lightgbm": ("--rows", "20000", "--rounds", "20"),
    "search": ("--rows", "300", "--trials", "4"),
    "predict": ("--rows", "20000", "--repeats", "1"),
    "latency": ("--jobs", "1"),
}
"""Part → the arguments of a small run."""


def run(part: str, arguments: Sequence[str], folder: Path) -> object:
    """The figures of a part; it prints its table itself.

    Raises:
        CalledProcessError: It failed.
    """
    print(f"== {part}", flush=True)
    figures, home = folder / f"{part}.json", folder / part
    home.mkdir()
    home.chmod(0o711)  # the account of the embedded server enters it
    command = [sys.executable, str(HERE / f"training_{part}.py"), *arguments, "--json", str(figures)]
    subprocess.run(command, check=True, env={**os.environ, "MLCORE_HOME": str(home)})
    return json.loads(figures.read_text(encoding="utf-8"))


def main() -> None:
    """Run the parts and write their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path, default=HERE / "results" / "training.json")
    options = parser.parse_args()
    results: dict[str, object] = {"cores": os.cpu_count(), "python": platform.python_version()}
    with tempfile.TemporaryDirectory(prefix="mlcore-benchmark-") as folder:
        Path(folder).chmod(0o711)
        for part in options.only:
            results[part] = run(part, PARTS[part] if options.small else (), Path(folder))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
