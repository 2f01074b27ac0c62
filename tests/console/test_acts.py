"""What is done to a thing in one step, in a dialog that names it, by whoever may; others see why they may not."""

from __future__ import annotations

import re

import pytest

from ml_core.domain.api_key import Scope
from ml_core.domain.job_spec import TrainJobSpec
from ml_core.domain.tenant_policies import PredictionPolicy, SelfTestRows
from ml_core.exceptions import MLFrameworkError
from ml_core.ids import ModelId, TenantId
from ml_core.registry.collection.holds import HoldRepository
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.jobs import JobBatchRepository, JobRepository
from ml_core.registry.platform_keys import PlatformKeyRepository
from ml_core.registry.predictions import PredictionRepository
from ml_core.registry.promotion.gates import GateRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.models import ModelRepository
from ml_core.registry.versions.repository import VersionRepository
from support.console import choose, open_as, refused_at, row
from support.gated import PEOPLE, somebody
from support.job_queue import empty_queue
from support.tables import measures


@pytest.fixture
def operator_key(db):
    """A new key of the platform with the scope admin."""
    return PlatformKeyRepository(db).create("console", [Scope.ADMIN])


def act(who, label: str, of: str, **fields: str):
    """Open the dialog of a button, fill it in and go on; returns the dialog."""
    dialog = who.dialog(f"{label}…")
    assert f"{label}: {of}" in dialog.inner_text()
    for name, value in fields.items():
        control = dialog.locator(f"[name={name}]")
        is_choice = control.evaluate("each => each.tagName") == "SELECT"
        control.select_option(value) if is_choice else control.fill(value)
    dialog.get_by_role("button", name=f"{label} {of}").click()
    return dialog


def done(page, label: str, of: str) -> None:
    """Wait until it is said that it was done."""
    page.get_by_text(f"{label}: {of}. Done.").wait_for()


def test_a_version_is_noted_held_archived_and_deleted(viewer, shop, db):
    """What keeps it is said; the API refuses to delete what is held, in its words."""
    versions = VersionRepository(db, shop.tenant)
    of = f"version 3 of {PEOPLE}"
    anna = viewer()
    page = open_as(anna, shop.key("admin"), f"{shop.model}/versions/3")
    act(anna, "Tags and notes", of, tags="team=support\nbuild=7", metadata="card=About people.\nlimits=[1, 2]")
    done(page, "Tags and notes", of)
    found = versions.get(PEOPLE, "3")
    assert dict(found.tags) == {"team": "support", "build": "7"}
    assert (found.metadata["card"], found.metadata["limits"]) == ("About people.", [1, 2])
    page.get_by_text("About people.").wait_for()
    dialog = anna.dialog("Tags and notes…")
    tags = [f"{name}={value}" for name, value in found.tags.items()]
    assert dialog.get_by_label("Tags").input_value().splitlines() == tags
    dialog.get_by_label("Tags").fill("team")
    dialog.get_by_role("button", name="Tags and notes").click()
    refused_at(page, "tags").get_by_text("“team” is not name=value.").wait_for()
    dialog.get_by_label("Tags").fill("team=sales")
    dialog.get_by_role("button", name="Tags and notes").click()
    anna.wait_until(lambda: dict(versions.get(PEOPLE, "3").tags) == {"team": "sales"})

    act(anna, "Hold", of, name="audit-2026", reason="The auditors ask for it.")
    page.get_by_text("The auditors ask for it.").wait_for()
    assert [hold.name for hold in HoldRepository(db, shop.tenant).list(PEOPLE).items] == ["audit-2026"]
    dialog = act(anna, "Delete", of)
    dialog.get_by_role("alert").get_by_text("audit-2026").first.wait_for()
    dialog.get_by_role("button", name="Cancel").click()
    act(anna, "Release", f"the hold audit-2026 on {of}")
    page.get_by_text("no hold keeps it").wait_for()
    act(anna, "Archive", of)
    page.get_by_role("button", name="Restore…").wait_for()
    act(anna, "Restore", of)
    page.get_by_role("button", name="Archive…").wait_for()
    act(anna, "Delete", of)
    page.get_by_role("heading", name=PEOPLE, exact=True).wait_for()
    with pytest.raises(MLFrameworkError):
        versions.get(PEOPLE, "3")


def test_who_approved_a_version_is_shown_with_it(viewer, shop, db):
    """For which environment, and why."""
    GateRepository(somebody(db, "ada", Scope.APPROVE), shop.tenant).approve(
        PEOPLE, "2", "staging", reason="It looks right."
    )
    page = open_as(viewer(), shop.key("read"), f"{shop.model}/versions/2")
    page.get_by_text("It looks right.").wait_for()
    for name in ("Tags and notes…", "Archive…", "Delete…", "Hold…"):
        assert page.get_by_role("button", name=name).get_attribute("aria-disabled") == "true"
    page.get_by_text("Your key lacks the scope train.").first.wait_for()
    page.get_by_text("Your key lacks the scope admin.").first.wait_for()


