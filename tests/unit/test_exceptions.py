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


def test_what_is_internal_is_for_the_operator():
    """All of it in the text, which logs and commands show; none of it in the copy for a tenant."""
    error = exceptions.ModelLoadError(
        "It broke.", internal="/srv/x", remedy="Repair it.", action=exceptions.Action("db.check"), model_id="m"
    )
    assert str(error) == "It broke: /srv/x. Repair it."
    public = error.public()
    assert (type(public), public.model_id, public.action) == (exceptions.ModelLoadError, "m", None)
    assert "It broke. Report the id of the request or run" in str(public)
    assert "/srv/x" not in repr(public.__dict__)
    assert str(exceptions.error_from_json(error.to_json())) == str(error)
    assert "/srv/x" not in str(exceptions.error_from_json(error.to_json()).public())


@pytest.mark.parametrize(
    ("cause", "is_public"),
    [
        (ValueError("Input X contains NaN."), True),
        (TypeError("float() argument must be a string"), True),
        (ZeroDivisionError("division by zero"), True),
        (ValueError("dates are written 01/02/2026"), True),
        (MemoryError("Unable to allocate 5 GiB"), True),
        (ValueError("can't open /usr/lib/x.so"), False),
        (RuntimeError("no answer of postgresql://db/x"), False),
        (OSError(2, "No such file", "x"), False),
        (KeyError("_internal"), False),
        (exceptions.ModelLoadError("It broke.", internal="/srv/x"), False),
    ],
)
def test_only_a_text_about_data_is_passed_on(cause, is_public):
    """Others are internal: whoever runs the process sees them."""
    error = exceptions.TrainingError.wrap(cause, "It failed", stage="fit")
    assert f"It failed: {type(cause).__name__}: " in str(error).replace("It failed. ", "It failed: ")
    assert (str(cause).rstrip(".") + "." in error.message) == is_public
    assert (str(cause) in str(error.public())) == is_public


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
