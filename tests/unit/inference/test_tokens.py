"""OpenID Connect tokens on the prediction plane, of a real issuer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest

from ml_core.domain.api_key import Scope
from ml_core.domain.assignment import AssignmentDelta
from ml_core.models.store import ArtifactStore
from ml_core.registry.oidc import TokenVerifier
from ml_core.settings import ServingSettings
from ml_core.training.fit import FittedModel
from support.inprocess_cell import ACME, GLOBEX, MEASURE, Cell, make_cell, promote, servable
from support.oidc_issuer import Issuer, running_issuer

PATH = "/t/acme/models/measures/predict"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture
def tokens_cell(store: ArtifactStore, fitted_measures: FittedModel, issuer: Issuer) -> Iterator[Cell]:
    """A cell that serves ``measures`` of acme and accepts the issuer's tokens beside keys."""
    cell = make_cell(store, ServingSettings(), tokens=TokenVerifier(issuer.settings()))
    cell.assignment.apply(AssignmentDelta(1, True, {ACME: True, GLOBEX: True}, {}, {}))
    promote(cell.table, servable(store, fitted_measures))
    yield cell
    cell.table.close()
    cell.service.close()


def test_a_token_predicts_for_its_tenant(tokens_cell: Cell, issuer: Issuer) -> None:
    """The first time by its signature, then by its digest: the issuer is asked once."""
    token = issuer.token(tenant="acme", scope="openid mlcore:predict")
    for _ in range(3):
        assert tokens_cell.predict("measures", [MEASURE], key=token).status_code == 200
    assert issuer.requests["/jwks"] == 1
    assert tokens_cell.predict("measures", [MEASURE], key=tokens_cell.key(ACME, Scope.PREDICT)).status_code == 200


def test_a_token_for_another_tenant_finds_what_a_tenant_that_does_not_exist_has(
    tokens_cell: Cell, issuer: Issuer
) -> None:
    """The same 404 as for a key, to the letter; also where the token names a tenant that does not exist."""
    token = issuer.token(tenant=["globex", "ghost"], scope="mlcore:admin")
    key = tokens_cell.key(GLOBEX, Scope.ADMIN)
    answers = [
        tokens_cell.ask("POST", f"/t/{tenant}/models/measures/predict", key=sent, json={"rows": [MEASURE]})
        for tenant, sent in (("acme", token), ("ghost", token), ("nobody", token), ("acme", key), ("No Name", token))
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.json()["error"]["message"] for answer in answers}) == 1


def test_a_token_of_the_platform_predicts_for_every_tenant(tokens_cell: Cell, issuer: Issuer) -> None:
    """Of those that exist."""
    token = issuer.token(tenant="*", scope="mlcore:predict")
    assert tokens_cell.predict("measures", [MEASURE], key=token).status_code == 200
    ghost = tokens_cell.ask("POST", "/t/ghost/models/measures/predict", key=token, json={"rows": [MEASURE]})
    assert (ghost.status_code, ghost.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("scope", ["predict", "mlcore:read", "mlcore:fly", None])
def test_a_token_without_the_scope_is_refused(tokens_cell: Cell, issuer: Issuer, scope: str | None) -> None:
    """403 names the scope."""
    answer = tokens_cell.predict("measures", [MEASURE], key=issuer.token(tenant="acme", scope=scope))
    assert (answer.status_code, answer.json()["error"]["details"]["scope"]) == (403, "predict")


def test_a_token_that_is_not_valid_is_refused(tokens_cell: Cell, issuer: Issuer) -> None:
    """Expired, for another audience, malformed, huge: 401, which says why."""
    now = int(time.time())
    claims = {"tenant": "acme", "scope": "mlcore:predict"}
    sent = [issuer.token(**claims, exp=now - 60), issuer.token(**claims, aud="x"), "a.b.c", "x" * 20_000 + ".b.c"]
    for token in sent:
        answer = tokens_cell.predict("measures", [MEASURE], key=token)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "has expired" in tokens_cell.predict("measures", [MEASURE], key=sent[0]).json()["error"]["message"]


def test_a_deleted_tenant_ends_its_tokens(tokens_cell: Cell, issuer: Issuer) -> None:
    """Although they are remembered."""
    token = issuer.token(tenant="acme", scope="mlcore:predict")
    assert tokens_cell.predict("measures", [MEASURE], key=token).status_code == 200
    tokens_cell.assignment.apply(AssignmentDelta(9, False, {ACME: False}, {}, {}))
    assert tokens_cell.predict("measures", [MEASURE], key=token).status_code == 404


def test_without_an_issuer_a_token_is_no_key(cell: Cell, issuer: Issuer) -> None:
    """401, and the issuer is not asked."""
    assert cell.predict("measures", [MEASURE], key=issuer.token(tenant="acme")).status_code == 401
    assert not issuer.requests


def test_the_issuers_outage_is_a_503(tokens_cell: Cell, issuer: Issuer) -> None:
    """With Retry-After, and seen in health; keys go on working."""
    token = issuer.token(tenant="acme", scope="mlcore:predict")
    issuer.stop()
    answer = tokens_cell.predict("measures", [MEASURE], key=token)
    issuer.start()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "issuer_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert tokens_cell.ask("GET", "/healthz").json()["issuer"] == {"keys": 0, "age_s": None, "failed": True}
    assert tokens_cell.predict("measures", [MEASURE], key=tokens_cell.key(ACME, Scope.PREDICT)).status_code == 200


def test_a_slow_issuer_holds_up_nobody_else(tokens_cell: Cell, issuer: Issuer) -> None:
    """A request with a key is answered meanwhile, and one with a token is refused at its own deadline."""
    token = issuer.token(tenant="acme", scope="mlcore:predict")
    key = tokens_cell.key(ACME, Scope.PREDICT)
    issuer.blocked.clear()

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        async with tokens_cell.client() as client:
            headers = {"authorization": f"Bearer {token}", "x-request-timeout-ms": "300"}
            late = asyncio.create_task(client.post(PATH, headers=headers, json={"rows": [MEASURE]}))
            await asyncio.sleep(0)
            quick = await client.post(PATH, headers={"authorization": f"Bearer {key}"}, json={"rows": [MEASURE]})
            assert not late.done()
            return quick, await late

    quick, late = asyncio.run(ask())
    assert (quick.status_code, late.status_code) == (200, 503)
