"""MLflow's own client, in a process and packages of its own: those of requirements-mlflow.lock."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

_LOCK = Path(__file__).parents[2] / "requirements-mlflow.lock"


def _packages() -> Path:
    """The folder with the packages, which is filled once for each lock and Python."""
    about = f"{sys.version_info[:2]}\n{_LOCK.read_text(encoding='utf-8')}"
    kept = Path(sys.prefix) / "mlflow-client"
    kept.mkdir(exist_ok=True)
    folder = kept / hashlib.sha256(about.encode()).hexdigest()[:12]
    with FileLock(kept / ".lock"):  # the tests have two workers
        if not folder.exists():
            made = folder.with_suffix(".part")
            options = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps", "--upgrade"]
            command = [sys.executable, "-m", "pip", "install", *options, "--target", str(made), "-r", str(_LOCK)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            made.rename(folder)
    return folder


def run_mlflow(script: Path, uri: str, key: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script that tracks with the address and the key, to its end; its output and errors are texts."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "MLCORE_"))}
    own = {
        "PYTHONPATH": str(_packages()),
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_TRACKING_TOKEN": key,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, env=ours | own, capture_output=True, text=True, check=False, timeout=240)
