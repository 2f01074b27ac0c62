"""Datasets."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from ml_core.api.schemas.base import Page
from ml_core.api.schemas.datasets import Dataset, DatasetComparison, DatasetDetail, DatasetVersion
from ml_core.client.calls import Call, Download, Mode, Noun, Progress, Upload, listing, operation
from ml_core.data.sources import gathered, is_parquet
from ml_core.ids import DatasetId

_TRANSFER_S = 24 * 3600.0
"""An upload or a download takes as long as it takes; the platform ends one that pauses."""


class Datasets(Noun[Mode]):
    """The datasets of a tenant: names with immutable versions of a table."""

    @operation
    def create(
        self,
        dataset_id: str,
        file: Any,
        *,
        encoding: str = "utf-8",
        source: Mapping[str, str] | None = None,
        on_progress: Progress | None = None,
    ) -> Call[DatasetDetail]:
        """Register a table, of a file, several files or a frame, as a new version; the very table is registered once.

        Several files are joined on this machine before anything is sent, see ``ml_core.data.sources.gathered``.

        Args:
            dataset_id: The dataset; made with its first version.
            file: The file, of any size. What begins as a Parquet file is one, anything else is CSV. Or a folder, a
                pattern such as ``data/*.parquet``, or an address such as ``s3://bucket/folder/``, which this process
                opens with its own credentials. Or a table of pandas, polars or pyarrow; levels of an index that have a
                name are columns.
            encoding: Of CSV files.
            source: Where it came from, for people; the file's name if left out.
            on_progress: Called with the bytes sent so far and all bytes.

        Raises:
            InvalidRequestError: There is no such file.
            DataProcessingError: The files are not one table, or can't be read.
        """
        call = Call("POST", f"{self._dataset(dataset_id)}/versions", DatasetDetail, timeout_s=_TRANSFER_S)

        def complete(made: ExitStack) -> Call[DatasetDetail]:
            table = made.enter_context(gathered(file, encoding))
            is_text = not is_parquet(table.path)
            facts = {"file": table.path.name, **table.facts, **(source or {})}
            return replace(
                call,
                params={"source": orjson.dumps(facts).decode(), "encoding": encoding if is_text else None},
                upload=Upload(table.path, "text/csv" if is_text else "application/vnd.apache.parquet", on_progress),
            )

        return replace(call, complete=complete)

    @listing
    def list(self, *, name: str | None = None, include_archived: bool = False) -> Call[Page[Dataset]]:
        """The datasets by name; ``name``: only those with this text in the name."""
        params = {"name": name, "include_archived": include_archived or None}
        return Call("GET", f"{self._root}/datasets", Page[Dataset], params)

    @listing
    def versions(self, dataset_id: str, *, include_archived: bool = False) -> Call[Page[DatasetVersion]]:
        """The versions of a dataset, newest first."""
        params = {"include_archived": include_archived or None}
        return Call("GET", f"{self._dataset(dataset_id)}/versions", Page[DatasetVersion], params)

    @operation
    def get(self, dataset_id: str, number: int | None = None) -> Call[DatasetDetail]:
        """A version with its profile; without a number the newest."""
        return Call("GET", self._version(dataset_id, number), DatasetDetail)

    @operation
    def compare(self, dataset_id: str, number: int, other: int | None = None) -> Call[DatasetComparison]:
        """What differs between a version and another, by default the newest: columns, types, and which drifted."""
        path = f"{self._version(dataset_id, number)}/compare/{'newest' if other is None else other}"
        return Call("GET", path, DatasetComparison)

    @operation
    def download(
        self, dataset_id: str, file: str | Path, number: int | None = None, *, on_progress: Progress | None = None
    ) -> Call[None]:
        """Write a version as a Parquet file that does not exist yet."""
        path = f"{self._version(dataset_id, number)}/content"
        download = Download(Path(file), on_progress)
        return Call("GET", path, type(None), download=download, timeout_s=_TRANSFER_S)

    @operation
    def archive(self, dataset_id: str, number: int) -> Call[None]:
        """Hide a version, until it is restored or collected."""
        return Call("POST", f"{self._version(dataset_id, number)}/archive", type(None))

    @operation
    def restore(self, dataset_id: str, number: int) -> Call[None]:
        """Show an archived version again."""
        return Call("POST", f"{self._version(dataset_id, number)}/restore", type(None))

    @operation
    def delete(self, dataset_id: str, number: int) -> Call[None]:
        """Delete a version, permanently."""
        return Call("DELETE", self._version(dataset_id, number), type(None))

    def _dataset(self, dataset_id: str) -> str:
        return f"{self._root}/datasets/{DatasetId(dataset_id)}"

    def _version(self, dataset_id: str, number: int | None) -> str:
        return f"{self._dataset(dataset_id)}/versions/{'newest' if number is None else number}"