def test_a_model_is_archived_and_deleted(viewer, shop, db):
    """A deletion only after its name is typed."""
    model = ModelId("other")
    shop.publish("1", model)
    models = ModelRepository(db, shop.tenant)
    anna = viewer()
    page = open_as(anna, shop.key("admin"), f"{shop.path}/models/{model}")
    act(anna, "Archive", model)
    page.get_by_role("heading", name=f"{model} archived").wait_for()
    anna.open(f"{shop.path}/models")
    page.get_by_role("link", name=PEOPLE, exact=True).wait_for()
    assert page.get_by_role("link", name=model, exact=True).count() == 0
    page.get_by_role("link", name="Show what is archived, too").click()
    page.get_by_role("link", name=model, exact=True).click()
    act(anna, "Restore", model)
    page.get_by_role("button", name="Archive…").wait_for()
    of = f"the model {model} of {shop.tenant}"
    act(anna, "Delete", of, typed="another")
    assert [each.model_id for each in models.list().items] == [model, PEOPLE]
    page.keyboard.press("Escape")
    act(anna, "Delete", of, typed=model)
    page.get_by_role("heading", name="Models").wait_for()
    assert [each.model_id for each in models.list(include_archived=True).items] == [PEOPLE]
    reader = viewer()
    page = open_as(reader, shop.key("read"), shop.model)
    for name in ("Archive…", "Delete…", "Set a gate…", "Protect…", "Change…", "Remove…"):
        assert page.get_by_role("button", name=name).get_attribute("aria-disabled") == "true"


def test_gates_are_set_changed_and_removed(viewer, shop, db):
    """With the fields of their kind; what the API refuses stands beside its field."""
    gates = GateRepository(db, shop.tenant)
    anna = viewer()
    page = open_as(anna, shop.key("admin"), f"{shop.model}?environment=staging")
    dialog = anna.dialog("Set a gate…")
    assert f"A gate: staging of {PEOPLE}" in dialog.inner_text()
    dialog.get_by_label("Name").fill("good")
    dialog.get_by_label("Metric", exact=True).fill("acuracy")
    dialog.get_by_label("Value").fill("0.7")
    dialog.get_by_role("button", name="Set the gate").click()
    refused_at(page, "metric").get_by_text("accuracy").first.wait_for()
    dialog.get_by_label("Metric", exact=True).fill("accuracy")
    dialog.get_by_role("button", name="Set the gate").click()
    page.get_by_text("The gate good of staging is set.").wait_for()
    (gate,) = gates.list(PEOPLE, "staging")
    assert (gate.kind, gate.settings["metric"], gate.settings["value"]) == ("min_metric", "accuracy", 0.7)
    dialog = anna.dialog("Change…")
    assert dialog.get_by_label("Value").input_value() == "0.7"
    dialog.get_by_label("Kind").select_option("approval")
    dialog.get_by_label("People").fill("2")
    dialog.get_by_role("button", name="Set the gate").click()
    page.get_by_text("count=2").wait_for()
    (gate,) = gates.list(PEOPLE, "staging")
    assert (gate.kind, gate.settings) == ("approval", {"count": 2})
    act(anna, "Remove", f"the gate good: staging of {PEOPLE}")
    page.get_by_text("It has none: whatever is promoted is served.").wait_for()
    assert list(gates.list(PEOPLE, "staging")) == []


def test_a_gate_compares_on_a_dataset(viewer, shop, db):
    """That is found by typing."""
    DatasetRepository(db, shop.tenant).create("m", measures(200))
    anna = viewer()
    page = open_as(anna, shop.key("admin"), f"{shop.model}?environment=staging")
    dialog = anna.dialog("Set a gate…")
    dialog.get_by_label("Name").fill("no-worse")
    dialog.get_by_label("Kind").select_option("not_worse")
    choose(dialog, "m", "Dataset of held-out rows")
    dialog.get_by_label("Column with the truth").fill("outcome")
    dialog.get_by_label("Metric", exact=True).fill("accuracy")
    dialog.get_by_label("Margin").fill("0.01")
    dialog.get_by_role("button", name="Set the gate").click()
    page.get_by_text("The gate no-worse of staging is set.").wait_for()
    (gate,) = GateRepository(db, shop.tenant).list(PEOPLE, "staging")
    assert (gate.settings["dataset"], gate.settings["number"], gate.settings["margin"]) == ("m", 1, 0.01)


