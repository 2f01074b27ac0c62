"""The operations, one module a noun. Each asks one repository, on behalf of the caller."""
