"""The commands of the guides are run, in order, as they stand."""

from __future__ import annotations

import re
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from ml_core.cli.main import run
from ml_core.database.embedded import EmbeddedServer
from support.registry import temporary_home
from support.tables import tickets

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = sorted(guide for guide in DOCS.glob("*.md") if "```console" in guide.read_text(encoding="utf-8"))
# Folders that a guide names as an example; here they are below a temporary one.
EXAMPLES = ("/backups", "/restored")


def commands(guide: Path) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def exit_code() -> int:
    try:
        run()
    except SystemExit as request:
        return int(request.code or 0)
    return 0


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_each_command_of_a_guide_runs(
    guide: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From an empty home, with a table of tickets, each exits with 0."""
    shown = commands(guide)
    assert shown
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_home())
        monkeypatch.chdir(folder)
        tickets().to_csv("tickets.csv", index=False)
        for line in shown:
            for example in EXAMPLES:
                line = line.replace(example, f"{folder}{example}")
            *settings, verb = re.split(r"(?=mlcore )", line, maxsplit=1)
            home = dict(pair.split("=", 1) for pair in "".join(settings).split()).get("MLCORE_HOME", f"{folder}/home")
            Path(home).mkdir(mode=0o711, exist_ok=True)
            stack.callback(EmbeddedServer(Path(home)).stop)
            monkeypatch.setenv("MLCORE_HOME", home)
            monkeypatch.setattr(sys, "argv", shlex.split(verb))
            assert exit_code() == 0, f"{line}\n{capsys.readouterr().err}"
