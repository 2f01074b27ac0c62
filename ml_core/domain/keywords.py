"""Suggestions for names that do not exist, and checks of arguments."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ml_core.exceptions import InvalidRequestError


def nearest(given: object, valid: Iterable[object]) -> str:
    """A sentence with the valid names that are near a given one; with all of them if none is near."""
    names = list(map(str, valid))
    close = difflib.get_close_matches(str(given), names, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(close)}?" if close else f"Valid are: {', '.join(names)}."


def texts(name: str, values: Iterable[object]) -> list[str]:
    """An argument that takes several texts.

    Raises:
        InvalidRequestError: It is one text, which would be taken for its characters, or another single value.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        what = "text" if isinstance(values, str) else "value"
        raise InvalidRequestError(f"{name} is one {what}.", remedy=f"Give a list, such as [{values!r}].", field=name)
    return [*map(str, values)]


def check_keywords(call: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Check the keywords of a call of a function.

    Raises:
        TypeError: A keyword is unknown; names it and the nearest valid one, or all.
    """
    names = list(known)
    for name in given:
        if name not in names:
            raise TypeError(f"{call}() has no keyword {name!r}. {nearest(name, names)}")
