"""``TrainingReport``: as JSON, and the bounded record of columns in a version."""

import json

from ml_core.domain.columns import ColumnKind
from ml_core.domain.training_report import ReportedColumn, TrainingReport, recorded_columns
from ml_core.ids import ModelId, TenantId, VersionId

REPORT = TrainingReport(
    tenant_id=TenantId("acme"),
    model_id=ModelId("tickets"),
    version=VersionId("3"),
    run_id="run_0123456789abcdef",
    model_type="classification",
    dataset="tickets_2026@3",
    algorithm="random_forest",
    hyperparameters={"n_estimators": 10},
    effective_hyperparameters={"n_estimators": 10, "max_depth": None},
    metrics={"train": {"accuracy": 1.0}, "validation": {"accuracy": 0.9}},
    baseline={"accuracy": 0.5},
    n_rows={"train": 80, "validation": 20},
    columns=(
        ReportedColumn("subject", ColumnKind.TEXT, True, "text: 8.2 words on average"),
        ReportedColumn("id", None, False, "not used: an identifier"),
    ),
    notes=("3 of 103 training rows have no target and were left out.",),
    example={"subject": "Login fails"},
    duration_s=0.25,
)


def test_a_report_is_read_from_json_and_written_back():
    """Through text, as a remote client gets it."""
    assert TrainingReport.from_json(json.loads(json.dumps(REPORT.to_json()))) == REPORT


def test_the_record_of_a_wide_table_is_bounded():
    """Columns that are not used come first, since nothing else stores them; those without room are counted."""
    columns = [ReportedColumn(f"c{i}", ColumnKind.NUMBER, i % 2 == 0, "number: " + "9" * 900) for i in range(1_000)]
    record = recorded_columns(columns)
    assert len(json.dumps(record)) < 5_000
    assert record["columns"]
    assert not any(column["used"] for column in record["columns"])
    assert record["columns_omitted"] == 500 - len(record["columns"])
