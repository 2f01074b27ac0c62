"""Search over versions: by model, type, tag, metric and text, sorted, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import InvalidRequestError, ModelNotFoundError
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.registry.versions.repository import VersionRepository
from support.registry import TICKETS, artifact_of, draft, register

CHURN = ModelId("churn")


@pytest.fixture
def versions(db: DatabaseConnection, tenant_id: TenantId) -> VersionRepository:
    """Five versions of ``tickets`` with rising accuracy, and one of ``churn``."""
    for number in range(1, 6):
        register(
            db,
            tenant_id,
            metrics={"validation": {"accuracy": number / 10}, "train": {"accuracy": 0.9}},
            tags={"team": "support" if number % 2 else "sales"},
            metadata={"note": f"trial {number} of 100%"},
        )
    repository = VersionRepository(db, tenant_id)
    repository.register(
        draft(CHURN, model_type="regression", metrics={"validation": {"r2": 0.5}}), artifact_of("churn"), "tester"
    )
    return repository


def names(versions: VersionRepository, *, limit: int = 50, **query: Any) -> list[str]:
    return [f"{found.model_id}/{found.version}" for found in pages(versions, limit, query)]


def pages(versions: VersionRepository, limit: int, query: dict[str, Any]) -> Iterator:
    cursor = None
    while True:
        page = versions.search(**query, limit=limit, cursor=cursor)
        assert len(page.items) <= limit
        yield from page.items
        if (cursor := page.next_cursor) is None:
            return


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"model_id": CHURN}, ["churn/1"]),
        ({"model_type": "regression"}, ["churn/1"]),
        ({"tags": {"team": "sales"}}, ["tickets/4", "tickets/2"]),
        ({"tags": {"team": "sales", "x": "y"}}, []),
        ({"metrics": ["accuracy>=0.3", "accuracy<=0.4"]}, ["tickets/4", "tickets/3"]),
        ({"metrics": ["train/accuracy>=0.95"]}, []),
        ({"text": "TRIAL 3"}, ["tickets/3"]),
        ({"text": "supp", "model_id": TICKETS}, ["tickets/5", "tickets/3", "tickets/1"]),
        ({"text": "5 of 100%"}, ["tickets/5"]),
        ({"text": "%"}, [f"tickets/{n}" for n in (5, 4, 3, 2, 1)]),
        ({"text": "t_ial"}, []),
    ],
)
def test_what_restricts_a_search(versions: VersionRepository, query: dict, found: list[str]) -> None:
    """Each condition keeps the versions that meet it, newest first; a text's signs are no patterns."""
    assert names(versions, **query) == found


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 50])
@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("sort", ["created", "validation/accuracy", "train/accuracy"])
def test_pages_hold_each_version_once_and_in_order(
    versions: VersionRepository, sort: str, descending: bool, limit: int
) -> None:
    """Pages of any size put together are the whole list, also where many versions have the same metric."""
    found = names(versions, sort=sort, descending=descending, limit=limit)
    whole = [f"tickets/{n}" for n in range(1, 6)] + (["churn/1"] if sort == "created" else [])
    assert found == (whole[::-1] if descending else whole)


@pytest.mark.parametrize("limit", [1, 2, 50])
@pytest.mark.parametrize(
    ("sort", "descending", "found"),
    [
        ("log_loss", None, "123"),
        ("log_loss", True, "321"),
        ("validation/roc_auc", None, "321"),
        ("own_score", None, "321"),
        ("own_score", False, "123"),
    ],
)
def test_the_best_of_a_metric_comes_first(
    db: DatabaseConnection, tenant_id: TenantId, sort: str, descending: bool | None, found: str, limit: int
) -> None:
    """The lowest loss, the highest score; what nobody knows the direction of, the highest; or as it is asked for."""
    for number in (1, 2, 3):
        register(db, tenant_id, metrics={"validation": dict.fromkeys(("log_loss", "roc_auc", "own_score"), number)})
    listed = names(VersionRepository(db, tenant_id), sort=sort, descending=descending, limit=limit)
    assert listed == [f"tickets/{n}" for n in found]


@pytest.mark.parametrize(
    ("query", "nearest"),
    [
        ({"sort": "acuracy"}, "accuracy"),
        ({"sort": "vlidation/accuracy"}, "validation"),
        ({"metrics": ["acuracy>=0.1"]}, "accuracy"),
        ({"metrics": ["trian/accuracy>=0.1"]}, "train"),
        ({"metrics": ["rsme<=1"]}, "rmse"),
        ({"model_type": "clasification"}, "classification"),
    ],
)
def test_a_typo_is_no_empty_result(versions: VersionRepository, query: dict, nearest: str) -> None:
    """The error names the nearest that there is."""
    with pytest.raises(InvalidRequestError, match=f"Did you mean {nearest}"):
        versions.search(**query)


