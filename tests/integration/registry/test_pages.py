"""Keyset pages, and arguments as a client of the control API may send them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import STATUS, InvalidRequestError, MLFrameworkError, RequestTooLargeError, status_of
from ml_core.ids import TenantId
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.pages import Page, encode_cursor, every
from ml_core.registry.predictions import PredictionRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.repository import VersionRepository

NUL, HUGE, SURROGATE = "a\0b", 2**70, "\ud800"
NOW = datetime.now(UTC).isoformat()
NEWEST_FIRST = repr([("attribute", "started_at", True)])


class Rooms:
    """The repositories of a tenant that has one thing of each kind."""

    def __init__(self, db: DatabaseConnection, tenant_id: TenantId) -> None:
        self.tenants = TenantRepository(db)
        self.tenant_id = str(tenant_id)
        self.runs = RunRepository(db, self.tenant_id)
        self.datasets = DatasetRepository(db, self.tenant_id)
        self.predictions = PredictionRepository(db, self.tenant_id)
        self.versions = VersionRepository(db, self.tenant_id)
        self.datasets.create("d", pd.DataFrame({"x": [1]}))
        self.run_id = self.runs.start("tickets")
        self.runs.log_metrics(self.run_id, {"loss": 1.0})


@pytest.fixture
def rooms(db: DatabaseConnection, tenant_id: TenantId) -> Rooms:
    """Of a new tenant."""
    return Rooms(db, tenant_id)


LISTS: dict[str, tuple[Callable[[Rooms, dict[str, Any]], Any], list[Any]]] = {
    "tenants": (lambda rooms, page: rooms.tenants.list(**page), ["a"]),
    "runs": (lambda rooms, page: rooms.runs.search(**page), [NEWEST_FIRST, NOW, "r"]),
    "points": (lambda rooms, page: rooms.runs.points(rooms.run_id, "loss", **page), [1]),
    "datasets": (lambda rooms, page: rooms.datasets.list(**page), ["d"]),
    "dataset versions": (lambda rooms, page: rooms.datasets.versions("d", **page), [2]),
    "predictions": (lambda rooms, page: rooms.predictions.list(**page), [NOW, "r", 0]),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_page_that_can_not_be_read_is_a_bad_request(rooms: Rooms, name: str) -> None:
    """A limit beyond the bounds, a cursor of another list, or one that somebody made up."""
    read, key = LISTS[name]
    read(rooms, {"cursor": encode_cursor(key)})
    made_up = [[NUL if isinstance(value, str) else "1" for value in key], [*key, 1], [True] * len(key), [], ["x"] * 9]
    made_up.append([*key[:-1], NUL if isinstance(key[-1], str) else "1"])
    for page in [
        *({"limit": limit} for limit in (0, -1, 1001)),
        *({"cursor": cursor} for cursor in ("", "é", "bm9uZQ", *map(encode_cursor, made_up))),
    ]:
        with pytest.raises(InvalidRequestError):
            read(rooms, page)


@pytest.mark.parametrize("name", ["points", "dataset versions", "predictions"])
def test_a_cursor_beyond_the_column_is_no_fault_of_the_server(rooms: Rooms, name: str) -> None:
    """A number that no row can have."""
    read, key = LISTS[name]
    for number in (2**63, 2**64 - 1):
        try:
            found = read(rooms, {"cursor": encode_cursor([*key[:-1], number])})
        except InvalidRequestError:
            continue
        assert isinstance(found, Page)


@pytest.mark.parametrize(
    "call",
    [
        lambda rooms, text: rooms.tenants.get(text),
        lambda rooms, text: rooms.tenants.update(rooms.tenant_id, self_test_rows=text),
        lambda rooms, text: rooms.runs.get(text),
        lambda rooms, text: rooms.runs.beat(text),
        lambda rooms, text: rooms.runs.start(text),
        lambda rooms, text: rooms.runs.start("m", kind=text),
        lambda rooms, text: rooms.runs.start("m", parent_run_id=text),
        lambda rooms, text: rooms.runs.start("m", tags={text: text}),
        lambda rooms, text: rooms.runs.search(text),
        lambda rooms, text: rooms.runs.search(status=text),
        lambda rooms, text: rooms.runs.search(metrics=text),
        lambda rooms, text: rooms.runs.series(rooms.run_id, text),
        lambda rooms, text: rooms.runs.compare([text, rooms.run_id]),
        lambda rooms, text: rooms.runs.artifacts.open(rooms.run_id, text),
        lambda rooms, text: rooms.datasets.get(text),
        lambda rooms, text: rooms.datasets.find_by_digest(text),
        lambda rooms, text: rooms.predictions.list(text),
        lambda rooms, text: rooms.predictions.list(version=text),
        lambda rooms, text: rooms.predictions.add_label("m", text, 0, "a"),
        lambda rooms, text: rooms.predictions.set_policy(text),
    ],
)
@pytest.mark.parametrize("text", [NUL, SURROGATE, "x" * 100_000])
def test_no_text_is_a_fault_of_the_server(rooms: Rooms, call: Callable[[Rooms, str], Any], text: str) -> None:
    """Whatever a client sends: the platform's own error, and none of the server's."""
    with pytest.raises(MLFrameworkError) as caught:
        call(rooms, text)
    assert status_of(caught.value) < 500
    assert type(caught.value) in STATUS


@pytest.mark.parametrize(
    "call",
    [
        lambda rooms, text: rooms.runs.search(kind=text),
        lambda rooms, text: rooms.runs.search(parent_run_id=text),
        lambda rooms, text: rooms.runs.search(tags={text: text}),
        lambda rooms, text: rooms.runs.search(parameters={text: text}),
        lambda rooms, text: rooms.predictions.list(request_id=text),
        lambda rooms, text: rooms.predictions.get(text),
    ],
)
@pytest.mark.parametrize("text", [NUL, SURROGATE, "x" * 100_000])
def test_a_filter_finds_nothing_or_is_refused(rooms: Rooms, call: Callable[[Rooms, str], Any], text: str) -> None:
    """A text that no row can have."""
    try:
        found = call(rooms, text)
    except MLFrameworkError as error:
        assert status_of(error) == 400  # noqa: PT017
    else:
        assert not (found.items if isinstance(found, Page) else found)


@pytest.mark.parametrize("filters", ["tags", "metrics", "parameters"])
def test_more_filters_than_postgres_plans_in_time_are_refused(rooms: Rooms, filters: str) -> None:
    """Of runs and versions: planning takes seconds for a hundred."""

    def many(count: int) -> dict[str, Any]:
        names = [f"k{number}" for number in range(count)]
        return {filters: [f"{name}>=1" for name in names] if filters == "metrics" else dict.fromkeys(names, "v")}

    assert rooms.runs.search(**many(30)).items == []
    searches = [rooms.runs.search]
    if filters != "parameters":
        searches.append(rooms.versions.search)
    for search in searches:
        with pytest.raises(RequestTooLargeError) as caught:
            search(**many(31))
        assert (caught.value.limit, status_of(caught.value)) == (30, 413)


@pytest.mark.parametrize("number", [0, -1, HUGE])
@pytest.mark.parametrize("verb", ["get", "open", "read", "archive", "restore", "delete"])
def test_a_number_of_no_version_is_not_found(rooms: Rooms, verb: str, number: int) -> None:
    """Also one that no column holds."""
    with pytest.raises(MLFrameworkError) as caught:
        getattr(rooms.datasets, verb)("d", number)
    assert status_of(caught.value) in (400, 404)


def test_every_item_is_read_once() -> None:
    """Page after page, until one has no cursor."""
    pages = {None: Page([1, 2], "b"), "b": Page([3], "c"), "c": Page([])}
    assert list(every(lambda _limit, cursor: pages[cursor])) == [1, 2, 3]
