"""Curves as a line of blocks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ml_core.cli.curves import sparkline


def test_height_is_the_value() -> None:
    """From the lowest to the highest; a gap is blank, and a constant is flat."""
    assert sparkline([0.0, 7.0, None, 3.5]) == "▁█ ▅"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([None, None]) == "  "


@given(st.lists(st.none() | st.floats(-1e300, 1e300), min_size=1, max_size=500), st.integers(2, 60))
def test_a_curve_fits_its_width_and_keeps_its_ends(values: list[float | None], width: int) -> None:
    """Whatever the numbers."""
    line = sparkline(values, width)
    assert 0 < len(line) <= width + 1
    assert (line[0] == " ") == (values[0] is None)
    assert (line[-1] == " ") == (values[-1] is None)
