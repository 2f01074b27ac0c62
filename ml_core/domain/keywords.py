"""Check of keyword arguments, with a suggestion for an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def check_keywords(call: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Check the keywords of a call.

    Args:
        call: The name of the function, for the message.
        given: The keywords of the call.
        known: The valid keywords.

    Raises:
        TypeError: A keyword is unknown; names it and the nearest valid one, or all.
    """
    names = list(known)
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            remedy = f"Did you mean {close[0]!r}?" if close else f"Valid are: {', '.join(names)}."
            raise TypeError(f"{call}() has no keyword {name!r}. {remedy}")