def test_an_environment_is_protected(viewer, shop):
    """And not any more."""
    anna = viewer()
    page = open_as(anna, shop.key("admin"), f"{shop.model}?environment=staging")
    act(anna, "Protect", f"staging of {shop.tenant}")
    page.get_by_role("button", name="Unprotect…").wait_for()
    assert [each.environment for each in shop.environments.policies() if each.is_protected] == ["staging"]
    act(anna, "Unprotect", f"staging of {shop.tenant}")
    page.get_by_role("button", name="Protect…", exact=True).wait_for()
    assert not any(each.is_protected for each in shop.environments.policies())


def test_a_version_of_a_dataset_is_archived_restored_and_deleted(viewer, shop, db):
    """The only one, too; lists show it on request."""
    datasets = DatasetRepository(db, shop.tenant)
    datasets.create("m", measures(50))
    anna = viewer()
    page = open_as(anna, shop.key("admin"), f"{shop.path}/datasets/m")
    act(anna, "Archive", "m@1")
    page.get_by_role("button", name="Restore…").wait_for()
    anna.open(f"{shop.path}/datasets")
    page.get_by_text("There is no dataset.").wait_for()
    page.get_by_role("link", name="Show what is archived, too").click()
    page.get_by_role("link", name="m", exact=True).click()
    act(anna, "Restore", "m@1")
    page.get_by_role("button", name="Archive…").wait_for()
    act(anna, "Delete", "m@1")
    page.get_by_role("heading", name="Datasets").wait_for()
    assert list(datasets.list(include_archived=True).items) == []


def test_a_run_is_tagged_cancelled_and_deleted(viewer, shop, db, tmp_path):
    """With its files, of which one is deleted before."""
    runs = RunRepository(db, shop.tenant)
    run = runs.start(PEOPLE)
    notes = tmp_path / "notes.txt"
    notes.write_text("The data is old.")
    runs.tag(run, {"team": "support"})
    runs.artifacts.log(run, "notes.txt", notes)
    anna = viewer()
    page = open_as(anna, shop.key("admin"), f"{shop.path}/runs/{run}")
    act(anna, "Tags", run, tags="place=berlin")
    done(page, "Tags", run)
    assert dict(runs.get(run).tags) == {"place": "berlin"}
    row_of_file = page.locator("li", has_text="notes.txt")
    row_of_file.get_by_role("button", name="Delete…").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete the file notes.txt").click()
    page.get_by_text("It keeps no file.").wait_for()
    act(anna, "Cancel", run, error="It is not wanted.")
    page.get_by_role("heading", name="cancelled").wait_for()
    page.get_by_text("It is not wanted.").wait_for()
    act(anna, "Delete", run)
    page.get_by_role("heading", name="Runs").wait_for()
    with pytest.raises(MLFrameworkError):
        runs.get(run)


def test_the_policies_of_a_tenant_are_changed(viewer, shop, db):
    """What its log keeps, and which rows its versions keep; whoever only reads sees them."""
    anna = viewer()
    page = open_as(anna, shop.key("admin"), f"{shop.model}/predictions")
    of = f"the prediction log of {shop.tenant}"
    act(anna, "Change what is kept", of, policy="nothing")
    done(page, "Change what is kept", of)
    assert PredictionRepository(db, shop.tenant).policy() == PredictionPolicy.NOTHING
    offered = [option.get_attribute("value") for option in anna.dialog("Change what is kept…").locator("option").all()]
    assert offered == list(PredictionPolicy)
    anna.open(shop.path)
    act(anna, "Self-test rows", shop.tenant, self_test_rows="synthetic")
    page.get_by_text("New versions keep as their self-test synthetic rows").wait_for()
    assert TenantRepository(db).get(shop.tenant).self_test_rows == SelfTestRows.SYNTHETIC
    reader = open_as(viewer(), shop.key("read"), shop.path)
    assert reader.get_by_role("button", name="Self-test rows…").get_attribute("aria-disabled") == "true"
    assert reader.get_by_role("button", name="Delete…").count() == 0


def test_tenants_are_created_and_deleted(viewer, db, operator_key):
    """All of them or none; a deletion only after the name is typed; those that were deleted are listed."""
    tenants = TenantRepository(db)
    anna = viewer()
    page = open_as(anna, operator_key, "")
    dialog = act(anna, "Create", "tenants", tenant_ids="console-one\nWrong!")
    refused = dialog.get_by_role("alert")
    refused.get_by_text("Wrong!").first.wait_for()
    dialog.get_by_label("Names").fill("console-one\nconsole-two")
    dialog.get_by_role("button", name="Create tenants").click()
    page.get_by_text("console-one, console-two: created.").wait_for()
    page.get_by_role("link", name="console-one").click()
    act(anna, "Delete", "the tenant console-one", typed="console-one")
    page.get_by_role("heading", name="Platform").wait_for()
    page.get_by_label("Search tenants").fill("console-")
    page.get_by_role("link", name="console-two").wait_for()
    assert page.get_by_role("link", name="console-one").count() == 0
    page.get_by_role("link", name="Show deleted tenants").click()
    row(page, "console-one").wait_for()
    assert tenants.find(TenantId("console-two")) is not None
    reader = open_as(viewer(), PlatformKeyRepository(db).create("reader", [Scope.READ]), "")
    assert reader.get_by_role("button", name="Create…").get_attribute("aria-disabled") == "true"
    reader.get_by_text("Your key lacks the scope admin.").wait_for()


