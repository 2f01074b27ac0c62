"""The registry: tenants, keys, versions, environments, runs and the assignment feed, one repository a noun.

Every repository gets its tenant when it is made, and works under that tenant's row-level security. Models are
neither loaded nor served here, and nothing here knows HTTP.
"""
