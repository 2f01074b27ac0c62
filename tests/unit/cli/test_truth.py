"""Labels as a person types them, held against what a model answers."""

from __future__ import annotations

from typing import Any

import pytest

from ml_core.cli.truth import read_label
from ml_core.domain.signature import Output, OutputKind
from ml_core.exceptions import InvalidRequestError

NUMBER = Output(OutputKind.NUMBER)


def classes(*known: Any) -> Output:
    return Output(OutputKind.CLASSES, known)


@pytest.mark.parametrize(
    ("text", "output", "label"),
    [
        ("7", classes("7", "8"), "7"),
        ("7", classes(7, 8), 7),
        ("7.0", classes(7, 8), 7),
        ("true", classes(True, False), True),
        ("true", classes("true", "false"), "true"),
        ("1", classes(0, 1), 1),
        ("12.5", NUMBER, 12.5),
        ("-1", Output(OutputKind.ANOMALY), -1),
    ],
)
def test_a_label_is_what_the_model_would_answer(text: str, output: Output, label: Any) -> None:
    """Of its type too: to a comparison the text 7 and the number 7 are two labels."""
    found = read_label(text, output, is_new_class=False)
    assert (found, type(found)) == (label, type(label))


@pytest.mark.parametrize(
    ("text", "output", "told"),
    [
        ("biling", classes("billing", "bug"), "Did you mean billing?"),
        ("true", classes(0, 1), "no class 'true'"),
        ("much", NUMBER, "answers numbers"),
        ("true", NUMBER, "answers numbers"),
        ("NaN", NUMBER, "answers numbers"),
    ],
)
def test_a_label_that_the_model_can_not_answer_is_refused(text: str, output: Output, told: str) -> None:
    """With what it answers."""
    with pytest.raises(InvalidRequestError, match=told.replace("?", r"\?")):
        read_label(text, output, is_new_class=False)
