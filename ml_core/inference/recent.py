"""What a replica leaves to the next one of its cell on the machine, in files.

They are hints. A replica without them, such as the first one on a machine, loads the models in any order, and those
that are asked for before them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson

from ml_core.inference.pointers import PointerKey, VersionKey
from ml_core.models.store.files import make_folder, write_whole

logger = logging.getLogger(__name__)

MAX_RECENT = 2_000
"""Pointers in the file: a replica loads their models, some seconds, before it is ready."""
REFUSED_S = 600.0
"""How long the next replicas do not load a version whose code did not return in one that is replaced."""


class RecentPointers:
    """The pointers that were asked recently, whose models are loaded first.

    Replicas of a cell on one machine share the file; the last writer wins.

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


class LostVersions:
    """The versions whose code did not return, so that a replica is not replaced soon because of the same ones.

    Args:
        home: As for ``RecentPointers``.
        cell: As for ``RecentPointers``.
    """

    def __init__(self, home: Path, cell: str) -> None:
        self._home = home
        self._path = home / "recent" / f"{cell}.lost.json"

    def read(self) -> dict[VersionKey, float]:
        """Version → when it may be loaded again, in seconds since 1970."""
        try:
            found = orjson.loads(self._path.read_bytes())
            return {(str(a), str(b), str(c), str(d)): float(until) for (a, b, c, d), until in found}
        except (OSError, ValueError, TypeError):
            return {}

    def add(self, versions: Iterable[VersionKey]) -> None:
        """Add versions for ``REFUSED_S``, and forget those whose time is over. Errors are as of ``RecentPointers``."""
        now = time.time()
        kept = {version: until for version, until in self.read().items() if until > now}
        kept |= dict.fromkeys(versions, now + REFUSED_S)
        try:
            make_folder(self._path.parent, self._home)
            write_whole(self._path, [orjson.dumps(list(kept.items()))], durable=False)
        except OSError as error:
            logger.warning("The versions that do not return can't be written: %s.", error.strerror or error)
