"""Files of a version for use without a platform: no server, no database, no settings.

``.joblib`` is the fitted pipeline itself, for Python with this package: it takes raw data frames. ``.skops`` is a
pipeline of scikit-learn's own classes, for Python without this package: it takes a typed data frame. ``.onnx`` is one
graph for any runtime, see ``onnx_export``. The latter two are compared with the version before a file is written.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from ml_core.data.encoding.category import CategoryEncoder
from ml_core.data.encoding.number import NumberEncoder
from ml_core.data.encoding.table import TableEncoder
from ml_core.data.encoding.text import TOKENS, TextEncoder
from ml_core.domain.columns import ColumnKind, Columns
from ml_core.domain.signature import OutputKind, Row
from ml_core.exceptions import ConfigurationError, InvalidRequestError, ModelSaveError
from ml_core.models.loading import LoadedModel

_MISSING, _OTHER = "\0missing", "\0another value"
_UNSEEN = "a value that no training has seen"
_FACTORS = (-1.0, 0.5, 2.0)
_MAX_COMPARED = 2_000  # rows
_MAX_REASON = 200
# Some operators of ONNX answer in float32, such as that of linear classifiers; trees are summed in float64.
_TOLERANCE = 1e-5
_Step = tuple[str, Any, Any]


def export_model(model: LoadedModel, rows: Sequence[Row], file: str | Path) -> Path:
    """Write a model as a file that does not exist yet, in the format that its ending names.

    Args:
        model: The loaded version.
        rows: Raw rows, with which the exported model is compared.
        file: Ends with ``.joblib``, ``.skops`` or ``.onnx``.

    Raises:
        InvalidRequestError: The ending is another, or the file exists or can't be written.
        ModelSaveError: The format can't hold the model, and why.
        ConfigurationError: A package that the format needs is not installed.
    """
    path = Path(file)
    write = _WRITERS.get(path.suffix)
    if write is None:
        raise InvalidRequestError(
            f"{path.name} ends with none of {', '.join(_WRITERS)}.",
            remedy="Name a file with such an ending.",
            field="file",
        )
    if path.exists():
        raise InvalidRequestError(f"The file {path} exists.", remedy="Name another file.", field="file")
    try:
        write(model, rows, path)
    except OSError as error:
        raise InvalidRequestError(
            f"The file {path} can't be written: {error.strerror}.", remedy="Name another file.", field="file"
        ) from error
    return path


def _write_joblib(model: LoadedModel, rows: Sequence[Row], path: Path) -> None:  # noqa: ARG001 - it is the model itself
    joblib.dump(model.pipeline, path)


def _write_skops(model: LoadedModel, rows: Sequence[Row], path: Path) -> None:
    try:
        from skops import io
    except ImportError:
        raise _not_installed("skops") from None
    plain = plain_pipeline(model)

    def answer(columns: Columns) -> Sequence[NDArray[Any]]:
        frame = pd.DataFrame(dict(columns))
        probabilities = [plain.predict_proba(frame)] if hasattr(plain, "predict_proba") else []
        return [np.asarray(plain.predict(frame)), *probabilities]

    _compare(model, answer, rows)
    io.dump(plain, path)


def _write_onnx(model: LoadedModel, rows: Sequence[Row], path: Path) -> None:
    try:
        from ml_core.models.onnx_export import run, to_onnx
    except ImportError as error:
        raise _not_installed(str(error.name)) from None
    encoder, estimator = _parts(model)
    if encoder.texts_:
        raise _refused(model, f"the graph has no encoder of texts, as in the column {encoder.texts_[0].name!r}")
    try:
        made = to_onnx(encoder, estimator)
        _compare(model, lambda columns: run(made, columns), rows)
    except ModelSaveError:
        raise
    except Exception as error:  # skl2onnx and the runtime raise errors of many classes
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:_MAX_REASON]}"
        raise _refused(model, f"{type(estimator).__name__} can't be converted ({reason})") from error
    path.write_bytes(made)


_WRITERS: Final[Mapping[str, Callable[[LoadedModel, Sequence[Row], Path], None]]] = {
    ".joblib": _write_joblib,
    ".skops": _write_skops,
    ".onnx": _write_onnx,
}


def plain_pipeline(model: LoadedModel) -> Pipeline:
    """The model as a pipeline of scikit-learn's own classes.

    It takes a data frame with the columns of the signature: numbers and booleans as numbers, categories and texts as
    strings, None or NaN where a value is missing.

    Raises:
        ModelSaveError: A part of the model has no such form.
    """
    encoder, estimator = _parts(model)
    if not type(estimator).__module__.startswith("sklearn."):
        raise _refused(model, f"{type(estimator).__name__} is no estimator of scikit-learn")
    parts = [part for of in encoder.dense_ for part in _dense_parts(of)]
    parts += [(f"text {index}", _words(of), [of.name]) for index, of in enumerate(encoder.texts_)]
    is_sparse = bool(encoder.texts_) and not encoder.dense_text
    encode = ColumnTransformer(parts, sparse_threshold=1.0 if is_sparse else 0.0).fit(_frame_to_fit(encoder))
    _set_learned(encode, encoder)
    order = ColumnTransformer([("order", "passthrough", _order(encoder))], sparse_threshold=1.0 if is_sparse else 0.0)
    order.fit(np.zeros((1, encoder.n_features_out)))
    return Pipeline([("encode", encode), ("order", order), ("estimate", estimator)])


def _parts(model: LoadedModel) -> tuple[TableEncoder, Any]:
    """The encoder and the estimator.

    Raises:
        ModelSaveError: They are not the platform's encoder without dates and an estimator.
    """
    steps = getattr(model.pipeline, "steps", [])
    encoder, estimator = (step for _, step in steps) if len(steps) == 2 else (None, model.pipeline)
    if type(encoder) is not TableEncoder:
        raise _refused(model, "its first step is not the platform's encoder")
    if dates := [name for name, kind in encoder.columns_ if kind == ColumnKind.DATETIME]:
        raise _refused(model, f"it has no encoder of dates, as in the column {dates[0]!r}")
    return encoder, estimator


def _dense_parts(encoder: Any) -> Iterator[_Step]:
    """The steps that give the features of numbers or categories, but for the order of the latter."""
    if isinstance(encoder, NumberEncoder):
        yield "numbers", Pipeline([("impute", SimpleImputer()), ("scale", StandardScaler())]), encoder.names
        if flagged := [encoder.names[index] for index in encoder.flagged_]:
            yield "missing numbers", MissingIndicator(features="all"), flagged
        return
    for index, (name, categories) in enumerate(zip(encoder.names, encoder.categories_, strict=True)):
        # Unknown values count as infrequent, and of those that fit sees only one is.
        one_hot = OneHotEncoder(
            categories=[[*categories, _MISSING, _OTHER]],
            handle_unknown="infrequent_if_exist",
            min_frequency=2,
            sparse_output=False,
        )
        yield f"category {index}", Pipeline([*_filled(_MISSING), ("encode", one_hot)]), [name]


def _words(encoder: TextEncoder) -> Pipeline:
    words = TfidfVectorizer(vocabulary=encoder.terms, token_pattern=TOKENS, ngram_range=(1, 2), sublinear_tf=True)
    return Pipeline([*_filled(""), ("ravel", FunctionTransformer(np.ravel)), ("words", words)])


def _filled(text: str) -> list[tuple[str, Any]]:
    """Steps that put a text where a string is missing; scikit-learn tells None from NaN."""
    return [
        (name, SimpleImputer(missing_values=missing, strategy="constant", fill_value=text, keep_empty_features=True))
        for name, missing in (("fill NaN", np.nan), ("fill None", None))  # in this order: the second refuses NaN
    ]


def _frame_to_fit(encoder: TableEncoder) -> pd.DataFrame:
    """A table on which each step learns its shape: each value of a category twice, ``_OTHER`` once."""
    values: dict[str, list[Any]] = {}
    for part in (*encoder.dense_, *encoder.texts_):
        for index, name in enumerate(part.names):
            if isinstance(part, CategoryEncoder):
                values[name] = [*(2 * [*part.categories_[index], _MISSING]), _OTHER]
            else:
                values[name] = [0.0] if isinstance(part, NumberEncoder) else ["text"]
    rows = max(map(len, values.values()))
    return pd.DataFrame({name: (of + of[:1] * rows)[:rows] for name, of in values.items()})


def _set_learned(encode: ColumnTransformer, encoder: TableEncoder) -> None:
    """Put what the platform's encoder has learned into the steps."""
    fitted = encode.named_transformers_
    for part in encoder.dense_:
        if isinstance(part, NumberEncoder):
            fitted["numbers"]["impute"].statistics_ = part.fill_
            scale = fitted["numbers"]["scale"]
            scale.mean_, scale.scale_, scale.var_ = part.center_, part.scale_, np.square(part.scale_)
    for index, text in enumerate(encoder.texts_):
        fitted[f"text {index}"]["words"].idf_ = text.idf_


