"""The demo's two real tables, written as the CSV files that a user would bring."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from ml_core.exceptions import ConfigurationError

_MIN_QUESTIONS = 20
"""Categories with fewer distinct questions can't be both learned and measured."""


def write_questions(path: Path) -> int:
    """Short English questions and what they are about, from the ``chatterbot-corpus`` package.

    A question is the first line of a conversation, and its category is the name of its file. The corpus repeats
    itself (one file lists 1,050 pairs of 20 unique strings), so questions are made unique here, before anything is
    split; those of two categories are left out.

    Args:
        path: The CSV file to write, with the columns ``question`` and ``category``.

    Returns:
        The number of rows written.
    """
    categories: dict[str, set[str]] = {}
    texts: dict[str, str] = {}
    for file in sorted(_corpus_folder().glob("*.yml")):
        for question in _first_lines(file):
            categories.setdefault(question.casefold(), set()).add(file.stem)
            texts.setdefault(question.casefold(), question)
    unambiguous = [(texts[key], *found) for key, found in categories.items() if len(found) == 1]
    counts = Counter(category for _, category in unambiguous)
    rows = [row for row in unambiguous if counts[row[1]] >= _MIN_QUESTIONS]
    pd.DataFrame(rows, columns=["question", "category"]).to_csv(path, index=False)
    return len(rows)


def write_tumours(path: Path) -> int:
    """The breast cancer table of scikit-learn (Wisconsin diagnostic, 569 samples of 30 measures), labels as words.

    Args:
        path: The CSV file to write; the target column is ``diagnosis``.

    Returns:
        The number of rows written.
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer(as_frame=True)
    table = bunch.data.rename(columns=lambda name: name.replace(" ", "_"))
    table["diagnosis"] = bunch.target.map(dict(enumerate(bunch.target_names)))
    table.to_csv(path, index=False)
    return len(table)


def _corpus_folder() -> Path:
    spec = find_spec("chatterbot_corpus")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "The demo's texts are not installed.",
            remedy="Install them with `pip install 'ml-core-platform[demo]'`; `make demo` does it for you.",
            setting="chatterbot-corpus",
        )
    return Path(spec.origin).parent / "data" / "english"


def _first_lines(file: Path) -> list[str]:
    import yaml

    conversations = yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]
    return [str(conversation[0]).strip() for conversation in conversations if conversation]
