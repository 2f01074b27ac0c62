"""Rows of the version table as values, and values as rows."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa

from ml_core.database.tables import environments, models, version_tags, versions
from ml_core.domain.rollout import Role, Use
from ml_core.domain.version import (
    SHARED_BYTES,
    Compilation,
    CompiledForm,
    Lineage,
    ModelVersion,
    PackedVersion,
    RequiredModule,
    SelfTest,
    ServableVersion,
    VersionDraft,
    VersionSummary,
    long_bytes,
    read_signature,
)
from ml_core.ids import Digest, EnvironmentName, ModelId, TenantId, VersionId, VersionRef
from ml_core.registry.records import value_of

if TYPE_CHECKING:
    from ml_core.registry.pages import AnyRow

# What serving needs of a version; with ``models`` joined for the type. Documents come as text: one that can't be parsed
# must fail its own row, while the driver would fail the query.
SERVABLE_COLUMNS = (
    versions.c.tenant_id,
    versions.c.model_id,
    versions.c.version,
    models.c.model_type,
    versions.c.digest,
    versions.c.size_bytes,
    versions.c.format,
    sa.cast(versions.c.signature, sa.Text).label("signature"),
    sa.cast(versions.c.self_test, sa.Text).label("self_test"),
    sa.cast(versions.c.modules, sa.Text).label("modules"),
    sa.cast(versions.c.compilation["form"], sa.Text).label("compiled"),
)
_TAGS = sa.func.jsonb_object_agg(version_tags.c.key, version_tags.c.value)
# In the order of ``Role``.
_USED = (environments.c.version, environments.c.canary_version, environments.c.shadow_version)
_USES = sa.func.jsonb_agg(sa.func.jsonb_build_array(environments.c.environment, *_USED))
# What is shown of a version in a list.
_SHOWN_COLUMNS = (
    *(versions.c[name] for name in ("metrics", "hyperparameters", "created_at", "created_by", "archived_at")),
    sa.select(_TAGS)
    .where(*(version_tags.c[name] == versions.c[name] for name in ("tenant_id", "model_id", "version")))
    .correlate(versions)
    .scalar_subquery()
    .label("tags"),
    sa.select(_USES)
    .where(*(environments.c[name] == versions.c[name] for name in ("tenant_id", "model_id")))
    .where(versions.c.version.in_(_USED))
    .correlate(versions)
    .scalar_subquery()
    .label("uses"),
)
_LINEAGE = tuple(field.name for field in fields(Lineage))
_VERSION_COLUMNS = (
    *SERVABLE_COLUMNS,
    *_SHOWN_COLUMNS,
    *(versions.c[name] for name in (*_LINEAGE, "metadata", "outside_types", "compilation")),
)
_SUMMARY_COLUMNS = (
    versions.c.model_id,
    versions.c.version,
    models.c.model_type,
    versions.c.metadata["training"]["algorithm"].label("algorithm"),
    versions.c.digest,
    versions.c.size_bytes,
    versions.c.format,
    *_SHOWN_COLUMNS,
)

VERSIONS_WITH_MODEL = versions.join(
    models, sa.and_(models.c.tenant_id == versions.c.tenant_id, models.c.model_id == versions.c.model_id)
)
# Made once: naming so many columns takes longer than adding a caller's conditions.
SELECT_VERSIONS = sa.select(*_VERSION_COLUMNS).select_from(VERSIONS_WITH_MODEL)
SELECT_SUMMARIES = sa.select(*_SUMMARY_COLUMNS).select_from(VERSIONS_WITH_MODEL)
_OF_MODEL = SELECT_VERSIONS.where(
    versions.c.tenant_id == sa.bindparam("tenant"), versions.c.model_id == sa.bindparam("model")
)
SELECT_NAMED = _OF_MODEL.where(versions.c.version == sa.bindparam("version"))
# A version is also hidden with its model.
IS_ARCHIVED = sa.or_(versions.c.archived_at.is_not(None), models.c.archived_at.is_not(None))
SELECT_NEWEST = _OF_MODEL.where(sa.not_(IS_ARCHIVED)).order_by(versions.c.number.desc()).limit(1)
SELECT_SERVED_DIGEST = sa.select(versions.c.digest, IS_ARCHIVED.label("is_archived")).select_from(VERSIONS_WITH_MODEL)
SELECT_SERVABLE = sa.select(*SERVABLE_COLUMNS, IS_ARCHIVED.label("is_archived")).select_from(VERSIONS_WITH_MODEL)


def is_version(tenant_id: TenantId, model_id: ModelId, version: VersionId) -> sa.ColumnElement[bool]:
    """The condition that a row is this version's."""
    of = versions.c
    return sa.and_(of.tenant_id == tenant_id, of.model_id == model_id, of.version == version)


