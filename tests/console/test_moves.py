"""The work of a day: compare, promote behind a gate, try on a share, go back, try a row; and two who do it at once."""

from __future__ import annotations

import re

from ml_core.registry.promotion.gates import GateRepository
from ml_core.registry.promotion.pointers import Pointer
from support.console import choose
from support.gated import PEOPLE


def test_from_signing_in_to_a_prediction(viewer, shop):
    """Each step in the browser, each result where the registry and the replica have it."""
    anna = viewer()
    anna.open()
    page = anna.sign_in(shop.key("read", "predict", "promote"))
    page.get_by_role("link", name="Models").click()
    page.get_by_role("link", name=PEOPLE, exact=True).click()
    page.get_by_role("heading", name=PEOPLE, exact=True).wait_for()

    choose(page, "1")
    choose(page, "2", "with")
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url(re.compile("compare=1&with=2"))
    accuracy = page.locator("#comparison tr", has_text="accuracy validation").first
    accuracy.locator(".diff.better").wait_for()

    dialog = anna.dialog("Promote…")
    choose(dialog, "3")
    dialog.get_by_text("not passed", exact=True).wait_for()
    assert dialog.get_by_role("button", name="Promote version 3").get_attribute("aria-disabled") == "true"
    assert "Only a key with the scope admin" in dialog.inner_text()
    choose(dialog, "2")
    dialog.get_by_text("passed", exact=True).wait_for()
    dialog.get_by_label("Reason").fill("It is better on <i>all</i> rows.")
    dialog.get_by_role("button", name="Promote version 2").click()
    page.get_by_text("is at generation 2").wait_for()
    page.get_by_text("“It is better on <i>all</i> rows.”").wait_for()
    assert shop.served() == "2"

    dialog = anna.dialog("Start canary…")
    choose(dialog, "1")
    dialog.get_by_role("slider").fill("25")
    dialog.get_by_text("the canary 1 answers 25 %").wait_for()
    dialog.get_by_label("Column whose equal values").fill("height")
    dialog.get_by_role("button", name="Start canary version 1").click()
    page.get_by_text("is at generation 3").wait_for()
    dialog = anna.dialog("Change share…")
    dialog.get_by_role("slider").fill("60")
    dialog.get_by_role("button", name="Change share").click()
    page.get_by_text("is at generation 4").wait_for()
    canary = shop.environments.get(PEOPLE).canary
    assert (canary.percent, canary.sticky) == (60, "height")
    anna.dialog("Finish canary…").get_by_role("button", name="Finish canary").click()
    page.get_by_text("is at generation 5").wait_for()
    assert shop.served() == "1"

    dialog = anna.dialog("Roll back…")
    dialog.locator("dd", has_text="version 2").wait_for()
    assert re.search(r"Then\s+version 2", dialog.inner_text())
    dialog.get_by_role("button", name="Roll back").click()
    page.get_by_text("is at generation 6").wait_for()
    assert shop.served() == "2"
    moves = page.locator(".timeline > li b:first-child").all_inner_texts()
    words = [text for text in moves if not re.fullmatch(r"\d", text)]
    assert words == ["rollback", "finish", "step", "start canary", "promote", "promote"]

    page.goto(f"{anna.address}#/{shop.model}/versions/2")
    page.get_by_label("height").fill("1.5")
    page.get_by_label("weight").fill("0.7")
    page.get_by_role("button", name="Predict").click()
    page.locator(".prediction b").wait_for()
    assert page.locator(".prediction b").inner_text() == "tall"
    assert page.get_by_role("table", name="Probabilities").locator("th").all_inner_texts() == ["tall", "small"]
    page.get_by_role("table", name="Contributions of the columns").wait_for()
    command = page.locator(".command").inner_text()
    assert f"/{shop.path}/models/{PEOPLE}/predict" in command
    assert '{"height":1.5,"weight":0.7}' in command
    assert "mlk_…" in command


def test_an_admin_overrides_a_gate_with_a_reason(viewer, shop):
    """Which the dialog asks for, and the history keeps."""
    admin = viewer()
    admin.open(shop.model)
    page = admin.sign_in(shop.key("admin"))
    dialog = admin.dialog("Promote…")
    dialog.get_by_role("button", name="Promote version 3 despite the gates").click()
    assert dialog.get_by_label("Why it is done").evaluate("field => field.validity.valueMissing")
    dialog.get_by_label("Why it is done").fill("The rows of the gate are old.")
    dialog.get_by_role("button", name="Promote version 3 despite the gates").click()
    page.get_by_text("A gate was overridden: “The rows of the gate are old.”").wait_for()
    assert shop.served() == "3"


