"""What notebooks show: the better value is marked, and names of a tenant stay text."""

from __future__ import annotations

from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from ml_core.api.schemas import runs as run_schemas
from ml_core.api.schemas import versions as version_schemas
from ml_core.api.schemas.base import Page as SchemaPage
from ml_core.client.clients import PredictionResult
from ml_core.domain.prediction_record import PredictionRecord
from ml_core.domain.run import MetricSummary, Run, RunStatus, compare_runs
from ml_core.domain.signature import Output, OutputKind, Signature
from ml_core.domain.version import Lineage, ModelVersion, SelfTest, ServableVersion, VersionSummary
from ml_core.ids import Digest, ModelId, TenantId, VersionId, VersionRef
from ml_core.registry.pages import Page
from ml_core.registry.versions.lineage import compare
from ml_core.registry.versions.lists import VersionList

HOSTILE = "<script>alert(1)</script>\"'&"
AT = datetime(2026, 11, 24, tzinfo=UTC)


def tags_of(page: str) -> set[str]:
    seen: set[str] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            seen.add(tag)
            assert [name for name, _ in attrs] in ([], ["style"])

    Reader().feed(page)
    return seen


def version(name: str, accuracy: float, text: str = "plain") -> ModelVersion:
    """A version whose texts are all the same."""
    ref = VersionRef(TenantId("acme"), ModelId("m"), VersionId(name))
    signature = Signature((), Output(OutputKind.NUMBER))
    servable = ServableVersion(ref, text, Digest("0" * 64), 10, text, signature, SelfTest((), ()))
    return ModelVersion(
        servable, {"validation": {"accuracy": accuracy, text: 1.0}}, {text: text}, {text: text},
        Lineage(libraries={text: f"{text}{name}"}), AT, text, tags={text: text},
    )  # fmt: skip


def run(name: str, accuracy: float, text: str = "plain") -> Run:
    """A run whose texts are all the same."""
    metrics = {"validation/accuracy": MetricSummary(1, 0, 0, accuracy, accuracy, accuracy)}
    return Run(name, ModelId("m"), text, RunStatus.FAILED, {text: name}, AT, AT, AT, text, metrics, {text: name})


def shown_with(text: str) -> dict[str, Any]:
    """Everything that a notebook shows as a table, with a text in each of its fields."""
    versions = [version("1", 0.7, text), version("2", 0.8, text)]
    runs = [run("run_1", 0.7, text), run("run_2", 0.8, text)]
    record = PredictionRecord(AT, text, 0, text, text, text, text, text, {text: 0.5}, 1.0, text, {text: text}, text)
    compared, compared_runs = compare(*versions), compare_runs(runs)
    schema = version_schemas.Version.model_validate(versions[0])
    result = PredictionResult(predictions=[text], probabilities=[{text: 1.0}], model=text, version=text, rollout=text,
                              request_id=text)  # fmt: skip
    summary = VersionSummary(**versions[0].shown_fields())
    return {
        "version": versions[0], "summary": summary, "versions": VersionList(versions), "page": Page(versions[:1], None),
        "run": runs[0], "runs": Page(runs), "compared": compared, "compared_runs": compared_runs, "record": record,
        "records": Page([record]), "schema": schema, "schemas": SchemaPage(items=[schema]), "result": result,
        "run_schema": run_schemas.Run.model_validate(runs[0]),
        "compared_schema": version_schemas.VersionComparison.model_validate(compared),
        "compared_runs_schema": run_schemas.RunComparison.model_validate(compared_runs),
    }  # fmt: skip


@pytest.mark.parametrize("kind", shown_with("plain"))
def test_a_tenants_texts_are_text(kind: str) -> None:
    """They add no tag and no attribute to what a notebook shows."""
    tables = (shown_with(text)[kind]._repr_html_() for text in ("plain", HOSTILE))
    plain, hostile = tables
    assert "<table" in plain
    assert tags_of(hostile) == tags_of(plain)
    assert "<script" not in hostile


def test_the_better_value_of_a_comparison_is_marked() -> None:
    """That of the second version, and of the second run; the same over HTTP."""
    found = shown_with("plain")
    for kind in ("compared", "compared_runs", "compared_schema", "compared_runs_schema"):
        page = found[kind]._repr_html_()
        assert "0.8 ✓</td>" in page
        assert "0.7 ✓" not in page


def test_versions_become_a_data_frame() -> None:
    """One row a version; metrics and environments are columns."""
    frame = VersionList([version("2", 0.8), version("1", 0.7)]).to_frame()
    assert list(frame["version"]) == ["2", "1"]
    assert list(frame["validation/accuracy"]) == [0.8, 0.7]
    assert list(frame["environments"]) == ["", ""]
    assert list(VersionList([]).to_frame().columns) == ["model_id", "version"]


def test_a_list_of_versions_is_a_sequence() -> None:
    """As the list that it was before."""
    first, second = version("1", 0.7), version("2", 0.8)
    found = VersionList([second, first])
    assert (len(found), found[0], [*found], found == [second, first]) == (2, second, [second, first], True)
    assert isinstance(found[:1], VersionList)
    assert repr(found) == repr([second, first])


def test_a_long_list_says_how_much_is_left_out() -> None:
    """Fifty rows are enough for a notebook."""
    page = VersionList([version(str(number), 0.5) for number in range(60)])._repr_html_()
    assert page.count("<tr>") == 51
    assert "… and 10 more" in page


def test_a_line_says_which_and_how_good() -> None:
    """Printed, a version of a search and a logged prediction are short."""
    found = shown_with("plain")
    assert repr(found["summary"]) == "VersionSummary(m@1, plain, accuracy 0.7)"
    assert repr(found["record"]) == "PredictionRecord(plain[0], plain@plain, 'plain', label 'plain')"
