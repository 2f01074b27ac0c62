"""What a column holds, judged from its values.

Numbers, booleans and datetimes are recognised by their dtype or, in columns of Python objects, by their type; strings
by what they say, see ``ml_core.data.strings``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import numpy as np
import pandas as pd

from ml_core.data.evidence import Evidence, Verdict, fits, holds_objects, judge_numbers, unless_constant
from ml_core.data.strings import FEW_MIXED, is_code, judge_strings
from ml_core.domain.columns import ColumnKind
from ml_core.domain.values import category_text, read_datetime, read_number
from ml_core.exceptions import shown

TypeName = Literal["string", "number", "boolean", "datetime", "code"]


def judge(evidence: Evidence) -> Verdict:
    """The kind of a column that has values.

    Raises:
        DataProcessingError: Values of mixed types, of a type that no kind holds, or infinite.
    """
    dtype = evidence.values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return unless_constant(evidence, ColumnKind.CATEGORY)
    if holds_objects(evidence.values):
        return _judge_objects(evidence)
    if pd.api.types.is_bool_dtype(dtype):
        return unless_constant(evidence, ColumnKind.BOOLEAN)
    if pd.api.types.is_complex_dtype(dtype):
        raise evidence.error("holds complex numbers.", "Split it into real and imaginary part.")
    if pd.api.types.is_numeric_dtype(dtype):
        return judge_numbers(evidence)
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return unless_constant(evidence, ColumnKind.DATETIME)
    if pd.api.types.is_timedelta64_dtype(dtype):
        raise evidence.error("holds durations.", "Give them as numbers: frame[column].dt.total_seconds().")
    return _judge_objects(evidence)


def _judge_objects(evidence: Evidence) -> Verdict:
    values = evidence.values.tolist()
    if isinstance(evidence.values.dtype, pd.StringDtype):
        return judge_strings(evidence, values)
    types = Counter(_type_name(evidence, value) for value in values)
    if types.keys() == {"string"}:
        return judge_strings(evidence, values)
    if types.keys() == {"boolean"}:
        return unless_constant(evidence, ColumnKind.BOOLEAN)
    if types.keys() <= {"number", "boolean"}:
        return judge_numbers(Evidence(evidence.name, evidence.values.map(float), evidence.n_rows))
    if types.keys() == {"datetime"}:
        return unless_constant(evidence, ColumnKind.DATETIME)
    if types.keys() == {"code"}:
        return Verdict(None, "an identifier: UUIDs")
    return _judge_mixed(evidence, values, types)


def _type_name(evidence: Evidence, value: Any) -> TypeName:
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool | np.bool_):
        return "boolean"
    if isinstance(value, int | float | np.number | Decimal) and not isinstance(value, np.complexfloating):
        return "number"
    if isinstance(value, date | np.datetime64):
        return "datetime"
    if isinstance(value, UUID):
        return "code"
    raise evidence.error(
        f"holds values of type {type(value).__name__}, such as {shown(value)}.",
        "Turn them into numbers, strings or datetimes, or drop the column.",
    )


def _judge_mixed(evidence: Evidence, values: list[Any], types: Counter[TypeName]) -> Verdict:
    has_codes = types.keys() == {"string", "number"} and any(isinstance(v, str) and is_code(v) for v in values)
    if has_codes and all(fits(read_number, value) for value in values):
        # As a spreadsheet gives them: 94110 is a number there, 01234 can only be a string.
        texts = evidence.values.map(category_text)
        return judge_strings(replace(evidence, values=texts), texts.tolist())
    for kind, read in ((ColumnKind.NUMBER, read_number), (ColumnKind.DATETIME, read_datetime)):
        if all(fits(read, value) for value in values):
            return unless_constant(evidence, kind)
    distinct = len({category_text(value) for value in values})
    if distinct <= FEW_MIXED and distinct <= len(values) / 2:
        return Verdict(ColumnKind.CATEGORY, f"{distinct} distinct values of several types")
    common, rare = types.most_common()[0][0], types.most_common()[-1][0]
    row = next(i for i, value in enumerate(values) if _type_name(evidence, value) == rare)
    counts = " and ".join(f"{count:,} {name}s" for name, count in types.most_common())
    raise evidence.error(
        f"mixes {counts}; row {evidence.values.index[row]} is {shown(values[row])}.",
        f"Make all of them {common}s, name the column's kind (a category takes all types), or drop the column.",
    )