def test_a_model_that_is_not_there_is_no_empty_result(versions: VersionRepository) -> None:
    """The error names the nearest that there is."""
    with pytest.raises(ModelNotFoundError, match="Did you mean tickets"):
        versions.search(model_id=ModelId("tikets"))


@pytest.mark.parametrize("query", [{"sort": "rmse"}, {"model_type": "clustering"}, {"text": "nothing like it"}])
def test_what_nothing_has_yet_is_an_empty_result(versions: VersionRepository, query: dict) -> None:
    """A metric and a type that versions may have are no typos."""
    assert names(versions, **query) == []


def test_a_version_that_is_registered_meanwhile_disturbs_no_page(
    db: DatabaseConnection, tenant_id: TenantId, versions: VersionRepository
) -> None:
    """The second page goes on after the first one's last version, whatever came before it since."""
    first = versions.search(limit=2)
    register(db, tenant_id)
    second = versions.search(limit=2, cursor=first.next_cursor)
    assert [v.version for v in (*first.items, *second.items)] == ["1", "5", "4", "3"]


def test_archived_versions_are_found_on_request(versions: VersionRepository) -> None:
    """They are hidden unless asked for."""
    versions.archive(TICKETS, VersionId("5"))
    assert "tickets/5" not in names(versions)
    assert "tickets/5" in names(versions, include_archived=True)


def test_another_tenants_versions_are_not_found(
    db: DatabaseConnection, versions: VersionRepository, other_tenant_id: TenantId
) -> None:
    """A search without any condition is over one tenant."""
    assert names(VersionRepository(db, other_tenant_id)) == []


def test_tags_change_and_go(versions: VersionRepository) -> None:
    """A tag is set, replaced and removed; others stay, and the version carries them."""
    version = VersionId("1")
    assert versions.get(TICKETS, version).tags == {"team": "support"}
    changed = versions.set_tags(TICKETS, version, {"stage": "pilot", "team": "sales"})
    assert changed.tags == {"team": "sales", "stage": "pilot"}
    assert versions.set_tags(TICKETS, version, {"team": None}).tags == {"stage": "pilot"}
    assert names(versions, tags={"stage": "pilot"}) == ["tickets/1"]


@pytest.mark.parametrize("tags", [{"": "x"}, {"x" * 251: "y"}, {"x": "y" * 8_001}, {"x": "\0"}, {"x": 3}])
def test_tags_that_are_none(versions: VersionRepository, tags: dict) -> None:
    """Empty, endless or no text: refused, and nothing is stored."""
    with pytest.raises(InvalidRequestError, match="tag"):
        versions.set_tags(TICKETS, VersionId("1"), tags)
    assert versions.get(TICKETS, VersionId("1")).tags == {"team": "support"}


def test_only_a_version_that_exists_is_tagged(versions: VersionRepository) -> None:
    """Otherwise the error says that there is none."""
    with pytest.raises(ModelNotFoundError):
        versions.set_tags(TICKETS, VersionId("99"), {"x": "y"})


@pytest.mark.parametrize(
    "cursor", ["", "x", "bm9uZQ", "WzFd", "WyJjcmVhdGVkIiwxLDIsM10", "WyItY3JlYXRlZCIsMS41LCJhIiwiYiJd"]
)
def test_a_cursor_that_no_page_returned(versions: VersionRepository, cursor: str) -> None:
    """Whatever it holds, the answer is an error that says what to do."""
    with pytest.raises(InvalidRequestError, match="cursor"):
        versions.search(cursor=cursor)


@pytest.mark.parametrize("other", ["validation/accuracy", "created"])
def test_a_cursor_of_another_sorting(versions: VersionRepository, other: str) -> None:
    """Taken for what it is not, a page would silently skip versions."""
    sort = "created" if other != "created" else "validation/accuracy"
    cursor = versions.search(sort=sort, limit=1).next_cursor
    with pytest.raises(InvalidRequestError, match="sorting"):
        versions.search(sort=other, cursor=cursor)
    with pytest.raises(InvalidRequestError, match="sorting"):
        versions.search(sort=sort, descending=False, cursor=cursor)


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_page_has_a_bounded_size(versions: VersionRepository, limit: int) -> None:
    """No caller asks for everything at once."""
    with pytest.raises(InvalidRequestError, match="1 to 1000"):
        versions.search(limit=limit)


@pytest.mark.parametrize("sort", ["", "/", "validation/", "/accuracy"])
def test_what_versions_can_not_be_sorted_by(versions: VersionRepository, sort: str) -> None:
    """The error says how sorting is written."""
    with pytest.raises(InvalidRequestError, match="train/accuracy"):
        versions.search(sort=sort)


def test_a_text_to_search_for_is_bounded(versions: VersionRepository) -> None:
    """A text of megabytes would be compared with every version."""
    with pytest.raises(InvalidRequestError, match="200"):
        versions.search(text="x" * 201)
