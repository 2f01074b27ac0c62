"""The files of the console, as the control API serves them: complete, strict, cacheable, and part of the package."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urljoin

import pytest
from hatchling.builders.wheel import WheelBuilder

from ml_core.api.console import FOLDER

FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())
MODULES = [name for name in FILES if name.endswith(".js")]
ROOT = "/api/console/"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_served(control, name):
    """With its type, a strict policy, and as what a browser may keep until it changes."""
    answer = control.get(ROOT + name)
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == TYPES[Path(name).suffix]
    policy = dict(each.strip().split(" ", 1) for each in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert {policy[name] for name in ("object-src", "base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert not policy.keys() & {"script-src", "style-src", "connect-src"}, "what default-src says holds for all"
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = control.get(ROOT + name, headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert control.get(ROOT + name, headers={"if-none-match": '"0"'}).status_code == 200


def test_its_address_leads_to_its_page(control):
    """With and without the slash; what is no file of it is not found."""
    page = control.get("/api/console", follow_redirects=True)
    assert page.url.path == ROOT
    assert page.text.startswith("<!doctype html>")
    assert control.head(ROOT).status_code == 200
    for other in ("none.js", "../app.py", "%2e%2e/app.py", "..%2f..%2fapp.py", "core"):
        answer = control.get(ROOT + other)
        assert answer.status_code == 404
        if answer.url.path.startswith(ROOT):
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
    assert control.post(ROOT).status_code == 405


def test_everything_that_a_file_names_is_there(control):
    """Modules, styles and pictures; none of another site, and nothing inline."""
    page = control.get(ROOT).text
    assert not re.search(r"<script>|<style|\sstyle=|\son\w+=", page)
    named = {("index.html", each) for each in re.findall(r'(?:src|href)="(?!#)([^"]+)"', page)}
    for module in MODULES:
        named |= {(module, each) for each in re.findall(r'(?:\bfrom |\bimport |\bimport\()"([^"]+)"', read(module))}
    assert len(named) > len(MODULES)
    for module, address in named:
        assert not re.match(r"\w+:|//", address), f"{module}: {address}"
        assert urljoin(module, address) in FILES, f"{module}: {address}"
    reached = {urljoin(module, address) for module, address in named} | {"index.html"}
    assert set(FILES) == reached, "no file is left over"


@pytest.mark.parametrize("module", MODULES)
def test_one_module_writes_html(module):
    """The template, which escapes; in others values become HTML through it only. Styles are in the style sheet."""
    text = read(module)
    writers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|HTMLUnsafe|ContextualFragment|eval\(|Function\("
    assert bool(re.search(writers, text)) == (module == "core/html.js")
    assert not re.search(r"\bstyle=|\.style\b|localStorage|sessionStorage|document\.cookie", text)


@pytest.mark.parametrize("page", [name for name in MODULES if name.startswith("pages/")])
def test_the_first_view_is_small(page):
    """Whichever page it is: the frame, with its styles, and the page, each with every module that it names."""
    frame = re.findall(r'(?:src|href)="(?!#)([^"]+)"', (FOLDER / "index.html").read_text())
    loaded, found = {"index.html"}, [*frame, page]
    while found:
        loaded.add(name := found.pop())
        if name.endswith(".js"):
            imported = re.findall(r'(?:\bfrom |^import )"([^"]+)"', read(name), re.MULTILINE)
            found += {urljoin(name, each) for each in imported} - loaded
    assert {"main.js", "style.css", "core/html.js", page} < loaded
    assert sum((FOLDER / name).stat().st_size for name in loaded) < 300_000


def test_they_are_part_of_the_package():
    """The wheel has them, from which the image is made."""
    builder = WheelBuilder(str(FOLDER.parents[1]))
    packed = {file.distribution_path for file in builder.recurse_included_files()}
    assert {f"ml_core/console/{name}" for name in FILES} <= packed


def read(module: str) -> str:
    """The text of a module."""
    return (FOLDER / module).read_text()
