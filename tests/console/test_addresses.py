"""Tabs and filters: the address changes, and of the page only what differs; focus, scroll and what is typed stay."""

from __future__ import annotations

import re

import pytest

from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobRepository
from ml_core.registry.runs import RunRepository
from support.console import open_as
from support.gated import PEOPLE
from support.tables import measures

STAYS = "() => document.querySelector('h1') === window.heading && !document.querySelector('main[aria-busy]')"


@pytest.fixture
def anna(viewer, shop):
    """Somebody with a low window, in which every page scrolls."""
    DatasetRepository(shop.db, shop.tenant).create("m", measures(20))
    JobRepository(shop.db, shop.tenant).submit("train", {"model_id": PEOPLE})
    return viewer(viewport={"width": 900, "height": 300})


def opened(anna, shop, path):
    """The page of an address, which is marked: another one would have no mark."""
    page = open_as(anna, shop.key("read"), f"{shop.path}/{path}")
    anna.wait_for_rest()
    page.evaluate("() => { window.heading = document.querySelector('h1'); document.body.style.minHeight = '3000px'; }")
    return page


def scrolled_to(page, control):
    """Scroll so that a control is at the top, with the focus in it; where that is."""
    control.evaluate("element => { element.scrollIntoView(); element.focus(); }")
    top = page.evaluate("scrollY")
    assert top > 0
    return top


TABS = {
    f"models/{PEOPLE}": ("staging", "environment=staging", "staging serves nothing"),
    "jobs": ("failed", "state=failed", "No job is failed."),
    "runs": ("Parameters and a metric", "view=parameters", "No run that matches has a metric."),
}


@pytest.mark.parametrize("path", TABS)
def test_a_tab_stays_where_it_is(anna, shop, path):
    """Chosen by keyboard; so does the one before, with the button of the browser."""
    name, query, said = TABS[path]
    page = opened(anna, shop, path)
    tab = page.get_by_role("main").get_by_role("link", name=name)
    top = scrolled_to(page, tab)
    page.keyboard.press("Enter")
    page.get_by_text(said).wait_for()
    page.wait_for_url(re.compile(query))
    page.wait_for_function(STAYS)
    assert tab.evaluate("tab => tab === document.activeElement")
    assert tab.get_attribute("aria-current") == "true"
    assert page.evaluate("scrollY") == top
    page.go_back()
    page.get_by_text(said).wait_for(state="detached")
    page.wait_for_function(STAYS)
    assert tab.evaluate("tab => tab === document.activeElement")
    assert query not in page.url


FORMS = {
    f"models/{PEOPLE}": ("archived ones", "Show", "archived=1"),
    f"models/{PEOPLE}/predictions": ("request", "Search", "request_id=r1"),
    "runs": ("Model", "Search", f"model={PEOPLE}"),
    "audit": ("Action", "Search", "action=environment."),
}


@pytest.mark.parametrize("path", FORMS)
def test_a_filter_stays_where_it_is(anna, shop, path):
    """Sent by its button, which keeps the focus; the field of the address before is shown with it again."""
    label, button, query = FORMS[path]
    page = opened(anna, shop, path)
    field = page.get_by_label(label)
    if field.get_attribute("type") == "checkbox":
        field.check()
    else:
        field.fill(query.split("=")[1])
    button = page.locator("form").filter(has=field).get_by_role("button", name=button)
    top = scrolled_to(page, button)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(re.escape(query)))
    page.wait_for_function(STAYS)
    assert button.evaluate("button => button === document.activeElement")
    assert page.evaluate("scrollY") == top
    page.go_back()
    empty = "field => !(field.type === 'checkbox' ? field.checked : field.value)"
    page.wait_for_function(empty, arg=field.element_handle())
    page.wait_for_function(STAYS)


def test_what_is_typed_stays_when_another_filter_is_chosen(anna, shop):
    """A field that was not sent yet is not of the address."""
    page = opened(anna, shop, "runs")
    page.get_by_label("Parameters").fill("C=1")
    page.get_by_role("link", name="Parameters and a metric").click()
    page.get_by_text("No run that matches has a metric.").wait_for()
    assert page.get_by_label("Parameters").input_value() == "C=1"


def test_a_search_is_that_of_the_address(anna, shop):
    """Of one that is shown again by the button of the browser, with its rows."""
    page = opened(anna, shop, f"models/{PEOPLE}")
    search = page.get_by_label("Search versions")
    search.fill("3")
    rows = page.get_by_role("region", name="Versions", exact=True).locator("tbody tr")
    rows.nth(1).wait_for(state="detached")
    page.get_by_role("link", name="staging").click()
    page.get_by_text("staging serves nothing").wait_for()
    search.fill("nosuch")
    page.get_by_text("Nothing has “nosuch” in its name.").wait_for()
    page.go_back()
    rows.first.wait_for()
    assert [search.input_value(), rows.count()] == ["3", 1]


def test_what_is_behind_something_that_is_gone_keeps_the_focus(anna):
    """A note above a field vanishes; the field is the same one, with what is typed and where the cursor is."""
    page = anna.open()
    page.get_by_label("API key").wait_for()
    kept = page.evaluate(
        """async () => {
          const { html, render } = await import("./core/html.js");
          const target = document.body.appendChild(document.createElement("div"));
          const view = (note) => html`<h1>Rows</h1>
            ${note && html`<p>${note}</p>`}
            <section id="typed"><input value="given" /></section>
            ${["b", "a"].map((key) => html`<button type="button" data-key="${key}">${key}</button>`)}`;
          render(target, view("It changes."));
          const field = target.querySelector("input");
          field.focus();
          field.value = "typed";
          field.setSelectionRange(2, 3);
          render(target, view(""));
          return [document.activeElement === field, field.value, field.selectionStart, target.children.length];
        }"""
    )
    assert kept == [True, "typed", 2, 4]


def test_where_the_focus_was_is_gone_the_page_is_begun(anna, shop):
    """With two runs there is none to leave out, so it is read from its heading."""
    runs = [RunRepository(shop.db, shop.tenant).start(PEOPLE) for _ in range(3)]
    page = opened(anna, shop, f"run-comparison?runs={','.join(runs)}")
    scrolled_to(page, page.get_by_role("link", name=f"Leave out {runs[2]}"))
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.nodeName === 'H1'")
    assert page.evaluate("scrollY") == 0


def test_of_two_tabs_the_last_is_shown(anna, shop):
    """Whichever answer comes first, and also if the other one is refused."""
    page = opened(anna, shop, f"models/{PEOPLE}")
    held = []
    page.route("**/versions/3", lambda route: held.append(route))
    page.evaluate("address => { location.hash = address; }", f"#/{shop.model}?against=3")
    anna.wait_until(lambda: held)
    page.get_by_role("link", name="staging").click()
    page.evaluate("address => { location.hash = address; }", f"#/{shop.model}?environment=staging")
    page.get_by_text("staging serves nothing").wait_for()
    refusal = {"error": {"code": "version_not_found", "message": "There is no version 3."}}
    for route in held:
        route.fulfill(status=404, json=refusal)
    page.wait_for_function(STAYS)
    assert page.get_by_text("staging serves nothing").is_visible()
    assert page.get_by_text("There is no version 3.").count() == 0
