"""A real cluster, named by MLCORE_TEST_CONTEXT, with the platform as `make kind` installs it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.waiting import wait_until

CONTEXT = os.environ.get("MLCORE_TEST_CONTEXT")
URL = "http://127.0.0.1:30080"
CHART = Path(__file__).parents[2] / "helm" / "ml-platform"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of this folder where there is no cluster."""
    for item in items:
        if item.path.parent.name == "kind":
            item.add_marker(pytest.mark.timeout(900))
            if CONTEXT is None:
                item.add_marker(pytest.mark.skip(reason="MLCORE_TEST_CONTEXT names no cluster: make kind kind-test"))


@dataclass
class Kubernetes:
    """The release on the cluster, by kubectl."""

    namespace: str = "mlcore"
    release: str = "ml"
    url: str = URL

    @property
    def name(self) -> str:
        """Of the release's objects."""
        return f"{self.release}-ml-platform"

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """Run kubectl in the namespace, with a text as its input; its output."""
        command = ("kubectl", "--context", str(CONTEXT), "--namespace", self.namespace, *arguments)
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def pods(self, component: str) -> list[str]:
        """The names of the pods of a component that are not being deleted."""
        labels = f"app.kubernetes.io/instance={self.release},app.kubernetes.io/component={component}"
        found = json.loads(self.kubectl("get", "pod", "-l", labels, "-o", "json"))["items"]
        return [each["metadata"]["name"] for each in found if "deletionTimestamp" not in each["metadata"]]

    def get(self, kind: str, name: str, path: str) -> str:
        """A field of an object."""
        return self.kubectl("get", kind, name, "-o", f"jsonpath={{{path}}}")

    def status(self) -> dict[str, Any]:
        """What ``mlcore status`` shows to people, with their own rights; it fails unless all is well."""
        program = str(Path(sys.executable).with_name("mlcore"))
        of = ("--namespace", self.namespace, "--release", self.release, "--context", str(CONTEXT))
        done = subprocess.run(
            (program, "status", *of, "--json"), capture_output=True, text=True, check=False, timeout=60
        )
        shown: dict[str, Any] = json.loads(done.stdout)
        assert (done.returncode == 0) == (shown["state"] == "running"), done.stderr
        return shown

    def cause(self, code: str) -> dict[str, str] | None:
        """The cause with a code, of those that hold the release back."""
        return next((each for each in self.status()["causes"] if each["code"] == code), None)

    def upgrade(self, *arguments: str) -> None:
        """Upgrade the release with its present values and some others."""
        self.helm("upgrade", self.release, str(CHART), "--reuse-values", "--timeout", "10m", *arguments)

    def helm(self, *arguments: str, given: str | None = None) -> str:
        """Run Helm in the namespace, with a text as its input; its output."""
        command = ["helm", *arguments, "--kube-context", str(CONTEXT), "--namespace", self.namespace]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=900)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @cached_property
    def platform_key(self) -> str:
        """The first key of the platform, as docs/kubernetes.md says."""
        return base64.b64decode(self.get("secret", f"{self.name}-platform-key", ".data.key")).decode()


@pytest.fixture(scope="session")
def cluster() -> Kubernetes:
    """The release, which answers."""
    found = Kubernetes()
    found.kubectl("wait", "--for=condition=Ready", "--timeout=10m", f"rayservice/{found.name}")
    wait_until(lambda: httpx.get(f"{URL}/readyz", trust_env=False).status_code == 200, timeout_s=60)
    return found
