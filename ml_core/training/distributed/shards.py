"""A training table in shards: row groups of a dataset's file as canonical columns in Ray's object store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray

from ml_core.data.canonical import columns_from_frame, read_series
from ml_core.data.cells import Cells, has_decimal_comma
from ml_core.data.frames import as_frame
from ml_core.data.kinds import InferredColumn, check_table, infer_column, require_usable
from ml_core.data.table_file import read_frame
from ml_core.data.tables import frame_of
from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn, OutputKind
from ml_core.domain.values import composed
from ml_core.models.store import platform_store
from ml_core.settings import Settings
from ml_core.training.distributed.tasks import gathered
from ml_core.training.hold_out import divide
from ml_core.training.provenance import data_digest, row_digests
from ml_core.training.request import TableFile, TrainingRequest
from ml_core.training.table import (
    Part,
    RareRows,
    TrainingTable,
    as_training_errors,
    check_shape,
    check_texts,
    checked_target,
)
from ml_core.training.targets import check_classes

_SHARDS_PER_TASK = 4
_SHARD_ROWS = 262_144
"""At most, so that what a task holds does not grow with the table."""


class Shards(Mapping[str, NDArray[Any]]):
    """Canonical columns whose rows lie in Ray's object store. A column is gathered each time it is asked for.

    Args:
        pieces: Column → one array a shard.
        rows: For each shard the numbers of the rows that belong to the table, ascending.
    """

    def __init__(self, pieces: Mapping[str, list[Any]], rows: list[NDArray[np.intp]]) -> None:
        self.pieces = pieces
        self.rows = rows

    def __getitem__(self, name: str) -> NDArray[Any]:
        return gather(self.rows, *gathered(self.pieces[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self.pieces)

    def __len__(self) -> int:
        return len(self.pieces)

    def take(self, rows: NDArray[np.intp]) -> Shards:
        """The table with these of its rows, numbered from 0 and ascending; shards with none of them are left out."""
        ends = np.cumsum([len(each) for each in self.rows])
        parts = np.split(rows, np.searchsorted(rows, ends[:-1]))
        used = [number for number, part in enumerate(parts) if len(part)]
        starts = [0, *ends[:-1]]
        return Shards(
            {name: [pieces[number] for number in used] for name, pieces in self.pieces.items()},
            [self.rows[number][parts[number] - starts[number]] for number in used],
        )

    def map(self, task: Any, *arguments: Any, each: list[Any] | None = None) -> list[Any]:
        """Start ``task(*arguments, each[i], names, rows, *arrays)`` for each shard; the references."""
        extra = [None] * len(self.rows) if each is None else each
        arrays = zip(*self.pieces.values(), strict=True)
        return [
            task.remote(*arguments, own, list(self.pieces), rows, *shard)
            for own, rows, shard in zip(extra, self.rows, arrays, strict=True)
        ]


def gather(rows: list[NDArray[np.intp]], *pieces: NDArray[Any]) -> NDArray[Any]:
    """One column of all shards."""
    return np.concatenate([piece[own] for piece, own in zip(pieces, rows, strict=True)])


def read_shards(request: TrainingRequest, output: OutputKind, *, tasks: int) -> TrainingTable:
    """Read, check and divide a table as ``read_training_table`` does; the request has a ``TableFile`` and a target.

    Kinds are inferred a column a task, because they depend on all its values; rows become canonical a shard a task.
    This process holds the target, one number a row and one column at a time.

    Raises:
        TrainingError: As ``read_training_table``.
    """
    source, y = request.training_data
    notes: list[str] = []
    rare = RareRows(request)
    check_shape(source.n_rows, len(source.names), "training")
    target = checked_target(request.target, source.n_rows, output, notes, "training", rare)
    assert target is not None  # noqa: S101 - the outputs that are merged have one
    labels = target.values if output is OutputKind.CLASSES else None
    if labels is not None:
        check_classes(target)
        rare.check_sizes(target)
    with as_training_errors():
        columns = _infer(source, request.kinds, target.kept, isinstance(y, Cells) and y.has_commas)
        inputs = tuple(column.input for column in columns if column.input is not None)
        table, digests = _read(source, inputs, target.kept, tasks)
    digest = data_digest(table, inputs, target.values)
    sides = divide(digests, labels, notes, request.split_seed)
    rare.note_unmeasured(labels, *sides, notes)
    train, held_out = (Part(table.take(rows), target.values[rows], len(rows)) for rows in sides)
    return TrainingTable(columns, inputs, train, held_out, digest, tuple(notes))


def _infer(
    source: TableFile, kinds: Mapping[str, ColumnKind], kept: NDArray[np.bool_], has_commas: bool
) -> tuple[InferredColumn, ...]:
    kinds = {composed(name): kind for name, kind in kinds.items()}
    check_table(int(kept.sum()), [composed(name) for name in source.names], kinds)
    kept_ref = ray.put(kept)
    if not has_commas:
        has_commas = any(gathered([_has_commas.remote(source, name, kept_ref) for name in source.texts]))
    tasks = [
        _infer_column.remote(source, name, kept_ref, kinds.get(composed(name)), has_commas) for name in source.names
    ]
    return require_usable(tuple(gathered(tasks)))


def _read(
    source: TableFile, inputs: tuple[InputColumn, ...], kept: NDArray[np.bool_], tasks: int
) -> tuple[Shards, NDArray[Any]]:
    """The canonical table, and its row digests."""
    with pq.ParquetFile(_local(source)) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    ends = np.cumsum(sizes)
    n_shards = min(len(sizes), max(_SHARDS_PER_TASK * tasks, -(-source.n_rows // _SHARD_ROWS)))
    read: Any = _read_shard.options(num_returns=len(inputs) + 1)
    digests, shards, rows = [], [], []
    for groups in np.array_split(np.arange(len(sizes)), n_shards):
        own = kept[ends[groups[0]] - sizes[groups[0]] : ends[groups[-1]]]
        digest, *arrays = read.remote(source, groups.tolist(), own, inputs)
        digests.append(digest)
        shards.append(arrays)
        rows.append(np.arange(int(own.sum())))
    names = [column.name for column in inputs]
    pieces = dict(zip(names, map(list, zip(*shards, strict=True)), strict=True))
    return Shards(pieces, rows), np.concatenate(gathered(digests))


@ray.remote(num_cpus=1)
def _has_commas(source: TableFile, name: str, kept: NDArray[np.bool_]) -> bool:
    return has_decimal_comma(read_frame(_local(source), [name])[kept])


@ray.remote(num_cpus=1)
def _infer_column(
    source: TableFile, name: str, kept: NDArray[np.bool_], kind: ColumnKind | None, has_commas: bool
) -> InferredColumn:
    frame = as_frame(read_frame(_local(source), [name]))
    check_texts(frame, "training")
    series = frame.iloc[:, 0][kept]
    column = infer_column(str(series.name), series, kind, has_commas)
    if kind is not None and column.input is not None:
        read_series(series, column.input)  # names the row of a value that is not of the kind that the caller gave
    return column


@ray.remote(num_cpus=1)
def _read_shard(
    source: TableFile, groups: list[int], kept: NDArray[np.bool_], inputs: tuple[InputColumn, ...]
) -> tuple[NDArray[Any], ...]:
    """The row digests and each column of a shard's rows that have a target."""
    used = {column.name for column in inputs}
    with pq.ParquetFile(_local(source)) as file:
        table = file.read_row_groups(groups, columns=[name for name in source.names if composed(name) in used])
    columns = columns_from_frame(as_frame(frame_of(table))[kept], inputs)
    return (row_digests(columns, inputs), *(columns[column.name] for column in inputs))


@lru_cache(maxsize=8)
def _local(source: TableFile) -> Path:
    """The file on this node; its digest was checked once in this process."""
    return platform_store(Settings.from_environment()).fetch(source.tenant_id, source.digest, source.size_bytes)