def test_of_two_who_promote_at_once_one_wins(viewer, shop):
    """The other sees who was faster and what is served now, has changed nothing, and may go on from there."""
    fast, slow = viewer(), viewer()
    winner = shop.key("read", "promote")
    shop.publish("4")
    dialogs = {}
    for each, key, version in ((fast, winner, "2"), (slow, shop.key("read", "promote"), "4")):
        each.open(shop.model)
        each.sign_in(key)
        dialogs[each] = each.dialog("Promote…")
        choose(dialogs[each], version)
        dialogs[each].get_by_text("passed", exact=True).wait_for()
    dialogs[fast].get_by_role("button", name="Promote version 2").click()
    fast.page.get_by_text("is at generation 2").wait_for()

    dialogs[slow].get_by_role("button", name="Promote version 4").click()
    dialogs[slow].get_by_text("moved production meanwhile").wait_for()
    said = dialogs[slow].inner_text()
    assert f"key:{winner.key_id} moved production meanwhile" in said
    assert "it serves version 2 now (generation 2)" in said
    assert shop.served() == "2"
    dialogs[slow].get_by_text("2 → 3").wait_for()
    dialogs[slow].get_by_role("button", name="Promote version 4").click()
    slow.page.get_by_text("is at generation 3").wait_for()
    assert shop.served() == "4"
    fast.page.get_by_text("production serves version 4").wait_for()


def test_a_rollback_says_where_it_leads(viewer, shop):
    """However long ago that was served, and again when somebody moved the environment meanwhile."""
    shop.environments.promote(PEOPLE, "2")
    for _ in range(60):
        shop.environments.promote(PEOPLE, "2", reason="again")
    anna = viewer()
    anna.open(shop.model)
    anna.sign_in(shop.key("read", "promote"))
    dialog = anna.dialog("Roll back…")
    then = dialog.locator("dl.plan div", has_text="Then").locator("dd")
    then.get_by_text("version 1").wait_for()
    shop.environments.promote(PEOPLE, "1", reason="by somebody else")
    dialog.get_by_role("button", name="Roll back").click()
    dialog.get_by_text("moved production meanwhile").wait_for()
    then.get_by_text("version 2").wait_for()
    anna.page.get_by_text("production serves version 1").wait_for()  # the page behind the dialog
    dialog.get_by_role("button", name="Roll back").click()
    anna.wait_until(lambda: shop.served() == "2")  # the page may not have seen the other move yet
    anna.page.get_by_text("production serves version 2").wait_for()


def test_what_is_tried_is_given_up_again(viewer, shop):
    """A shadow, a canary, and at last all that is served; each dialog says what is served then."""
    anna = viewer()
    anna.open(shop.model)
    page = anna.sign_in(shop.key("read", "promote"))

    def move(label: str, then: str, button: str | None = None, version: str | None = None) -> Pointer:
        generation = shop.environments.get(PEOPLE).generation + 1
        dialog = anna.dialog(f"{label}…")
        if version:
            choose(dialog, version)
        dialog.locator("dl.plan div", has_text="Then").locator("dd", has_text=then).wait_for()
        dialog.get_by_role("button", name=button or label, exact=True).click()
        page.get_by_text(f"is at generation {generation}").wait_for()
        return shop.environments.get(PEOPLE)

    assert move("Start shadow", "with the shadow 2", "Start shadow version 2", "2").shadow == "2"
    assert move("Stop shadow", "version 1").shadow is None
    assert move("Start canary", "the canary 2 answers 10", "Start canary version 2", "2").canary.version == "2"
    gone = move("Abort canary", "version 1")
    assert (gone.version, gone.canary) == ("1", None)
    assert move("Withdraw", "nothing").version is None
    page.get_by_text("production serves nothing").wait_for()


def test_a_second_pair_of_eyes(viewer, shop):
    """A gate that wants an approval passes once somebody else has given one here."""
    GateRepository(shop.db, shop.tenant).set(PEOPLE, "staging", "second-look", "approval")
    author, approver = viewer(), viewer()
    author.open(f"{shop.model}?environment=staging")
    author.sign_in(shop.key("read", "promote"))
    author.page.get_by_text("staging serves nothing").wait_for()
    assert author.page.get_by_role("button", name="Approve…").get_attribute("aria-disabled") == "true"
    dialog = author.dialog("Promote…")
    dialog.get_by_text("not passed", exact=True).wait_for()
    approver.open(f"{shop.model}?environment=staging")
    approver.sign_in(shop.key("read", "approve"))
    approver.page.get_by_text("Your key lacks the scope promote.").wait_for()
    approval = approver.dialog("Approve…")
    choose(approval, "2")
    approval.get_by_label("Reason").fill("I have read it.")
    approval.get_by_role("button", name="Approve").click()
    approver.page.get_by_text("approved version 2").wait_for()
    choose(dialog, "2")
    dialog.get_by_text("passed", exact=True).wait_for()
    dialog.get_by_role("button", name="Promote version 2").click()
    author.page.get_by_text("staging serves version 2").wait_for()
