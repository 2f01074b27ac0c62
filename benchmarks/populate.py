"""A registry with many tenants, for benchmarks and for the tests of query plans.

One tenant is created with the public repositories. The others are copies of its rows, made in the database from the
columns in the catalogue. Rows of different tenants alternate on the disk, as they do if tenants registered their
versions over months.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from ml_core.database.connection import DatabaseConnection
from ml_core.database.embedded import EmbeddedServer
from ml_core.database.security import tenant_tables
from ml_core.database.tables import SCHEMA
from ml_core.domain.api_key import Scope
from ml_core.domain.columns import ColumnKind
from ml_core.domain.signature import InputColumn, Output, OutputKind, Signature
from ml_core.domain.version import Lineage, SelfTest, StoredArtifact, VersionDraft
from ml_core.ids import Digest, EnvironmentName, ModelId, TenantId, VersionId
from ml_core.registry.keys import KeyRepository
from ml_core.registry.promotion.environments import PRODUCTION, EnvironmentRepository
from ml_core.registry.runs import RunRepository
from ml_core.registry.tenants import TenantRepository
from ml_core.registry.versions.repository import VersionRepository
from ml_core.settings import PlatformSettings, Settings

MODEL = ModelId("tickets")
STAGING = EnvironmentName("staging")
WIDE_MODELS = 50
"""Models of a tenant with many models: one page."""

_TEMPLATE = "t0000"
_COLUMNS = tuple(f"measure_{index:02}" for index in range(16))
_CATEGORIES = ("low", "normal", "high", "urgent")
_CLASSES = ("account", "billing", "hardware", "network", "other", "software")
_RUN_STEPS = 20
_VERSIONS_OF_A_RUN = 10
# The tables with rows per model; runs and keys belong to the tenant.
_TABLES_OF_A_MODEL = (
    "models",
    "versions",
    "version_tags",
    "version_metrics",
    "environments",
    "environment_history",
)


def tenant_name(index: int) -> TenantId:
    """Tenants with one model that has all the versions, from 0."""
    return TenantId(f"t{index:04}")


def wide_tenant_name(index: int) -> TenantId:
    """Tenants with ``WIDE_MODELS`` models each, from 1."""
    return TenantId(f"w{index:04}")


@contextmanager
def temporary_registry() -> Iterator[DatabaseConnection]:
    """An empty registry on a temporary embedded server."""
    home = Path(tempfile.mkdtemp(prefix="mlcore-registry-"))
    home.chmod(0o711)  # the server's account must pass through
    try:
        with DatabaseConnection(settings=Settings(platform=PlatformSettings(home=home))) as db:
            yield db
    finally:
        EmbeddedServer(home).stop()
        shutil.rmtree(home, ignore_errors=True)


def superuser(db: DatabaseConnection, database: str = "mlcore") -> psycopg.Connection[Any]:
    """A superuser's session on the embedded server."""
    url = db.urls.owner.replace("mlcore_owner@/mlcore?", f"postgres@/{database}?")
    return psycopg.connect(url, autocommit=True)


def populate(db: DatabaseConnection, *, tenants: int, versions: int, wide_tenants: int = 0) -> None:
    """Fill an empty registry, and run ANALYZE.

    Args:
        db: An empty registry on an embedded server.
        tenants: How many tenants with one model.
        versions: How many versions each model has.
        wide_tenants: How many further tenants with ``WIDE_MODELS`` such models each.
    """
    _make_template(db, versions)
    with superuser(db) as session:
        # Foreign keys need no check per row: the copies are consistent because the template is.
        session.execute("SET session_replication_role = replica")
        row = session.execute(f"SELECT generation FROM {SCHEMA}.feed_clock").fetchone()
        span = 1 if row is None else row[0]
        tenant, stamp = "lpad(n::text, 4, '0')", f"t.feed_generation + {span} * "
        for table in tenant_tables():
            replaced = {"tenant_id": f"'t' || {tenant}", "feed_generation": f"{stamp} n"}
            if table == "api_keys":  # ids are random, so they differ
                replaced["key_id"] = "substr(md5(t.key_id || n), 1, 16)"
            if table == "versions":  # each tenant's model has classes of its own
                replaced["signature"] = "jsonb_set(t.signature, '{output,classes,0}', to_jsonb('account ' || n))"
            _copy(session, table, replaced, tenants - 1)
        for table in ("tenants", *_TABLES_OF_A_MODEL):
            replaced = {
                "tenant_id": f"'w' || {tenant}",
                "model_id": "'model_' || m",
                "feed_generation": f"{stamp} (n + {tenants - 1})",
            }
            _copy(session, table, replaced, wide_tenants, models=1 if table == "tenants" else WIDE_MODELS)
        session.execute(f"UPDATE {SCHEMA}.feed_clock SET generation = %s", (span * (tenants + wide_tenants),))
        session.execute("VACUUM ANALYZE")


