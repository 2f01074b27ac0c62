"""Batch prediction: the answers of HTTP, row by row, whatever the pieces; what does not fit is refused or named."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_core.data.canonical import read_series
from ml_core.data.profile import profile_file
from ml_core.data.table_file import FORMAT, TableWriter, columns_of, write_frame
from ml_core.data.tables import series_of
from ml_core.domain.api_key import Scope
from ml_core.domain.columns import ColumnKind
from ml_core.domain.dataset import DatasetVersion
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.domain.version import ServableVersion
from ml_core.exceptions import (
    DataProcessingError,
    InvalidRequestError,
    MLFrameworkError,
    PredictionError,
    SignatureMismatchError,
)
from ml_core.ids import DatasetId
from ml_core.inference import batch
from ml_core.inference.batch import BatchPredictor, BatchRequest
from ml_core.models.own_types import Trust
from ml_core.models.store import ArtifactStore
from ml_core.registry.datasets.intake import write_csv
from ml_core.settings import ApiSettings
from support.inprocess_cell import ACME, fitted, promote, servable
from support.tables import measures, tickets

SCOPES = (Scope.PREDICT,)
LABELS = ["bug", "billing", "account"]
BIG = [2**53 + 1, 2**62 + 3, -(2**63), 7]


def everything(rows: int = 90) -> pd.DataFrame:
    """A column of each kind of value, and a label."""
    random = np.random.default_rng(1)
    labels = random.choice(LABELS, rows)
    return pd.DataFrame(
        {
            "text": [f"the {label} of row {index} is here again" for index, label in enumerate(labels)],
            "opened": pd.date_range("2026-01-01", periods=rows, freq="7h").astype("datetime64[us]"),
            "due": [date(2026, 1, 1) + timedelta(days=index) for index in range(rows)],
            "priority": random.choice(["low", "high", None], rows),
            "ratio": np.where(random.random(rows) < 0.1, np.nan, random.normal(size=rows)),
            "minutes": random.integers(-5, 5000, rows),
            "account": pd.Series(random.choice(BIG, rows), dtype="Int64").mask(random.random(rows) < 0.1).astype(str),
            "paying": pd.Series(random.choice([True, False, None], rows), dtype="boolean"),
            "label": labels,
        }
    )


# What a row may hold where the training did not; each column has one type in a file.
MOMENTS = st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1))  # noqa: DTZ001 - naive on purpose
VALUES = {
    "text": st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20) | st.none(),
    "opened": MOMENTS | st.none(),
    "due": st.dates() | st.none(),
    "priority": st.sampled_from(["low", "high", "unseen", "", "NA", "cafe\u0301"]) | st.none(),
    "ratio": st.floats(allow_nan=False, allow_infinity=False) | st.none(),
    "minutes": st.integers(-(2**63), 2**63 - 1) | st.none(),
    "account": st.sampled_from(BIG) | st.integers(-(2**63), 2**63 - 1) | st.none(),
    "paying": st.booleans() | st.none(),
}
TYPES = {
    "text": pa.string(),
    "opened": pa.timestamp("us"),
    "due": pa.date32(),
    "priority": pa.string(),
    "ratio": pa.float64(),
    "minutes": pa.int64(),
    "account": pa.int64(),
    "paying": pa.bool_(),
}
CELLS = {
    "text": st.sampled_from(["the bug is here", "billing again, please", "12", ""]),
    "opened": st.sampled_from(["2026-01-31", "2026-02-01T08:00:00+02:00", "1.4.2026", "NA", "", "soon"]),
    "due": st.sampled_from(["2026-01-31", "", "2026/03/01"]),
    "priority": st.sampled_from(["low", "high", "unseen", "NA", ""]),
    "ratio": st.sampled_from(["1.5", " 2 ", "-.5", "1e3", "NA", "", "1,5", "many"]),
    "minutes": st.sampled_from(["7", "9007199254740993", "", "x"]),
    "account": st.sampled_from([*map(str, BIG), "", "007"]),
    "paying": st.sampled_from(["True", "false", "", "1", "yes"]),
}


@pytest.fixture(scope="module")
def model():
    """A classifier of all kinds of columns, each of which may be missing."""
    frame = everything()
    found = fitted("everything", (frame.drop(columns="label"), frame["label"]), algorithm="logistic_regression")
    inputs = tuple(dataclasses.replace(column, nullable=True) for column in found.signature.inputs)
    return dataclasses.replace(found, signature=dataclasses.replace(found.signature, inputs=inputs))


@pytest.fixture
def everything_served(bare_cell, cell, model) -> ServableVersion:
    """The same model in the cell."""
    version = servable(bare_cell.store, model)
    promote(bare_cell.table, version)
    return version


def dataset_of(store: ArtifactStore, path: Path) -> DatasetVersion:
    """What the registry would know of a file, which goes into the store."""
    profile, columns = profile_file(path), columns_of(path)
    artifact = store.put_file(ACME, path, FORMAT)
    return DatasetVersion(
        tenant_id=ACME,
        dataset_id=DatasetId("inbox"),
        number=7,
        digest=artifact.digest,
        size_bytes=artifact.size_bytes,
        row_count=profile.row_count,
        column_count=len(columns),
        source={},
        created_at=datetime.now(UTC),
        created_by="test",
        columns=columns,
        profile=profile,
    )


def table_of(store: ArtifactStore, folder: Path, table: pa.Table) -> DatasetVersion:
    """A dataset with the rows of a table."""
    path = folder / "table.parquet"
    path.unlink(missing_ok=True)
    with TableWriter(path, table.schema) as writer:
        writer.write(table)
    return dataset_of(store, path)


def predicted(
    store: ArtifactStore, version: ServableVersion, dataset: DatasetVersion, *, null: bool = False, **options
) -> pa.Table:
    """All predictions of a dataset."""
    given = {"keep": (), "proba": False, **options}
    request = BatchRequest.checked(version, dataset, null_on_error=null, **given)
    predictor = BatchPredictor(request, store, Trust())
    tables = [table for group in range(len(predictor.group_rows)) for table in predictor.predict(group)]
    return pa.concat_tables([predictor.schema.empty_table(), *tables])


def as_json(rows: list[dict]) -> list[dict]:
    """The rows as a client sends them."""
    return json.loads(json.dumps(rows, default=lambda value: value.isoformat()))


def asked(cell, key: str, rows: list[dict]) -> tuple[list, list]:
    """What HTTP answers: labels, and the probabilities of each row."""
    answer = cell.predict("everything", rows, key=key, proba=True)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["predictions"], body["probabilities"]


def probabilities_of(table: pa.Table) -> list[dict]:
    """The probabilities of each row by label."""
    prefix = "probability_"
    named = table.select([name for name in table.column_names if name.startswith(prefix)])
    return [{name.removeprefix(prefix): value for name, value in row.items()} for row in named.to_pylist()]


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=12))
def test_values_get_the_answers_of_http(tmp_path_factory, bare_cell, everything_served, key, rows) -> None:
    """Bit for bit, for values of the types that a file has: texts, dates, categories, numbers, missing ones."""
    table = pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in TYPES.items()})
    dataset = table_of(bare_cell.store, tmp_path_factory.mktemp("values"), table)
    found = predicted(bare_cell.store, everything_served, dataset, proba=True)
    labels, probabilities = asked(bare_cell, key, as_json(rows))
    assert found["prediction"].to_pylist() == labels
    assert probabilities_of(found) == probabilities


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.fixed_dictionaries(CELLS), min_size=1, max_size=12))
def test_cells_get_the_answers_of_http_and_misfits_none(
    tmp_path_factory, bare_cell, everything_served, key, rows
) -> None:
    """A dataset from a CSV file: what HTTP refuses has no prediction, and all other rows have that of HTTP."""
    folder = tmp_path_factory.mktemp("cells")
    pd.DataFrame(rows).to_csv(folder / "t.csv", index=False)
    write_csv(folder / "t.csv", "utf-8", folder / "t.parquet", ApiSettings())
    dataset = dataset_of(bare_cell.store, folder / "t.parquet")
    found = predicted(bare_cell.store, everything_served, dataset, null=True, proba=True)
    fits = [bare_cell.predict("everything", [row], key=key).status_code == 200 for row in rows]
    assert [error is None for error in found["error"].to_pylist()] == fits
    assert [label is not None for label in found["prediction"].to_pylist()] == fits
    if any(fits):
        labels, probabilities = asked(bare_cell, key, [row for row, is_fit in zip(rows, fits, strict=True) if is_fit])
        answered = found.filter(pa.array(fits))
        assert answered["prediction"].to_pylist() == labels
        assert probabilities_of(answered) == probabilities
    if not all(fits):
        with pytest.raises(SignatureMismatchError, match=r"^Row \d+ of inbox@7 does not fit") as refused:
            predicted(bare_cell.store, everything_served, dataset)
        assert not fits[refused.value.row]


def test_pieces_keep_the_order_and_repeat_the_columns(tmp_path, cell, fitted_tickets, monkeypatch) -> None:
    """Long texts make short pieces; a kept column is as it was, and numbers of rows in errors count all pieces."""
    version, frame = servable(cell.store, fitted_tickets), tickets(500, seed=3)
    frame["subject"] = frame["subject"] + " " + "x" * 300
    frame["key"] = np.arange(500)
    monkeypatch.setattr("ml_core.data.table_file._GROUP_ROWS", 120)
    write_frame(frame, tmp_path / "t.parquet")
    dataset = dataset_of(cell.store, tmp_path / "t.parquet")
    whole = predicted(cell.store, version, dataset)
    monkeypatch.setattr(batch, "_BYTES", 10_000)
    request = BatchRequest.checked(version, dataset, keep=["key"], proba=False, null_on_error=False)
    predictor = BatchPredictor(request, cell.store, Trust())
    assert predictor.group_rows == [120, 120, 120, 120, 20]
    pieces = [piece for group in range(5) for piece in predictor.predict(group)]
    assert max(piece.num_rows for piece in pieces) < 40
    found = pa.concat_tables(pieces)
    assert found["key"].to_pylist() == list(range(500))
    assert found["prediction"].to_pylist() == whole["prediction"].to_pylist()
    assert found.schema == pa.schema([("key", pa.int64()), ("prediction", pa.string())])

    frame["opened"] = frame["opened"].where(frame["key"] != 333, "soon")
    write_frame(frame, tmp_path / "bad.parquet")
    bad = dataset_of(cell.store, tmp_path / "bad.parquet")
    with pytest.raises(
        SignatureMismatchError, match=r"^Row 333 of inbox@7 does not fit: column 'opened' is"
    ) as refused:
        predicted(cell.store, version, bad)
    assert (refused.value.row, refused.value.column) == (333, "opened")
    nulls = predicted(cell.store, version, bad, null=True)
    assert nulls["error"][333].as_py().startswith("column 'opened' is 'soon'; expected")
    assert (nulls["prediction"].null_count, nulls["error"].null_count) == (1, 499)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_table_in_which_no_row_fits_has_no_predictions(tmp_path, cell, fitted_tickets, rows: int) -> None:
    """Neither labels nor probabilities."""
    frame = tickets(rows).assign(opened="soon")
    write_frame(frame, tmp_path / "t.parquet")
    dataset = dataset_of(cell.store, tmp_path / "t.parquet")
    found = predicted(cell.store, servable(cell.store, fitted_tickets), dataset, null=True, proba=True)
    assert found["error"].null_count == 0
    assert all(found[name].null_count == rows for name in found.column_names if name != "error")


def test_labels_and_numbers_keep_their_types(tmp_path, cell) -> None:
    """A label has the type of the training target, as in JSON; a number that is not finite is null."""
    frame = measures(200)
    features = frame.drop(columns="outcome")
    write_frame(features, tmp_path / "t.parquet")
    dataset = dataset_of(cell.store, tmp_path / "t.parquet")
    yes = frame["outcome"] == "yes"
    for target, kind in (
        (frame["outcome"], pa.string()),
        (yes, pa.bool_()),
        (yes.astype(int) + 2**40, pa.int64()),
        (yes.map({True: 1.5, False: 2.5}).astype(float).rename("y"), pa.float64()),
    ):
        version = servable(cell.store, fitted("typed", (features, target), algorithm="decision_tree"))
        found = predicted(cell.store, version, dataset)["prediction"]
        assert found.type == kind
        promote(cell.table, version, generation=2)
        answer = cell.predict("typed", as_json(features.head(50).to_dict("records")), key=cell.key(ACME, *SCOPES))
        assert found.to_pylist()[:50] == answer.json()["predictions"]


@pytest.mark.parametrize("kind", list(ColumnKind))
@pytest.mark.parametrize(
    "values",
    [
        pa.array([1], pa.int8()),
        pa.array([1], pa.uint64()),
        pa.array([1.0], pa.float32()),
        pa.array([1.0], pa.float64()),
        pa.array([Decimal(1)], pa.decimal128(3, 0)),
        pa.array([True]),
        pa.array([date(2026, 1, 1)]),
        pa.array([datetime(2026, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        pa.array(["1"]),
        pa.array([None], pa.null()),
    ],
    ids=lambda values: str(values.type),
)
def test_a_type_is_refused_beforehand_where_no_value_of_it_is_read(
    tmp_path, cell, fitted_tickets, kind, values
) -> None:
    """What is accepted is read, and what is refused could not be; texts are found out row by row."""
    nullable = InputColumn("c", kind, nullable=True)
    version = dataclasses.replace(
        servable(cell.store, fitted_tickets), signature=Signature((nullable,), Output(OutputKind.NUMBER))
    )
    table = pa.table({"c": values})
    dataset = table_of(cell.store, tmp_path, table)
    is_read = values.type == pa.string()
    if not is_read:
        try:
            read_series(series_of(table.column("c")), nullable)
            is_read = True
        except SignatureMismatchError:
            is_read = False
    if is_read:
        BatchRequest.checked(version, dataset, keep=[], proba=False, null_on_error=False)
    else:
        with pytest.raises(SignatureMismatchError, match=rf"inbox@7 has values of type .* 'c', .* reads as a {kind}"):
            BatchRequest.checked(version, dataset, keep=[], proba=False, null_on_error=False)


def test_what_can_be_known_beforehand_is_refused(tmp_path, cell, fitted_tickets, fitted_measures) -> None:
    """With the column, and what to do."""
    version, frame = servable(cell.store, fitted_tickets), tickets(20)
    path = tmp_path / "t.parquet"

    def refused(frame: pd.DataFrame, kind: type[MLFrameworkError], match: str, of=version, **options) -> None:
        path.unlink(missing_ok=True)
        write_frame(frame, path)
        given = {"keep": [], "proba": False, "null_on_error": False, **options}
        with pytest.raises(kind, match=match):
            BatchRequest.checked(of, dataset_of(cell.store, path), **given)

    refused(frame.drop(columns="opened"), SignatureMismatchError, "no column 'opened', which .* datetime")
    refused(frame.rename(columns={"opened": "Opened"}), SignatureMismatchError, "'opened' instead of 'Opened'")
    refused(frame[["category"]], SignatureMismatchError, "none of the model's columns")
    refused(frame, InvalidRequestError, "no column 'subjekt'. Did you mean subject", keep=["subjekt"])
    refused(frame, DataProcessingError, "Several columns are called 'subject'", keep=["subject", "subject"])
    refused(frame.assign(prediction=1), DataProcessingError, "called 'prediction'", keep=["prediction"])
    refused(measures(20), PredictionError, "no probabilities", regressor(cell.store), proba=True)
    bare = dataclasses.replace(version, signature=Signature((), Output(OutputKind.NUMBER)))
    refused(frame, DataProcessingError, "The version has no signature", bare)
    path.unlink()
    write_frame(frame.drop(columns="priority"), path)  # it may be missing
    found = predicted(cell.store, version, dataset_of(cell.store, path))
    assert found["prediction"].null_count == 0
    assert pq.read_metadata(path).num_rows == found.num_rows


def regressor(store: ArtifactStore) -> ServableVersion:
    """A version whose answers are numbers."""
    frame = measures(100)
    return servable(store, fitted("numbers", (frame.drop(columns=["outcome", "m0"]), frame["m0"]), algorithm="ridge"))
