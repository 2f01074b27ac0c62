"""What the README says is run."""

import re
from pathlib import Path

import pytest
from support.registry import temporary_home
from support.tables import split_target, tickets
from typer.main import get_command

from ml_core.cli.main import app
from ml_core.settings import all_variables

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def own_home(monkeypatch):
    """A home that is gone afterwards, and the server in it."""
    with temporary_home() as home:
        monkeypatch.setenv("MLCORE_HOME", str(home))
        yield home


def test_the_five_lines_run(own_home):
    """As they stand, on tickets; the answer is one of the classes, and no Ray is started."""
    import sys

    frame = tickets().rename(columns={"minutes_open": "minutes"}).drop(columns=["is_paying"])
    X, y = split_target(frame, "category")
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {"X": X, "y": y}
    lines = code.strip().splitlines()
    exec("\n".join(lines[:-1]), names)
    assert eval(lines[-1], names) in set(y)
    assert len([line for line in lines if line and not line.startswith(("from", "import"))]) <= 5
    assert "ray" not in sys.modules


def test_each_setting_is_in_the_table():
    """With its meaning, word for word; and nothing that is no setting."""
    table = dict(re.findall(r"^\| `(MLCORE_\w+)` \| (.*) \|$", README, re.MULTILINE))
    assert table == all_variables()


def test_each_verb_that_is_shown_exists():
    """Every `mlcore …` of the README is a verb of the command, and its options exist."""
    root = get_command(app)
    shown = re.findall(r"^mlcore (.+?)(?:\s+#.*)?$", README, re.MULTILINE)
    assert len(shown) >= 6
    for line in shown:
        words, command = line.split(), root
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_the_make_targets_exist():
    """Both doors, and those of the contributing guide."""
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    contributing = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README + contributing, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
