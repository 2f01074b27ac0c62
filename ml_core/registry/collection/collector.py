"""Collecting: the plan of a tenant, and its removal item by item."""

from __future__ import annotations

from collections.abc import Iterator

from ml_core.database.connection import DatabaseConnection
from ml_core.exceptions import MLFrameworkError
from ml_core.ids import TenantId
from ml_core.models.store import ArtifactStore
from ml_core.registry.collection.applier import Applier
from ml_core.registry.collection.planner import Planner
from ml_core.registry.collection.tenant_deletion import TenantDeletion
from ml_core.registry.collection.values import Item, Kind, Outcome, Plan, Policy, Report, Status
from ml_core.registry.tenants import TenantRepository, tenant_ids


class Collector:
    """Plans and collects, tenant by tenant.

    Args:
        db: The registry.
        store: The platform's artifact store.
        policy: How long what nobody needs is kept; None: what the settings say.
    """

    def __init__(self, db: DatabaseConnection, store: ArtifactStore, policy: Policy | None = None) -> None:
        self._db = db
        self._store = store
        self._policy = policy or Policy.of(db.settings.collection)
        self._planner = Planner(db, store, self._policy)
        self._applier = Applier(db, store, self._policy)
        self._deletion = TenantDeletion(db, store)

    def tenants(self) -> Iterator[TenantId]:
        """Every tenant, page by page, and after them the deleted ones of which something is left."""
        yield from tenant_ids(self._db)
        in_store, deletion = set(self._store.tenants()), self._deletion
        for tenant_id in tenant_ids(self._db, deleted=True):
            if tenant_id in in_store or deletion.has_checkpoints(tenant_id) or deletion.has_rows(tenant_id):
                yield tenant_id

    def plan(self, tenant_id: TenantId) -> Plan:
        """What of a tenant may go now, see ``Planner.plan``."""
        if TenantRepository(self._db).is_deleted(tenant_id):
            left = "all that is left of it"
            return Plan(tenant_id, [Item(tenant_id, Kind.TENANT, tenant_id, f"deleted; {left}")])
        return self._planner.plan(tenant_id)

    def collect(self, plan: Plan) -> Report:
        """Remove what a plan names, as far as nothing needs it by now. What fails does not hold up the rest."""
        return Report(plan.tenant_id, [self._apply(item) for item in plan.items])

    def _apply(self, item: Item) -> Outcome:
        if item.kind is not Kind.TENANT:
            return self._applier.apply(item)
        try:
            report = self._deletion.delete(item.tenant_id)
        except MLFrameworkError as error:
            return Outcome(item, Status.FAILED, reason=str(error))
        return Outcome(item, Status.COLLECTED, report.artifacts.bytes + report.checkpoints.bytes)
