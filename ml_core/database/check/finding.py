"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise that the database does not keep, and what to do about it."""

    what: str
    remedy: str
