"""Notes of a model as a whole, which each version has that is registered after them."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TYPE = "octet_length(model_type::text) <= 65536"
NOTES = "octet_length(metadata::text) <= 1048576"


def upgrade() -> None:
    op.execute("ALTER TABLE mlcore.models ADD COLUMN metadata jsonb NOT NULL DEFAULT '{}'::jsonb")
    op.execute("GRANT UPDATE (metadata) ON mlcore.models TO mlcore_app")
    op.execute("ALTER TABLE mlcore.models DROP CONSTRAINT ck_models_sizes")
    op.execute(f"ALTER TABLE mlcore.models ADD CONSTRAINT ck_models_sizes CHECK ({TYPE} AND {NOTES})")


def downgrade() -> None:
    op.execute("ALTER TABLE mlcore.models DROP COLUMN metadata")
    op.execute(f"ALTER TABLE mlcore.models ADD CONSTRAINT ck_models_sizes CHECK ({TYPE})")
