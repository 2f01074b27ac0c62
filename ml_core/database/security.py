"""Roles, policies, grants, functions and triggers as data: who may do what.

Three roles. ``mlcore_owner`` owns the tables and migrates. ``mlcore_app`` is the runtime: neither owner nor superuser,
it sees the rows of the transaction's tenant and none when there is no tenant. ``mlcore_ingest`` is the serving plane:
it reads what replicas must know of every tenant, and nothing else.

Immutability is a grant that is missing: the runtime can't update a version's digest, or a move of a pointer, because no
role but the owner may. The migrations create all of this; ``ml_core.database.check`` compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from ml_core.database.tables import PARTITION_SCHEMA, PLATFORM, SCHEMA, job_batches, metadata, platform_keys

OWNER_ROLE: Final = "mlcore_owner"
APP_ROLE: Final = "mlcore_app"
INGEST_ROLE: Final = "mlcore_ingest"
ROLES: Final = (OWNER_ROLE, APP_ROLE, INGEST_ROLE)

TENANT_POLICY: Final = "tenant_isolation"
SERVING_POLICY: Final = "serving_reads"
SERVING_INSERT_POLICY: Final = "serving_inserts"
SERVING_WRITE_POLICY: Final = "serving_writes"
REMOVAL_POLICY: Final = "tenant_removal"
PLATFORM_POLICY: Final = "platform_only"

# As pg_get_expr prints it. ``current_tenant`` is the tenant that the transaction entered with a seal
# (``ml_core.database.binding``), whatever the settings were changed to.
_TENANT_RULE = "(tenant_id = ( SELECT mlcore.current_tenant() AS current_tenant))"
_PLATFORM_RULE = f"('{PLATFORM}'::text = ( SELECT mlcore.current_tenant() AS current_tenant))"

# What the runtime may do, by table; a privilege with columns is written "UPDATE (a, b)". No role gets DELETE, or UPDATE
# of a whole table, as it could then lock the table against all others (``mlcore.erase`` deletes).
APP_GRANTS: Final[Mapping[str, tuple[str, ...]]] = {
    "tenants": ("SELECT", "INSERT", "UPDATE (feed_generation, prediction_policy, self_test_rows)"),
    "placements": (
        "SELECT",
        "INSERT",
        "UPDATE (is_dedicated, has_moved, min_replicas, max_replicas, target_ongoing, requested_at, updated_at,"
        " updated_by)",
    ),
    "prediction_quotas": ("SELECT", "INSERT", "UPDATE (weight, requests_per_s, rows_per_s, burst_s)"),
    "models": ("SELECT", "INSERT", "UPDATE (model_type, next_number, archived_at, deleted_at, metadata)"),
    "versions": ("SELECT", "INSERT", "UPDATE (metadata, archived_at)"),
    "deleted_versions": ("SELECT",),
    "version_tags": ("SELECT", "INSERT", "UPDATE (value)"),
    "version_metrics": ("SELECT", "INSERT"),
    "holds": ("SELECT", "INSERT"),
    "environments": (
        "SELECT",
        "INSERT",
        "UPDATE (version, generation, feed_generation, updated_at, updated_by,"
        " canary_version, canary_percent, canary_sticky, shadow_version)",
    ),
    "environment_history": ("SELECT", "INSERT"),
    "environment_policies": ("SELECT", "INSERT", "UPDATE (is_protected, updated_at, updated_by)"),
    "gates": ("SELECT", "INSERT", "UPDATE (kind, settings, created_at, created_by)"),
    "approvals": ("SELECT", "INSERT"),
    "audit": ("SELECT", "INSERT (tenant_id, at, principal, request_id, action, subject, details)"),
    "platform_keys": ("SELECT", "INSERT", "UPDATE (revoked_at, revoked_by)"),
    "idempotency_keys": ("SELECT", "INSERT", "UPDATE (status, response, headers, alive_at)"),
    "api_keys": ("SELECT", "INSERT", "UPDATE (revoked_at, feed_generation)"),
    "datasets": ("SELECT", "INSERT", "UPDATE (next_number)"),
    "dataset_versions": ("SELECT", "INSERT", "UPDATE (archived_at)"),
    "experiments": ("SELECT", "INSERT", "UPDATE (name, tags, updated_at, archived_at)"),
    "runs": ("SELECT", "INSERT", "UPDATE (status, parameters, heartbeat_at, finished_at, error)"),
    "run_tags": ("SELECT", "INSERT", "UPDATE (value)"),
    "run_metrics": ("SELECT", "INSERT", "UPDATE (value, at)"),
    "run_metric_summaries": (
        "SELECT",
        "INSERT",
        "UPDATE (points, not_finite, last_step, last_value, minimum, maximum)",
    ),
    "run_artifacts": ("SELECT", "INSERT"),
    "run_documents": ("SELECT", "INSERT", "UPDATE (document)"),
    "jobs": (
        "SELECT",
        "INSERT",
        "UPDATE (state, not_before, attempt, run_id, dispatcher, process, lease_until, started_at, finished_at,"
        " cpu_seconds, progress, result, error)",
    ),
    "job_batches": ("SELECT", "INSERT"),
    "job_logs": ("SELECT", "INSERT", "UPDATE (lines)"),
    "job_quotas": (
        "SELECT",
        "INSERT",
        "UPDATE (weight, max_queued, max_running, max_cpus, cpu_seconds_per_day)",
    ),
    "job_turns": ("SELECT",),
    "schedules": ("SELECT", "INSERT", "UPDATE (state, next_at, last_at, last_job_id, note, retraining)"),
    "predictions": ("SELECT",),
    "feedback": ("SELECT", "INSERT", "UPDATE (label, at, updated_at)"),
    "prediction_losses": ("SELECT",),
    "replica_reports": ("SELECT (cell, replica_id, started_at, reported_at, expires_at, epoch, generation, unlisted)",),
    "replica_pending": ("SELECT",),
    "live_verdicts": ("SELECT", "INSERT", "UPDATE (version, quality, drift, measured_at)"),
    "feed_clock": ("SELECT",),
}

# What the serving plane may do.
INGEST_GRANTS: Final[Mapping[str, tuple[str, ...]]] = {
    "tenants": ("SELECT",),
    "placements": ("SELECT", "UPDATE (requested_at)"),
    "prediction_quotas": ("SELECT",),
    "models": ("SELECT",),
    "versions": ("SELECT",),
    "environments": ("SELECT",),
    "api_keys": ("SELECT",),
    "feed_clock": ("SELECT",),
    "predictions": ("INSERT",),
    "feedback": ("SELECT", "INSERT", "UPDATE (label, at, updated_at)"),
    "prediction_losses": ("INSERT",),
    "replica_reports": ("SELECT", "INSERT", "UPDATE (reported_at, expires_at)"),
    "replica_pending": ("SELECT", "INSERT"),
    "replica_traffic": ("SELECT", "INSERT"),
}

# What every role of the platform may see of Alembic's own table.
REVISION_GRANTS: Final[Mapping[str, tuple[str, ...]]] = {"alembic_version": ("SELECT",)}


class OwnFunction(NamedTuple):
    """A function of the schema: who but the owner may call it, and whether it then acts as the owner."""

    callers: tuple[str, ...] = ()
    is_definer: bool = True


# Each has its search path pinned, so that no caller can substitute a table of its own.
PINNED_PATH: Final = "search_path=pg_catalog, pg_temp"
FUNCTIONS: Final[Mapping[str, OwnFunction]] = {
    "advance_feed()": OwnFunction((APP_ROLE,)),
    "append_move(mlcore.environments)": OwnFunction(is_definer=False),
    "audit_position(xid8)": OwnFunction((APP_ROLE,)),
    "check_feed_generation()": OwnFunction(),
    "check_generation()": OwnFunction(),
    "check_next_number()": OwnFunction(),
    "close_tenant()": OwnFunction((APP_ROLE,)),
    "complete_moves()": OwnFunction(),
    "create_prediction_partition(date)": OwnFunction(is_definer=False),
    "current_tenant()": OwnFunction((APP_ROLE, INGEST_ROLE)),
    "drop_reports(text, text)": OwnFunction((INGEST_ROLE,)),
    "drop_traffic()": OwnFunction((INGEST_ROLE,)),
    "ensure_prediction_partitions(date[])": OwnFunction((INGEST_ROLE,)),
    "enter(text, text, text)": OwnFunction((APP_ROLE, INGEST_ROLE)),
    "erase(text, jsonb)": OwnFunction((APP_ROLE,)),
    "fill_move()": OwnFunction(),
    "is_bound(text)": OwnFunction(is_definer=False),
    "keep_deleted_name()": OwnFunction(),
    "keep_parameters()": OwnFunction(),
    "note_position()": OwnFunction(),
    "note_turn()": OwnFunction(),
    "remove_tenant_rows(bigint)": OwnFunction((APP_ROLE,)),
    "stamp()": OwnFunction(),
    "take_number()": OwnFunction(),
}

# Of a session that does not set its own: the platform's transactions do. They bound mistakes, not attacks.
ROLE_SETTINGS: Final[Mapping[str, str]] = {
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
}

# What only the owner may call where that can be had: what ends the sessions of others under the same role, what takes a
# lock that outlives its transaction (``advance_feed`` would wait for it without end), what stores bytes without bound.
CLOSED_FUNCTIONS: Final = (
    *("pg_terminate_backend(integer, bigint)", "pg_cancel_backend(integer)"),
    *(
        f"pg_{attempt}advisory_lock{mode}({key})"
        for attempt in ("", "try_")
        for mode in ("", "_shared")
        for key in ("bigint", "integer, integer")
    ),
    *("lo_creat(integer)", "lo_create(oid)", "lo_from_bytea(oid, bytea)"),
)


def limit_roles() -> Iterator[str]:
    """The statements that give the runtime roles their settings, and let the owner end sessions of the runtime."""
    for role in (APP_ROLE, INGEST_ROLE):
        yield from (f"ALTER ROLE {role} SET {name} = '{value}'" for name, value in ROLE_SETTINGS.items())
    yield f"GRANT {APP_ROLE} TO {OWNER_ROLE}"


def close_functions() -> Iterator[str]:
    """The statements that keep roles from stopping each other; a superuser's, in each database."""
    for function in CLOSED_FUNCTIONS:
        yield f"REVOKE EXECUTE ON FUNCTION pg_catalog.{function} FROM PUBLIC"
        yield f"GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {OWNER_ROLE}"


