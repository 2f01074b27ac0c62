"""The table encoder."""

import pickle
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import skops.io
from scipy import sparse
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from ml_core.data.encoding.datetime import calendar_parts
from ml_core.data.encoding.number import center_and_scale
from ml_core.data.encoding.table import TableEncoder
from ml_core.data.encoding.text import MAX_CHARACTERS, TextEncoder, terms_of, tokenize
from ml_core.domain.columns import ColumnKind, take
from ml_core.exceptions import DataProcessingError
from ml_core.models.formats.allowed_types import ALLOWED

TEXTS = ["the printer is broken", "the Printer, again!", None, "invoice 17 is wrong", "wrong invoice invoice", "…"]
KINDS = [("age", "number"), ("paid", "boolean"), ("seen", "datetime"), ("plan", "category"), ("body", "text")]


@pytest.fixture
def columns():
    """Six rows with missing values in each column."""
    return {
        "age": np.array([20.0, 30.0, np.nan, 50.0, 60.0, 70.0]),
        "paid": np.array([1.0, 0.0, np.nan, 1.0, 0.0, 1.0]),
        "seen": np.array([0.0, 86_400.0, 1.7e9, np.nan, 1.8e9, -1.0]),
        "plan": np.array(["a", "b", None, "a", "c", "a"], dtype=object),
        "body": np.array(TEXTS, dtype=object),
    }


def text_encoder(texts, **options):
    """An encoder of one column that has learned it."""
    encoder = TextEncoder("t", **options)
    encoder.set_learned([encoder.learn(texts)])
    return encoder


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else matrix


def features(encoder, columns):
    """Feature name → values."""
    return dict(zip(encoder.get_feature_names_out(), dense(encoder.transform(columns)).T, strict=True))


def test_the_matrix_is_sparse_only_with_text(columns):
    """Float64 in both cases, with a name for each feature."""
    with_text = TableEncoder(KINDS).fit(columns)
    without = TableEncoder(KINDS[:-1]).fit(columns)
    assert isinstance(with_text.transform(columns), sparse.csr_matrix)
    assert isinstance(without.transform(columns), np.ndarray)
    for encoder in (with_text, without):
        matrix = encoder.transform(columns)
        assert matrix.dtype == np.float64
        assert matrix.shape == (6, encoder.n_features_out) == (6, len(encoder.get_feature_names_out()))
        assert np.isfinite(dense(matrix)).all()


def test_dense_text_gives_the_same_numbers(columns):
    """For estimators that take no sparse matrix."""
    matrix = TableEncoder(KINDS, dense_text=True).fit(columns).transform(columns)
    assert isinstance(matrix, np.ndarray)
    np.testing.assert_array_equal(matrix, TableEncoder(KINDS).fit(columns).transform(columns).toarray())


def test_one_row_alone_is_encoded_as_in_a_batch(columns):
    """To the last bit: a batch must not change an answer."""
    encoder = TableEncoder(KINDS).fit(columns)
    together = encoder.transform(columns).toarray()
    for row in range(6):
        alone = encoder.transform(take(columns, slice(row, row + 1))).toarray()
        np.testing.assert_array_equal(alone[0], together[row])


def test_no_row_gives_no_row(columns):
    """An empty batch is a matrix too."""
    encoder = TableEncoder(KINDS).fit(columns)
    assert encoder.transform(take(columns, slice(0, 0))).shape == (0, encoder.n_features_out)


def test_the_sparse_matrix_is_well_formed(columns):
    """Indices within a row rise and differ, as scipy's own check wants."""
    matrix = TableEncoder(KINDS).fit(columns).transform(columns)
    matrix.check_format(full_check=True)
    for start, end in pairwise(matrix.indptr):
        assert (np.diff(matrix.indices[start:end]) > 0).all()


def test_missing_numbers_get_the_median_and_a_flag(columns):
    """The flag exists only where training had missing values."""
    encoder = TableEncoder([("age", "number")], scaling="none").fit(columns)
    found = features(encoder, columns)
    assert found["age"].tolist() == [20, 30, 50, 50, 60, 70]
    assert found["age is missing"].tolist() == [0, 0, 1, 0, 0, 0]
    complete = TableEncoder([("age", "number")], scaling="none").fit(take(columns, slice(3, 6)))
    assert complete.get_feature_names_out().tolist() == ["age"]
    assert complete.transform({"age": np.array([np.nan])}).tolist() == [[60.0]]


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [("standard", [-1.0, 1.0]), ("minmax", [0.0, 1.0]), ("robust", [-1.0, 1.0]), ("none", [1.0, 3.0])],
)
def test_scalings(scaling, expected):
    """Of the values 1 and 3."""
    columns = {"x": np.array([1.0, 3.0])}
    encoder = TableEncoder([("x", "number")], scaling=scaling).fit(columns)
    assert encoder.transform(columns)[:, 0].tolist() == expected


