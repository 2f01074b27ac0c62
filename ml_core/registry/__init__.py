"""The registry: tenants, keys, versions, environments, runs and the assignment feed, one repository a noun.

Every repository gets its tenant when it is made, and works under that tenant's row-level security. Models are
neither loaded nor served here, and nothing here knows HTTP.

These errors are listed only where they mean something else than everywhere:

* ``RegistryUnavailableError``, ``SchemaOutOfDateError``: Postgres can't be reached, or was not migrated, see
  ``DatabaseConnection.tenant``;
* ``InvalidNameError``: a name that a caller passes is not valid, see ``ml_core.ids``;
* ``TenantNotFoundError``, ``ModelNotFoundError``, ``DatasetNotFoundError``, ``RunNotFoundError``, ``JobNotFoundError``,
  ``ScheduleNotFoundError``, ``ExperimentNotFoundError``: there is nothing of a name that a caller passes, or its tenant
  was deleted; of the name of an environment it is ``InvalidRequestError``;
* ``InvalidRequestError``: the ``limit`` of a list is not 1 to 1,000, or the ``cursor`` not ``next_cursor`` of the page
  before, see ``ml_core.registry.pages``.
"""
