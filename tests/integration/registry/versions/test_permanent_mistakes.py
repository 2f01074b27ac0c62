"""What would fail the next time too is the caller's error, with a sentence, and never "try again"."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import InvalidRequestError, RequestTooLargeError, SchemaOutOfDateError
from ml_core.ids import DatasetId, TenantId
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.versions.intake import split_metrics
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, register


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"validation": {"m" * 251: 1.0}}, "can't be the name"),
        ({"s" * 5_000: {"m": 1.0}}, "can't be the name"),
        ({"validation": {"": 1.0}}, "can't be the name"),
        ({"validation": {"a\0": 1.0}}, "can't be the name"),
        ({"validation": {"accuracy": None}}, "'accuracy' is a NoneType"),
        ({"validation": {"accuracy": "0.9"}}, "'accuracy' is a str"),
        ({"validation": {"accuracy": [1, 2]}}, "'accuracy' is a list"),
        ({"validation": None}, "not a mapping"),
    ],
)
def test_metrics_that_can_not_be_stored(
    db: DatabaseConnection, tenant_id: TenantId, metrics: dict[str, Any], said: str
) -> None:
    """Each is refused by name before anything is written."""
    with pytest.raises(InvalidRequestError, match=said) as caught:
        register(db, tenant_id, metrics=metrics)
    assert caught.value.attributes()["field"] == "metrics"
    assert VersionRepository(db, tenant_id).search().items == []


def test_as_many_metrics_as_are_allowed_are_stored(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """A thousand with the longest names; what is not finite is left out, and what holds a number is one."""
    many = {f"{i:04}" + "m" * 196: float(i) for i in range(998)}
    given = {"validation": {**many, "nan": math.nan, "numpy": np.float32(0.5)}}
    assert register(db, tenant_id, metrics=given).metrics == {"validation": {**many, "numpy": 0.5}}


def test_a_flat_metric_that_is_no_number_is_named_later() -> None:
    """Sorting metrics by split does not stumble over it; what registers the version says what is wrong."""
    assert split_metrics({"accuracy": None}) == {"validation": {"accuracy": None}}


def test_metadata_that_is_nested_too_deep(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """It is refused, not a RecursionError."""
    metadata: dict[str, Any] = {}
    for _ in range(2_000):
        metadata = {"a": metadata}
    with pytest.raises(InvalidRequestError, match="nested deeper"):
        register(db, tenant_id, metadata=metadata)


@pytest.mark.parametrize("values", [[1], ["1"], [1.5], [None], [True], [[]], [1, 2], []])
def test_cursors_of_other_lists(db: DatabaseConnection, tenant_id: TenantId, values: list[Any]) -> None:
    """A cursor whose values are of other kinds is refused, whatever the list."""
    datasets, versions = DatasetRepository(db, tenant_id), VersionRepository(db, tenant_id)
    datasets.create("people", pd.DataFrame({"a": [1.0, 2.0]}))
    register(db, tenant_id)
    cursor = base64.urlsafe_b64encode(orjson.dumps(values)).decode()
    refused = {"field": "cursor"}
    if values != ["1"]:
        with pytest.raises(InvalidRequestError) as caught:
            datasets.list(cursor=cursor)
        assert caught.value.attributes().items() >= refused.items()
    if values != [1]:
        with pytest.raises(InvalidRequestError) as caught:
            datasets.versions(DatasetId("people"), cursor=cursor)
        assert caught.value.attributes().items() >= refused.items()
    with pytest.raises(InvalidRequestError) as caught:
        versions.search(cursor=cursor)
    assert caught.value.attributes().items() >= refused.items()


def test_a_value_that_no_index_can_hold(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """Postgres refuses it each time, so it is not the registry that is unavailable."""
    register(db, tenant_id)
    statement = sa.text(
        "INSERT INTO mlcore.version_tags (tenant_id, model_id, version, key, value) VALUES (:t, :m, '1', :v, 'v')"
    )
    value = "".join(map(str, np.random.default_rng(0).integers(0, 10**9, 2_000)))
    with pytest.raises(RequestTooLargeError, match="so much at once"), db.tenant(tenant_id) as connection:
        connection.execute(statement, {"t": tenant_id, "m": TICKETS, "v": value})


def test_more_parameters_than_a_statement_has(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """So is a statement that the driver can't even send."""
    many = {f"p{i}": i for i in range(66_000)}
    statement = sa.text("SELECT 1 WHERE 1 IN (" + ", ".join(f":{name}" for name in many) + ")")
    with pytest.raises(RequestTooLargeError, match="so much at once"), db.tenant(tenant_id) as connection:
        connection.execute(statement, many)


def test_an_operator_that_is_not_there_is_no_old_schema(db: DatabaseConnection, tenant_id: TenantId) -> None:
    """It is a mistake in a statement of ours; only a function of ours that is missing means another release."""
    with pytest.raises(ProgrammingError, match="operator does not exist"), db.tenant(tenant_id) as connection:
        connection.execute(sa.text("SELECT 1 FROM mlcore.models WHERE model_id > 1"))
    for what, statement in (
        ("function", "SELECT mlcore.of_a_later_release(1)"),
        ("column", "SELECT of_a_later_release FROM mlcore.models"),
        ("table", "SELECT 1 FROM mlcore.of_a_later_release"),
    ):
        with pytest.raises(SchemaOutOfDateError, match=f"lacks a {what}"), db.tenant(tenant_id) as connection:
            connection.execute(sa.text(statement))
