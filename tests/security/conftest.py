"""Fixtures of the security tests: the registry on a real Postgres."""

from support.registry import db, embedded_home, other_tenant_id, tenant_id

__all__ = ["db", "embedded_home", "other_tenant_id", "tenant_id"]