# When a trigger fires, and on which tables. It calls the function of its name.
TRIGGERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "take_number": ("BEFORE INSERT", ("versions", "dataset_versions")),
    "check_next_number": ("BEFORE UPDATE", ("models", "datasets")),
    "keep_deleted_name": ("AFTER DELETE", ("versions",)),
    "keep_parameters": ("BEFORE UPDATE OF parameters", ("runs",)),
    "check_generation": ("BEFORE INSERT OR UPDATE", ("environments",)),
    "fill_move": ("BEFORE INSERT", ("environment_history",)),
    "check_feed_generation": ("BEFORE INSERT OR UPDATE", ("tenants", "environments", "api_keys")),
    "note_position": ("BEFORE INSERT OR UPDATE", ("jobs",)),
    "note_turn": ("AFTER INSERT OR UPDATE OF state", ("jobs",)),
}
# The columns that the trigger ``stamp`` fills in: when, who, and for which request; '' where a table has none.
STAMPS: Final[Mapping[str, tuple[str, str, str]]] = {
    "tenants": ("created_at", "", ""),
    "models": ("created_at", "", ""),
    "versions": ("created_at", "created_by", ""),
    "deleted_versions": ("deleted_at", "", ""),
    "holds": ("created_at", "created_by", ""),
    "environments": ("updated_at", "updated_by", ""),
    "environment_history": ("at", "actor", ""),
    "environment_policies": ("updated_at", "updated_by", ""),
    "gates": ("created_at", "created_by", ""),
    "approvals": ("at", "approver", ""),
    "audit": ("at", "principal", "request_id"),
    "api_keys": ("created_at", "", ""),
    "placements": ("updated_at", "updated_by", ""),
    "idempotency_keys": ("created_at", "principal", ""),
    "datasets": ("created_at", "created_by", ""),
    "dataset_versions": ("created_at", "created_by", ""),
    "experiments": ("created_at", "", ""),
    "runs": ("started_at", "created_by", ""),
    "run_artifacts": ("created_at", "", ""),
    "run_documents": ("created_at", "", ""),
    "jobs": ("submitted_at", "submitted_by", "request_id"),
    "schedules": ("created_at", "created_by", ""),
    "live_verdicts": ("measured_at", "", ""),
}
_CALLS: Final = f"FOR EACH ROW EXECUTE FUNCTION {SCHEMA}"
_STAMPED_ON_UPDATE: Final = ("environments", "environment_policies", "gates", "live_verdicts")


