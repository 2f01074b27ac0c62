"""The first view of pages of the console, with an empty cache, on a registry with many tenants.

    .venv/bin/python benchmarks/console.py [--tenants 10000] [--versions 10] [--views 10] [--json FILE]

Starts an embedded PostgreSQL server with many tenants and the control API as one process, and opens each page in the
distribution's Chromium, signed in. A view is from the begin of the navigation until the page and its lists are shown.
The kilobytes are those of the files of the console that this page has loaded, without answers of the API.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from populate import MODEL, populate, temporary_registry, tenant_name
from registry_http import control_api

from ml_core.domain.api_key import Scope
from ml_core.registry.platform_keys import PlatformKeyRepository
from ml_core.registry.runs import RunRepository

_IS_SHOWN = """() => document.querySelector("main h1") && !document.querySelector("main [aria-busy=true]")
  && [...document.querySelectorAll("data-table")].every((list) => list.childElementCount) && performance.now()"""
_LOADED_BYTES = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
  .filter(({ name }) => name.includes("/console/")).reduce((sum, { encodedBodySize: size }) => sum + size, 0)"""


@contextmanager
def _signed_in(url: str, key: str) -> Iterator[tuple[Browser, dict[str, object]]]:
    """A browser, and what a context of it needs to be signed in."""
    with sync_playwright() as playwright:
        # Its sandbox needs rights that root in a container lacks; it sees nothing but this console.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(url)
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("button", name="Sign out").wait_for()
        yield browser, {"storage_state": page.context.storage_state()}
        browser.close()


def _view(browser: Browser, signed_in: dict[str, object], address: str) -> tuple[float, int]:
    """Milliseconds and bytes of one view."""
    context = browser.new_context(**signed_in)
    try:
        page = context.new_page()
        page.goto(address, wait_until="commit")
        shown_ms = page.wait_for_function(_IS_SHOWN).json_value()
        return shown_ms, page.evaluate(_LOADED_BYTES)
    finally:
        context.close()


def main() -> None:
    """Measure, and print a table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tenants", type=int, default=10_000)
    options.add_argument("--versions", type=int, default=10)
    options.add_argument("--views", type=int, default=10)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    found = {}
    with temporary_registry() as db:
        populate(db, tenants=given.tenants, versions=given.versions)
        tenant = tenant_name(given.tenants // 2)
        run = RunRepository(db, tenant).search().items[0].run_id
        model = f"t/{tenant}/models/{MODEL}"
        pages = {
            "overview": "",
            "tenant": f"t/{tenant}",
            "model": model,
            "version": f"{model}/versions/{given.versions}",
            "run": f"t/{tenant}/runs/{run}",
        }
        key = str(PlatformKeyRepository(db).create("console", [Scope.READ]))
        with control_api(db, 0) as (port, _):
            url = f"http://127.0.0.1:{port}/console/"
            with _signed_in(url, key) as (browser, signed_in):
                for name, path in pages.items():
                    views = [_view(browser, signed_in, f"{url}#/{path}") for _ in range(given.views)]
                    times_ms, sizes = zip(*views, strict=True)
                    found[name] = {
                        "p50_ms": statistics.median(times_ms),
                        "max_ms": max(times_ms),
                        "kb": max(sizes) / 1000,
                    }
    print(f"{'page':<10}{'p50 ms':>10}{'max ms':>10}{'kB':>8}")
    for name, of in found.items():
        print(f"{name:<10}{of['p50_ms']:10.0f}{of['max_ms']:10.0f}{of['kb']:8.0f}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
