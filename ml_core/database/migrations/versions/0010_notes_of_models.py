"""Notes of a model as a whole, which each version has that is registered after them."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE mlcore.models ADD COLUMN metadata jsonb NOT NULL DEFAULT '{}'::jsonb")
    op.execute("GRANT UPDATE (metadata) ON mlcore.models TO mlcore_app")


def downgrade() -> None:
    op.execute("ALTER TABLE mlcore.models DROP COLUMN metadata")