def declared_triggers() -> dict[tuple[str, str], str]:
    """Table and name of every declared trigger, with its definition as Postgres prints it."""
    made = {
        (table, name): f"CREATE TRIGGER {name} {event} ON {SCHEMA}.{table} {_CALLS}.{name}()"
        for name, (event, tables) in TRIGGERS.items()
        for table in tables
    }
    for table, columns in STAMPS.items():
        event = "BEFORE INSERT OR UPDATE" if table in _STAMPED_ON_UPDATE else "BEFORE INSERT"
        arguments = ", ".join(f"'{column}'" for column in columns)
        made[table, "stamp"] = f"CREATE TRIGGER stamp {event} ON {SCHEMA}.{table} {_CALLS}.stamp({arguments})"
    made["environments", "complete_moves"] = (
        f"CREATE CONSTRAINT TRIGGER complete_moves AFTER INSERT OR UPDATE ON {SCHEMA}.environments"
        f" DEFERRABLE INITIALLY DEFERRED {_CALLS}.complete_moves()"
    )
    return made


# Tables of which the serving plane reads rows of all tenants; to which it adds such; and of which it reads and writes
# those of the transaction's tenant.
SERVING_READS: Final = (
    *("tenants", "placements", "prediction_quotas", "models", "versions", "environments", "api_keys"),
    "replica_pending",
)
SERVING_INSERTS: Final = ("predictions", "prediction_losses", "replica_pending")
SERVING_WRITES: Final = ("feedback",)
# Tables of which the platform's own transactions read rows of all tenants; which they change, or lock; and to which
# they add. They serve the queue of jobs, the placements, the quotas, and what is shown and measured of all tenants.
PLATFORM_READS: Final = (
    *("tenants", "placements", "prediction_quotas", "dataset_versions", "jobs", "job_quotas", "job_turns"),
    *("schedules", "audit", "environments", "live_verdicts"),
)
PLATFORM_CHANGES: Final = ("tenants", "placements", "prediction_quotas", "jobs", "job_quotas")
PLATFORM_ADDS: Final = ("audit", "jobs", "job_quotas", "placements", "prediction_quotas")
# Those of the platform alone: a tenant reads its row.
PLATFORM_SETS: Final = ("job_quotas", "placements", "prediction_quotas")
# Tables whose rows belong to no tenant.
PLATFORM_TABLES: Final = (platform_keys.name, job_batches.name)


