"""Datasets from several files, here and in a bucket, through the library, the client and the control API."""

import asyncio

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_core.api.access import Services
from ml_core.api.app import create_app
from ml_core.client import AsyncMLClient, MLClient
from ml_core.domain.api_key import Scope
from ml_core.exceptions import DataProcessingError
from ml_core.models.store import LocalStore
from ml_core.registry.datasets import DatasetRepository
from ml_core.registry.keys import KeyRepository
from support.http_server import mounted, served
from support.s3 import s3, s3_server
from support.tables import tickets

__all__ = ["s3"]


@pytest.fixture
def datasets(db, tenant_id, tmp_path):
    return DatasetRepository(db, tenant_id, LocalStore(tmp_path / "store"))


@pytest.fixture
def parts(tmp_path):
    """Tickets as a CSV, and in three parts as CSV and as Parquet."""
    table = tickets(90)
    table.to_csv(tmp_path / "whole.csv", index=False)
    table.to_parquet(tmp_path / "whole.parquet")
    for suffix in ("csv", "parquet"):
        (tmp_path / suffix).mkdir()
        for n in range(3):
            part = table.iloc[n * 30 : n * 30 + 30]
            part = part[list(reversed(part.columns))] if n else part
            path = tmp_path / suffix / f"{n}.{suffix}"
            part.to_csv(path, index=False) if suffix == "csv" else part.to_parquet(path)
    return tmp_path


@pytest.fixture
def bucket(s3, parts, monkeypatch):
    """The address of the parts in a bucket, which this process finds by its environment."""
    name = s3.new_bucket()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    for path in [*parts.glob("*/*.csv"), *parts.glob("*/*.parquet"), parts / "whole.csv"]:
        s3.put(name, f"in/{path.relative_to(parts)}", path.read_bytes())
    return f"s3://{name}/in"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_parts_are_the_dataset_of_the_whole(datasets, parts, bucket, kind):
    """One digest, from a folder, a pattern and a bucket; where it came from is recorded."""
    whole = datasets.from_file("whole", parts / f"whole.{kind}")
    assert whole.row_count == 90
    sources = (parts / kind, f"{parts}/{kind}/*", f"{bucket}/{kind}/", f"{bucket}/**/?.{kind}")
    for n, source in enumerate(sources):
        made = datasets.from_file(f"parts{n}", source)
        assert (made.digest, made.source["kind"], made.source["files"]) == (whole.digest, kind, "3"), source
    assert made.source["file"] == f"{bucket}/**/?.{kind}"


@pytest.mark.parametrize("door", ["sync", "async"])
def test_a_client_joins_before_it_sends(db, tenant_id, datasets, parts, bucket, door):
    """The control API gets one file; cells stay cells on the way."""
    key = str(KeyRepository(db, tenant_id).create("train", [Scope.TRAIN, Scope.READ]))
    whole = datasets.from_file("whole", parts / "whole.csv")

    async def create(url, name, source):
        async with AsyncMLClient(url, api_key=key, tenant_id=tenant_id) as client:
            return await client.datasets.create(name, source)

    with served(mounted(create_app(Services(db)))) as port:
        url = f"http://127.0.0.1:{port}"
        for n, source in enumerate((f"{parts}/csv/*.csv", f"{bucket}/csv", f"{bucket}/whole.csv")):
            if door == "async":
                made = asyncio.run(create(url, f"parts{n}", source))
            else:
                with MLClient(url, api_key=key, tenant_id=tenant_id) as client:
                    made = client.datasets.create(f"parts{n}", source)
            assert (made.digest, made.source["file"]) == (whole.digest, source)


def test_the_control_api_opens_no_address(db, tenant_id, bucket, s3):
    """Whatever a tenant says of where a body came from, the body is the table."""
    key = str(KeyRepository(db, tenant_id).create("train", [Scope.TRAIN]))
    with served(mounted(create_app(Services(db)))) as port, s3.paused():
        answer = httpx.post(
            f"http://127.0.0.1:{port}/api/v1/tenants/{tenant_id}/datasets/d/versions",
            params={"source": f'{{"file": "{bucket}/csv", "path": "{bucket}/csv"}}'},
            content=f"{bucket}/csv\n{bucket}/csv/*\n",
            headers={"authorization": f"Bearer {key}", "content-type": "text/csv"},
        )
    assert (answer.status_code, answer.json()["row_count"]) == (201, 1)


@pytest.mark.parametrize(
    ("path", "words"),
    [("/none", "nothing at"), ("/csv/*.tsv", "names no file"), ("", "more than the files of a table: csv, parquet")],
)
def test_what_a_bucket_does_not_have(datasets, bucket, path, words):
    """Is not there, as for a path."""
    with pytest.raises(DataProcessingError, match=words):
        datasets.from_file("d", f"{bucket}{path}")


def test_a_part_in_a_bucket_is_called_by_its_address(datasets, bucket, s3):
    """Also where the fault is found in a copy of it."""
    name = bucket.split("/")[2]
    s3.put(name, "in/csv/3.csv", b"subject\nx,y,z\n")
    with pytest.raises(DataProcessingError) as caught:
        datasets.from_file("d", f"{bucket}/csv")
    assert f"{bucket}/csv/3.csv is not a table: line 2" in caught.value.message
    s3.put(name, "in/parquet/1.parquet", b"PAR1 and no more")
    with pytest.raises(DataProcessingError, match=f"{bucket}/parquet/1.parquet is not a Parquet file"):
        datasets.from_file("d", f"{bucket}/parquet")
    with pytest.raises(DataProcessingError, match=f"{bucket}/csv/3.csv is not a table"):
        datasets.from_file("d", f"{bucket}/csv/3.csv")


def test_a_bucket_without_permission(datasets, tmp_path, monkeypatch):
    """Says which credentials to set; a bucket that is not there says so."""
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="2") as server:
        name = server.new_bucket()
        server.put(name, "in/1.csv", b"a\n1\n")
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        for source in (f"s3://{name}/in/*.csv", f"s3://{name}/in", f"s3://{name}/in/1.csv"):
            with pytest.raises(DataProcessingError) as caught:
                datasets.from_file("d", source)
            assert f"{source} can't be read" in caught.value.message
            assert "AWS_ACCESS_KEY_ID" in str(caught.value)


def test_a_bucket_that_is_not_there(datasets, s3, monkeypatch):
    """An error of its own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    with pytest.raises(DataProcessingError, match="no-such-bucket"):
        datasets.from_file("d", "s3://no-such-bucket/in/")


def test_the_file_of_a_dataset_sent_back_is_that_dataset(datasets, parts):
    """Its strings are cells if they were; the mark alone makes no other column a cell, and no blank a value."""
    whole = datasets.from_file("whole", parts / "whole.csv")
    assert datasets.from_parquet("back", datasets.open("whole")).digest == whole.digest
    mark = {"mlcore.cells": "text"}
    numbers = pa.table({"n": [1, 2], "s": ["", "1"]})
    pq.write_table(numbers.replace_schema_metadata(mark), parts / "forged.parquet")
    assert datasets.from_file("forged", parts / "forged.parquet").digest == datasets.create("f", numbers).digest
    pq.write_table(pa.table({"s": ["", "1"]}, metadata=mark), parts / "blank.parquet")
    assert datasets.from_file("blank", parts / "blank.parquet").profile.columns[0].missing == 1
