"""What a collection may remove, and in which order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.domain.retention import is_due, without_needed_parents

NOW = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("archived_at", "expected"),
    [(None, False), (NOW - timedelta(days=29), False), (NOW - timedelta(days=30), True), (NOW, False)],
)
def test_due_after_the_whole_retention(archived_at: datetime | None, expected: bool) -> None:
    """A live version is never due; an archived one is from the day on that the retention ends."""
    assert is_due(archived_at, NOW, timedelta(days=30)) is expected


def test_a_parent_goes_after_its_last_child() -> None:
    """A chain goes whole, children first; with a child that stays, everything that it was made from stays."""
    due = {"1": 1, "2": 2, "3": 3}
    assert without_needed_parents(due, [("1", "2"), ("2", "3")]) == ["3", "2", "1"]
    assert without_needed_parents({"1": 1, "2": 2}, [("1", "2"), ("2", "3")]) == []
    assert without_needed_parents(due, [("1", "2"), ("1", "4")]) == ["3", "2"]


@given(st.dictionaries(st.integers(2, 12), st.integers(1, 11)), st.sets(st.integers(1, 12)))
def test_whatever_stays_keeps_its_ancestors(parents: dict[int, int], due: set[int]) -> None:
    """For any family tree: no version goes whose child stays, and nothing stays without a reason."""
    edges = [(str(parent), str(child)) for child, parent in parents.items() if parent < child]
    gone = set(without_needed_parents({str(n): n for n in due}, edges))
    for parent, child in edges:
        assert parent not in gone or child in gone
    for kept in {str(n) for n in due} - gone:
        assert any(parent == kept and child not in gone for parent, child in edges)