def test_rounding_noise_is_not_blown_up():
    """The standard deviation of equal numbers is not always exactly zero."""
    _, scale = center_and_scale(np.full((1000, 1), 0.1), "standard")
    assert scale.tolist() == [1.0]


def test_an_unknown_scaling_is_an_error(columns):
    """It names those that exist."""
    with pytest.raises(DataProcessingError, match="Use one of standard"):
        TableEncoder(KINDS, scaling="log").fit(columns)


def test_categories_have_a_feature_each_and_two_more(columns):
    """An unseen value is another value, not an error."""
    encoder = TableEncoder([("plan", "category")]).fit(columns)
    found = features(encoder, {"plan": np.array(["a", "c", None, "new"], dtype=object)})
    assert found["plan = a"].tolist() == [1, 0, 0, 0]
    assert found["plan = c"].tolist() == [0, 1, 0, 0]
    assert found["plan is missing"].tolist() == [0, 0, 1, 0]
    assert found["plan is another value"].tolist() == [0, 0, 0, 1]


def test_many_categories_share_a_feature():
    """At most fifty have their own, and a value seen once in a hundred rows has none."""
    values = np.array([f"v{i % 60}" for i in range(600)] + ["once"], dtype=object)
    encoder = TableEncoder([("c", "category")]).fit({"c": values})
    assert encoder.n_features_out == 52
    assert features(encoder, {"c": values})["c is another value"].sum() == 101


def test_calendar_parts_agree_with_pandas():
    """Before and after 1970, leap days, ends of years."""
    times = pd.Series(
        pd.to_datetime(["1969-12-31 23:59:59", "2000-02-29 00:00:00", "1600-03-01 05:30:00", "2026-11-24 12:00:00"])
    )
    seconds = (times.astype("datetime64[s]").astype("int64")).to_numpy(dtype=np.float64)
    expected = np.column_stack([times.dt.month - 1, times.dt.day - 1, times.dt.day_of_week, times.dt.hour])
    np.testing.assert_array_equal(calendar_parts(seconds), expected)


def test_december_lies_next_to_january():
    """The cyclic features of neighbours are close, for every period."""
    stamps = pd.to_datetime(["2025-12-31 23:00", "2026-01-01 00:00", "2026-07-02 12:00"])
    columns = {"t": (stamps.astype("datetime64[s]").astype("int64")).to_numpy(dtype=np.float64)}
    encoder = TableEncoder([("t", "datetime")]).fit(columns)
    names = encoder.get_feature_names_out().tolist()
    cyclic = encoder.transform(columns)[:, [i for i, name in enumerate(names) if name.endswith(("sin", "cos"))]]
    assert np.linalg.norm(cyclic[0] - cyclic[1]) < 1.3 < np.linalg.norm(cyclic[0] - cyclic[2])


def test_text_is_weighted_as_sklearn_does():
    """Value by value, with the same words and pairs of words."""
    texts = [text for text in TEXTS if text]
    ours = text_encoder(np.array(texts, dtype=object))
    theirs = TfidfVectorizer(analyzer=terms_of, sublinear_tf=True)
    expected = theirs.fit_transform(texts).toarray()
    assert ours.terms == theirs.get_feature_names_out().tolist()
    encoder = TableEncoder([("t", "text")]).fit({"t": np.array(texts, dtype=object)})
    actual = encoder.transform({"t": np.array(texts, dtype=object)}).toarray()
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Don't PANIC, it's 2026!", ["don", "t", "panic", "it", "s", "2026"]),
        ("Caf\u0065\u0301 ＡＢＣ", ["café", "abc"]),  # noqa: RUF001 - full width on purpose
        ("東京へ go", ["東", "京", "へ", "go"]),
        ("x" * 41 + " ok", ["ok"]),
        ("", []),
    ],
)
def test_tokens(text, tokens):
    """Lower case, one form of each letter, characters of scripts without spaces; no hashes."""
    assert tokenize(text) == tokens


def test_a_long_text_is_cut():
    """So that one request can't hold up a replica."""
    assert len(tokenize("a " * MAX_CHARACTERS)) == MAX_CHARACTERS // 2


def test_rare_terms_are_dropped_from_many_texts():
    """Single occurrences among a thousand texts are noise."""
    texts = np.array([f"common unique{i}" for i in range(1000)], dtype=object)
    assert text_encoder(texts).terms == ["common"]


