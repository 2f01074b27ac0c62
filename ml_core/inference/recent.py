"""The pointers that were asked recently: a file, so that the next replica on the machine loads their models first.

It is a hint. A replica without it, such as the first one on a machine, loads the models in any order, and those that
are asked for before them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import orjson

from ml_core.inference.pointers import PointerKey
from ml_core.models.store.files import make_folder, write_whole

logger = logging.getLogger(__name__)

MAX_RECENT = 2_000
"""Pointers in the file: a replica loads their models, some seconds, before it is ready."""


class RecentPointers:
    """The file of one cell. Replicas of a cell on one machine share it; the last writer wins.

    Args:
        home: The folder of the platform on this machine.
        cell: The name of the cell, which was parsed.
    """

    def __init__(self, home: Path, cell: str) -> None:
        self._home = home
        self._path = home / "recent" / f"{cell}.json"
        self._written: Sequence[PointerKey] = ()

    def read(self) -> list[PointerKey]:
        """The pointers, the last asked one first; none if there is no file that can be read."""
        try:
            return [(str(tenant), str(model), str(env)) for tenant, model, env in orjson.loads(self._path.read_bytes())]
        except (OSError, ValueError, TypeError):
            return []

    def write(self, pointers: Sequence[PointerKey]) -> None:
        """Write the pointers, unless there are none. An error of the disk is logged and not raised."""
        if not pointers or pointers == self._written:
            return
        try:
            make_folder(self._path.parent, self._home)
            write_whole(self._path, [orjson.dumps(pointers)], durable=False)
            self._written = pointers
        except OSError as error:
            logger.debug("The recently asked models can't be written: %s.", error.strerror or error)
