"""Tables: whatever is in them and however narrow the terminal is, no word is cut."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_core.cli import console

WORD = st.text("abcdefghij_=.", min_size=1, max_size=40)
CELL = st.lists(WORD, max_size=8).map(" ".join)
COLUMNS = ["run_id", "error", "started_at"]


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=4), st.integers(10, 160))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_word_is_shown_whole(
    capsys: pytest.CaptureFixture[str], rows: list[tuple[str, str, str]], width: int
) -> None:
    """Half an id is of no use: where a table would cut words, each row is shown line by line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console.out, "_width", width)
        console.print_rows([dict(zip(COLUMNS, row, strict=True)) for row in rows], COLUMNS, empty="")
    shown = capsys.readouterr().out.split()
    assert {word for row in rows for cell in row for word in cell.split()} <= set(shown)
    assert not any(word.endswith("…") for word in shown)


@given(st.lists(WORD, min_size=1, max_size=20).map(" ".join), st.integers(10, 80))
def test_a_text_is_cut_where_a_word_ends(text: str, width: int) -> None:
    """At most so long, and by whole words unless one fills more than half of it."""
    short = console.shorten(text, width)
    assert len(short) <= width
    if len(text) <= width:
        assert short == text
    else:
        begin = short.removesuffix("…")
        assert text.startswith(begin)
        assert text[len(begin)] in " ,;:" or max(map(len, text[:width].split())) > width // 3


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("the customer asked for it", "the customer…"),
        ("the customers, and", "the customers…"),
        ("d5668107b54748ad61bd7cca45f9207c", "d5668107b54748…"),
        ("exactly 15 long", "exactly 15 long"),
    ],
)
def test_examples_of_cut_texts(text: str, short: str) -> None:
    """At 15 characters."""
    assert console.shorten(text, 15) == short
