"""Files of runs: plots, reports, tables. The bytes are in the artifact store by digest, the names in the registry."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ml_core.database.strict_json import is_storable
from ml_core.database.tables import run_artifacts
from ml_core.domain.api_key import Scope
from ml_core.domain.run import RunArtifact
from ml_core.domain.version import StoredArtifact
from ml_core.exceptions import InvalidRequestError, shown
from ml_core.ids import Digest
from ml_core.registry import journal
from ml_core.registry.blobs import KeepsBytes, remove_unneeded, store_and_register
from ml_core.registry.journal import erase
from ml_core.registry.limits import check_word
from ml_core.registry.records import value_of
from ml_core.registry.runs import series
from ml_core.registry.runs.lifecycle import accept_results, require_run, run_not_found
from ml_core.registry.runs.series import Batch

_ADD = run_artifacts.insert().returning(run_artifacts.c.created_at)
_MAX_NAME = 400
_PART = re.compile(r"[^/\\\x00-\x1f\x7f]{1,255}")


class RunArtifacts(KeepsBytes):
    """The files of one tenant's runs: ``RunRepository.artifacts``.

    Each method raises ``RunNotFoundError`` if there is no such run, or if it has no such file.
    """

    def log(
        self,
        run_id: str,
        name: str,
        data: bytes | str | Path,
        format: str | None = None,  # noqa: A002
    ) -> RunArtifact:
        """Store a file of a run that is running; one of the same name is replaced.

        Args:
            run_id: The run.
            name: 1 to 400 characters, such as ``plot.png`` or ``model/MLmodel``; see ``check_name``.
            data: The bytes, or the path of a file, which is streamed.
            format: Its kind, such as ``png``; None: the name's ending, or ``binary`` without one.

        Raises:
            RunStateError: The run has ended.
            InvalidRequestError: The name can't be used.
            ModelSaveError: The file can't be read or stored; nothing is left behind.
        """
        self._db.principal.require(Scope.TRAIN)
        check_name(name)
        kind = check_word(format or Path(name).suffix[1:] or "binary", "format")
        with journal.writing(self._db, self._tenant_id) as connection:  # before any byte is stored for no run
            accept_results(connection, self._tenant_id, run_id)
        return self._log(run_id, name, data, kind, Batch.of_step({}, 0))

    def log_results(self, run_id: str, metrics: Mapping[str, float], name: str, data: bytes) -> RunArtifact:
        """Log metrics, as ``RunRepository.log_metrics``, and the file that explains them: both, or neither.

        Raises:
            RunStateError, ModelSaveError: As ``log``.
        """
        self._db.principal.require(Scope.TRAIN)
        return self._log(run_id, check_name(name), data, Path(name).suffix[1:], Batch.of_step(metrics, 0))

    def _log(self, run_id: str, name: str, data: bytes | str | Path, kind: str, points: Batch) -> RunArtifact:
        logged, replaced = store_and_register(
            self._db,
            self._tenant_id,
            self.store,
            lambda: self._put(data, kind),
            lambda connection, stored: self._register(connection, run_id, name, stored, points),
        )
        self._discard(replaced)
        return logged

    def list(self, run_id: str) -> Sequence[RunArtifact]:
        """A run's files by name."""
        statement = sa.select(run_artifacts).filter_by(tenant_id=self._tenant_id, run_id=run_id)
        with self._db.tenant(self._tenant_id) as connection:
            require_run(connection, self._tenant_id, run_id)
            rows = connection.execute(statement.order_by(run_artifacts.c.name)).all()
        return [value_of(RunArtifact, row) for row in rows]

    def open(self, run_id: str, name: str) -> Path:
        """A local, read-only file with the bytes, whose digest was checked.

        Raises:
            ArtifactIntegrityError: The bytes are missing or differ.
        """
        found = {artifact.name: artifact for artifact in self.list(run_id)}.get(name)
        if found is None:
            raise run_not_found(self._tenant_id, run_id, _file(name))
        return self.store.fetch(self._tenant_id, found.digest, found.size_bytes)

    def delete(self, run_id: str, name: str) -> None:
        """Delete a file of a run, ended or not; its bytes are removed unless something else needs them."""
        with journal.writing(self._db, self._tenant_id) as connection:
            require_run(connection, self._tenant_id, run_id)
            gone = self._delete_row(connection, run_id, name)
            if not gone:
                raise run_not_found(self._tenant_id, run_id, _file(name))
            subject = {"run_id": run_id, "name": name}
            journal.record(connection, self._tenant_id, "run.artifact_deleted", subject, {"digest": gone[0]})
        self._discard(gone)

    def _discard(self, digests: Sequence[Digest]) -> None:
        for digest in digests:
            remove_unneeded(self._db, self._tenant_id, self.store, digest)

    def _put(self, data: bytes | str | Path, kind: str) -> StoredArtifact:
        if isinstance(data, bytes):
            return self.store.put(self._tenant_id, data, kind)
        return self.store.put_file(self._tenant_id, Path(data), kind)

    def _register(
        self, connection: Connection, run_id: str, name: str, stored: StoredArtifact, points: Batch
    ) -> tuple[RunArtifact, Sequence[Digest]]:
        """The file, and the digests that it replaces."""
        accept_results(connection, self._tenant_id, run_id)
        series.write(connection, self._tenant_id, run_id, points)
        # Its bytes are removed after the commit, unless they are the new ones.
        replaced = [digest for digest in self._delete_row(connection, run_id, name) if digest != stored.digest]
        values = {"digest": stored.digest, "size_bytes": stored.size_bytes, "format": stored.format}
        row = {"tenant_id": self._tenant_id, "run_id": run_id, "name": name, **values}
        created_at = connection.scalar(_ADD, row)
        journal.record(connection, self._tenant_id, "run.artifact_logged", {"run_id": run_id, "name": name}, values)
        return RunArtifact(name, stored.digest, stored.size_bytes, stored.format, created_at), replaced

    def _delete_row(self, connection: Connection, run_id: str, name: str) -> Sequence[Digest]:
        statement = sa.select(run_artifacts.c.digest).filter_by(tenant_id=self._tenant_id, run_id=run_id, name=name)
        found = [Digest(digest) for digest in connection.scalars(statement)]
        if found:
            erase(connection, run_artifacts, run_id=run_id, name=name)
        return found


def check_name(name: str) -> str:
    """A file's name: a relative path, which means nothing to a file system here, and leads out of no folder elsewhere.

    Raises:
        InvalidRequestError: The name is not valid.
    """
    is_name = isinstance(name, str) and len(name) <= _MAX_NAME and is_storable(name) and name.isprintable()
    if not is_name or not all(_PART.fullmatch(part) and part not in (".", "..") for part in name.split("/")):
        raise InvalidRequestError(
            f"{shown(name, 60)} can't be the name of a run's file.",
            remedy=f"Use a relative path of 1 to {_MAX_NAME} printable characters, such as model/weights.npz,"
            " without '..' and backslashes.",
            field="name",
        )
    return name


def _file(name: str) -> str:
    return f"file {name[:60]!r}"
