"""``skops/2``: a fitted pipeline as a canonical archive, in the grammar of skops with compact forms (``schema``).

Loading goes in visible steps: ``read_members`` unpacks the archive within bounds, ``parse_schema`` bounds the nodes
before they are parsed, ``audit_schema`` checks every node against the platform's own list, ``check_array`` checks the
declared size of every array, and only then are objects built. No step uses pickle. Archives that skops itself wrote are
read as well.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Container, Mapping
from typing import Any

from ml_core.exceptions import ModelLoadError, ModelSaveError, UnsafeArtifactError
from ml_core.models.formats.archive import MAX_UNPACKED_BYTES, check_array, check_unpacked, read_members
from ml_core.models.formats.audit import audit_schema, check_size, parse_schema
from ml_core.models.formats.building import Builder, rebuild_search_trees
from ml_core.models.formats.native import check_native
from ml_core.models.formats.schema import SCHEMA_MEMBER
from ml_core.models.formats.writing import Writer
from ml_core.models.graph import estimators

FORMAT = "skops/2"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip entry can carry
# Measured on a forest: 15 % larger than level 6, a quarter of the time, and equally fast to read.
_COMPRESSION_LEVEL = 1


def dump(pipeline: Any) -> bytes:
    """The canonical archive of a fitted pipeline: equal pipelines give equal bytes, in any process, at any time.

    Types are not restricted here: an archive with a caller's own types can be written, but not loaded by a server.

    Raises:
        ModelSaveError: The pipeline holds an object without a safe form, such as a lambda or an open file, or is
            larger than a server loads.
    """
    writer = Writer()
    try:
        schema = json.dumps(writer.write(pipeline), separators=(",", ":"), ensure_ascii=True)
    except (TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ModelSaveError.wrap(
            error,
            "The fitted pipeline can't be saved safely",
            remedy="Keep only arrays, numbers, strings, lists, dicts and estimators in its attributes.",
        ) from error
    members = {SCHEMA_MEMBER: schema.encode("ascii"), **writer.members}
    _check_bounds(members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # the default depends on the operating system
            info.external_attr = 0o600 << 16
            archive.writestr(info, data, compresslevel=_COMPRESSION_LEVEL)
    return buffer.getvalue()


def _check_bounds(members: Mapping[str, bytes]) -> None:
    """Refuse to write an archive that no server would load."""
    try:
        check_size(members[SCHEMA_MEMBER])
        check_unpacked(len(members), sum(map(len, members.values())))
    except UnsafeArtifactError as error:
        raise ModelSaveError(error.message, remedy=error.remedy) from error


def load(data: bytes, trust: Container[str] = (), *, max_bytes: int = MAX_UNPACKED_BYTES) -> Any:
    """The pipeline of an archive, after it passed the audit.

    ``trust`` has those that are loaded besides the platform's list, see ``ml_core.models.own_types``. The caller
    checks the digest of the data, which may be from any source.

    Raises:
        UnsafeArtifactError: It is not a skops archive, exceeds a bound, holds a type outside the platform's list, or
            numbers with which compiled code would read outside of its arrays.
        ModelLoadError: It passed the audit but does not fit the library versions of this process.
    """
    members = read_members(data, max_bytes)
    schema = parse_schema(members.pop(SCHEMA_MEMBER))
    audit_schema(schema, members.keys(), trust)
    for name, member in members.items():
        check_array(name, member)
    try:
        pipeline = Builder(members).build(schema)
        _check_steps(pipeline)
        found = list(estimators(pipeline))
        check_native(found)
        # After the check: a search tree's constructor is compiled code that reads the points.
        rebuild_search_trees(found)
    except ModelLoadError:
        raise
    except Exception as error:  # attributes that don't fit their type can raise anything
        remedy = "Train and register the model again with the library versions of this process."
        if isinstance(error, ModuleNotFoundError) and error.name == "lightgbm":
            remedy = "Install it where the model is loaded: pip install 'ml-core-platform[lightgbm]'."
        raise ModelLoadError.wrap(
            error, "The artifact's content can't be built with this process's libraries", remedy=remedy
        ) from error
    return pipeline


def _check_steps(pipeline: Any) -> None:
    """Check that the object predicts and that every step of a pipeline but the last transforms."""
    for _, step in getattr(pipeline, "steps", ())[:-1]:
        if step not in (None, "passthrough") and not callable(getattr(step, "transform", None)):
            raise TypeError(f"the step {type(step).__name__} does not transform")
    if not callable(getattr(pipeline, "predict", None)):
        raise ModelLoadError(
            f"The artifact's {type(pipeline).__name__} does not predict.",
            remedy="Register an estimator with a predict method, or a pipeline that ends with one.",
        )
