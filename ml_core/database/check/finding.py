"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass

from ml_core.exceptions import Action


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise that the database does not keep, and what to do about it: SQL, a sentence, or an operation."""

    what: str
    remedy: str
    action: Action | None = None
