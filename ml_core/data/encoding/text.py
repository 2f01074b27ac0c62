"""Texts: words and pairs of words, weighted by tf-idf."""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

# In a script without spaces each character is a token; pairs of tokens stand for words.
TOKENS = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
_TOKEN = re.compile(TOKENS)
# Longer tokens are hashes, keys and encoded bytes: each occurs once and would only fill the vocabulary.
_MAX_TOKEN_CHARACTERS = 40
# Characters of a text that are read. This is for short texts; the bound keeps one request from holding up a replica.
MAX_CHARACTERS = 20_000
# Texts from which the vocabulary is learned, evenly spaced: the pairs of words of millions would not fit in memory.
MAX_FIT_TEXTS = 200_000


def tokenize(text: str) -> list[str]:
    """The lower-case words of a text, in order."""
    if len(text) > MAX_CHARACTERS:
        text = text[:MAX_CHARACTERS]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return [token for token in _TOKEN.findall(text.lower()) if len(token) <= _MAX_TOKEN_CHARACTERS]


def terms_of(text: str) -> list[str]:
    """The words and the pairs of neighbouring words of a text."""
    tokens = tokenize(text)
    return tokens + [f"{first} {second}" for first, second in pairwise(tokens)]


def default_min_df(n_texts: int) -> int:
    """In how many texts a term must occur: all count in a small table, single occurrences are noise in a large one."""
    if n_texts < 1_000:
        return 1
    return 2 if n_texts < 50_000 else 5


class TextEncoder:
    """One text column as tf-idf: ``(1 + ln tf) · (1 + ln((1 + n) / (1 + df)))``, each row of length 1.

    The formula is that of ``sklearn.feature_extraction.text.TfidfVectorizer(sublinear_tf=True)``. A missing text has no
    term; so has a text of unknown words. The ``max_features`` terms of most texts are kept.
    """

    def __init__(self, name: str, max_features: int = 20_000) -> None:
        self.name = name
        self.max_features = max_features

    def learn(self, texts: NDArray[Any]) -> tuple[str, NDArray[np.float64]]:
        """The vocabulary, one term a line, and its weights, of ``(n_rows,)`` object str or None."""
        present = [text for text in texts.tolist() if text is not None]
        present = present[:: max(1, -(-len(present) // MAX_FIT_TEXTS))]
        frequency: Counter[str] = Counter()
        for text in present:
            frequency.update(set(terms_of(text)))
        min_df = default_min_df(len(present))
        kept = [term for term, count in frequency.items() if count >= min_df] or list(frequency)
        kept.sort(key=lambda term: (-frequency[term], term))
        terms = sorted(kept[: self.max_features])
        counts = np.array([frequency[term] for term in terms], dtype=np.float64)
        return "\n".join(terms), np.log((1 + len(present)) / (1 + counts)) + 1.0

    def set_learned(self, learned: Sequence[tuple[str, NDArray[np.float64]]]) -> None:
        """Set what ``learn`` returned of the column."""
        ((terms, self.idf_),) = learned
        # One buffer, because an array of strings takes the longest one's room for each.
        self.terms_ = np.frombuffer(terms.encode(), dtype=np.uint8).copy()
        self._build()

    def _build(self) -> None:
        """The lookup, which is derived from the state and not stored."""
        self._index = {term: index for index, term in enumerate(self.terms)}
        self._idf: list[float] = self.idf_.tolist()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "terms_" in state:
            self._build()

    @property
    def names(self) -> list[str]:
        """The column, as other encoders name theirs."""
        return [self.name]

    @property
    def terms(self) -> list[str]:
        """The vocabulary, sorted."""
        text = self.terms_.tobytes().decode()
        return text.split("\n") if text else []

    @property
    def feature_names(self) -> list[str]:
        """One a feature."""
        return [f"{self.name} has '{term}'" for term in self.terms]

    @property
    def feature_columns(self) -> list[str]:
        """The column of each feature."""
        return [self.name] * self.width

    @property
    def width(self) -> int:
        """The number of features."""
        return len(self.idf_)

    def encode(self, text: str | None, offset: int, indices: array[int], values: array[float]) -> None:
        """Append the terms of one text: their features, counted from ``offset`` and rising, and their weights."""
        if text is None:
            return
        index = self._index
        counts: dict[int, int] = {}
        for term in terms_of(text):
            found = index.get(term)
            if found is not None:
                counts[found] = counts.get(found, 0) + 1
        if not counts:
            return
        idf = self._idf
        present = sorted(counts)
        weights = [idf[i] if counts[i] == 1 else idf[i] * (1.0 + math.log(counts[i])) for i in present]
        # fsum rounds once, so the norm is the same in any order of the terms.
        norm = math.sqrt(math.fsum([weight * weight for weight in weights]))
        indices.extend([offset + i for i in present])
        values.extend([weight / norm for weight in weights])
