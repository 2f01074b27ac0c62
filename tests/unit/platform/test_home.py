"""A folder in which the platform can't be kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ml_core.exceptions import PlatformError
from ml_core.platform.local import LocalPlatform
from ml_core.settings import Settings


@pytest.mark.parametrize("occupied", ["home", "home/platform.lock"])
@pytest.mark.parametrize("verb", [LocalPlatform.up, LocalPlatform.down])
def test_a_folder_that_cannot_be_written_is_named_with_its_setting(
    tmp_path: Path, occupied: str, verb: Callable[[LocalPlatform], object]
) -> None:
    """Whatever stands in the way, and before anything is started."""
    if occupied == "home":
        (tmp_path / "home").write_bytes(b"")
    else:
        (tmp_path / occupied).mkdir(parents=True)
    settings = Settings.from_environment({"MLCORE_HOME": str(tmp_path / "home")})
    with pytest.raises(PlatformError, match=r"home can't be written: .*Set MLCORE_HOME"):
        verb(LocalPlatform(settings))
