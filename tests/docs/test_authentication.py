"""The guide to authentication: its table of scopes is that of the code, and its examples are accepted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ml_core.api import openid
from ml_core.domain.api_key import Scope
from ml_core.domain.permissions import MOVES, NEEDED
from ml_core.registry import oidc
from ml_core.registry.oidc import TokenVerifier
from ml_core.settings import Settings
from support.oidc_issuer import running_issuer
from support.operations import operations

GUIDE = (Path(__file__).parents[2] / "docs" / "authentication.md").read_text(encoding="utf-8")
EXAMPLES = [
    (section.splitlines()[0], *found[0])
    for section in GUIDE.split("\n### ")
    if (found := re.findall(r"^```\n(MLCORE.*?)```.*?^```json\n(.*?)```", section, re.MULTILINE | re.DOTALL))
]


def test_each_change_is_there_with_its_scope() -> None:
    """And each scope, and no other."""
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", GUIDE, re.MULTILINE)
    documented = {scope: set(re.findall(r"`([a-z_]+\.[a-z_]+)`", changes)) for scope, changes in rows}
    real: dict[str, set[str]] = {scope.value: set() for scope in Scope}
    real["promote"] = set(MOVES)
    for action, scope in NEEDED.items():
        real[scope.value].add(action)
    assert documented == real


def test_which_reads_need_more_than_read() -> None:
    """The guide names each of them."""
    reads = [described for method, path, described in operations() if method == "get" and "{tenant}" in path]
    reads += [described for method, path, described in operations() if method == "get" and "platform/keys" in path]
    more = {each["operationId"] for each in reads if each["x-scope"] != "read"}
    (sentence,) = re.findall(r"Only (.*) require `admin`\s+to read", GUIDE)
    assert set(re.findall(r"`([a-z_.]+)`", sentence)) == more


def test_the_algorithms_are_the_real_ones() -> None:
    """Each of them, and none that is symmetric."""
    (row,) = re.findall(r"^\| `alg` \| (.*) \|$", GUIDE, re.MULTILINE)
    assert re.findall(r"`(\w+)`", row) == [name for names in oidc._ALGORITHMS.values() for name in names]


def test_figures_are_the_real_ones() -> None:
    """Those that are no setting."""
    assert f"differ by {oidc.LEEWAY_S:g} s" in GUIDE
    assert f"{oidc._PAUSE_S:g} s" in GUIDE
    assert f"up to {oidc.FETCH_WITHIN_S:g} s" in GUIDE
    assert f"{oidc.MAX_TOKEN_BYTES // 1024} KiB" in GUIDE
    assert f"1 to {oidc._MAX_SUBJECT_CHARACTERS} printable" in GUIDE
    assert oidc._REFRESH_AFTER_S == 5 * 60
    assert f"for {openid.ATTEMPT_S // 60} minutes, encrypted" in GUIDE
    assert f"within {openid.EXCHANGE_WITHIN_S:g} s, without" in GUIDE
    assert f"{openid.EXCHANGES_PER_S} codes a second, {openid.EXCHANGES_AT_ONCE} at once" in GUIDE


@pytest.mark.parametrize(("name", "variables", "claims"), EXAMPLES, ids=[name for name, *_ in EXAMPLES])
def test_the_claims_of_an_example_are_understood(name: str, variables: str, claims: str) -> None:
    """With the settings beside them, a token of these claims may read and predict for acme."""
    documented = Settings.from_environment(dict(line.split("=", 1) for line in variables.split())).oidc
    with running_issuer("RS256") as issuer:
        settings = issuer.settings(
            audience=documented.audience, tenant_claim=documented.tenant_claim, scope_claim=documented.scope_claim
        )
        given = json.loads(claims)
        assert given["iss"] == documented.issuer
        token = issuer.sign(issuer.standard(**{**given, "iss": issuer.url, "exp": issuer.standard()["exp"]}))
        principal = TokenVerifier(settings).verify(token).principal("acme")
    assert principal.scopes == {Scope.READ, Scope.PREDICT}
    assert principal.name == f"oidc:{given['sub']}"


def test_there_is_an_example_of_each_issuer() -> None:
    """Those that the guide promises."""
    assert [name for name, *_ in EXAMPLES] == ["Keycloak", "Microsoft Entra ID"]