def test_an_operator_trains_for_each_tenant(viewer, shop, db, operator_key):
    """From the form of a tenant; the batch says how far it is, is cancelled and queued again."""
    empty_queue(db)
    DatasetRepository(db, shop.tenant).create("ours", measures(60))
    anna = viewer()
    page = open_as(anna, operator_key, f"{shop.path}/training?dataset=ours&target=outcome&model=m")
    dialog = anna.dialog("For each tenant…")
    assert "Train m of each tenant" in dialog.inner_text()
    dialog.get_by_role("button", name="Submit the batch").click()
    page.get_by_role("heading", name="train m of 1 tenant").wait_for()
    (batch,) = (each for each in JobBatchRepository(db).list().items if each.spec["training"]["dataset"] == "ours")
    (job,) = JobRepository(db, shop.tenant).list().items
    assert TrainJobSpec.from_json(job.spec).training.dataset == "ours@1"
    act(anna, "Cancel", batch.batch_id, reason="It is not wanted.")
    page.get_by_text("1 cancelled").wait_for()
    act(anna, "Queue again", batch.batch_id)
    page.get_by_text("1 queued").wait_for()
    page.get_by_role("link", name="Batches", exact=True).click()
    assert "train m" in row(page, batch.batch_id).inner_text()
    tenant_page = open_as(viewer(), shop.key("admin"), f"{shop.path}/training?dataset=ours")
    tenant_page.get_by_role("button", name="Plan…").wait_for()
    assert tenant_page.get_by_role("button", name="For each tenant…").count() == 0
    reader = open_as(viewer(), PlatformKeyRepository(db).create("reader", [Scope.READ]), f"batches/{batch.batch_id}")
    reader.get_by_text("Your key lacks the scope admin.").wait_for()
    empty_queue(db)


def test_versions_are_found_over_all_models(viewer, shop, db):
    """By a tag, a metric or a text; what is no bound is refused in the API's words."""
    shop.publish("1", ModelId("other"))
    VersionRepository(db, shop.tenant).set_tags("other", "1", {"team": "support"})
    anna = viewer()
    page = open_as(anna, shop.key("read"), f"{shop.path}/models")
    page.get_by_role("link", name="Search the versions of all models").click()
    page.get_by_role("link", name=f"{PEOPLE} 3").wait_for()
    page.get_by_label("Tag", exact=True).fill("team=support")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name=f"{PEOPLE} 3").wait_for(state="detached")
    page.get_by_role("link", name="other 1").wait_for()
    assert re.search(r"versions\?tag=team%3Dsupport", page.url)
    page.get_by_label("Metric").fill("accuracy")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("alert").wait_for()


def test_a_file_becomes_a_version(viewer, shop, db, tmp_path):
    """With what is recorded of it; rows that are not JSON are refused at their field, and bad files by the API."""
    file, bad = tmp_path / "model.skops", tmp_path / "bad.skops"
    file.write_bytes(VersionRepository(db, shop.tenant).artifact(PEOPLE, "2").read_bytes())
    bad.write_bytes(b"nothing")
    anna = viewer()
    page = open_as(anna, shop.key("read", "train"), f"{shop.path}/models")
    dialog = anna.dialog("Register a file…")
    dialog.get_by_role("combobox", name="Model", exact=True).fill("copies")
    dialog.get_by_label(".skops file").set_input_files(bad)
    dialog.get_by_label("A few rows").fill("height=1")
    dialog.get_by_role("button", name="Upload").click()
    refused_at(page, "sample").get_by_text("The rows are not JSON").wait_for()
    dialog.get_by_label("A few rows").fill("")
    dialog.get_by_label("Model type").select_option("classification")
    dialog.get_by_role("button", name="Upload").click()
    dialog.get_by_role("alert").wait_for()
    dialog.get_by_label(".skops file").set_input_files(file)
    dialog.get_by_text("Options").click()
    dialog.get_by_label("Name of the version").fill("first")
    dialog.get_by_label("Notes on the version").fill("from=2")
    dialog.get_by_role("button", name="Upload").click()
    page.get_by_role("heading", name="copies first").wait_for()
    assert VersionRepository(db, shop.tenant).get("copies", "first").metadata["from"] == 2
    reader = open_as(viewer(), shop.key("read"), f"{shop.path}/models")
    assert reader.get_by_role("button", name="Register a file…").get_attribute("aria-disabled") == "true"
