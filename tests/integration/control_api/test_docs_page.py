"""The documentation in a browser: every byte of it comes from this server, and its policy allows nothing else."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import pytest


@pytest.fixture
def page(control):
    return control.get("/api/docs")


def test_everything_that_it_names_is_served_here(control, page):
    """Scripts, styles, the icon and the OpenAPI document; with the types that nosniff wants."""
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    script = control.get("/api/docs/start.js").text
    named += re.findall(r'"url": "([^"]+)"', script)
    assert len(named) == 5
    types = {}
    for address in named:
        assert not re.match(r"\w+:|//", address), "another site"
        response = control.get(urljoin("/api/docs", address))
        assert response.status_code == 200, address
        types[address.rsplit("/")[-1]] = response.headers["content-type"].partition(";")[0]
    assert types == {
        "favicon.png": "image/png",
        "swagger-ui.css": "text/css",
        "swagger-ui-bundle.js": "text/javascript",
        "start.js": "text/javascript",
        "openapi.json": "application/json",
    }


def test_its_styles_name_no_other_site(control):
    """Pictures are in the file itself."""
    styles = control.get("/api/docs/assets/swagger-ui.css").text
    assert set(re.findall(r"url\(\"?(\w+):", styles)) == {"data"}
    assert "@import" not in styles


def test_its_policy_is_strict(page):
    """No script but ours, no other site, no frame."""
    policy = dict(each.strip().split(" ", 1) for each in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
    assert "<script>" not in page.text
    assert not re.search(r"\son\w+=|style=", page.text)


def test_its_examples_can_be_run(control):
    """Requests go to where the page is; a parameter that has an example has it where Swagger UI looks."""
    document = control.get("/api/openapi.json").json()
    assert document["servers"] == [{"url": "/api"}]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    operation = document["paths"]["/v1/tenants/{tenant}/models"]["get"]
    (tenant,) = [each for each in operation["parameters"] if each["in"] == "path"]
    assert tenant["example"] == "acme"