def tenant_tables() -> tuple[str, ...]:
    """The tables whose rows belong to a tenant."""
    return tuple(table.name for table in metadata.sorted_tables if "tenant_id" in table.c)


class Policy(NamedTuple):
    """A policy as the catalogue shows it; ``command`` is one letter, ``*`` for all; rules are what Postgres prints."""

    table: str
    name: str
    role: str
    command: str
    using: str | None
    check: str | None
    is_permissive: bool = True


def declared_policies(partitions: Iterable[str] = ()) -> frozenset[Policy]:
    """Every declared policy.

    Args:
        partitions: The names of the prediction log's partitions.
    """
    of_tenant, of_platform = (_TENANT_RULE, _TENANT_RULE), (_PLATFORM_RULE, _PLATFORM_RULE)
    declared = (
        (tenant_tables(), TENANT_POLICY, APP_ROLE, "*", *of_tenant),
        (tenant_tables(), REMOVAL_POLICY, OWNER_ROLE, "*", *of_tenant),
        (SERVING_READS, SERVING_POLICY, INGEST_ROLE, "r", "true", None),
        (SERVING_INSERTS, SERVING_INSERT_POLICY, INGEST_ROLE, "a", None, "true"),
        (("placements",), "serving_changes", INGEST_ROLE, "w", "true", None),
        (SERVING_WRITES, SERVING_WRITE_POLICY, INGEST_ROLE, "*", *of_tenant),
        (PLATFORM_TABLES, PLATFORM_POLICY, APP_ROLE, "*", *of_platform),
        (PLATFORM_READS, "platform_reads", APP_ROLE, "r", _PLATFORM_RULE, None),
        (PLATFORM_CHANGES, "platform_changes", APP_ROLE, "w", _PLATFORM_RULE, None),
        (PLATFORM_ADDS, "platform_adds", APP_ROLE, "a", None, _PLATFORM_RULE),
        (("jobs",), "only_platform_adds", APP_ROLE, "a", None, f"((batch_id IS NULL) OR {_PLATFORM_RULE})", False),
        (PLATFORM_SETS, "only_platform_adds", APP_ROLE, "a", None, _PLATFORM_RULE, False),
        (PLATFORM_SETS, "only_platform_changes", APP_ROLE, "w", _PLATFORM_RULE, None, False),
        (("job_turns",), "platform_turns", OWNER_ROLE, "*", *of_platform),
    )
    policies = [Policy(f"{SCHEMA}.{table}", *policy) for tables, *policy in declared for table in tables]
    removal = (REMOVAL_POLICY, OWNER_ROLE, "*", *of_tenant)
    return frozenset([*policies, *(Policy(f"{PARTITION_SCHEMA}.{name}", *removal) for name in partitions)])
