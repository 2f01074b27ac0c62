"""Signatures as JSON, and the numbers that they read from rows."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.domain.columns import ColumnKind, DateOrder
from ml_core.domain.signature import InputColumn, NumberColumns, Output, OutputKind, Signature
from ml_core.exceptions import SignatureMismatchError

SIGNATURE = Signature(
    (
        InputColumn("when", ColumnKind.DATETIME, nullable=True, date_order=DateOrder.DAY_FIRST),
        InputColumn("country", ColumnKind.CATEGORY, nullable=False, categories=("NA", "DE")),
    ),
    Output(OutputKind.CLASSES, ("no", "yes")),
)


def test_a_signature_survives_json():
    """With the order of its dates."""
    assert Signature.from_json(json.loads(json.dumps(SIGNATURE.to_json()))) == SIGNATURE


def test_a_signature_from_before_there_were_orders_is_read():
    """It has none."""
    data = SIGNATURE.to_json()
    del data["inputs"][0]["date_order"]
    assert Signature.from_json(data).inputs[0].date_order is None


def test_a_column_without_an_order_is_described_as_before():
    """So the signatures of versions that need none stay the same."""
    assert SIGNATURE.to_json()["inputs"][1] == {
        "name": "country",
        "kind": "category",
        "nullable": False,
        "categories": ["NA", "DE"],
    }


VALUES = st.one_of(
    st.floats(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([None, True, "1.5", " ", "NA", "x", 10**400, 1e308, -1e308, [], {}]),
)


@given(
    rows=st.lists(
        st.fixed_dictionaries({"a": VALUES, "b": VALUES}, optional={"c": VALUES})
        | st.fixed_dictionaries({"b": VALUES, "a": VALUES}),
        max_size=4,
    ),
    nullable=st.tuples(st.booleans(), st.booleans()),
)
def test_numbers_are_read_together_as_one_by_one(rows, nullable):
    """The same columns, or the same error, whether all of a signature's columns are numbers or one is a category."""
    a, b = (InputColumn(name, ColumnKind.NUMBER, n) for name, n in zip("ab", nullable, strict=True))
    c = InputColumn("c", ColumnKind.CATEGORY, nullable=True)
    output = Output(OutputKind.NUMBER)
    for inputs in ((a, b), (a, c, b)):
        signature = Signature(inputs, output)
        outcomes = []
        for read in (signature.columns_from_rows, lambda rows, inputs=inputs: one_by_one(inputs, rows)):
            try:
                found = read(rows)
            except SignatureMismatchError as error:
                outcomes.append(str(error))
            else:
                outcomes.append([(name, column.dtype, column.tolist()) for name, column in found.items()])
        assert repr(outcomes[0]) == repr(outcomes[1])  # NaN does not equal itself


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "A", "other"]), st.integers(0, 9)), max_size=5))
def test_rows_with_the_same_names_are_looked_at_once(rows):
    """The first misspelled row is refused and ignored values are counted, as if each row were looked at."""
    inputs = tuple(InputColumn(name, ColumnKind.NUMBER, nullable=True) for name in "ab")
    signature = Signature(inputs, Output(OutputKind.NUMBER))
    try:
        for index, row in enumerate(rows):
            if not row.keys() <= {"a", "b"} or not row:
                signature.check_names(row, index)
    except SignatureMismatchError as error:
        with pytest.raises(SignatureMismatchError, match=f"^{re.escape(str(error))}$"):
            signature.read_rows(rows)
    else:
        columns, ignored = signature.read_rows(rows)
        assert ignored == sum(name not in ("a", "b") for row in rows for name in row)
        assert repr({name: values.tolist() for name, values in columns.items()}) == repr(
            {name: [float(row.get(name, "nan")) for row in rows] for name in "ab"}
        )


def one_by_one(inputs, rows):
    return {column.name: column.read([row.get(column.name) for row in rows]) for column in inputs}


@pytest.mark.parametrize("rows", [[{"a": 1, "b": 2.5}], [{"a": 1, "b": 2.5}, {"b": None, "a": 2**60}]])
def test_numbers_are_read_in_one_pass(rows):
    """Into one block of memory, each column contiguous, as the prediction log packs them."""
    columns = NumberColumns([InputColumn(name, ColumnKind.NUMBER, nullable=True) for name in "ab"]).read(rows)
    assert columns["a"].base is columns["b"].base is not None
    assert all(column.flags.c_contiguous for column in columns.values())


@pytest.mark.parametrize("value", [True, "1", 10**400, math.inf, [1.0]])
def test_other_values_are_left_to_their_column(value):
    """Which reads them, or says what was expected."""
    assert NumberColumns([InputColumn("a", ColumnKind.NUMBER, nullable=True)]).read([{"a": value}]) is None
