"""``TuneSpec`` and ``Dimension``: a search as JSON, checked field by field."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.domain.job_spec import TuneJobSpec
from ml_core.domain.search_space import Dimension
from ml_core.domain.tune_spec import Sampler, TuneSpec
from ml_core.exceptions import InvalidRequestError

whole = st.integers(-(10**6), 10**6)
real = st.floats(-1e6, 1e6).map(lambda value: float(f"{value:.6g}"))
bounds = st.one_of(st.tuples(whole, whole), st.tuples(real, real)).filter(lambda pair: pair[0] < pair[1])
ranges = bounds.map(lambda pair: {"low": pair[0], "high": pair[1]})
logs = bounds.filter(lambda pair: pair[0] > 0).map(lambda pair: {"low": pair[0], "high": pair[1], "log": True})
stepped = st.tuples(bounds, st.integers(1, 50)).map(
    lambda of: {"low": of[0][0], "high": of[0][1], "step": (of[0][1] - of[0][0]) / of[1]}
)
scalars = st.one_of(st.none(), st.booleans(), whole, real, st.text(max_size=5))
choices = st.lists(scalars, min_size=1, max_size=6).map(lambda values: {"choices": values})
dimensions = st.one_of(ranges, logs, stepped, choices)
anything = st.recursive(
    st.one_of(scalars, st.floats(), st.integers()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=6,
)
names = st.sampled_from(["low", "high", "log", "step", "choices"])


def refusal(call: Callable[[], object]) -> InvalidRequestError | None:
    """The error that a call raises; None: it raises none."""
    try:
        call()
    except InvalidRequestError as error:
        return error
    return None


@given(dimensions, st.integers(0, 2**31))
def test_a_dimension_survives_json_and_draws_what_it_contains(form, seed) -> None:
    """Also its ends, and each value of a grid."""
    dimension = Dimension.parse("x", form)
    assert Dimension.parse("x", json.loads(json.dumps(dimension.to_json()))) == dimension
    random = np.random.default_rng(seed)
    values = [dimension.draw(random) for _ in range(5)] + list(dimension.ends)
    if dimension.size is not None:
        values += [dimension.value(index) for index in {0, dimension.size // 2, dimension.size - 1}]
    for value in values:
        assert dimension.contains(value)
        assert not dimension.is_whole or type(value) is int


@given(st.one_of(anything, st.dictionaries(names, anything)))
def test_whatever_is_no_dimension_is_refused_with_the_name(form) -> None:
    """Nothing but the one error, whatever JSON it is."""
    error = refusal(lambda: Dimension.parse("max_depth", form))
    assert error is None or (error.remedy and "'max_depth'" in error.message)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("2..12", {"low": 2, "high": 12}),
        ("-1..1", {"low": -1, "high": 1}),
        ("0..1:0.25", {"low": 0, "high": 1, "step": 0.25}),
        ("0.1..0.9", {"low": 0.1, "high": 0.9}),
        ("log:0.001:0.3", {"low": 0.001, "high": 0.3, "log": True}),
        ("log:1e-3:10", {"low": 0.001, "high": 10, "log": True}),
        ("gini, entropy", {"choices": ["gini", "entropy"]}),
        ("none,5,true,0.5", {"choices": [None, 5, True, 0.5]}),
    ],
)
def test_a_text_is_a_short_form(text, form) -> None:
    """Of the command line, and everywhere else too."""
    assert Dimension.parse("x", text) == Dimension.parse("x", form)


def test_a_logarithmic_range_is_drawn_evenly_on_its_scale() -> None:
    """Half of the values lie below the geometric mean."""
    dimension, random = Dimension.parse("x", "log:0.001:10"), np.random.default_rng(0)
    drawn = [dimension.draw(random) for _ in range(1_000)]
    assert 0.45 < np.mean(np.array(drawn) < math.sqrt(0.001 * 10)) < 0.55


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("5..2", "empty range"),
        ({"low": 1, "high": 1}, "empty range"),
        ("log:0:1", "logarithmic from 0"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "with a step"),
        ("0..1:2", "the step 2"),
        ({"low": 1, "hihg": 2}, "Did you mean high"),
        ({"low": 1}, "neither low and high nor choices"),
        ({"low": 1, "high": 2, "choices": [1]}, "as well as choices"),
        ({"low": 1, "high": float("nan")}, "no finite number"),
        ([], "empty list"),
        (7, "single value"),
        ("gini", "2..12 for whole numbers"),
        ("1..x", "in the place of a number"),
    ],
)
def test_each_mistake_in_a_dimension_has_its_words(form, said) -> None:
    """With the name of the hyperparameter."""
    with pytest.raises(InvalidRequestError, match="The space of 'depth'") as refused:
        TuneSpec(algorithm="decision_tree", space={"depth": form})
    assert said in str(refused.value)
    assert refused.value.field == "space"


WHOLE = {
    "algorithm": "gradient_boosting",
    "space": {"learning_rate": {"low": 0.001, "high": 0.3, "log": True}, "max_depth": {"choices": [None, 4]}},
    "sampler": "random",
    "folds": 3,
    "trials": 20,
    "seconds": 60.5,
    "cpu_seconds": 600,
    "early_stopping": False,
    "metric": "f1_macro",
    "seed": 7,
}


def test_a_search_is_read_from_json_and_written_back() -> None:
    """To the last field, also inside of a job."""
    spec = TuneSpec.from_json(json.loads(json.dumps(WHOLE)))
    assert (spec.to_json(), spec.sampler) == (WHOLE, Sampler.RANDOM)
    job = TuneJobSpec.from_json({"model_id": "m", "training": {"dataset": "d@1"}, "search": WHOLE})
    assert TuneJobSpec.from_json(job.to_json()) == job
    assert TuneSpec.from_json(dict.fromkeys(WHOLE)) == TuneSpec()


@given(st.sampled_from(sorted(WHOLE)), anything)
def test_whatever_a_field_is_it_is_read_or_refused(name, value) -> None:
    """With the one error."""
    error = refusal(lambda: TuneSpec.from_json({**WHOLE, name: value}))
    assert error is None or error.remedy


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"folds": 1}, "from 2 to 20"),
        ({"folds": 2.5}, "a whole number"),
        ({"trials": 0}, "from 1 to 10,000"),
        ({"seconds": True}, "a number"),
        ({"sampler": "gird"}, "Did you mean grid"),
        ({"metric": "acuracy"}, "Did you mean accuracy"),
        ({"seeds": 3}, "Did you mean seed"),
        ({"space": [1]}, "an object"),
        ({"algorithm": "auto"}, "belongs to one algorithm"),
    ],
)
def test_each_mistake_in_a_search_has_its_words(fields, said) -> None:
    """With the remedy."""
    with pytest.raises(InvalidRequestError) as refused:
        TuneSpec.from_json({**WHOLE, **fields})
    assert said in str(refused.value)
