"""The error tree: its shape, its messages, and that it survives being moved between processes."""

import pickle
import re

import pytest

from ml_core import exceptions
from ml_core.exceptions import MLFrameworkError


def all_errors(root=MLFrameworkError):
    return [root, *(found for child in root.__subclasses__() for found in all_errors(child))]


@pytest.mark.parametrize("kind", sorted(set(all_errors()), key=lambda kind: kind.__name__))
def test_an_error_survives_pickling(kind):
    """Message, remedy, tenant, details and every attribute arrive."""
    attributes = {name: f"value of {name}" for name in kind.fields}
    error = kind("It broke.", remedy="Mend it.", tenant_id="acme", details={"n": 1}, **attributes)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert again.__dict__ == error.__dict__
    assert str(again) == "It broke. Mend it."


def test_the_documented_tree_is_the_real_one():
    """The drawing in the module's docstring has each class once, and no other."""
    drawn = re.findall(r"(\w+Error)\b", exceptions.__doc__.split("An error is data")[0])
    assert sorted(drawn) == sorted(kind.__name__ for kind in set(all_errors()))


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("TrainingError", {"model_id", "stage"}),
        ("PredictionError", {"model_id", "version"}),
        ("ModelLoadError", {"model_id", "version", "digest"}),
        ("ModelSaveError", {"model_id", "version"}),
        ("DataProcessingError", {"column", "stage"}),
        ("ModelNotFoundError", {"model_id", "version"}),
    ],
)
def test_the_promised_attributes_are_there(name, attributes):
    """The six kinds that existing code catches have the attributes that it reads."""
    assert attributes <= set(getattr(exceptions, name).fields)


def test_a_misspelt_attribute_is_refused():
    """An attribute that no class declares would be lost silently."""
    with pytest.raises(TypeError, match="modle_id"):
        exceptions.TrainingError("x", modle_id="tickets")


def test_attributes_are_those_that_are_set():
    """What an HTTP answer shows as details."""
    error = exceptions.SignatureMismatchError("x", row=0, column="age", details={"limit": 3})
    assert error.attributes() == {"row": 0, "column": "age", "limit": 3}


DEEP: list = []
for _ in range(5_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "'a'"),
        (7.5, "7.5"),
        ("x" * 38, repr("x" * 38)),
        ("x" * 10**6, "'" + "x" * 36 + "…"),
        ([1, 2], "[1, 2]"),
        (DEEP, "[[[[...]]]]"),
        ({"a": DEEP}, "{'a': [[[...]]]}"),
        (10**5_000, "<int>"),
    ],
    ids=range(8),
)
def test_a_value_is_shown_in_a_few_characters(value, text):
    """However large, long or deeply nested it is."""
    assert exceptions.shown(value) == text
