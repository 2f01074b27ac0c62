"""Lists and look-ups of datasets go by an index, however many tenants have some."""

import pytest

from ml_core.database.connection import DatabaseConnection
from ml_core.domain.version import Lineage
from ml_core.ids import TenantId
from ml_core.models.store import LocalStore
from ml_core.registry.datasets import DatasetRepository
from support.plans import recorded_plans
from support.registry import register, settings_for, superuser, temporary_home

TENANT = TenantId("t0250")
TABLES = frozenset({"datasets", "dataset_versions", "tenants"})
_POPULATE = """
INSERT INTO mlcore.tenants (tenant_id, feed_generation)
  SELECT 't' || lpad(i::text, 4, '0'), 1 FROM generate_series(1, 500) i;
INSERT INTO mlcore.datasets (tenant_id, dataset_id, next_number, created_by)
  SELECT tenant_id, 'd' || j, 21, 'x' FROM mlcore.tenants, generate_series(1, 5) j;
INSERT INTO mlcore.dataset_versions
  (tenant_id, dataset_id, number, digest, size_bytes, row_count, columns, profile, created_by)
  SELECT tenant_id, dataset_id, n, encode(sha256((tenant_id || dataset_id || n)::bytea), 'hex'), 1, 1, '[]',
         '{"row_count": 1, "sampled_rows": 1, "columns": []}', 'x'
  FROM mlcore.datasets, generate_series(1, 20) n;
ANALYZE mlcore.tenants; ANALYZE mlcore.datasets; ANALYZE mlcore.dataset_versions;
"""


@pytest.fixture(scope="module")
def populated():
    """2,500 datasets with 50,000 versions."""
    with temporary_home() as home, DatabaseConnection(settings=settings_for(home)) as db:
        with superuser(db) as session:
            session.execute(_POPULATE)
        yield db


HOT = {
    "get": lambda d: d.get("d3", 7),
    "get newest": lambda d: d.get("d3"),
    "list": lambda d: d.list(limit=2, cursor=d.list(limit=2).next_cursor),
    "versions": lambda d: d.versions("d3", limit=5, cursor=d.versions("d3", limit=5).next_cursor),
    "find_by_digest": lambda d: d.find_by_digest(d.get("d3", 7).digest),
    "archive and restore": lambda d: (d.archive("d1", 1), d.restore("d1", 1)),
    "create and delete": lambda d: d.delete("new", d.create("new", {"x": [1]}).number),
}


@pytest.mark.parametrize("name", HOT)
def test_no_query_reads_a_table_from_end_to_end(populated, tmp_path, name):
    """Neither tenants nor the versions of other tenants' datasets."""
    datasets = DatasetRepository(populated, TENANT, LocalStore(tmp_path))
    with recorded_plans() as plans:
        HOT[name](datasets)
    assert {read: plan.statement for plan in plans for read in plan.whole_reads(TABLES)} == {}
    assert any(node.get("Relation Name") in TABLES for plan in plans for node in plan.nodes)


def test_a_refused_deletion_goes_by_an_index_too(populated, tmp_path):
    """Which model versions were trained on it is asked by digest."""
    datasets = DatasetRepository(populated, TENANT, LocalStore(tmp_path))
    made = datasets.create("held", {"x": [2]})
    register(populated, TENANT, lineage=Lineage(dataset_digest=made.digest))
    with recorded_plans() as plans, pytest.raises(Exception, match="were trained on"):
        datasets.delete("held", 1)
    assert {read: plan.statement for plan in plans for read in plan.whole_reads(TABLES)} == {}
