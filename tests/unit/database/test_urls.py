"""Database URLs."""

from __future__ import annotations

import pytest

from ml_core.database.urls import DatabaseUrls, parse, safe
from ml_core.exceptions import ConfigurationError


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_gets_the_driver(scheme: str) -> None:
    """Heroku's, libpq's and SQLAlchemy's spelling are one."""
    assert parse(f"{scheme}://u:p@h:1/d").drivername == "postgresql+psycopg"


def test_another_driver_is_refused() -> None:
    """Drivers that are not installed are named, the password is not."""
    with pytest.raises(ConfigurationError) as caught:
        parse("postgresql+asyncpg://u:s3cret@h/d")
    assert "asyncpg" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_what_is_shown_has_no_password() -> None:
    """Neither in the user part nor in the options; the host of a socket stays."""
    url = parse("postgresql://u:s3cret@/d?host=/run/pg&password=s3cret&sslpassword=s3cret")
    assert safe(url) == "postgresql://u:***@/d?host=%2Frun%2Fpg"
    assert "s3cret" not in repr(DatabaseUrls(*["postgresql://u:s3cret@h/d"] * 3))
