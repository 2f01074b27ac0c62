"""The line that shows how far a long command is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ml_core.cli import console
from support.waiting import wait_until

TERMINAL = {"force_terminal": True, "_environ": {"TERM": "xterm"}, "width": 120}


@pytest.fixture
def drawn(monkeypatch):
    """Replaces standard error by a console, and returns what is written to it; without the --json of another test."""
    token = console.wants_json.set(False)

    def to(**options) -> io.StringIO:
        written = io.StringIO()
        monkeypatch.setattr(console, "err", Console(file=written, **options))
        return written

    yield to
    console.wants_json.reset(token)


def test_a_terminal_shows_share_elapsed_and_remaining_time(drawn):
    """And what the command tells besides."""
    written, items = drawn(**TERMINAL), [1, 2]
    with console.advancing("Collecting", lambda: f"{len(items)} items") as advance:
        wait_until(lambda: "Collecting" in written.getvalue())
        assert "%" not in written.getvalue()  # not known yet
        advance(3, 12)
        wait_until(lambda: "25%" in written.getvalue())
    assert "2 items" in written.getvalue()
    assert "0:00:0" in written.getvalue()


@pytest.mark.parametrize(
    ("options", "json"), [({"force_terminal": False}, False), (TERMINAL, True)], ids=["pipe", "--json"]
)
def test_nothing_is_written_to_a_pipe_or_beside_json(drawn, options, json):
    """Not even control characters."""
    written, token = drawn(**options), console.wants_json.set(json)
    try:
        with console.advancing("Collecting") as advance:
            advance(1, 2)
    finally:
        console.wants_json.reset(token)
    assert written.getvalue() == ""


def test_results_that_go_to_a_file_are_not_redirected_to_the_line(drawn, monkeypatch, capsys):
    """``mlcore fsck > findings`` has the findings in the file, and the line on the terminal."""
    written = drawn(**TERMINAL)
    monkeypatch.setattr(console, "out", Console(force_terminal=False))
    with console.advancing("Checking"):
        console.say("a finding")
    assert capsys.readouterr().out == "a finding\n"
    assert "a finding" not in written.getvalue()
