"""The feed of changes over HTTP: a reader that asks for what is after its last change misses none."""

from __future__ import annotations

import threading
import time

import httpx

from ml_core.database.connection import DatabaseConnection
from ml_core.ids import TenantId
from ml_core.registry.versions.models import ModelRepository
from support.registry import register

WRITERS, CHANGES = 4, 12


def test_a_reader_misses_no_change_of_concurrent_writers(
    control: httpx.Client, db: DatabaseConnection, tenant_id: TenantId
) -> None:
    """Each change once, in the order of the feed, while transactions that began earlier commit later."""
    register(db, tenant_id)
    path, wanted = f"/api/v1/tenants/{tenant_id}", WRITERS * CHANGES
    failed: list[str] = []

    def write(writer: int) -> None:
        with httpx.Client(base_url=control.base_url, trust_env=False) as client:
            for number in range(CHANGES):
                body = {"tags": {f"writer{writer}": str(number)}}
                answer = client.patch(f"{path}/models/tickets/versions/1", json=body)
                if answer.status_code != 200:
                    failed.append(answer.text)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    seen: list[str] = []
    cursors: list[str] = []
    after, deadline = None, time.monotonic() + 60
    while len(seen) < wanted and time.monotonic() < deadline:
        params = {"action": "version.tagged", "limit": 5, **({"after": after} if after else {})}
        page = control.get(f"{path}/audit", params=params).json()
        for change in page["items"]:
            after = change["cursor"]
            cursors.append(after)
            seen.append(str(change["details"]))
        if not page["items"]:
            time.sleep(0.01)
    for writer in writers:
        writer.join(timeout=60)
    assert not failed
    assert (len(seen), len(set(cursors))) == (wanted, wanted)
    whole = control.get(f"{path}/audit", params={"action": "version.tagged", "limit": 1000}).json()
    assert [change["cursor"] for change in whole["items"]] == cursors


def test_an_empty_page_means_that_nothing_is_new(control: httpx.Client, db: DatabaseConnection, tenant_id: TenantId):
    """The reader keeps its cursor, and the next change is after it."""
    register(db, tenant_id)
    path = f"/api/v1/tenants/{tenant_id}/audit"
    last = control.get(path).json()["items"][-1]
    assert control.get(path, params={"after": last["cursor"]}).json() == {"items": [], "next_cursor": None}
    ModelRepository(db, tenant_id).archive("tickets")
    (new,) = control.get(path, params={"after": last["cursor"]}).json()["items"]
    assert new["action"] == "model.archived"
    wrong = control.get(path, params={"after": "nonsense"})
    assert (wrong.status_code, wrong.json()["error"]["details"]["field"]) == (400, "cursor")
