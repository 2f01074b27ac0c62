"""Rollouts: what may follow what, and which side of a canary answers a key."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.domain.rollout import (
    BUCKETS,
    TRANSITIONS,
    Canary,
    Change,
    Phase,
    RolloutState,
    Side,
    Trigger,
    advance,
    bucket,
    choose,
)
from ml_core.exceptions import InvalidRequestError, InvalidTransitionError
from ml_core.ids import VersionId

A, B, C = (VersionId(name) for name in "abc")
POINTER = ("acme", "tickets", "production")
STATES = [
    RolloutState(),
    RolloutState(A),
    RolloutState(A, Canary(B, 5)),
    RolloutState(A, None, C),
    RolloutState(A, Canary(B, 5, "customer"), C),
]

versions = st.sampled_from([A, B, C])
changes = st.builds(
    Change, st.sampled_from(Trigger), versions, st.integers(-1, 101), st.sampled_from([None, "customer"])
)
keys = st.text(max_size=40)


def is_valid(state: RolloutState) -> bool:
    """What the table's constraints say, in Python."""
    if state.stable is None:
        return state.canary is None and state.shadow is None
    named = [state.stable, *([state.canary.version] if state.canary else []), *([state.shadow] if state.shadow else [])]
    return len(set(named)) == len(named) and (state.canary is None or 1 <= state.canary.percent <= 99)


@given(st.lists(changes, max_size=30))
def test_no_sequence_of_moves_reaches_a_state_that_is_forbidden(moves: list[Change]) -> None:
    """Each move gives a valid state in the phase that the table names, or is refused and changes nothing."""
    state = RolloutState()
    for change in moves:
        try:
            after = advance(state, change)
        except (InvalidTransitionError, InvalidRequestError):
            continue
        assert is_valid(after)
        assert after.phase is TRANSITIONS[state.phase, change.trigger]
        state = after


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.phase.value)
@pytest.mark.parametrize("trigger", Trigger)
def test_each_pair_is_allowed_as_the_table_says(state: RolloutState, trigger: Trigger) -> None:
    """And every pair that it does not name is refused by both names, with something to do."""
    change = Change(trigger, VersionId("d"), 50)
    if (state.phase, trigger) in TRANSITIONS:
        assert advance(state, change).phase is TRANSITIONS[state.phase, trigger]
        return
    with pytest.raises(InvalidTransitionError) as caught:
        advance(state, change)
    assert caught.value.attributes() == {"phase": state.phase, "trigger": trigger}
    assert caught.value.remedy
    assert "is not possible while" in caught.value.message
    assert "_" not in caught.value.message


@pytest.mark.parametrize(
    ("trigger", "remedy"),
    [
        (Trigger.FINISH, "Promote the version of the shadow"),
        (Trigger.ABORT, "Stop the shadow"),
        (Trigger.STEP, "has no share"),
    ],
)
def test_what_is_asked_of_a_shadow_that_only_a_canary_does(trigger: Trigger, remedy: str) -> None:
    """The remedy is about the shadow: to start a canary first is not what is wanted."""
    with pytest.raises(InvalidTransitionError) as caught:
        advance(RolloutState(VersionId("a"), None, VersionId("b")), Change(trigger, VersionId("d"), 50))
    assert remedy in str(caught.value.remedy)


def test_what_each_move_does() -> None:
    """One after the other, from nothing to a finished canary and back to nothing."""
    state = advance(RolloutState(), Change(Trigger.PROMOTE, A))
    assert state == RolloutState(A)
    state = advance(state, Change(Trigger.START_CANARY, B, 5, "customer"))
    assert state == RolloutState(A, Canary(B, 5, "customer"))
    state = advance(state, Change(Trigger.START_SHADOW, C))
    assert state == RolloutState(A, Canary(B, 5, "customer"), C)
    state = advance(state, Change(Trigger.STEP, percent=50))
    assert state == RolloutState(A, Canary(B, 50, "customer"), C)
    assert advance(state, Change(Trigger.ABORT)) == RolloutState(A, None, C)
    assert advance(state, Change(Trigger.STOP_SHADOW)) == RolloutState(A, Canary(B, 50, "customer"))
    state = advance(state, Change(Trigger.FINISH))
    assert state == RolloutState(B, None, C)
    assert advance(state, Change(Trigger.ROLLBACK, A)) == RolloutState(A)
    assert advance(state, Change(Trigger.PROMOTE, A)) == RolloutState(A)
    assert advance(state, Change(Trigger.WITHDRAW)) == RolloutState()


@pytest.mark.parametrize("sticky", ["", "x" * 201, "a\nb", "\0"])
def test_a_sticky_column_that_can_not_be_one(sticky: str) -> None:
    """Is refused by its field."""
    with pytest.raises(InvalidRequestError) as caught:
        advance(RolloutState(A), Change(Trigger.START_CANARY, B, 5, sticky))
    assert caught.value.attributes()["field"] == "sticky"


@given(keys, st.integers(1, 99))
def test_a_key_stays_on_its_side(key: str, percent: int) -> None:
    """The same key is answered by the same side each time, and once by the canary then by it for any larger share."""
    side = choose(POINTER, percent, key)
    assert choose(POINTER, percent, key) is side
    if side is Side.CANARY:
        assert all(choose(POINTER, more, key) is Side.CANARY for more in range(percent, 100))
    assert 0 <= bucket(POINTER, key) < BUCKETS


@pytest.mark.parametrize("percent", [1, 5, 50, 99])
def test_the_canary_gets_its_share(percent: int) -> None:
    """Of 20,000 keys, within five standard deviations of the binomial distribution."""
    count, share = 20_000, percent / 100
    canary = sum(choose(POINTER, percent, f"customer {i}") is Side.CANARY for i in range(count))
    assert abs(canary - count * share) < 5 * math.sqrt(count * share * (1 - share))


def test_pointers_choose_independently() -> None:
    """Who gets one model's canary is not thereby more likely to get another's: a quarter gets both of two halves."""
    count, other = 20_000, ("acme", "churn", "production")
    both = sum(
        choose(POINTER, 50, str(i)) is Side.CANARY and choose(other, 50, str(i)) is Side.CANARY for i in range(count)
    )
    assert abs(both - count / 4) < 5 * math.sqrt(count * 3 / 16)


def test_names_do_not_run_together() -> None:
    """A key that begins as a name ends does not count as that name."""
    assert bucket(("acme", "a", "b"), "ck") != bucket(("acme", "a", "bc"), "k")


def test_a_side_never_changes_between_releases() -> None:
    """Replicas of two releases serve side by side during an update: these values are for ever."""
    assert [bucket(POINTER, key) for key in ("", "7", "customer 1", "é")] == [7718, 7794, 1335, 1983]


def test_the_phases_are_those_of_the_states() -> None:
    """Each state is in one of the five."""
    assert [state.phase for state in STATES] == list(Phase)


def test_a_step_to_the_same_percent_is_none() -> None:
    """It would be a move in the history that moved nothing."""
    state = RolloutState(VersionId("1"), Canary(VersionId("2"), 20))
    with pytest.raises(InvalidRequestError, match="already answers 20 percent"):
        advance(state, Change(Trigger.STEP, percent=20))
