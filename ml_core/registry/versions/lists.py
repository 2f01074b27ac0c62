"""Lists of versions, as notebooks and data frames show them."""

from __future__ import annotations

from collections import UserList
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ml_core.domain.notebook import fields_of, flattened, records_html
from ml_core.domain.version import ModelVersion
from ml_core.registry.pages import every

if TYPE_CHECKING:
    import pandas as pd

    from ml_core.registry.model_registry import ModelRegistry


class VersionList(UserList[ModelVersion]):
    """Versions of a model, newest first."""

    def _repr_html_(self) -> str:
        return records_html(f"{len(self)} versions", (each.shown_fields() for each in self))

    def to_frame(self) -> pd.DataFrame:
        """One row a version: names, one column for each metric (``validation/accuracy``), and the environments."""
        return frame_of(each.shown_fields() for each in self)


class Versions:
    """The versions of a tenant: ``versions("tickets")`` are those of a model; ``versions.to_frame()`` are all."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def __repr__(self) -> str:
        return f"Versions({self._registry!r})"

    def __call__(self, model_id: str) -> VersionList:
        """The versions of a model that are not archived, newest first; none if there is no such model."""
        return self._registry.list_versions(model_id)

    def to_frame(self) -> pd.DataFrame:
        """One row a version of any model, newest first; columns as of ``VersionList.to_frame``."""
        search = self._registry.versions.search
        return frame_of(map(fields_of, every(lambda limit, cursor: search(limit=limit, cursor=cursor))))


def frame_of(versions: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """A data frame of the fields of versions."""
    import pandas as pd

    frame = pd.DataFrame([flattened(fields) for fields in versions])
    return frame if len(frame.columns) else pd.DataFrame(columns=["model_id", "version"])
