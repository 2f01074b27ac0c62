"""Environments: pointers with their rollouts and history, and the rules by which a pointer may be moved."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ml_core.database.tables.base import document, grammar, keys, metadata, moment, number, refers, text
from ml_core.database.tables.models import models, versions
from ml_core.database.tables.tenants import of_tenant
from ml_core.ids import EnvironmentName

# What ``ml_core.domain.rollout`` rules out is ruled out for raw SQL as well.
CANARY_RULE = (
    "CASE WHEN canary_version IS NULL THEN canary_percent IS NULL AND canary_sticky IS NULL"
    " ELSE version IS NOT NULL AND canary_version <> version AND COALESCE(canary_percent BETWEEN 1 AND 99, false) END"
)
SHADOW_RULE = (
    "shadow_version IS NULL OR (version IS NOT NULL AND shadow_version <> version"
    " AND shadow_version IS DISTINCT FROM canary_version)"
)


# A pointer with its rollout. ``version``, the stable one, is null once it was withdrawn.
environments = sa.Table(
    "environments",
    metadata,
    *keys("tenant_id", "model_id", "environment"),
    text("version", nullable=True),
    number("generation"),
    number("feed_generation"),
    moment("updated_at"),
    text("updated_by"),
    text("canary_version", nullable=True),
    sa.Column("canary_percent", sa.Integer),
    text("canary_sticky", nullable=True),
    text("shadow_version", nullable=True),
    grammar("environment", EnvironmentName),
    sa.CheckConstraint(CANARY_RULE, name="canary"),
    sa.CheckConstraint(SHADOW_RULE, name="shadow"),
    refers(models),
    refers(versions),
    *(
        refers(versions, "tenant_id", "model_id", column, name=f"fk_environments_{column}")
        for column in ("canary_version", "shadow_version")
    ),
    sa.Index(None, "feed_generation"),
    sa.Index(None, "tenant_id", "model_id", "version"),
)

# ``restored_generation``: the generation whose state a rollback brought back; its own for every other move.
# ``gates``: what each gate found at this move.
environment_history = sa.Table(
    "environment_history",
    metadata,
    *keys("tenant_id", "model_id", "environment"),
    sa.Column("generation", sa.BigInteger, primary_key=True),
    text("action"),
    text("version", nullable=True),
    text("digest", nullable=True),
    number("restored_generation"),
    text("actor"),
    text("reason"),
    moment("at"),
    text("canary_version", nullable=True),
    sa.Column("canary_percent", sa.Integer),
    text("canary_sticky", nullable=True),
    text("shadow_version", nullable=True),
    sa.Column("gates", JSONB, nullable=False, server_default=sa.text("'[]'::jsonb")),
    text("override_reason", nullable=True),
    sa.CheckConstraint("restored_generation BETWEEN 1 AND generation", name="restored_generation"),
    refers(models),
)

# What holds for an environment of all the tenant's models.
environment_policies = sa.Table(
    "environment_policies",
    metadata,
    *of_tenant("environment"),
    sa.Column("is_protected", sa.Boolean, nullable=False, server_default=sa.text("false")),
    moment("updated_at"),
    text("updated_by"),
    grammar("environment", EnvironmentName),
)

gates = sa.Table(
    "gates",
    metadata,
    *keys("tenant_id", "model_id", "environment", "name"),
    text("kind"),
    document("settings"),
    moment("created_at"),
    text("created_by"),
    grammar("environment", EnvironmentName),
    refers(models),
)

approvals = sa.Table(
    "approvals",
    metadata,
    *keys("tenant_id", "model_id", "version", "environment", "approver"),
    text("reason"),
    moment("at"),
    grammar("environment", EnvironmentName),
    refers(versions, ondelete="CASCADE"),
)