def test_the_most_frequent_terms_are_kept():
    """No more than asked for, equal counts by the text."""
    encoder = text_encoder(np.array(["b c", "c", "a"], dtype=object), max_features=2)
    assert encoder.terms == ["a", "c"]


def test_texts_without_a_word_are_an_error_only_if_nothing_else_is_there(columns):
    """Then there is nothing to learn from."""
    blank = np.array(["!", "?", "…", None, "-", "."], dtype=object)
    encoder = TableEncoder([("age", "number"), ("t", "text")]).fit({**columns, "t": blank})
    assert isinstance(encoder.transform({**columns, "t": blank}), np.ndarray)
    with pytest.raises(DataProcessingError, match="No column can be encoded"):
        TableEncoder([("t", "text")]).fit({"t": blank})


@pytest.mark.parametrize("copy", [lambda e: pickle.loads(pickle.dumps(e)), lambda e: through_skops(e)])
def test_a_stored_encoder_encodes_the_same(columns, copy):
    """To the last bit; also a category with a line break and one ending in NUL."""
    columns = {**columns, "plan": np.array(["a\nb", "x\0", None, "a\nb", "é", "x\0"], dtype=object)}
    encoder = TableEncoder([(name, ColumnKind(kind)) for name, kind in KINDS]).fit(columns)
    again = copy(encoder)
    np.testing.assert_array_equal(again.transform(columns).toarray(), encoder.transform(columns).toarray())
    assert again.get_feature_names_out().tolist() == encoder.get_feature_names_out().tolist()


OURS = {name for name in ALLOWED["ObjectNode"] if name.startswith("ml_core.data.encoding.")} - {
    "ml_core.data.encoding.frame.FrameStep"
}


def through_skops(encoder):
    return skops.io.loads(skops.io.dumps(encoder), trusted=list(OURS))


def test_the_state_is_of_the_listed_types_only(columns):
    """What a server's allow-list needs of ours, and nothing beyond skops' own list."""
    encoder = TableEncoder([(name, ColumnKind(kind)) for name, kind in KINDS]).fit(columns)
    assert set(skops.io.get_untrusted_types(data=skops.io.dumps(encoder))) == OURS


def test_fitting_twice_gives_the_same_state(columns):
    """No order of sets or dictionaries leaks into an artifact."""
    shuffled = take(columns, np.array([5, 3, 1, 0, 2, 4]))
    first, second = (TableEncoder(KINDS).fit(c) for c in (columns, shuffled))
    assert first.get_feature_names_out().tolist() == second.get_feature_names_out().tolist()


def test_kinds_are_inferred_from_a_frame():
    """And a frame is accepted wherever columns are."""
    frame = pd.DataFrame({"x": [1.0, 2.0, None], "k": ["a", "b", "a"], "constant": 1})
    encoder = TableEncoder().fit(frame)
    assert encoder.columns_ == [("x", "number"), ("k", "category")]
    assert encoder.transform(frame).shape == (3, 2 + 4)
    with pytest.raises(DataProcessingError, match="kinds of the columns are not known"):
        TableEncoder().fit({"x": np.array([1.0])})


def test_it_is_a_step_of_a_pipeline(columns):
    """Fitted on columns, asked with columns, cloned as sklearn wants."""
    pipeline = Pipeline([("encode", TableEncoder(KINDS)), ("estimate", LogisticRegression())])
    target = ["x", "x", "y", "y", "y", "x"]
    assert clone(pipeline).fit(columns, target).predict(columns).shape == (6,)
    assert pipeline.fit(columns, target).predict_proba(take(columns, slice(0, 1))).shape == (1, 2)


@pytest.mark.parametrize("scaling", ["standard", "minmax", "robust", "none"])
def test_a_number_beyond_float32_is_the_end_of_its_range(scaling):
    """Whether training or a request holds it: no feature is infinite for an estimator that computes in float32."""
    fitted = TableEncoder([("x", "number")], scaling=scaling).fit({"x": np.array([1.0, 2.0, 3.0, 4.0])})
    largest = float(np.finfo(np.float32).max)
    assert fitted.transform({"x": np.array([1.7e308, -1.7e308])})[:, 0].tolist() == [largest, -largest]
    values = {"x": np.array([1.7e308, -1.7e308, 1e300, 0.0])}
    matrix = TableEncoder([("x", "number")], scaling=scaling).fit(values).transform(values)
    assert np.isfinite(matrix.astype(np.float32)).all()
