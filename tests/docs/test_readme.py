"""What the README says is run."""

import os
import re
import subprocess
import sys
from pathlib import Path

from typer.main import get_command

from ml_core.cli.main import app
from ml_core.settings import all_variables
from support.registry import temporary_home

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


_CHECK = """
import sys
print(result["metrics"]["validation"]["accuracy"] > 0.9, "ray" in sys.modules)
"""


def test_the_five_lines_run():
    """As they stand, in a process of their own: they print the row's own class, and no Ray is loaded."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    program = code + _CHECK
    with temporary_home() as home:
        environment = {**os.environ, "MLCORE_HOME": str(home)}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "True", "False"]
    assert len([line for line in code.splitlines() if line and not line.startswith(("from", "import"))]) <= 5


def test_each_setting_is_in_the_table():
    """With its meaning, word for word; and nothing that is no setting."""
    settings = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `((?:MLCORE|OTEL)_\w+)` \| (.*) \|$", settings, re.MULTILINE))
    assert table == all_variables()


def test_each_verb_that_is_shown_exists():
    """Every `mlcore …` of the README is a verb of the command, and its options exist."""
    root = get_command(app)
    shown = re.findall(r"^mlcore (.+?)(?:\s+#.*)?$", README, re.MULTILINE)
    assert len(shown) >= 6
    for line in shown:
        words, command = line.partition(" -- ")[0].split(), root
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
