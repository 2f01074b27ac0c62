"""A value means the same in a tensor as in a row of ``predict``, whatever its datatype and the way it is sent."""

from __future__ import annotations

import struct

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.exceptions import InvalidRequestError, SignatureMismatchError
from ml_core.ids import ModelId
from ml_core.inference.edge.oip import parse_infer
from ml_core.inference.edge.tensors import DTYPES
from ml_core.inference.routing import key_text
from ml_core.training.fit import fit_model
from ml_core.training.request import TrainingRequest
from support.inprocess_cell import promote, servable

SETTINGS = settings(max_examples=200, derandomize=True)
OUTPUT = Output(OutputKind.NUMBER)


def values_of(datatype):
    """Values that the datatype holds exactly."""
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
            ["1", "true", "2026-01-01"]
        )
    dtype = DTYPES[datatype]
    if dtype.kind == "f":
        return st.floats(allow_nan=False, allow_infinity=False, width=dtype.itemsize * 8)
    limits = np.iinfo(dtype)
    return st.integers(int(limits.min), int(limits.max)) | st.sampled_from([0, 1, int(limits.max)])


COLUMNS = st.sampled_from([*DTYPES, "BYTES"]).flatmap(
    lambda datatype: st.tuples(st.just(datatype), st.lists(values_of(datatype), min_size=2, max_size=6))
)


def as_row_value(value, datatype):
    """What a caller writes in a row for a value of the datatype: in half or single precision, its shortest digits."""
    if datatype not in ("FP16", "FP32") or float(value).is_integer():
        return value
    return float(str(DTYPES[datatype].type(value)))


def body_of(datatype, values, *, matrix, binary):
    """The bytes of a request, and the length of their JSON."""
    shape = [len(values) // 2, 2] if matrix else [len(values)]
    tensor = {"name": "x" if matrix else "a", "shape": shape, "datatype": datatype}
    if not binary:
        return orjson.dumps({"inputs": [{**tensor, "data": values}]}), None
    if datatype == "BYTES":
        data = b"".join(struct.pack("<I", len(v.encode())) + v.encode() for v in values)
    else:
        data = np.array(values, DTYPES[datatype]).tobytes()
    head = orjson.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}]})
    return head + data, len(head)


def read(table):
    """Columns as lists that compare equal where they hold the same; or what is wrong with them."""
    try:
        columns = table()
    except SignatureMismatchError as error:
        return error.row, error.column
    return {name: [str(value) for value in array.tolist()] for name, array in columns.items()}


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("kind", [ColumnKind.CATEGORY, ColumnKind.TEXT, ColumnKind.BOOLEAN, ColumnKind.NUMBER])
@SETTINGS
@given(column=COLUMNS, nullable=st.booleans())
def test_a_tensor_of_one_column_is_read_as_rows_are(kind, binary, column, nullable):
    """Every datatype into every kind, in JSON and in binary."""
    datatype, values = column
    signature = Signature((InputColumn("a", kind, nullable),), OUTPUT)
    is_number = kind is ColumnKind.NUMBER and not isinstance(values[0], str | bool)
    rows = [{"a": value if is_number else as_row_value(value, datatype)} for value in values]
    body, length = body_of(datatype, values, matrix=False, binary=binary)
    tensor = parse_infer(body, length, 100)
    assert read(lambda: tensor.columns(signature)) == read(lambda: signature.columns_from_rows(rows))
    assert tensor.first_value("a", signature) == key_text(as_row_value(values[0], datatype))


@pytest.mark.parametrize("binary", [False, True])
@SETTINGS
@given(
    datatype=st.sampled_from([name for name in DTYPES if name != "BOOL"]),
    kinds=st.tuples(*[st.sampled_from([ColumnKind.CATEGORY, ColumnKind.NUMBER, ColumnKind.BOOLEAN])] * 2),
    data=st.data(),
)
def test_columns_in_one_tensor_are_read_as_rows_are(binary, datatype, kinds, data):
    """Each by its own kind."""
    values = data.draw(st.lists(values_of(datatype), min_size=1, max_size=4).map(lambda half: half * 2))
    signature = Signature(tuple(InputColumn(n, k, False) for n, k in zip("ab", kinds, strict=True)), OUTPUT)
    body, length = body_of(datatype, values, matrix=True, binary=binary)
    rows = [
        {
            name: value if kind is ColumnKind.NUMBER else as_row_value(value, datatype)
            for name, kind, value in zip("ab", kinds, pair, strict=True)
        }
        for pair in zip(values[::2], values[1::2], strict=True)
    ]
    tensor = parse_infer(body, length, 100)
    assert read(lambda: tensor.columns(signature)) == read(lambda: signature.columns_from_rows(rows))


@pytest.mark.parametrize("value", [1e39, -1e39, 16777216e32])
def test_a_number_that_its_datatype_can_not_hold_is_refused(value):
    """As an integer out of its range is."""
    body = orjson.dumps({"inputs": [{"name": "a", "shape": [1], "datatype": "FP32", "data": [value]}]})
    with pytest.raises(InvalidRequestError, match="out of the range of FP32"):
        parse_infer(body, None, 100)


CODES = [2**53 + 1, 2**53 + 2, 2**53 + 3]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("matrix", [False, True])
def test_a_model_of_large_integers_answers_tensors_as_rows(cell, key, matrix, binary):
    """Neighbours above 2^53 are categories of their own, by every way in."""
    names = "ab" if matrix else "a"
    frame = pd.DataFrame({name: [str(code) for code in CODES] * 20 for name in names})
    target = pd.Series(["x", "y", "z"] * 20, name="label")
    kinds = dict.fromkeys(names, ColumnKind.CATEGORY)
    promote(
        cell.table,
        servable(cell.store, fit_model(TrainingRequest(ModelId("codes"), None, (frame, target), kinds=kinds))),
    )
    rows = [dict.fromkeys(names, code) for code in CODES]
    assert cell.predict("codes", rows, key=key).json()["predictions"] == ["x", "y", "z"]
    values = [code for code in CODES for _ in names]
    body, length = body_of("INT64", values, matrix=matrix, binary=binary)
    headers = {} if length is None else {"inference-header-content-length": str(length)}
    answer = cell.ask("POST", "/t/acme/v2/models/codes/infer", key=key, content=body, headers=headers)
    assert answer.json()["outputs"][0]["data"] == ["x", "y", "z"]
