"""Versions and holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_core.api.schemas.base import Page
from ml_core.api.schemas.environments import Hold, NewHold
from ml_core.api.schemas.trainings import TrainingReport
from ml_core.api.schemas.versions import (
    FullLineage,
    Metric,
    NewVersion,
    Version,
    VersionChanges,
    VersionComparison,
    VersionDetail,
)
from ml_core.client.calls import Call, Download, Form, Mode, Noun, Progress, Upload, list_of, listing, operation
from ml_core.domain.keywords import texts
from ml_core.ids import HoldName, ModelId, VersionId

_ARTIFACT_S = 600.0


class Versions(Noun[Mode]):
    """The versions of a tenant's models."""

    @operation
    def register(
        self,
        /,
        model_id: str,
        file: str | Path,
        version: str | None = None,
        *,
        on_progress: Progress | None = None,
        **recorded: Any,
    ) -> Call[VersionDetail]:
        """Register a ``.skops`` file as an immutable version.

        Args:
            model_id: The model; made with its first version.
            file: The artifact. It is audited, and refused if it holds a type that servers do not load.
            version: Its name; None means the model's next number.
            on_progress: Called with the bytes sent so far and all bytes.
            **recorded: Further fields of ``NewVersion``, such as ``metrics``, ``hyperparameters`` and ``sample``.
        """
        upload = Upload(Path(file), _SKOPS, on_progress)
        form = Form({"version": NewVersion(version=version, **recorded)}, "artifact", upload)
        return Call("POST", f"{self._model(model_id)}/versions", VersionDetail, form=form, timeout_s=_ARTIFACT_S)

    @listing
    def list(
        self,
        model_id: str | None = None,
        *,
        model_type: str | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Sequence[str] = (),
        text: str | None = None,
        name: str | None = None,
        include_archived: bool = False,
        sort: str | None = None,
        descending: bool | None = None,
    ) -> Call[Page[Version]]:
        """Versions of one model or of all, newest first; what is left out does not restrict.

        Args:
            model_id: Of this model.
            model_type: Of models of this type.
            tags: With all of these.
            metrics: With each of these bounds, such as ``accuracy>=0.8`` (of the validation rows) or ``train/mae<=3``.
            text: With this text in a name, a note or a tag.
            name: With this text in the version's name.
            include_archived: Archived ones too.
            sort: ``created``, or a metric such as ``validation/accuracy``.
            descending: Newest or highest first; None: the newest, or the best of the metric, first.
        """
        params = {
            "model_type": model_type,
            "tag": [f"{key}={value}" for key, value in (tags or {}).items()] or None,
            "metric": texts("metrics", metrics) or None,
            "text": text,
            "name": name,
            "include_archived": include_archived or None,
            "sort": sort,
            "descending": descending,
        }
        path = f"{self._root}/versions" if model_id is None else f"{self._model(model_id)}/versions"
        return Call("GET", path, Page[Version], params)

    @operation
    def metrics(self) -> Call[list_of[Metric]]:
        """The metrics that the versions have, and whether a higher value of each is better."""
        return Call("GET", f"{self._root}/versions/metrics", list_of[Metric])

    @operation
    def get(self, model_id: str, version: str | None = None) -> Call[VersionDetail]:
        """A version with everything that is known of it; without a name the newest that is not archived."""
        name = "newest" if version is None else VersionId(version)
        return Call("GET", f"{self._model(model_id)}/versions/{name}", VersionDetail)

    @operation
    def download(
        self, model_id: str, version: str, file: str | Path, *, on_progress: Progress | None = None
    ) -> Call[None]:
        """Write a version's artifact as a file that does not exist yet."""
        path = f"{self._version(model_id, version)}/artifact"
        return Call("GET", path, type(None), download=Download(Path(file), on_progress), timeout_s=_ARTIFACT_S)

    @operation
    def update(
        self,
        model_id: str,
        version: str,
        *,
        tags: Mapping[str, str | None] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Call[VersionDetail]:
        """Set tags (None removes one) and merge notes."""
        given = {"tags": tags, "metadata": metadata}
        body = VersionChanges.model_validate({name: value for name, value in given.items() if value is not None})
        return Call("PATCH", self._version(model_id, version), VersionDetail, body=body)

    @operation
    def archive(self, model_id: str, version: str) -> Call[None]:
        """Hide a version, until it is restored or collected."""
        return Call("POST", f"{self._version(model_id, version)}/archive", type(None))

    @operation
    def restore(self, model_id: str, version: str) -> Call[None]:
        """Show an archived version again."""
        return Call("POST", f"{self._version(model_id, version)}/restore", type(None))

    @operation
    def delete(self, model_id: str, version: str) -> Call[None]:
        """Delete a version, permanently; its name stays taken."""
        return Call("DELETE", self._version(model_id, version), type(None))

    @operation
    def compare(self, model_id: str, version1: str, version2: str) -> Call[VersionComparison]:
        """What differs between two versions, and which is better in each metric."""
        path = f"{self._version(model_id, version1)}/compare/{VersionId(version2)}"
        return Call("GET", path, VersionComparison)

    @operation
    def lineage(self, model_id: str, version: str) -> Call[FullLineage]:
        """Where a version came from, and what came of it."""
        return Call("GET", f"{self._version(model_id, version)}/lineage", FullLineage)

    @operation
    def training(self, model_id: str, version: str) -> Call[TrainingReport]:
        """What the training of a version found: columns, metrics beside the baseline, notes."""
        return Call("GET", f"{self._version(model_id, version)}/training", TrainingReport)

    def _version(self, model_id: str, version: str) -> str:
        return f"{self._model(model_id)}/versions/{VersionId(version)}"


_SKOPS = "application/octet-stream"


class Holds(Noun[Mode]):
    """Reasons to keep versions."""

    @operation
    def place(self, model_id: str, version: str, name: str, reason: str) -> Call[Hold]:
        """Keep a version: while it is held, it can't be deleted or collected."""
        return Call("PUT", self._hold(model_id, version, name), Hold, body=NewHold(reason=reason))

    @operation
    def release(self, model_id: str, version: str, name: str) -> Call[None]:
        """Release a hold."""
        return Call("DELETE", self._hold(model_id, version, name), type(None))

    @listing
    def list(self, model_id: str | None = None) -> Call[Page[Hold]]:
        """The holds of one model or of all."""
        return Call("GET", f"{self._root}/holds", Page[Hold], {"model": model_id and ModelId(model_id)})

    def _hold(self, model_id: str, version: str, name: str) -> str:
        return f"{self._model(model_id)}/versions/{VersionId(version)}/holds/{HoldName(name)}"
