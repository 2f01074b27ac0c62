"""What the architecture page points at is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PLACES = sorted(set(re.findall(r"`([a-z_0-9]+(?:/[a-z_0-9]+)+(?:\.py)?)`", TEXT)))


@pytest.mark.parametrize("place", PLACES)
def test_each_place_that_is_named_exists(place):
    """A file or folder, from the root or inside ``ml_core``."""
    assert any((root / place).exists() for root in (ROOT, ROOT / "ml_core"))


def test_each_package_says_its_mission():
    """A newcomer finds the room from its docstring."""
    for folder in sorted((ROOT / "ml_core").rglob("__init__.py")):
        assert folder.read_text(encoding="utf-8").lstrip().startswith('"""'), folder
