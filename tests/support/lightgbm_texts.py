"""Archives of LightGBM models with changed texts. As a script: loads each change of each of them and asks what loads.

A change is refused, or answers as a walk in Python over its own numbers does: it reads no others. The script prints how
many were refused and answered; a crash ends it with the number of a signal.
"""

from __future__ import annotations

import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import lightgbm
import numpy as np

from ml_core.exceptions import UnsafeArtifactError
from ml_core.models.formats import skops_format
from ml_core.models.formats.archive import load_array, read_members
from ml_core.models.lightgbm_estimators import LightGBMClassifier, LightGBMRegressor

_RANDOM = np.random.default_rng(0)
X = np.column_stack([_RANDOM.normal(size=(300, 2)), _RANDOM.integers(0, 40, 300)])
X[:30, 0] = np.nan
ROWS = np.vstack([X[:6], [[np.nan] * 3, [np.inf] * 3, [-np.inf] * 3, [1e300] * 3, [-1.0] * 3, [0.0] * 3]])
_SCORE = np.nan_to_num(X[:, 0]) + X[:, 1]
MODELS = ("number", "three", "categories")
VALUES = ("-1", "3", "40", "2147483647", "-2147483648", "9" * 19, "1e999", "nan", "", "1 1", "1\0")


def model(name: str) -> Any:
    """A small fitted estimator: ``number``, ``three`` or, with splits by categories, ``categories``."""
    arguments = {"n_estimators": 1, "num_leaves": 4, "random_state": 0}
    if name == "three":
        return LightGBMClassifier(**arguments).fit(X, np.digitize(_SCORE, [-1, 1]))
    estimator = LightGBMRegressor(**arguments).fit(X, _SCORE)
    if name == "number":
        return estimator
    data = lightgbm.Dataset(X, 9 * (X[:, 2] % 3) + _SCORE, categorical_feature=[2], params={"verbosity": -1})
    settings = {"objective": "regression", "verbosity": -1, "num_leaves": 4, "min_data_per_group": 1, "cat_smooth": 1}
    return estimator.adopt(lightgbm.train(settings, data, 2).model_to_string())


def text_of(archive: bytes) -> tuple[str, str]:
    """The member that holds the model's text, and the text."""
    for name, member in read_members(archive).items():
        if name.endswith(".npy") and (array := load_array(member)).dtype == np.uint8:
            return name, array.tobytes().decode("latin-1")
    raise AssertionError("the archive has no text")


def with_text(archive: bytes, text: str) -> bytes:
    """The archive with another text."""
    stream = io.BytesIO()
    np.save(stream, np.frombuffer(text.encode("latin-1"), dtype=np.uint8))
    return zipped({**read_members(archive), text_of(archive)[0]: stream.getvalue()})


def with_state(archive: bytes, **changes: Any) -> bytes:
    """The archive with other attributes of the estimator, as JSON."""
    members = read_members(archive)
    schema = json.loads(members["schema.json"])
    schema["content"].update(changes)
    return zipped({**members, "schema.json": json.dumps(schema).encode()})


def zipped(members: dict[str, bytes]) -> bytes:
    """A zip of the members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def changes(text: str) -> Iterator[str]:
    """Each number replaced by each of ``VALUES``; each line left out, doubled and the last."""
    for found in re.finditer(r"-?[0-9][0-9.]*(?:e[+-]?[0-9]+)?", text):
        for value in VALUES:
            yield text[: found.start()] + value + text[found.end() :]
    lines = text.splitlines(keepends=True)
    for at, line in enumerate(lines):
        yield "".join(lines[:at] + lines[at + 1 :])
        yield "".join([*lines[:at], line, *lines[at:]])
        yield "".join(lines[:at])


def walk(text: str, row: Any) -> list[float]:
    """The raw score of each output for a row, by the text's own numbers."""
    n_outputs = int(re.search(r"num_tree_per_iteration=(\d+)", text)[1])
    scores = [0.0] * n_outputs
    for index, block in enumerate(text.partition("\nend of trees")[0].split("\nTree=")[1:]):
        tree = dict(line.split("=") for line in block.splitlines()[1:] if "=" in line)
        numbers = {key: [float(number) for number in value.split()] for key, value in tree.items()}
        node = 0 if numbers["left_child"] else -1
        while node >= 0:
            side = "left_child" if _goes_left(numbers, node, row) else "right_child"
            node = int(numbers[side][node])
        scores[index % n_outputs] += numbers["leaf_value"][~node]
    return scores


def _goes_left(tree: dict[str, list[float]], node: int, row: Any) -> bool:
    value, kind, threshold = (
        row[int(tree["split_feature"][node])],
        int(tree["decision_type"][node]),
        tree["threshold"][node],
    )
    if kind & 1:
        if not 0 <= value < 2**31:  # nan too
            return False
        begin, end = (int(tree["cat_boundaries"][int(threshold) + step]) for step in (0, 1))
        word = begin + int(value) // 32
        return word < end and bool(int(tree["cat_threshold"][word]) >> int(value) % 32 & 1)
    missing = kind >> 2
    if np.isnan(value) and missing != 2:
        value = 0.0
    if (missing == 1 and abs(value) <= 1e-35) or (missing == 2 and np.isnan(value)):
        return bool(kind & 2)
    return bool(value <= threshold)


def main() -> None:
    """Load every change of each model's text."""
    refused = answered = 0
    for name in MODELS:
        archive = skops_format.dump(model(name))
        for text in changes(text_of(archive)[1]):
            try:
                loaded = skops_format.load(with_text(archive, text))
            except UnsafeArtifactError:
                refused += 1
                continue
            answered += 1
            loaded.predict(ROWS)
            raw = loaded._booster.predict(ROWS, raw_score=True, num_threads=1).reshape(len(ROWS), -1)
            np.testing.assert_allclose(raw, [walk(text, row) for row in ROWS], rtol=1e-12, err_msg=text)
    sys.stdout.write(json.dumps({"refused": refused, "answered": answered}))


if __name__ == "__main__":
    main()
