"""What `helm test` runs in a pod of a release, run on this machine against a platform of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ml_core.domain.api_key import ApiKey
from ml_core.registry.platform_keys import PlatformKeyRepository
from ml_core.registry.tenants import TenantRepository
from support.helm import IS_PACKAGED, helm
from support.running_platform import RunningPlatform

CHART = Path(__file__).parents[3] / "helm" / "ml-platform"

pytestmark = pytest.mark.skipif(not IS_PACKAGED, reason="the packages with Helm are for Linux on x86-64")


def test_the_test_of_the_chart_passes_with_the_registered_key(platform: RunningPlatform, tmp_path: Path) -> None:
    """It needs the address of the ingress and the key that the set-up registered, and no login of the database."""
    made = helm("template", "ml", str(CHART), "--show-only", "templates/test.yaml")
    assert made.returncode == 0, made.stderr
    (container,) = yaml.safe_load(made.stdout)["spec"]["containers"]
    (script,) = container["args"]
    key = ApiKey.generate()
    PlatformKeyRepository(platform.db).register(str(key), "set-up")
    (tmp_path / "key").write_text(str(key))
    given = {each["name"]: each["value"] for each in container["env"]}
    given |= {"MLCORE_URL": platform.url, "MLCORE_API_KEY_FILE": str(tmp_path / "key")}
    # The pod may write to /tmp only, and it has no login to fall back to.
    given |= {"HOME": "/proc/none", "MLCORE_HOME": "/proc/none", "TMPDIR": str(tmp_path)}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        [*container["command"], script.replace("/tmp/", f"{tmp_path}/")],
        env={"PATH": path, **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "hardware" in ran.stdout
    assert not [each for each in TenantRepository(platform.db).list().items if each.tenant_id.startswith("helm-test")]
