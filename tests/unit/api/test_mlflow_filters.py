"""MLflow's filters as comparisons: the grammar, and that no text is answered with anything but a reason."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_core.api.routes.mlflow.filters import EXPERIMENTS, MODELS, RUNS
from ml_core.domain.comparison import Comparison, Field, FieldKind, Operator, Order
from ml_core.exceptions import InvalidRequestError

METRIC, PARAMETER, TAG, ATTRIBUTE = FieldKind.METRIC, FieldKind.PARAMETER, FieldKind.TAG, FieldKind.ATTRIBUTE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, []),
        ("  ", []),
        ("metrics.loss<.5", [Comparison(Field(METRIC, "loss"), Operator.LESS, 0.5)]),
        ("metric.`f1 score` >= -1e-3", [Comparison(Field(METRIC, "f1 score"), Operator.AT_LEAST, -0.001)]),
        ('params."a.b" = "x"', [Comparison(Field(PARAMETER, "a.b"), Operator.EQUAL, "x")]),
        (
            "tags.mlflow.source.name LIKE '%AND%'",
            [Comparison(Field(TAG, "mlflow.source.name"), Operator.LIKE, "%AND%")],
        ),
        (
            "tags.a = '' and tags.b is  not NULL",
            [
                Comparison(Field(TAG, "a"), Operator.EQUAL, ""),
                Comparison(Field(TAG, "b"), Operator.IS_NOT_NULL),
            ],
        ),
        ("run_id NOT IN ('a', 'b')", [Comparison(Field(ATTRIBUTE, "run_id"), Operator.NOT_IN, ("a", "b"))]),
        ("status = 'finished'", [Comparison(Field(ATTRIBUTE, "status"), Operator.IN, ("finished",))]),
        (
            "attributes.status != 'FAILED'",
            [Comparison(Field(ATTRIBUTE, "status"), Operator.NOT_IN, ("failed", "dead"))],
        ),
        (
            "attr.end_time > 1000",
            [Comparison(Field(ATTRIBUTE, "finished_at"), Operator.GREATER, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))],
        ),
        ("tags.mlflow.parentRunId = 'r'", [Comparison(Field(ATTRIBUTE, "parent_run_id"), Operator.EQUAL, "r")]),
        ("run_name = 'a'", [Comparison(Field(TAG, "mlflow.runName"), Operator.EQUAL, "a")]),
    ],
)
def test_filters_are_read_as_mlflow_reads_them(text: str | None, expected: list[Comparison]) -> None:
    """Kinds in any of their names, quoted names, texts in quotes of both kinds, numbers without."""
    assert RUNS.comparisons(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tags.a = 'b' OR tags.c = 'd'", "neither OR"),
        ("(tags.a = 'b')", "field is missing"),
        ("tags.a", "operator is missing"),
        ("tags.a = b", "text in quotes"),
        ("metrics.a = 'b'", "number is missing"),
        ("metrics.a LIKE 1", "compared with"),
        ("params.a > '1'", "compared with"),
        ("datasets.name = 'a'", "no 'datasets'"),
        ("attributes.nothing = 'a'", "there are run_id"),
        ("status LIKE 'F%'", "compared with"),
        ("run_id IN 'a'", "A list"),
        ("start_time > 1e300", "milliseconds"),
        ("metrics.a < 1 AND", "field is missing"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(text: str, reason: str) -> None:
    """With what there is instead."""
    with pytest.raises(InvalidRequestError, match=reason):
        RUNS.comparisons(text)


def test_orders_have_a_direction() -> None:
    """Ascending unless it is said."""
    assert RUNS.orders(["metrics.a desc", "params.`b c`", "start_time ASC"]) == [
        Order(Field(METRIC, "a"), is_descending=True),
        Order(Field(PARAMETER, "b c")),
        Order(Field(ATTRIBUTE, "started_at")),
    ]
    with pytest.raises(InvalidRequestError, match="DESC"):
        RUNS.orders(["metrics.a sideways"])


WORDS = [
    "metrics.",
    "tags.",
    "a",
    "`b`",
    '"',
    "'",
    "= ",
    "!=",
    "<",
    " IN ",
    "(",
    ",",
    ")",
    " AND ",
    "1",
    "e9",
    "-",
    " ",
]


@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(WORDS), max_size=12).map("".join)))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else happens, whichever noun is searched."""
    for language in (RUNS, EXPERIMENTS, MODELS):
        for read in (language.comparisons, lambda text, of=language: of.orders([text])):
            with contextlib.suppress(InvalidRequestError):
                read(text)
