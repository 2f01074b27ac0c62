"""``mlcore explain`` and the importances of a version, in process and over HTTP."""

from __future__ import annotations

import re

import pytest

from ml_core.ids import TenantId
from support.inprocess_cell import fitted, listening, make_cell, promote, servable
from support.registry import new_tenant
from support.tables import split_target, tickets


@pytest.fixture
def tenant(registry, tmp_path, monkeypatch, mlcore) -> TenantId:
    """A tenant with a version of ``m`` and the file that it was trained on."""
    name = new_tenant(registry)
    monkeypatch.chdir(tmp_path)
    tickets().to_csv("tickets.csv", index=False)
    trained = mlcore("train", "tickets.csv", "-t", name, "-m", "m", "--target", "category", "-p", "algorithm=ridge")
    assert trained.code == 0, trained.err
    return name


def test_rows_are_explained_in_process(mlcore, tenant):
    """The first rows, the largest contributions first; JSON has all of them, and they add up."""
    shown = mlcore("explain", "tickets.csv", "-t", tenant, "-m", "m", "--limit", "2")
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert re.match(r"row +answer +score +base +largest contributions", lines[0])
    assert [line.split()[0] for line in lines[1:3]] == ["0", "1"]
    assert re.search(r"subject [+-]\d", lines[1])
    assert lines[-1] == "Version 1, method linear, unit decision function."
    found = mlcore("explain", "tickets.csv", "-t", tenant, "-m", "m", "--limit", "3", "-v", "1", "--json").json
    assert len(found["explanations"]) == 3
    for row in found["explanations"]:
        assert row["words"]["subject"]
        for output in row["outputs"]:
            assert output["base"] + sum(output["contributions"].values()) == pytest.approx(output["score"])


def test_rows_are_given_as_for_predict(mlcore, tenant):
    """A file, or rows in JSON; one of the two."""
    [row] = tickets().head(1).drop(columns=["category"]).to_json(orient="records", lines=True).splitlines()
    common = ("-t", tenant, "-m", "m")
    for verb, answered in (("predict", "predictions"), ("explain", "explanations")):
        both = [mlcore(verb, *given, *common, "--json").json[answered] for given in (("tickets.csv",), ("--row", row))]
        assert both[0][:1] == both[1]
        for wrong in ((), ("tickets.csv", "--row", row)):
            assert "Give either a FILE or --row." in mlcore(verb, *wrong, *common).err


def test_a_replica_explains_with_a_key(mlcore, tenant, tmp_path, monkeypatch):
    """The same table, by the version in production of the cell that is asked."""
    from ml_core.domain.api_key import Scope
    from ml_core.domain.assignment import AssignmentDelta
    from ml_core.models.store import LocalStore
    from ml_core.settings import ServingSettings

    cell = make_cell(LocalStore(tmp_path / "store"), ServingSettings())
    cell.assignment.apply(AssignmentDelta(1, True, {tenant: True}, {}, {}))
    model = fitted("m", split_target(tickets(), "category"), algorithm="random_forest", n_estimators=5)
    promote(cell.table, servable(cell.store, model, version="7", tenant=tenant))
    with listening(cell) as url:
        monkeypatch.setenv("MLCORE_URL", url)
        monkeypatch.setenv("MLCORE_API_KEY", cell.key(tenant, Scope.PREDICT))
        shown = mlcore("explain", "tickets.csv", "-t", tenant, "-m", "m", "--limit", "2")
    cell.table.close()
    cell.service.close()
    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[-1] == "Version 7, method tree, unit probability."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.csv", "-m", "m"], "nowhere.csv"),
        (["tickets.csv", "-m", "nothing"], "nothing"),
        (["tickets.csv", "-m", "m", "-v", "1", "-e", "staging"], "either"),
        (["tickets.csv", "-m", "m", "--limit", "101"], "equal to 100"),
    ],
)
def test_what_can_not_be_explained_is_said(mlcore, tenant, arguments, said):
    """In one line, without a traceback."""
    result = mlcore("explain", "-t", tenant, *arguments)
    assert result.code != 0
    assert said in result.err
    assert "Traceback" not in result.err


def test_versions_show_has_the_importances(mlcore, tenant):
    """The largest first: the column that tells the category."""
    shown = mlcore("versions", "show", "-t", tenant, "-m", "m", "--version", "1").out
    assert re.search(r"importances +subject=0\.\d+, .*\(balanced_accuracy worse by, when permuted\)", shown)
    training = mlcore("versions", "show", "-t", tenant, "-m", "m", "-v", "1", "--json").json["metadata"]["training"]
    assert training["importances"]["largest"][0]["column"] == "subject"