def _order(encoder: TableEncoder) -> list[int]:
    """Where each feature of the platform's encoder is: scikit-learn has "another value" last, behind "missing"."""
    places, start = [], 0
    for part in (*encoder.dense_, *encoder.texts_):
        widths = [len(of) + 2 for of in part.categories_] if isinstance(part, CategoryEncoder) else [part.width]
        for width in widths:
            found = [*range(start, start + width)]
            if isinstance(part, CategoryEncoder):
                found[-2:] = found[:-3:-1]
            places += found
            start += width
    return places


def _compare(model: LoadedModel, answer: Callable[[Columns], Sequence[NDArray[Any]]], rows: Sequence[Row]) -> None:
    """Check that both answer the rows alike, also where values are missing, unseen or other numbers.

    Raises:
        ModelSaveError: They do not.
    """
    signature = model.version.signature
    changed = itertools.chain.from_iterable(_changed(row, model) for row in rows)
    asked = [*rows, *itertools.islice(changed, _MAX_COMPARED)]
    if not asked:
        raise _refused(model, "it has no row to compare with")
    columns = signature.columns_from_rows(asked)
    predicted, probabilities = model.predict_both(columns)
    found, *others = answer(columns)
    decided: Any = slice(None)
    if probabilities is not None and probabilities.shape[1] > 1:
        best = np.sort(probabilities, axis=1)
        decided = best[:, -1] - best[:, -2] > _TOLERANCE  # of two equal probabilities either may be named
    same = _is_same(found[decided], predicted[decided], is_number=signature.output.kind is OutputKind.NUMBER)
    if same and probabilities is not None:
        same = bool(others) and _is_same(others[0], probabilities, is_number=True)
    if not same:
        raise _refused(model, f"the exported model answers {len(asked)} rows otherwise")


def _changed(row: Row, model: LoadedModel) -> Iterator[dict[str, Any]]:
    for column in model.version.signature.inputs:
        if column.nullable:
            yield {**row, column.name: None}
        if not column.kind.is_numeric:
            yield {**row, column.name: _UNSEEN}
        elif column.kind is ColumnKind.NUMBER and row[column.name] is not None:
            yield from ({**row, column.name: row[column.name] * factor} for factor in _FACTORS)


def _is_same(found: Any, wanted: Any, *, is_number: bool) -> bool:
    if is_number:
        return np.allclose(found, wanted, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
    return bool(np.array_equal(found, wanted))


def _not_installed(package: str) -> ConfigurationError:
    return ConfigurationError(
        f"{package}, which the format needs, is not installed.",
        remedy="Run: pip install 'ml-core-platform[export]'",
        setting="export",
    )


def _refused(model: LoadedModel, why: str) -> ModelSaveError:
    ref = model.version.ref
    return ModelSaveError(
        f"{ref} can't be exported in this format: {why}.",
        remedy="Export it as .joblib, which holds every model.",
        **ref.attributes,
    )
