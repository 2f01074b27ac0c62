"""Exported models answer as the platform's, in a process that has less than the platform."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from skops import io

from ml_core.data.reading import rows_from_frame
from ml_core.domain.signature import OutputKind
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import InvalidRequestError, ModelSaveError
from ml_core.ids import Digest, ModelId, TenantId, VersionId, VersionRef
from ml_core.models.exporting import export_model
from ml_core.models.formats import skops_format
from ml_core.models.loading import LoadedModel
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest

# Imports that a process without the platform's package refuses; the package's own are on the path of the tests.
WITHOUT_PACKAGE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ml_core":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
"""


def table(rows: int = 200, *, with_text: bool = True) -> pd.DataFrame:
    """Numbers with gaps, a boolean, categories with gaps of which one occurs once, and a text with gaps."""
    random = np.random.default_rng(4)
    frame = pd.DataFrame(
        {
            "size": random.normal(50, 20, rows).round(2),
            "age": random.integers(0, 90, rows).astype(float),
            "is_new": random.choice([True, False], rows),
            "a__b": random.choice(["red", "green", "blue"], rows).astype(object),
            "shape": ["once", *random.choice(["round", "long"], rows - 1)],
        }
    )
    words = np.array(
        ["please refund my payment", "the printer is broken again", "payment payment refund"], dtype=object
    )
    if with_text:
        frame["note"] = random.choice(words, rows)
        frame.loc[random.random(rows) < 0.1, "note"] = None
    frame.loc[random.random(rows) < 0.2, "age"] = np.nan
    frame.loc[random.random(rows) < 0.2, "a__b"] = None
    return frame


def loaded(frame: pd.DataFrame, target: Any, model_type: str | None = None, **hyperparameters: Any) -> LoadedModel:
    """A model that was trained, saved and loaded as a version is."""
    request = TrainingRequest(ModelId("m"), model_type, (frame, target), hyperparameters=hyperparameters)
    fitted = fit_model(request)
    ref = VersionRef(TenantId("acme"), ModelId("m"), VersionId("1"))
    servable = ServableVersion(
        ref, fitted.model_type, Digest("0" * 64), 1, skops_format.FORMAT, fitted.signature, fitted.self_test
    )
    return LoadedModel(servable, skops_format.load(skops_format.dump(fitted.pipeline)))


def asked() -> pd.DataFrame:
    """Rows with gaps and with values that training has not seen."""
    frame = table(60)
    frame.loc[3:6, ["a__b", "shape", "note"]] = ["violet", "square", "entirely new words"]
    frame.loc[7:9, ["age", "size"]] = [1e6, -1e6]
    return frame


def answers(script: str, folder: Path, frames: dict[str, pd.DataFrame]) -> dict[str, list[Any]]:
    """What a new process answers, which is given nothing but the files and their rows."""
    pd.to_pickle(frames, folder / "rows.pkl")
    code = f"{script}\nimport json, pandas as pd\nframes = pd.read_pickle({str(folder / 'rows.pkl')!r})\n"
    code += "print(json.dumps({file: load(file).predict(frame).tolist() for file, frame in frames.items()}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


TARGETS = {
    "logistic_regression": "label", "random_forest": "label", "naive_bayes": "label", "ridge": "number",
    "gradient_boosting": "number", "lightgbm": "number", "kmeans": None, "isolation_forest": None,
}  # fmt: skip
SMALL = {
    "random_forest": {"n_estimators": 5}, "isolation_forest": {"n_estimators": 5}, "gradient_boosting": {"max_iter": 5},
    "lightgbm": {"n_estimators": 5},
}  # fmt: skip
TYPES = {"kmeans": "clustering", "isolation_forest": "anomaly_detection"}


def test_lightgbm_is_no_skops_file_of_scikit_learn(tmp_path: Path) -> None:
    """The message says in which format it is kept."""
    model = loaded(table().drop(columns="size"), table()["size"], algorithm="lightgbm", n_estimators=5)
    with pytest.raises(ModelSaveError, match="LightGBMRegressor is no estimator of scikit-learn"):
        export_model(model, model.version.self_test.rows, tmp_path / "m.skops")


def test_a_skops_file_needs_scikit_learn_alone(tmp_path: Path) -> None:
    """Each answer is the version's, also where values are missing or new; all types are NumPy's and scikit-learn's."""
    frame, asked_of, wanted = table(), {}, {}
    targets = {"label": np.where(frame["size"] > 50, "big", "small"), "number": frame["size"] * 2, None: None}
    for algorithm, kind in TARGETS.items():
        if algorithm == "lightgbm":
            continue
        inputs = frame.drop(columns="size") if kind else frame
        model = loaded(inputs, targets[kind], TYPES.get(algorithm), algorithm=algorithm, **SMALL.get(algorithm, {}))
        file = str(export_model(model, model.version.self_test.rows, tmp_path / f"{algorithm}.skops"))
        assert {name.partition(".")[0] for name in io.get_untrusted_types(file=file)} <= {"numpy", "sklearn"}
        asked_of[file] = asked()[inputs.columns]
        wanted[file] = model.predict_frame(asked_of[file])
    script = f"{WITHOUT_PACKAGE}\nfrom skops import io\n"
    script += "load = lambda file: io.load(file, trusted=io.get_untrusted_types(file=file))"
    for file, found in answers(script, tmp_path, asked_of).items():
        if wanted[file].dtype.kind == "f":
            assert np.allclose(found, wanted[file]), file
        else:
            assert found == wanted[file].tolist(), file


