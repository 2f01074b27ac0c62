"""Which rows a tenant's versions keep as their self-test: some of training, or synthetic ones."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

POLICY = """
ALTER TABLE mlcore.tenants
  ADD COLUMN self_test_rows text NOT NULL DEFAULT 'training',
  ADD CONSTRAINT ck_tenants_self_test_rows CHECK (self_test_rows IN ('training', 'synthetic'));
GRANT UPDATE (self_test_rows) ON mlcore.tenants TO mlcore_app;
"""
TEXTS = ("cell", "deleted_by", "history_policy", "self_test_rows")


def upgrade() -> None:
    op.execute(POLICY)
    op.execute("ALTER TABLE mlcore.tenants DROP CONSTRAINT ck_tenants_sizes")
    _bound(TEXTS)


def downgrade() -> None:
    op.execute("ALTER TABLE mlcore.tenants DROP COLUMN self_test_rows")
    _bound(TEXTS[:-1])


def _bound(columns: tuple[str, ...]) -> None:
    rules = " AND ".join(f"octet_length({column}::text) <= 65536" for column in columns)
    op.execute(f"ALTER TABLE mlcore.tenants ADD CONSTRAINT ck_tenants_sizes CHECK ({rules})")
