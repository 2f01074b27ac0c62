"""Datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Query, Request
from pydantic import TypeAdapter
from starlette.concurrency import run_in_threadpool

from ml_core.api.access import TenantAccess
from ml_core.api.bodies import Download, received
from ml_core.api.operation import ArchivedQuery, CursorQuery, LimitQuery, NameQuery, operations, parsed
from ml_core.api.routes.adding import operation
from ml_core.api.schemas.base import Page
from ml_core.api.schemas.datasets import Dataset, DatasetComparison, DatasetDetail, DatasetVersion
from ml_core.data.sources import check_encoding
from ml_core.domain.api_key import Scope
from ml_core.exceptions import DataProcessingError, InvalidRequestError
from ml_core.ids import DatasetId

if TYPE_CHECKING:
    from ml_core.registry.datasets import DatasetRepository

router = operations("datasets", "/tenants/{tenant}/datasets")

_CSV, _PARQUET = "text/csv", "application/vnd.apache.parquet"
_SUFFIXES = {_CSV: ".csv", _PARQUET: ".parquet"}
_SOURCE = TypeAdapter(dict[str, str])
Number = int | Literal["newest"]


@operation(router, "GET", "", "datasets.list", Scope.READ)
def list_datasets(
    access: TenantAccess,
    name: NameQuery = None,
    include_archived: ArchivedQuery = False,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[Dataset]:
    """List the tenant's datasets by name."""
    found = _datasets(access).list(name=name, include_archived=include_archived, limit=limit, cursor=cursor)
    return Page[Dataset].model_validate(found)


@operation(
    router, "POST", "/{dataset}/versions", "datasets.create", Scope.TRAIN, receives=(_CSV, _PARQUET), creates=True
)
async def create_dataset(
    access: TenantAccess,
    dataset: str,
    request: Request,
    source: Annotated[
        str | None, Query(max_length=8192, description="Where it came from: a JSON object of texts, recorded.")
    ] = None,
    encoding: Annotated[
        str, Query(max_length=40, pattern=r"^[A-Za-z0-9 _.:+-]+$", description="Of a CSV file.")
    ] = "utf-8",
) -> DatasetDetail:
    """Upload a CSV or Parquet file, of any size, as a new version. The very table is registered once."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    suffix = _SUFFIXES.get(media_type)
    if suffix is None:
        raise InvalidRequestError(
            f"The body is of the type {media_type or 'unknown'!r}.",
            remedy=f"Send a CSV file as {_CSV}, or a Parquet file as {_PARQUET}.",
            field="content-type",
        )
    name = DatasetId(dataset)
    check_encoding(encoding)
    given = {} if source is None else parsed(_SOURCE, source, "source")
    where = {"file": f"upload{suffix}", **given}
    settings = access.db.settings
    async with received(
        request, settings.platform.home / "uploads", settings.api.max_upload_bytes, suffix=suffix
    ) as path:
        try:
            made = await run_in_threadpool(_datasets(access).from_file, name, path, encoding=encoding, source=where)
        except DataProcessingError as error:
            # The client knows the file by its own name, not by that of the server's copy.
            error.message = error.message.replace(str(path), (where or {}).get("file", "The upload"))
            raise
    return DatasetDetail.model_validate(made)


@operation(router, "GET", "/{dataset}/versions", "datasets.versions", Scope.READ)
def list_dataset_versions(
    access: TenantAccess,
    dataset: str,
    include_archived: ArchivedQuery = False,
    limit: LimitQuery = 100,
    cursor: CursorQuery = None,
) -> Page[DatasetVersion]:
    """List the versions of a dataset, newest first."""
    datasets = _datasets(access)
    found = datasets.versions(dataset, include_archived=include_archived, limit=limit, cursor=cursor)
    if not found.items and cursor is None and not datasets.versions(dataset, limit=1, include_archived=True).items:
        datasets.get(dataset)  # raises, and names the nearest
    return Page[DatasetVersion].model_validate(found)


@operation(router, "GET", "/{dataset}/versions/{number}", "datasets.get", Scope.READ)
def get_dataset(access: TenantAccess, dataset: str, number: Number) -> DatasetDetail:
    """A version of a dataset with its columns and their profile."""
    return DatasetDetail.model_validate(_datasets(access).get(dataset, _number(number)))


@operation(router, "GET", "/{dataset}/versions/{number}/compare/{other}", "datasets.compare", Scope.READ)
async def compare_datasets(
    access: TenantAccess, request: Request, dataset: str, number: Number, other: Number
) -> DatasetComparison:
    """What differs between two versions, by their profiles: columns, types, and which columns drifted."""
    # For few at a time: 10,000 columns take a second or two.
    async with request.app.state.services.report_work.of(access.tenant_id):
        found = await run_in_threadpool(lambda: _datasets(access).compare(dataset, _number(number), _number(other)))
    return DatasetComparison.model_validate(found)


@operation(router, "GET", "/{dataset}/versions/{number}/content", "datasets.download", Scope.READ)
def download_dataset(access: TenantAccess, dataset: str, number: Number) -> Download:
    """Download a version as a Parquet file."""
    return Download(_datasets(access).open(dataset, _number(number)), media_type=_PARQUET)


@operation(router, "POST", "/{dataset}/versions/{number}/archive", "datasets.archive", Scope.TRAIN)
def archive_dataset(access: TenantAccess, dataset: str, number: int) -> None:
    """Hide a version, until it is restored or collected."""
    _datasets(access).archive(dataset, number)


@operation(router, "POST", "/{dataset}/versions/{number}/restore", "datasets.restore", Scope.TRAIN)
def restore_dataset(access: TenantAccess, dataset: str, number: int) -> None:
    """Show an archived version again."""
    _datasets(access).restore(dataset, number)


@operation(router, "DELETE", "/{dataset}/versions/{number}", "datasets.delete", Scope.ADMIN)
def delete_dataset(access: TenantAccess, dataset: str, number: int) -> None:
    """Delete a version, permanently."""
    _datasets(access).delete(dataset, number)


def _datasets(access: TenantAccess) -> DatasetRepository:
    # Imported late: other nouns need neither pandas nor pyarrow.
    from ml_core.registry.datasets import DatasetRepository

    return DatasetRepository(access.db, access.tenant_id)


def _number(number: Number) -> int | None:
    return None if number == "newest" else number