def servable_from(row: AnyRow) -> ServableVersion:
    """What serving needs, from a row of ``SERVABLE_COLUMNS``.

    Raises:
        ValueError: A document is no JSON, or holds a kind that this release does not know. So do ``TypeError``,
            ``LookupError`` and ``AttributeError`` where a document is of another form.
    """
    return ServableVersion(
        ref=VersionRef(TenantId(row.tenant_id), ModelId(row.model_id), VersionId(row.version)),
        model_type=row.model_type,
        digest=Digest(row.digest),
        size_bytes=row.size_bytes,
        format=row.format,
        signature=read_signature(row.signature),
        self_test=SelfTest.from_json(orjson.loads(row.self_test)),
        modules=tuple(map(RequiredModule.from_json, orjson.loads(row.modules))),
        compiled=_form(row.compiled),
    )


def _form(document: str | None) -> CompiledForm | None:
    form = orjson.loads(document or "null")
    return None if form is None else CompiledForm.from_json(form)


def packed_from(row: AnyRow) -> PackedVersion:
    """``servable_from`` for one of many: its documents stay text, and are read when the version is loaded.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: A name or the list of modules can't be read.
    """
    ref = VersionRef(*name_parts(row.tenant_id, row.model_id), _version_id(row.version))
    named = (ref, sys.intern(row.model_type), Digest(row.digest), row.size_bytes, sys.intern(row.format))
    modules = tuple(map(RequiredModule.from_json, orjson.loads(row.modules))) if row.modules != "[]" else ()
    signature = (_utf8 if len(row.signature) <= SHARED_BYTES else str.encode)(row.signature)
    size = long_bytes(row.signature, row.self_test, row.modules, row.compiled)
    return PackedVersion(named, signature, row.self_test.encode(), modules, _form(row.compiled), size)


def name_parts(tenant_id: str, model_id: str) -> tuple[TenantId, ModelId]:
    """The names of many rows: equal ones are one object, and are parsed once."""
    return _tenant_id(tenant_id), _model_id(model_id)


_tenant_id = lru_cache(maxsize=256)(TenantId)  # the rows of a tenant come one after another
_model_id = lru_cache(maxsize=4096)(ModelId)
_version_id = lru_cache(maxsize=4096)(VersionId)  # most versions are called 1, 2 or 3


@lru_cache(maxsize=4096)  # versions that were trained on the same columns share the text
def _utf8(document: str) -> bytes:
    return document.encode()


def version_from(row: AnyRow) -> ModelVersion:
    """A version, from a row of ``SELECT_VERSIONS``."""
    return ModelVersion(
        servable=servable_from(row),
        metrics=row.metrics,
        hyperparameters=row.hyperparameters,
        metadata=row.metadata,
        lineage=Lineage(*(getattr(row, name) for name in _LINEAGE)),
        created_at=row.created_at,
        created_by=row.created_by,
        archived_at=row.archived_at,
        outside_types=tuple(row.outside_types),
        tags=row.tags or {},
        uses=_uses(row),
        compilation=Compilation.from_json(row.compilation),
    )


def summary_from(row: AnyRow) -> VersionSummary:
    """What a search returns of a version, from a row of ``SELECT_SUMMARIES``."""
    return value_of(VersionSummary, row, tags=row.tags or {}, uses=_uses(row))


def _uses(row: AnyRow) -> list[Use]:
    return [
        Use(EnvironmentName(environment), role)
        for environment, *used in sorted(row.uses or (), key=itemgetter(0))
        for role, version in zip(Role, used, strict=True)
        if version == row.version
    ]


def draft_values(draft: VersionDraft) -> dict[str, Any]:
    """The columns that come from the caller's draft."""
    form = draft.compilation.form
    return {
        "signature": draft.signature.to_json(),
        "self_test": draft.self_test.to_json(),
        "metrics": finite_metrics(draft.metrics),
        "hyperparameters": dict(draft.hyperparameters),
        "metadata": dict(draft.metadata),
        **{name: getattr(draft.lineage, name) for name in _LINEAGE},
        "outside_types": sorted(draft.outside_types),
        "modules": [each.to_json() for each in draft.modules],
        "compilation": draft.compilation.to_json(),
        "compiled_digest": None if form is None else form.digest,
        "compiled_size_bytes": None if form is None else form.size_bytes,
    }


def finite_metrics(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """A metric that is not a number, such as r2 of one row, is left out: it must not fail a finished training."""
    return {
        split: {name: float(value) for name, value in values.items() if math.isfinite(value)}
        for split, values in metrics.items()
    }


def refusal(error: sa.exc.IntegrityError) -> str | None:
    """The name of the constraint that an integrity error is about."""
    diagnosis = getattr(error.orig, "diag", None)
    return getattr(diagnosis, "constraint_name", None)
