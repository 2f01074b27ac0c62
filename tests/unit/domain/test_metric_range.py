"""Bounds of a metric as people write them."""

import pytest

from ml_core.domain.metric import MetricBound, parse_bound
from ml_core.exceptions import InvalidRequestError


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("accuracy>=0.8", MetricBound("accuracy", at_least=0.8)),
        (" train/mae <= 3 ", MetricBound("train/mae", at_most=3.0)),
        ("loss>=-1e-3", MetricBound("loss", at_least=-0.001)),
    ],
)
def test_a_bound_is_a_name_a_sign_and_a_number(text, bound):
    """With or without blanks between."""
    assert parse_bound(text) == bound


@pytest.mark.parametrize(("name", "parts"), [("accuracy", ("validation", "accuracy")), ("train/mae", ("train", "mae"))])
def test_a_name_without_a_split_is_of_the_validation_rows(name, parts):
    """Those are what versions are compared by."""
    bound = MetricBound(name)
    assert (bound.split, bound.metric) == parts


@pytest.mark.parametrize("text", ["accuracy>0.8", "accuracy==0.8", "accuracy<1", "accuracy=1", "accuracy=>1"])
def test_other_signs_are_refused_with_those_that_there_are(text):
    """The error lists both."""
    with pytest.raises(InvalidRequestError, match=r">= \(at least\) or <= \(at most\)"):
        parse_bound(text)


@pytest.mark.parametrize("text", ["accuracy", ">=0.8", "accuracy>=", "accuracy>=high", "accuracy>=nan", "", "a>=1<=2"])
def test_what_is_no_bound_is_refused_with_an_example(text):
    """And with the argument's own name."""
    with pytest.raises(InvalidRequestError, match=r"accuracy>=0\.8") as caught:
        parse_bound(text)
    assert caught.value.field == "metrics"
