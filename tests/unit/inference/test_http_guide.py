"""The guide to the prediction plane has each route with its scope, and each status."""

from __future__ import annotations

import re
from pathlib import Path

from ml_core.domain.api_key import Scope
from ml_core.exceptions import STATUS
from ml_core.inference.edge.app import BODY_WITHIN_S, routes_of
from ml_core.inference.edge.http import _OWN_HEADERS
from ml_core.registry.predictions.labels import MAX_LABEL_CHARACTERS

GUIDE = (Path(__file__).parents[3] / "docs" / "http.md").read_text(encoding="utf-8")
ROUTE_LINE = re.compile(r"^\| (`(?:GET|POST) .+?) \| (.+?) \|", re.MULTILINE)


def test_each_route_is_there_with_its_scope(cell):
    """And no other; versions have the routes of their model."""
    documented = {
        (method, path): set(re.findall(r"`(\w+)`", scopes))
        for paths, scopes in ROUTE_LINE.findall(GUIDE)
        for method, path in re.findall(r"`(GET|POST) (\S+)`", paths)
    }
    real = {
        (route.method, route.path.replace("/versions/{version}", "")): {scope.value for scope in route.scopes}
        for route in routes_of(cell.service)
    }
    assert documented == real


def test_each_status_of_a_request_is_there():
    """Those that only other planes answer are not."""
    table = GUIDE[GUIDE.index("| status |") : GUIDE.index("# The control plane")]
    documented = {
        int(status) for line in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for status in line.split(",")
    }
    assert documented == {status for status in STATUS.values() if status not in (409, 500, 507)} | {405}


def test_scopes_headers_and_figures_are_the_real_ones():
    """Each scope, each header that may be there once, and the limits that are no setting."""
    assert all(f"`{scope}`" in GUIDE for scope in Scope)
    assert all(f"`{header.decode()}`" in GUIDE for header in _OWN_HEADERS)
    assert f"within {BODY_WITHIN_S:g} s" in GUIDE
    assert f"{MAX_LABEL_CHARACTERS:,} characters" in GUIDE
