"""Names of datasets' versions, and profiles as documents."""

import json

import pytest

from ml_core.domain.columns import ColumnKind
from ml_core.domain.dataset import ColumnProfile, TableProfile, parse_reference
from ml_core.exceptions import InvalidNameError, InvalidRequestError


@pytest.mark.parametrize(
    ("text", "expected"), [("tickets_2026@3", ("tickets_2026", 3)), ("tickets_2026", ("tickets_2026", None))]
)
def test_a_reference_is_a_name_with_or_without_a_number(text, expected):
    """Without one the newest version is meant."""
    assert parse_reference(text) == expected


@pytest.mark.parametrize("text", ["t@0", "t@-1", "t@1.0", "t@", "t@3@4", "t@x"])
def test_what_follows_the_sign_is_a_number(text):
    """From 1, as versions are."""
    with pytest.raises(InvalidRequestError, match="tickets_2026@3"):
        parse_reference(text)


def test_the_name_is_parsed():
    """So no path and no capital gets through."""
    with pytest.raises(InvalidNameError):
        parse_reference("../etc@1")


def test_a_profile_survives_json():
    """Every field arrives, through real JSON."""
    number = ColumnProfile(
        "n", "int64", ColumnKind.NUMBER, 3, 1, 2, 0, 1.0, 2.0, 1.5, 0.5, (1.0, 2.0), (3,), (("1", 2), ("2", 1)), 0
    )
    profile = TableProfile(10, 4, (number, ColumnProfile("x", "null", None, 0, 4, 0)))
    assert TableProfile.from_json(json.loads(json.dumps(profile.to_json()))) == profile
    assert profile.is_sample
    assert profile.column("x").kind is None
    assert profile.column("y") is None
