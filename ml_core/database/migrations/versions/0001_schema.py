"""The schema of the first release: one SQL file per theme in ``migrations/schema``, in the order of their numbers.

A table is followed by its indexes, grants and triggers. What the whole has to be is declared in
``ml_core.database.tables`` and ``ml_core.database.security``; tests compare both with the result.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

DROP_ALL = """
DO $$
DECLARE
  v_drop text;
BEGIN
  FOR v_drop IN
    SELECT format('DROP ROUTINE %s CASCADE', oid::regprocedure) FROM pg_proc
    WHERE pronamespace = 'mlcore'::regnamespace
    UNION ALL
    SELECT format('DROP TABLE %s CASCADE', oid::regclass) FROM pg_class
    WHERE relnamespace = 'mlcore'::regnamespace AND relkind IN ('r', 'p') AND relname <> 'alembic_version'
  LOOP
    EXECUTE v_drop;
  END LOOP;
END
$$
"""


def upgrade() -> None:
    for file in sorted((Path(__file__).parents[1] / "schema").glob("*.sql")):
        op.execute(file.read_text())


def downgrade() -> None:
    op.execute(DROP_ALL)
