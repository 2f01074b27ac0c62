"""The guide to the Python client is run, block after block, against a control API; what the HTTP guide says is true."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from ml_core import exceptions
from ml_core.api import bodies, bounds
from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.client import MLClient
from ml_core.client.clients import _TIMEOUT_S
from ml_core.domain.api_key import Scope
from ml_core.registry.idempotency import MAX_KEY_LENGTH
from ml_core.registry.keys import KeyRepository
from ml_core.registry.limits import MAX_PAGE_SIZE
from support.http_server import mounted, served
from support.job_queue import running_queue
from support.tables import tickets

DOCS = Path(__file__).parents[2] / "docs"
CLIENT = (DOCS / "client.md").read_text(encoding="utf-8")
CONTROL = (DOCS / "http.md").read_text(encoding="utf-8").partition("# The control plane over HTTP")[2]


@pytest.fixture
def access(db, tenant_id):
    """The address of a control API, and a key."""
    key = str(KeyRepository(db, tenant_id).create("guide", [Scope.ADMIN]))
    with running_queue(db), served(mounted(create_app(Services(db)))) as port:
        yield f"http://127.0.0.1:{port}", key


def test_each_block_of_the_client_guide_runs(access, tenant_id, tmp_path, monkeypatch, capsys):
    """In order, in one namespace; the first has five lines besides the import."""
    blocks = re.findall(r"```python\n(.*?)```", CLIENT, re.DOTALL)
    assert len([line for line in blocks[0].splitlines() if line and not line.startswith("from")]) == 5
    monkeypatch.chdir(tmp_path)
    tickets().to_csv("tickets.csv", index=False)
    names = dict(zip(("url", "key"), access, strict=True))
    try:
        for block in blocks:
            exec(block.replace('"acme"', repr(str(tenant_id))), names)
    finally:
        names["client"].close()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("succeeded")
    assert "does not exist" in shown[1]
    assert names["asyncio"].run(names["versions"]()) == ["1"]


def test_the_client_guide_names_what_there_is():
    """Nouns, error classes and the default timeout."""
    rows = re.findall(r"^\| (`.+?`) \| ", CLIENT, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    classes = {name for name in named if name.endswith("Error")}
    assert all(issubclass(getattr(exceptions, name), exceptions.MLFrameworkError) for name in classes)
    with MLClient("http://127.0.0.1:9") as client:
        nouns = {name for name in type(client).__mro__[1].__annotations__ if not name.startswith("_")}
    assert named - classes == nouns
    assert f"({_TIMEOUT_S:g} by default)" in CLIENT


def test_the_numbers_of_the_http_guide_are_the_real_ones():
    """Each is a bound of the code."""
    for text in (
        f"up to {bodies.MAX_JSON_BYTES // 2**20} MiB",
        f"`limit` is 1 to {MAX_PAGE_SIZE}",
        f"1 to {MAX_KEY_LENGTH} characters",
        f"within {bodies._BODY_WITHIN_S:g} s, or less than {bodies._PART_BYTES // 2**20} MiB of an upload within "
        f"{bodies._PART_WITHIN_S:g} s",
        f"`x-request-timeout-ms`, {bounds.DEADLINES.default_timeout_ms // 1000} s by default",
    ):
        assert text in CONTROL, text


def test_what_the_http_guide_shows_is_accepted(access, tenant_id):
    """The upload, a page, a repeated request, the generation of an environment, the feed, an action."""
    url, key = access
    root = f"{url}/api/v1/tenants/{tenant_id}"
    with httpx.Client(headers={"authorization": f"Bearer {key}"}, trust_env=False, timeout=30) as http:
        path = re.search(r"curl http://127.0.0.1:8000(\S+)", CONTROL)[1].replace("acme", tenant_id)
        uploaded = http.post(f"{url}{path}", content=b"a\n1\n", headers={"content-type": "text/csv"})
        assert uploaded.status_code == 201
        assert http.get(f"{root}/datasets").json().keys() == {"items", "next_cursor"}
        write = {"json": {"model_id": "m"}, "headers": {"idempotency-key": "k"}}
        first, again = http.post(f"{root}/runs", **write), http.post(f"{root}/runs", **write)
        assert (first.json(), again.headers["idempotency-replayed"]) == (again.json(), "true")
        feed = http.get(f"{root}/audit").json()
        assert http.get(f"{root}/audit", params={"after": feed["items"][-1]["cursor"]}).json()["items"] == []
        reader = http.post(f"{root}/keys", json={"scopes": ["read"]}).json()["key"]
        refused = http.post(f"{root}/runs", json={"model_id": "m"}, headers={"authorization": f"Bearer {reader}"})
    action = refused.json()["error"]["action"]
    assert (refused.status_code, action["operation"], action["arguments"]["scope"]) == (403, "keys.create", "train")
