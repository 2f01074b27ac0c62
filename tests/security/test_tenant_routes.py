"""Each route of the prediction plane, asked with the key of another tenant: as if nothing were there."""

import httpx
import pytest

ROUTES = [
    ("POST", "/models/tickets/predict"),
    ("POST", "/models/tickets/explain"),
    ("POST", "/models/tickets/feedback"),
    ("GET", "/v2"),
    ("GET", "/v2/health/live"),
    ("GET", "/v2/health/ready"),
    ("GET", "/v2/models/tickets"),
    ("GET", "/v2/models/tickets/config"),
    ("GET", "/v2/models/tickets/ready"),
    ("GET", "/v2/models/tickets/versions/1"),
    ("GET", "/v2/models/tickets/versions/1/config"),
    ("GET", "/v2/models/tickets/versions/1/ready"),
    ("POST", "/v2/models/tickets/infer"),
    ("POST", "/v2/models/tickets/versions/1/infer"),
]


def ask(platform, method, tenant, path, key):
    url = f"{platform.url}/t/{tenant}{path}"
    headers = {"Authorization": f"Bearer {key}", "x-request-id": "same"}
    content = b'{"rows": [{}]}' if method == "POST" else None
    return httpx.request(method, url, headers=headers, content=content, timeout=30, trust_env=False)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_another_tenants_key_finds_nothing(platform, acme, globex, method, path):
    """404, with the very answer that a tenant gets that does not exist."""
    theirs = ask(platform, method, "acme", path, globex.key)
    nobodys = ask(platform, method, "nobody", path, globex.key)
    assert theirs.status_code == 404
    assert theirs.text.replace("acme", "nobody") == nobodys.text


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_the_owner_is_let_in(platform, acme, method, path):
    """The same routes answer their owner something else than 404: the test above does not pass by mistake."""
    assert ask(platform, method, "acme", path, acme.key).status_code in (200, 400, 422)