def _copy(
    session: psycopg.Connection[Any], table: str, replaced: Mapping[str, str], copies: int, *, models: int = 1
) -> None:
    """Copy the rows of the template tenant; expressions may use ``n``, 1 to ``copies``, and ``m``, 1 to ``models``."""
    found = session.execute(
        "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
        " AND NOT attisdropped AND attgenerated = '' AND attidentity = '' ORDER BY attnum",
        (f"{SCHEMA}.{table}",),
    )
    columns = [row[0] for row in found]
    values = ", ".join(replaced.get(column, f"t.{column}") for column in columns)
    # The series depend on the row, so that each row is copied for all tenants before the next row.
    session.execute(
        f"INSERT INTO {SCHEMA}.{table} ({', '.join(columns)}) SELECT {values} FROM {SCHEMA}.{table} t"
        f" CROSS JOIN LATERAL generate_series(1, {copies} + 0 * length(t.tenant_id)) n"
        f" CROSS JOIN LATERAL generate_series(1, {models} + 0 * n) m WHERE t.tenant_id = '{_TEMPLATE}'"
    )


def _make_template(db: DatabaseConnection, versions: int) -> None:
    """A tenant with a key, a model, its versions and runs, and moved pointers."""
    tenant = TenantId(_TEMPLATE)
    TenantRepository(db).create(tenant)
    KeyRepository(db, tenant).create("service", [Scope.PREDICT])
    repository, runs = VersionRepository(db, tenant), RunRepository(db, tenant)
    run_id = ""
    for number in range(1, versions + 1):
        if number % _VERSIONS_OF_A_RUN == 1:
            run_id = _train(runs)
        digest = Digest(hashlib.sha256(str(number).encode()).hexdigest())
        artifact = StoredArtifact(digest, 40_000 + number, "skops/1")
        repository.register(_draft(number, run_id), artifact, "trainer@example.com")
    environments = EnvironmentRepository(db, tenant)
    for environment, version in ((STAGING, versions), (PRODUCTION, 1), (PRODUCTION, versions // 2 + 1)):
        environments.promote(MODEL, VersionId(str(version)), environment, actor="trainer@example.com", reason="weekly")


def _train(runs: RunRepository) -> str:
    """A finished run with two metrics of twenty steps."""
    run_id = runs.start(MODEL, parameters={"algorithm": "logistic_regression"})
    for step in range(_RUN_STEPS):
        runs.log_metrics(run_id, {"accuracy": 0.5 + step / 100, "log_loss": 1 / (step + 1)}, step)
    runs.finish(run_id)
    return run_id


def _draft(number: int, run_id: str) -> VersionDraft:
    """The draft of a trained version: sixteen numbers, a category and a text; about 3 kB of documents."""
    inputs = (
        *(InputColumn(name, ColumnKind.NUMBER, nullable=True) for name in _COLUMNS),
        InputColumn("priority", ColumnKind.CATEGORY, nullable=True, categories=_CATEGORIES),
        InputColumn("subject", ColumnKind.TEXT, nullable=True),
    )
    row = {**{name: index * 0.37 for index, name in enumerate(_COLUMNS)}, "priority": "high", "subject": "no network"}
    accuracy = 0.6 + number / 1000
    return VersionDraft(
        model_id=MODEL,
        version=None,
        model_type="classification",
        signature=Signature(inputs, Output(OutputKind.CLASSES, _CLASSES)),
        self_test=SelfTest((row,) * 2, (_CLASSES[0],) * 2, ((0.5, 0.1, 0.1, 0.1, 0.1, 0.1),) * 2),
        metrics={"train": {"accuracy": accuracy + 0.05}, "validation": {"accuracy": accuracy, "f1": accuracy - 0.02}},
        hyperparameters={"algorithm": "logistic_regression", "C": number / 100, "max_iter": 200, "penalty": "l2"},
        metadata={"ticket": f"ML-{number}"},
        tags={"quarter": f"2026-{number % 4 + 1}"},
        lineage=Lineage(
            run_id=run_id,
            dataset_digest=None,
            parent_version=None if number == 1 else str(number - 1),
            code_commit=hashlib.sha1(str(number).encode()).hexdigest(),
            libraries={"scikit-learn": "1.7.2", "numpy": "2.3.4", "ml-core-platform": "0.1.0"},
        ),
    )