@pytest.mark.parametrize("algorithm", TARGETS)
def test_an_onnx_file_answers_as_the_version(algorithm: str, tmp_path: Path) -> None:
    """From raw columns, in any runtime; also where values are missing or new."""
    frame, kind = table(with_text=False), TARGETS[algorithm]
    targets = {"label": np.where(frame["size"] > 50, "big", "small"), "number": frame["size"] * 2, None: None}
    inputs = frame.drop(columns="size") if kind else frame
    model = loaded(inputs, targets[kind], TYPES.get(algorithm), algorithm=algorithm, **SMALL.get(algorithm, {}))
    file = export_model(model, model.version.self_test.rows, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    _compare_in_runtime(session, model, asked()[inputs.columns])


def _compare_in_runtime(session: Any, model: LoadedModel, rows: pd.DataFrame) -> None:
    """The answers of a runtime to raw columns are the version's."""
    given = {}
    for each in session.get_inputs():
        values = rows[each.name]
        is_text = each.type == "tensor(string)"
        given[each.name] = np.array(values.fillna("") if is_text else values, dtype=object if is_text else float)[
            :, None
        ]
    found, *others = session.run(None, given)
    wanted = model.predict_frame(rows)
    if model.version.signature.output.kind is OutputKind.NUMBER:
        assert np.allclose(found, wanted, rtol=1e-6)
    else:
        assert found.tolist() == wanted.tolist()
    if model.has_probabilities:
        columns = model.version.signature.columns_from_rows(rows_from_frame(rows))
        assert np.allclose(others[0], model.predict_proba(columns), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("parameters", [{"algorithm": "gradient_boosting", "max_iter": 5},
                                        {"algorithm": "lightgbm", "n_estimators": 5}])  # fmt: skip
def test_boosted_classes_in_onnx(classes: int, parameters: dict[str, Any], tmp_path: Path) -> None:
    """Of two classes and of more; labels may be numbers."""
    frame = table(with_text=False)
    target = np.digitize(frame["size"], [50, 60][: classes - 1])
    inputs = frame[["age", "is_new", "a__b"]].assign(size=frame["size"].round())
    model = loaded(inputs, target, **parameters)
    file = export_model(model, model.version.self_test.rows, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [each.type for each in session.get_outputs()] == ["tensor(int64)", "tensor(double)"]
    _compare_in_runtime(session, model, asked()[["age", "is_new", "a__b"]].assign(size=asked()["size"].round()))


def test_a_joblib_file_takes_raw_frames(tmp_path: Path) -> None:
    """Dates as text and all; with the package, and without a server or settings."""
    frame = table()
    frame["day"] = pd.date_range("2026-01-01", periods=len(frame), freq="D").strftime("%d.%m.%Y")
    model = loaded(frame, np.where(frame["size"] > 50, "big", "small"), algorithm="logistic_regression")
    file = str(export_model(model, [], tmp_path / "m.joblib"))
    found = answers("from joblib import load", tmp_path, {file: frame})
    assert found[file] == model.predict_frame(frame).tolist()
    with pytest.raises(ModelSaveError, match=r"no encoder of dates, as in the column 'day'.*\.joblib"):
        export_model(model, model.version.self_test.rows, tmp_path / "m.skops")
    assert not (tmp_path / "m.skops").exists()


def test_a_model_that_answers_otherwise_is_not_written(tmp_path: Path) -> None:
    """The comparison is with the model and not with itself."""
    frame = table(with_text=False)
    model = loaded(frame, frame["size"] * 2, algorithm="ridge")
    encoder = model.pipeline.steps[0][1]
    original = encoder.transform
    encoder.transform = lambda columns: original(columns) + 1.0
    with pytest.raises(ModelSaveError, match=r"answers .* rows otherwise"):
        export_model(model, model.version.self_test.rows, tmp_path / "m.skops")
    with pytest.raises(ModelSaveError, match="no row to compare"):
        export_model(model, [], tmp_path / "m.skops")


def test_what_a_file_may_be_called(tmp_path: Path) -> None:
    """An ending says the format; no file is replaced."""
    frame = table(with_text=False)
    model = loaded(frame, frame["size"] * 2, algorithm="ridge")
    with pytest.raises(InvalidRequestError, match=r"none of \.joblib, \.skops, \.onnx"):
        export_model(model, [], tmp_path / "m.pickle")
    file = export_model(model, [], tmp_path / "m.joblib")
    for refused in (file, tmp_path / "absent" / "m.joblib"):
        with pytest.raises(InvalidRequestError, match="Name another file"):
            export_model(model, [], refused)
