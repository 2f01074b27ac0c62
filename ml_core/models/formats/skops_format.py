"""``skops/1``: a fitted pipeline as a canonical skops archive.

Loading goes in four visible steps: ``read`` the archive within bounds, ``build`` the schema from it as plain JSON,
``audit`` every node against the platform's own list, and only then ``construct``. Pickle is in none of them.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Collection
from typing import Any

import skops.io
from skops.io.exceptions import UnsupportedTypeException, UntrustedTypesFoundException

from ml_core.exceptions import ModelLoadError, ModelSaveError, UnsafeArtifactError
from ml_core.models.formats.allowed_types import TRUSTED
from ml_core.models.formats.archive import MAX_UNPACKED_BYTES, check_array, read_members
from ml_core.models.formats.audit import audit_schema, malformed
from ml_core.models.formats.canonical import canonical_archive
from ml_core.models.formats.native import check_native
from ml_core.models.formats.schema import SCHEMA_MEMBER
from ml_core.models.formats.tree_state import check_compiled_state
from ml_core.models.graph import estimators

FORMAT = "skops/1"


def dump(pipeline: Any) -> bytes:
    """The canonical archive of a fitted pipeline: equal pipelines give equal bytes, in any process, at any time.

    Types are not restricted here: an archive with a caller's own types can be written, but not loaded by a server.

    Raises:
        ModelSaveError: The pipeline holds something that has no safe form, such as a lambda or an open file.
    """
    try:
        written = skops.io.dumps(pipeline)
    except (UnsupportedTypeException, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ModelSaveError.wrap(
            error,
            "The fitted pipeline can't be saved safely",
            remedy="Keep only arrays, numbers, strings, lists, dicts and estimators in its attributes.",
        ) from error
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        return canonical_archive(json.loads(archive.read(SCHEMA_MEMBER)), archive.read)


def load(data: bytes, *, own_types: Collection[str] = (), max_bytes: int = MAX_UNPACKED_BYTES) -> Any:
    """The pipeline of an archive, after it passed the audit.

    Args:
        data: The archive; from whoever, its digest is somebody else's business.
        own_types: Types that the calling process vouches for besides the platform's list. A server gives none.
        max_bytes: Bound of the unpacked bytes.

    Raises:
        UnsafeArtifactError: It is no skops archive, exceeds a bound, holds a type outside the platform's list, or
            numbers that would lead compiled code astray.
        ModelLoadError: It passed the audit but does not fit the library versions of this process.
    """
    members = read_members(data, max_bytes)
    schema = _build(members[SCHEMA_MEMBER])
    audit_schema(schema, members.keys(), own_types)
    for name, member in members.items():
        if name != SCHEMA_MEMBER:
            check_array(name, member)
    check_compiled_state(schema, members)
    return _construct(data, own_types)


def _build(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise malformed(f"its schema is no JSON ({error})") from error


def _construct(data: bytes, own_types: Collection[str]) -> Any:
    try:
        pipeline = skops.io.loads(data, trusted=[*TRUSTED, *own_types])
        _check_steps(pipeline)
        check_native(estimators(pipeline))
    except UntrustedTypesFoundException as error:
        raise UnsafeArtifactError.wrap(error, "The artifact holds types that skops does not trust") from error
    except UnsafeArtifactError:
        raise
    except Exception as error:  # attributes that don't fit their type can raise anything
        raise ModelLoadError.wrap(
            error,
            "The artifact's content can't be built with this process's scikit-learn",
            remedy="Train and register the model again with the library versions of this process.",
        ) from error
    return pipeline


def _check_steps(pipeline: Any) -> None:
    """Check that it predicts, and if it has steps, that they are pairs whose all but last transform."""
    for _, step in getattr(pipeline, "steps", ())[:-1]:
        if step not in (None, "passthrough") and not callable(getattr(step, "transform", None)):
            raise TypeError(f"the step {type(step).__name__} does not transform")
    if not callable(getattr(pipeline, "predict", None)):
        raise TypeError(f"{type(pipeline).__name__} does not predict")
