"""Who may call the control API: keys and tokens, over its own application."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from ml_core.api.access import Services
from ml_core.api.app import PREFIX, create_app
from ml_core.client.inprocess import InProcessTransport
from ml_core.database.connection import DatabaseConnection
from ml_core.domain.api_key import ApiKey, Scope
from ml_core.ids import TenantId
from ml_core.registry.keys import KeyRepository
from ml_core.registry.oidc import TokenVerifier
from support.oidc_issuer import Issuer, running_issuer

Ask = Callable[[str, object], httpx.Response]


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture
def ask(db: DatabaseConnection, issuer: Issuer) -> Iterator[Ask]:
    """List a tenant's models with a key or token."""
    app = create_app(Services(db, tokens=TokenVerifier(issuer.settings())))
    with httpx.Client(transport=InProcessTransport(app, PREFIX), base_url="http://api") as client:

        def list_models(tenant: str, text: object) -> httpx.Response:
            headers = {} if text is None else {"authorization": f"Bearer {text}"}
            return client.get(f"{PREFIX}/v1/tenants/{tenant}/models", headers=headers)

        yield list_models


def test_keys_and_tokens_are_answered_alike(
    ask: Ask, db: DatabaseConnection, issuer: Issuer, tenant_id: TenantId, other_tenant_id: TenantId
) -> None:
    """By tenant, scope and validity, as on the prediction plane."""
    key = {
        (tenant, scope): KeyRepository(db, tenant).create("k", [scope])
        for tenant in (tenant_id, other_tenant_id)
        for scope in (Scope.READ, Scope.LABEL)
    }
    token = {
        (tenant, scope): issuer.token(tenant=tenant, scope=f"mlcore:{scope}")
        for tenant in (tenant_id, other_tenant_id)
        for scope in (Scope.READ, Scope.LABEL)
    }
    for text in (key, token):
        assert ask(tenant_id, text[tenant_id, Scope.READ]).status_code == 200
        assert ask(tenant_id, text[tenant_id, Scope.LABEL]).status_code == 403
        assert ask(tenant_id, text[other_tenant_id, Scope.READ]).status_code == 404
        assert ask("ghost", text[other_tenant_id, Scope.READ]).status_code == 404
    assert ask(tenant_id, issuer.token(tenant="*", scope="mlcore:read")).status_code == 200
    for text in (None, "x", ApiKey.generate(), "a.b.c", issuer.token(aud="other", tenant=tenant_id)):
        assert ask(tenant_id, text).status_code == 401
