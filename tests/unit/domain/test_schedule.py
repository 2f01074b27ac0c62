"""The times of a cron line: in their zone, over changes of the clocks, and never twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.domain.schedule import Cron
from ml_core.exceptions import InvalidRequestError

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "after", "wanted"),
    [
        # The clocks go forward on 29 March 2026: 02:30 does not exist, and is due at 03:00 there.
        ("30 2 * * *", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
        # They go back on 25 October: 02:30 comes twice, and is due once.
        ("30 2 * * *", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
        ("30 2 * * *", "2026-10-25T01:10", ["2026-10-26T01:30"]),
        # What goes by elapsed time does so.
        ("*/30 * * * *", "2026-10-25T00:15", ["2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30"]),
        ("0 3 * * *", "2026-07-01T00:59", ["2026-07-01T01:00"]),
        ("0 3 29 2 *", "2026-01-01T00:00", ["2028-02-29T02:00"]),
    ],
)
def test_times_are_those_of_the_zone(line: str, after: str, wanted: list[str]) -> None:
    """Of Berlin: in winter one hour before UTC, in summer two."""
    moment, found = utc(after), []
    for _ in wanted:
        moment = Cron(line, "Europe/Berlin").after(moment)
        found.append(moment)
    assert found == [utc(text) for text in wanted]


@given(
    st.sampled_from(["30 2 * * *", "*/7 * * * *", "0 */2 * * *", "15 1,2,3 * * *", "59 23 * * SUN", "0 0 1 * *"]),
    st.sampled_from(ZONES),
    st.integers(1_700_000_000, 1_900_000_000).map(lambda second: datetime.fromtimestamp(second, UTC)),
)
def test_the_next_time_is_later_and_there_is_none_between(line: str, zone: str, moment: datetime) -> None:
    """Also for a moment within a change of the clocks: nothing is repeated, nothing left out."""
    cron = Cron(line, zone)
    following = cron.after(moment)
    assert following > moment
    assert cron.after(following - timedelta(seconds=1)) == following
    assert cron.after(moment + (following - moment) / 2) == following


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "has 0 fields; five are needed"),
        ("0 3 * *", "has 4 fields"),
        ("0 0 3 * * *", "has 6 fields"),
        ("@daily", "has 1 fields"),
        ("60 * * * *", "bad minute"),
        ("0 24 * * *", "bad hour"),
        ("0 0 0 * *", "bad day-of-month"),
        ("0 0 31 2 *", "bad day-of-month"),
        ("0 0 * 13 *", "bad month"),
        ("0 0 * * 8", "bad day-of-week"),
        ("x" * 500, "has 1 fields"),
    ],
)
def test_an_impossible_line_says_what_is_wrong(line: str, message: str) -> None:
    """And what to give."""
    with pytest.raises(InvalidRequestError, match=message) as refused:
        Cron(line)
    assert (refused.value.field, "minute, hour, day" in refused.value.remedy) == ("cron", True)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("zone", ["Europe/Berln", "", "../../etc/passwd", "/etc/localtime", "x" * 300])
def test_a_zone_that_does_not_exist_is_refused(zone: str) -> None:
    """With the nearest name; nothing outside of the database of zones is read."""
    with pytest.raises(InvalidRequestError, match="no time zone") as refused:
        Cron("0 3 * * *", zone)
    assert refused.value.field == "timezone"
    assert ("Did you mean Europe/Berlin" in str(refused.value)) == (zone == "Europe/Berln")
