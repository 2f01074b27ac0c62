"""Labelled tables and texts that installed packages carry: scikit-learn, statsmodels, River and chatterbot-corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import river.datasets
import yaml
from sklearn import datasets
from statsmodels import api as statsmodels

Table = tuple[pd.DataFrame, "pd.Series[Any]"]


def tables() -> Iterator[tuple[str, bool, Table]]:
    """Name, whether the target is a class, and columns and target of each."""
    for name, load in _CLASSES.items():
        yield name, True, load()
    for name, load in _NUMBERS.items():
        yield name, False, load()


def _sklearn(load: Callable[..., Any]) -> Callable[[], Table]:
    return lambda: load(as_frame=True, return_X_y=True)


def _statsmodels(name: str, target: str, *left_out: str) -> Callable[[], Table]:
    def load() -> Table:
        frame = getattr(statsmodels.datasets, name).load_pandas().data
        return frame.drop(columns=[target, *left_out]), frame[target]

    return load


def _river(dataset: Any, target: Callable[[Any], Any] = lambda value: value) -> Callable[[], Table]:
    def load() -> Table:
        rows, targets = zip(*dataset(), strict=True)
        return pd.DataFrame(list(rows)), pd.Series([target(value) for value in targets], name="target")

    return load


def _water_flow() -> Table:
    frame, target = _river(river.datasets.WaterFlow)()
    return frame.assign(Time=pd.to_datetime(frame["Time"], utc=True).dt.tz_localize(None)), target


def _affairs() -> Table:
    frame = statsmodels.datasets.fair.load_pandas().data
    return frame.drop(columns="affairs"), frame["affairs"].gt(0).map({True: "yes", False: "no"})


def _questions(language: str) -> Callable[[], Table]:
    """First lines of conversations, and the file that they are in; one that several files have is left out."""

    def load() -> Table:
        spec = find_spec("chatterbot_corpus")
        assert spec is not None
        assert spec.origin is not None
        found: dict[str, set[str]] = {}
        for file in sorted((Path(spec.origin).parent / "data" / language).glob("*.yml")):
            for conversation in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]:
                found.setdefault(str(conversation[0]).strip(), set()).add(file.stem)
        frame = pd.DataFrame([(text, *of) for text, of in found.items() if len(of) == 1], columns=["text", "topic"])
        frame = frame[frame.groupby("topic")["topic"].transform("size") >= 20].reset_index(drop=True)
        return frame[["text"]], frame["topic"]

    return load


_CLASSES: dict[str, Callable[[], Table]] = {
    "breast cancer": _sklearn(datasets.load_breast_cancer),
    "wine": _sklearn(datasets.load_wine),
    "digits": _sklearn(datasets.load_digits),
    "phishing": _river(river.datasets.Phishing),
    "image segments": _river(river.datasets.ImageSegments),
    "bananas": _river(river.datasets.Bananas),
    "solar flares": _river(river.datasets.SolarFlare, lambda value: "yes" if value["c-class-flares"] else "no"),
    "affairs": _affairs,
    "party": _statsmodels("anes96", "PID"),
    "vote": _statsmodels("anes96", "vote"),
    "chat, English": _questions("english"),
    "chat, Spanish": _questions("spanish"),
}
_NUMBERS: dict[str, Callable[[], Table]] = {
    "diabetes": _sklearn(datasets.load_diabetes),
    "doctor visits": _statsmodels("randhie", "mdvis"),
    "schools": _statsmodels("star98", "NABOVE"),
    "chicks": _river(river.datasets.ChickWeights),
    "approval": _river(river.datasets.TrumpApproval),
    "water flow": _water_flow,
}
