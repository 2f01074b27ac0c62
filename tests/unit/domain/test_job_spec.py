"""The specifications of jobs: whatever JSON is in whatever place, it is taken as it stands or refused in words."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.domain.job import JobKind
from ml_core.domain.job_spec import JobSpec
from ml_core.exceptions import MLFrameworkError
from ml_core.jobs.kinds import SPECS

TRAINING = {"dataset": "d@1", "target": "t", "kinds": {"zip": "category"}, "ignore": ["id"]}
SEARCH = {"algorithm": "ridge", "space": {"alpha": {"low": 0.1, "high": 1}}, "trials": 5}
WHOLE: dict[JobKind, dict[str, Any]] = {
    JobKind.TRAIN: {"model_id": "m", "training": TRAINING, "promote_to": "staging"},
    JobKind.TUNE: {"model_id": "m", "training": TRAINING, "search": SEARCH, "promote_to": "staging"},
    JobKind.PREDICT: {
        "model_id": "m",
        "dataset": "d@1",
        "output": "o",
        "environment": "staging",
        "proba": True,
        "keep": ["a"],
        "on_error": "null",
    },
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=3,
)


def places(document: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths to all members."""
    found = []
    for name, value in document.items():
        found.append((*above, name))
        if isinstance(value, dict):
            found += places(value, (*above, name))
    return found


def at(document: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        document = document[name]
    return document


@pytest.mark.parametrize("kind", list(JobKind))
def test_every_kind_is_read_back(kind: JobKind) -> None:
    spec = SPECS[kind].from_json(WHOLE[kind])
    assert SPECS[kind].from_json(spec.to_json()) == spec
    assert {name: at(spec.to_json(), (name,)) for name in WHOLE[kind] if name not in ("training", "search")} == {
        name: value for name, value in WHOLE[kind].items() if name not in ("training", "search")
    }


@given(st.sampled_from(list(JobKind)), st.data())
def test_any_value_in_any_place_is_taken_or_refused(kind: JobKind, data: st.DataObject) -> None:
    """No other exception, and no value that became another one, as a text would that is taken for a list."""
    of: type[JobSpec] = SPECS[kind]
    document = copy.deepcopy(of.from_json(WHOLE[kind]).to_json())
    place, value = data.draw(st.sampled_from(places(document))), data.draw(JSON)
    at(document, place[:-1])[place[-1]] = value
    refused = None
    try:
        spec = of.from_json(document)
    except MLFrameworkError as error:
        refused = error
    if refused is not None:
        assert refused.remedy, refused
        return
    assert of.from_json(spec.to_json()) == spec
    is_read = place[0] == "search" and place[1:2] in ((), ("space",))  # whose values have more than one form
    if value is not None and not is_read:
        assert at(spec.to_json(), place) == value
