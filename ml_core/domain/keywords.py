"""Keywords that a call takes by name: another one is refused with the nearest that there is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def check_keywords(call: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a keyword that a call does not have.

    Args:
        call: What the caller called, for the message.
        given: The keywords that it gave.
        known: Those that there are.

    Raises:
        TypeError: Names the keyword, and the nearest one or all.
    """
    names = list(known)
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            remedy = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(names)}."
            raise TypeError(f"{call}() has no keyword {name!r}. {remedy}")
