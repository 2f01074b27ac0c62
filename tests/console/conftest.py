"""A real browser on both planes. Without Playwright (the dependency group ``console``) and a Chromium, skipped."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from ml_core.domain.api_key import ApiKey
from ml_core.ids import ModelId, TenantId, VersionId
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import EnvironmentRepository
from ml_core.registry.promotion.gates import GateRepository
from support.console import both_planes
from support.gated import PEOPLE, logistic, publish

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATH = "/api/console/"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_HERE = Path(__file__).parent
_asked: set[tuple[str, str]] = set()
_wanted: set[str] = set()
_begun: set[str] = set()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what looks back on all others come last."""
    _wanted.update(each.nodeid for each in items if each.path.parent == _HERE)
    items.sort(key=lambda each: "asked_by_all" in getattr(each, "fixturenames", ()))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note what runs in this process."""
    _begun.add(item.nodeid)


@pytest.fixture
def asked_by_all() -> set[tuple[str, str]]:
    """Method and path of each request that the browsers of all tests of this folder sent."""
    files = {nodeid.partition("::")[0].rpartition("/")[2] for nodeid in _begun}
    if not _asked or not _wanted <= _begun or not {path.name for path in _HERE.glob("test_*.py")} <= files:
        pytest.skip("Not all tests of the console ran in this process, in a browser: make console-test")
    return _asked


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The distribution's Chromium. Not for the session: other tests need a thread without Playwright's event loop."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed.")
    if CHROMIUM is None:
        pytest.skip("There is no Chromium; on Debian: apt install chromium")
    with playwright.sync_playwright() as running:
        # Its sandbox needs rights that root in a container lacks; it sees nothing but this console.
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(chromium, db) -> Iterator[str]:
    """Where the console is. Its replica serves what is in the registry, so it ends with these tests."""
    with both_planes(db) as url:
        yield f"{url}{PATH}"


class Viewer:
    """Somebody with a browser of their own.

    Whatever the page says on its console is an error: a violation of the policy, an exception, a file that is missing.
    A refusal of the API is one in the network only, which the browser reports in its own words.
    """

    def __init__(self, browser: Browser, address: str, **options: Any) -> None:
        self.context = browser.new_context(locale="en-US", timezone_id="Europe/Berlin", **options)
        self.address = address
        self.context.on("request", lambda each: _asked.add((each.method, urlsplit(each.url).path)))
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.said: list[str] = []
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self._asked: set[Any] = set()
        self.page.on("request", lambda each: each.url.endswith("/events") or self._asked.add(each))
        for ended in ("requestfinished", "requestfailed"):
            self.page.on(ended, lambda each: self._asked.discard(each))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.said.append(text)

    def open(self, path: str = "") -> Page:
        """Open an address, of what is behind the #; without a session it asks for a key."""
        self.page.goto(f"{self.address}#/{path}")
        return self.page

    def sign_in(self, key: object) -> Page:
        """Sign in where the page asks for it."""
        self.page.get_by_label("API key").fill(str(key))
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("button", name="Sign out").wait_for()
        return self.page

    def wait_for_rest(self) -> None:
        """Wait until nothing but the stream of events is on its way; that has no end, so "networkidle" never comes."""
        self.page.wait_for_timeout(200)  # what was answered is shown, and may ask again
        self.wait_until(lambda: not self._asked)
        self.page.wait_for_timeout(200)
        self.wait_until(lambda: not self._asked)

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so in this process, while the page goes on."""
        for _ in range(400):
            if condition():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError("It did not happen within 20 s.")

    def dialog(self, button: str) -> Any:
        """The dialog that a button opens."""
        self.page.get_by_role("button", name=button, exact=True).click()
        return self.page.get_by_role("dialog")


@pytest.fixture
def viewer(chromium, address) -> Iterator[Callable[..., Viewer]]:
    """Makes people with a browser each; fails the test for what their pages said on the console."""
    with _viewers(chromium, address) as make:
        yield make


@pytest.fixture
def viewer_of_platform(chromium, platform) -> Iterator[Callable[..., Viewer]]:
    """The same on a platform with Ray, its ingress and its jobs."""
    with _viewers(chromium, f"{platform.url}{PATH}") as make:
        yield make


@contextmanager
def _viewers(chromium: Browser, address: str) -> Iterator[Callable[..., Viewer]]:
    viewers = []

    def make(**options: Any) -> Viewer:
        viewers.append(Viewer(chromium, address, **options))
        return viewers[-1]

    yield make
    said = [text for each in viewers for text in each.said]
    for each in viewers:
        each.context.close()
    assert said == []


class Shop:
    """A tenant that serves version 1 of ``people``; 2 is better, and 3 does not pass the gate of production."""

    def __init__(self, db, tenant_id: TenantId) -> None:
        self.db = db
        self.tenant = tenant_id
        self.path = f"t/{tenant_id}"
        self.model = f"{self.path}/models/{PEOPLE}"
        for version, noise in (("1", 0.1), ("2", 0.0), ("3", 0.45)):
            publish(db, tenant_id, version, logistic(int(version), noise))
        self.environments = EnvironmentRepository(db, tenant_id)
        self.environments.promote(PEOPLE, "1", reason="the first")
        settings = {"metric": "accuracy", "value": 0.8}
        GateRepository(db, tenant_id).set(PEOPLE, "production", "accurate", "min_metric", settings)

    def key(self, *scopes: str) -> ApiKey:
        """A new key of the tenant."""
        return KeyRepository(self.db, self.tenant).create("viewer", scopes)

    def served(self) -> VersionId | None:
        """The stable version of production."""
        return self.environments.get(PEOPLE).version

    def publish(self, version: str, model_id: ModelId = PEOPLE) -> None:
        """Register a version, as another program does."""
        publish(self.db, self.tenant, version, dataclasses.replace(logistic(2, 0.0), model_id=model_id))


@pytest.fixture
def shop(db, tenant_id) -> Shop:
    """A tenant of this test."""
    return Shop(db, tenant_id)
